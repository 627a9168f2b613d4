//! When the next event is shown: after a time, or at a key.

use std::io::{self, BufRead, IsTerminal};
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::Play;
use crate::cli::{CODE_USE, Session, Stop};

/// How fast time passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// So many times as fast as it did.
    Times(f64),
    /// All at once.
    Max,
}

impl FromStr for Speed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let times = text.strip_suffix('x').unwrap_or(text).parse().ok();
        let times = times.filter(|times: &f64| times.is_finite() && *times > 0.0);
        times.map(Self::Times).ok_or("expected how many times as fast, such as 1, 10 or 0.5, or max")
    }
}

/// What comes after a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goes {
    On,
    NoFurther,
}

/// Decides when the next event is shown.
pub struct Pace {
    until: Until,
    max_pause: Option<Duration>,
    /// When the last one was due: what showing takes is not added to the pauses.
    due: Instant,
}

/// What ends a pause.
enum Until {
    /// A key of the terminal, which is ready to give it for as long as this is held.
    Key(#[expect(dead_code, reason = "it is held")] Raw),
    Line,
    Time(Speed),
}

impl Pace {
    /// Begins now.
    pub fn new(args: &Play, session: &mut Session<'_>) -> Result<Self, Stop> {
        let by_itself = if session.look.is_terminal { Speed::Times(1.0) } else { Speed::Max };
        let until = match args.step {
            true if io::stdin().is_terminal() => {
                session.hint("any key shows the next event, q ends");
                Until::Key(Raw::enter().map_err(|error| no_key(&error))?)
            }
            true => Until::Line,
            false => Until::Time(args.speed.unwrap_or(by_itself)),
        };
        Ok(Self { until, max_pause: args.max_pause, due: Instant::now() })
    }

    /// Waits for what came so long after the last.
    pub fn wait(&mut self, gap: Duration, session: &mut Session<'_>) -> Result<Goes, Stop> {
        let speed = match self.until {
            Until::Key(_) => return next_key().map_err(|error| no_key(&error)),
            Until::Line => return next_line().map_err(|error| no_key(&error)),
            Until::Time(speed) => speed,
        };
        let pause = pause(gap, speed, self.max_pause);
        // One that no clock can count to never ends.
        match self.due.checked_add(pause) {
            Some(due) => {
                self.due = due;
                session.pause_for(due.saturating_duration_since(Instant::now()))?;
            }
            None => session.pause_for(Duration::MAX)?,
        }
        Ok(Goes::On)
    }
}

/// Returns how long the pause is that stands for one of the run.
fn pause(gap: Duration, speed: Speed, max: Option<Duration>) -> Duration {
    let scaled = match speed {
        Speed::Max => Duration::ZERO,
        Speed::Times(times) => Duration::try_from_secs_f64(gap.as_secs_f64() / times).unwrap_or(Duration::MAX),
    };
    max.map_or(scaled, |max| scaled.min(max))
}

fn no_key(error: &io::Error) -> Stop {
    Stop::failed(CODE_USE, format!("--step cannot read what says to go on: {error}"))
}

fn next_line() -> io::Result<Goes> {
    let read = io::stdin().lock().read_line(&mut String::new())?;
    Ok(if read == 0 { Goes::NoFurther } else { Goes::On })
}

fn next_key() -> io::Result<Goes> {
    // Unbuffered: what one key sends is read at once, and what is typed ahead stays for the next.
    let mut key = [0_u8; 16];
    // SAFETY: writes at most as many bytes as the buffer has.
    let read = unsafe { libc::read(libc::STDIN_FILENO, key.as_mut_ptr().cast(), 1) };
    if read < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut length = usize::try_from(read).unwrap_or(0);
    // Arrows and their kin send several bytes, the first of which is that of Escape.
    while length > 0 && key[0] == ESCAPE && length < key.len() && !is_whole(&key[..length]) && has_more() {
        // SAFETY: as above, behind what is there.
        let more = unsafe { libc::read(libc::STDIN_FILENO, key[length..].as_mut_ptr().cast(), 1) };
        length += usize::try_from(more).unwrap_or(0);
        if more <= 0 {
            break;
        }
    }
    Ok(meaning(&key[..length]))
}

const ESCAPE: u8 = 27;
/// What a key sends comes together: who waits longer for more has pressed Escape.
const REST_OF_KEY: libc::c_int = 25;

/// Tells whether this is all of a key that begins with Escape: `ESC [ … letter or ~`, `ESC O letter`, or `ESC` and a key.
fn is_whole(key: &[u8]) -> bool {
    match key {
        [_] | [_, b'[' | b'O'] => false,
        [_, b'[', .., last] => (0x40..=0x7e).contains(last),
        _ => true,
    }
}

fn has_more() -> bool {
    let mut input = libc::pollfd { fd: libc::STDIN_FILENO, events: libc::POLLIN, revents: 0 };
    // SAFETY: one descriptor, in a structure of this frame.
    unsafe { libc::poll(&raw mut input, 1, REST_OF_KEY) == 1 }
}

/// Says what a key means: no byte, or one that ends, or any other.
fn meaning(key: &[u8]) -> Goes {
    match key {
        // Signals are keys here: 3 is Ctrl-C, 4 Ctrl-D, 28 Ctrl-\.
        [] | [b'q' | b'Q' | 3 | 4 | 28 | ESCAPE] => Goes::NoFurther,
        _ => Goes::On,
    }
}

/// A terminal that gives each key at once, and does not show it.
struct Raw {
    before: libc::termios,
}

impl Raw {
    fn enter() -> io::Result<Self> {
        // SAFETY: a structure of plain numbers, for which zeros stand.
        let mut before: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the structure lives through the call.
        if unsafe { libc::tcgetattr(libc::STDIN_FILENO, &raw mut before) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut raw = before;
        // A signal that killed this process would leave the terminal so; as keys they do not.
        raw.c_lflag &= !(libc::ICANON | libc::ECHO | libc::ISIG);
        raw.c_cc[libc::VMIN] = 1;
        raw.c_cc[libc::VTIME] = 0;
        // SAFETY: as above.
        if unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSADRAIN, &raw const raw) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: as it was read from this terminal. There is nobody to tell if it fails.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSADRAIN, &raw const self.before) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_is_a_key_as_any_and_escape_ends() {
        let keys: [&[u8]; 4] = [b"\x1b[A", b"\x1b[1;5C", b"\x1bOP", b" "];
        assert!(keys.iter().all(|key| meaning(key) == Goes::On));
        let part = |key: &[u8]| (1..=key.len()).map(|length| is_whole(&key[..length])).collect::<Vec<_>>();
        assert_eq!(part(b"\x1b[1;5C"), [false, false, false, false, false, true]);
        assert_eq!(part(b"\x1bOP"), [false, false, true]);
        for key in [&b"\x1b"[..], b"q", b"\x03", b""] {
            assert_eq!(meaning(key), Goes::NoFurther);
        }
    }

    #[test]
    fn a_pause_is_scaled_and_bounded() {
        let ms = Duration::from_millis;
        let read = |text: &str| text.parse::<Speed>();
        assert_eq!(pause(ms(1_500), read("1").unwrap(), None), ms(1_500));
        assert_eq!(pause(ms(1_500), read("10x").unwrap(), None), ms(150));
        assert_eq!(pause(ms(1_500), read("0.5").unwrap(), Some(ms(2_000))), ms(2_000));
        assert_eq!(pause(ms(1_500), read("max").unwrap(), None), ms(0));
        assert_eq!(pause(Duration::from_secs(u64::MAX), Speed::Times(1e-300), None), Duration::MAX);
        for text in ["", "0", "-1", "nan", "inf", "fast"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
