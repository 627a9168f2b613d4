//! Which runs are kept: a pure function of the policy, the runs and the moment.
//!
//! [`plan`] says which runs go. Nothing here touches a store; [`files::cleanup`](super::files::cleanup) does what a plan
//! says.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::model::{RunId, RunKind, UnixNanos};

/// What a store may have in bytes, unless its settings say otherwise.
pub const DEFAULT_MAX_BYTES: u64 = 10 << 30;
/// From how many bytes on the log of a run that is over is sealed, unless the settings say otherwise.
pub const DEFAULT_SEAL_FROM: u64 = 256 << 10;
/// How often it is looked what has to go, unless the settings say otherwise.
pub const DEFAULT_EVERY: Duration = Duration::from_secs(3600);

/// How many runs of each agent and workflow are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The last 10.
    Lite,
    /// The last 50.
    Standard,
    /// All of them.
    #[default]
    Full,
}

impl Mode {
    /// Returns how many runs of one name are kept; `None`: all.
    pub fn keep_each(self) -> Option<u64> {
        match self {
            Self::Lite => Some(10),
            Self::Standard => Some(50),
            Self::Full => None,
        }
    }
}

impl FromStr for Mode {
    type Err = BadSetting;

    fn from_str(word: &str) -> Result<Self, BadSetting> {
        match word {
            "lite" => Ok(Self::Lite),
            "standard" => Ok(Self::Standard),
            "full" => Ok(Self::Full),
            _ => Err(BadSetting(format!("{word:?} is none of lite, standard, full"))),
        }
    }
}

/// A setting that is none, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSetting(String);

impl fmt::Display for BadSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadSetting {}

/// What is kept. A run goes if any of these lets it go; a limit that is `None` lets nothing go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The last so many runs of each agent and workflow.
    pub keep_each: Option<u64>,
    /// Runs that ended less than so long ago.
    pub max_age: Option<Duration>,
    /// As many bytes of runs as this, the newest.
    pub max_bytes: Option<u64>,
}

/// The settings of a store: the member `retention` of `store.yaml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What is kept.
    pub policy: Policy,
    /// Whether servers and recorders remove what is not kept.
    pub is_automatic: bool,
    /// How often they look.
    pub every: Duration,
    /// Logs of runs that are over are sealed from so many bytes on; `None`: never.
    pub seal_from: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        let policy = Policy { keep_each: None, max_age: None, max_bytes: Some(DEFAULT_MAX_BYTES) };
        Self { policy, is_automatic: true, every: DEFAULT_EVERY, seal_from: Some(DEFAULT_SEAL_FROM) }
    }
}

impl Settings {
    /// Reads the member `retention` of `store.yaml`; without one the defaults hold.
    ///
    /// # Errors
    ///
    /// For a key that is not known, and a value that is none: what to remove is not guessed.
    pub fn read(given: Option<&Json>) -> Result<Self, BadSetting> {
        let mut settings = Self::default();
        let members = match given {
            None | Some(Json::Null) => return Ok(settings),
            Some(Json::Object(members)) => members,
            Some(_) => return Err(BadSetting("retention is no mapping".to_owned())),
        };
        // Whichever comes first: `keep` goes before the number that the mode means.
        if let Some(mode) = members.get("mode") {
            settings.policy.keep_each = in_member("mode", text(mode).parse::<Mode>())?.keep_each();
        }
        for (key, value) in members {
            let value = text(value);
            match key.as_str() {
                "mode" => {}
                "keep" => settings.policy.keep_each = in_member(key, number(&value))?,
                "max_age" => settings.policy.max_age = in_member(key, or_none(&value, parse_age))?,
                "max_bytes" => settings.policy.max_bytes = in_member(key, or_none(&value, parse_bytes))?,
                "every" => settings.every = in_member(key, parse_age(&value))?.max(Duration::from_secs(1)),
                "seal_from" => settings.seal_from = in_member(key, or_none(&value, parse_bytes))?,
                "automatic" => settings.is_automatic = in_member(key, flag(&value))?,
                _ => {
                    let known = "mode, keep, max_age, max_bytes, every, seal_from, automatic";
                    return Err(BadSetting(format!("retention.{key} is none of {known}")));
                }
            }
        }
        Ok(settings)
    }
}

fn text(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn in_member<T>(key: &str, read: Result<T, BadSetting>) -> Result<T, BadSetting> {
    read.map_err(|BadSetting(why)| BadSetting(format!("retention.{key}: {why}")))
}

fn or_none<T>(text: &str, parse: impl Fn(&str) -> Result<T, BadSetting>) -> Result<Option<T>, BadSetting> {
    if matches!(text, "null" | "none") { Ok(None) } else { parse(text).map(Some) }
}

fn number(text: &str) -> Result<Option<u64>, BadSetting> {
    or_none(text, |text| text.parse().map_err(|_| BadSetting(format!("{text:?} is no number of runs"))))
}

fn flag(text: &str) -> Result<bool, BadSetting> {
    text.parse().map_err(|_| BadSetting(format!("{text:?} is neither true nor false")))
}

/// Reads a length of time: `90s`, `15m`, `2h`, `7d`, `4w`.
///
/// # Errors
///
/// For anything else.
pub fn parse_age(text: &str) -> Result<Duration, BadSetting> {
    const UNITS: [(&str, u64); 5] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800)];
    let read = UNITS.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(*seconds)
    });
    let bad = || BadSetting(format!("{text:?} is no length of time such as 90s, 15m, 2h, 7d, 4w"));
    read.map(Duration::from_secs).ok_or_else(bad)
}

/// Reads a number of bytes: `1000000`, `500MB`, `10GiB`.
///
/// # Errors
///
/// For anything else.
pub fn parse_bytes(text: &str) -> Result<u64, BadSetting> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1_000),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
    ];
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    let (digits, bytes) = unit.or_else(|| Some((text.strip_suffix('B')?, 1))).unwrap_or((text, 1));
    let number = digits.trim_end().parse::<u64>().ok().and_then(|number| number.checked_mul(bytes));
    number.ok_or_else(|| BadSetting(format!("{text:?} is no number of bytes such as 1000000, 500MB, 10GiB")))
}

/// A run as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The run.
    pub run_id: RunId,
    /// What it is an execution of.
    pub kind: RunKind,
    /// Of which agent or workflow.
    pub name: Arc<str>,
    /// When it began.
    pub started_at: UnixNanos,
    /// When it ended, or was last written.
    pub ended_at: UnixNanos,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Is it over and not pinned, and can it be read?
    pub is_removable: bool,
}

/// Why a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// There are enough newer ones of its name.
    Count,
    /// It ended too long ago.
    Age,
    /// All runs together have too many bytes.
    Bytes,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "count",
            Self::Age => "age",
            Self::Bytes => "bytes",
        })
    }
}

/// Says which runs go, the oldest first, and why.
///
/// What is not removable stays, and counts: among the last of its name, and with its bytes. Of each name the newest runs by
/// start are kept. A run that ended in the future, by a clock that was wrong, has no age. For the sake of bytes the
/// oldest go until the rest fits.
pub fn plan(policy: &Policy, runs: &[Candidate], now: UnixNanos) -> Vec<(RunId, Reason)> {
    let mut newest_first: Vec<&Candidate> = runs.iter().collect();
    newest_first.sort_by(|a, b| b.started_at.cmp(&a.started_at).then(b.run_id.cmp(&a.run_id)));
    let mut of_name: HashMap<(RunKind, &str), u64> = HashMap::new();
    let (mut going, mut staying) = (Vec::new(), Vec::new());
    for run in newest_first {
        let newer = of_name.entry((run.kind, &run.name)).or_default();
        let is_one_too_many = policy.keep_each.is_some_and(|keep| *newer >= keep);
        *newer += 1;
        let age = now.0.saturating_sub(run.ended_at.0);
        let is_too_old = policy.max_age.is_some_and(|limit| run.ended_at <= now && u128::from(age) >= limit.as_nanos());
        match run.is_removable {
            true if is_one_too_many => going.push((run, Reason::Count)),
            true if is_too_old => going.push((run, Reason::Age)),
            _ => staying.push(run),
        }
    }
    if let Some(limit) = policy.max_bytes {
        let mut bytes: u64 = staying.iter().map(|run| run.bytes).sum();
        for run in staying.iter().rev().filter(|run| run.is_removable) {
            if bytes <= limit {
                break;
            }
            bytes -= run.bytes;
            going.push((run, Reason::Bytes));
        }
    }
    going.sort_by_key(|(run, _)| (run.started_at, run.run_id));
    going.into_iter().map(|(run, reason)| (run.run_id, reason)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const SECOND: u64 = 1_000_000_000;

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (0u64..30, 0u64..30, 0u8..3, 0u64..100, any::<bool>());
        proptest::collection::vec(one, 0..24).prop_map(|all| {
            let candidate = |(place, (start, took, name, bytes, is_removable)): (usize, (u64, u64, u8, u64, bool))| {
                Candidate {
                    run_id: RunId([place as u8; 16]),
                    kind: if name == 2 { RunKind::Workflow } else { RunKind::Agent },
                    // A workflow and an agent may have one name.
                    name: format!("name-{}", name % 2).into(),
                    started_at: UnixNanos(start * SECOND),
                    ended_at: UnixNanos((start + took) * SECOND),
                    bytes,
                    is_removable,
                }
            };
            all.into_iter().enumerate().map(candidate).collect()
        })
    }

    /// Says of one run, by the words of the documentation, whether it goes.
    fn oracle(policy: &Policy, runs: &[Candidate], now: UnixNanos, run: &Candidate) -> Option<Reason> {
        let is_newer =
            |other: &&Candidate, than: &Candidate| (other.started_at, other.run_id) > (than.started_at, than.run_id);
        let first = |run: &Candidate| {
            let of_name = |other: &&Candidate| (other.kind, &other.name) == (run.kind, &run.name);
            let newer = runs.iter().filter(of_name).filter(|other| is_newer(other, run)).count() as u64;
            let is_old =
                |limit: Duration| now.0.checked_sub(run.ended_at.0).is_some_and(|age| age >= limit.as_nanos() as u64);
            match run.is_removable {
                true if policy.keep_each.is_some_and(|keep| newer >= keep) => Some(Reason::Count),
                true if policy.max_age.is_some_and(is_old) => Some(Reason::Age),
                _ => None,
            }
        };
        first(run).or_else(|| {
            // All that stays if everything older than this one went that can go.
            let stays = |other: &&Candidate| {
                first(other).is_none() && (!other.is_removable || is_newer(other, run) || other.run_id == run.run_id)
            };
            let bytes: u64 = runs.iter().filter(stays).map(|other| other.bytes).sum();
            (run.is_removable && bytes > policy.max_bytes?).then_some(Reason::Bytes)
        })
    }

    #[test]
    fn what_goes_is_what_the_words_of_the_policy_say_of_each_run() {
        let limit = |most| proptest::option::of(0u64..most);
        let policy = (limit(5), limit(40), limit(900)).prop_map(|(keep_each, age, max_bytes)| Policy {
            keep_each,
            max_age: age.map(Duration::from_secs),
            max_bytes,
        });
        proptest!(ProptestConfig::with_cases(2_000), |(policy in policy, runs in candidates(), now in 0u64..70)| {
            let now = UnixNanos(now * SECOND);
            let planned = plan(&policy, &runs, now);
            let mut expected: Vec<(&Candidate, Reason)> = runs
                .iter()
                .filter_map(|run| Some((run, oracle(&policy, &runs, now, run)?)))
                .collect();
            expected.sort_by_key(|(run, _)| (run.started_at, run.run_id));
            let expected: Vec<(RunId, Reason)> =
                expected.into_iter().map(|(run, reason)| (run.run_id, reason)).collect();
            prop_assert_eq!(&planned, &expected);
            // Done again, there is nothing left to do.
            let gone: Vec<RunId> = planned.iter().map(|(run, _)| *run).collect();
            let left: Vec<Candidate> = runs.into_iter().filter(|run| !gone.contains(&run.run_id)).collect();
            let again: Vec<RunId> = plan(&policy, &left, now).into_iter().map(|(run, _)| run).collect();
            prop_assert_eq!(again, Vec::<RunId>::new());
        });
    }

    #[test]
    fn settings_are_read_as_people_write_them_and_what_is_not_understood_is_named() {
        let read = |value: Json| Settings::read(Some(&value));
        let default = Settings::default();
        assert_eq!(Settings::read(None), Ok(default));
        assert_eq!(
            read(
                json!({"keep": 7, "mode": "lite", "max_age": "30d", "max_bytes": "2GiB", "every": "10m", "seal_from": "1MiB", "automatic": false})
            ),
            Ok(Settings {
                policy: Policy {
                    keep_each: Some(7),
                    max_age: Some(Duration::from_secs(30 * 86_400)),
                    max_bytes: Some(2 << 30)
                },
                is_automatic: false,
                every: Duration::from_secs(600),
                seal_from: Some(1 << 20)
            })
        );
        assert_eq!(read(json!({"mode": "standard"})).unwrap().policy.keep_each, Some(50));
        assert_eq!(read(json!({"max_bytes": "none"})).unwrap().policy, Policy::default());
        assert_eq!(read(json!({"max_bytes": 5000})).unwrap().policy.max_bytes, Some(5_000));
        for (value, why) in [
            (json!([]), "retention is no mapping"),
            (
                json!({"kept": 1}),
                "retention.kept is none of mode, keep, max_age, max_bytes, every, seal_from, automatic",
            ),
            (json!({"mode": "tiny"}), "retention.mode: \"tiny\" is none of lite, standard, full"),
            (json!({"keep": -1}), "retention.keep: \"-1\" is no number of runs"),
            (json!({"max_age": 30}), "retention.max_age: \"30\" is no length of time such as 90s, 15m, 2h, 7d, 4w"),
            (
                json!({"max_bytes": "1.5GB"}),
                "retention.max_bytes: \"1.5GB\" is no number of bytes such as 1000000, 500MB, 10GiB",
            ),
            (json!({"automatic": "no"}), "retention.automatic: \"no\" is neither true nor false"),
        ] {
            assert_eq!(read(value).unwrap_err().to_string(), why);
        }
    }
}
