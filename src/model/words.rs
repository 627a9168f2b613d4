//! Numbers and lengths of time as people read them.

/// Puts commas between thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Formats a length of time in at most seven columns or so.
pub fn duration(ms: f64) -> String {
    let seconds = ms / 1_000.0;
    if ms < 9.95 {
        format!("{ms:.1}ms")
    } else if ms < 1_000.0 {
        // Rounded down, as the duration of a run is stored.
        format!("{}ms", ms.floor().max(10.0))
    } else if seconds < 59.995 {
        format!("{seconds:.2}s")
    } else {
        let whole = seconds.round() as u64;
        let (days, hours, minutes) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60);
        match (days, hours) {
            (0, 0) => format!("{minutes}m {:02}s", whole % 60),
            (0, _) => format!("{hours}h {minutes:02}m"),
            _ => format!("{days}d {hours:02}h"),
        }
    }
}
