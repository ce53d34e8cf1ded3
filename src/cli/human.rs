//! Formats sizes, counts and times for people, and times for scripts.

use crate::time::Time;

/// Formats a size: `1.5 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (63 - (bytes | 1).leading_zeros() as usize) / 10;
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{:.1} {}", bytes as f64 / (1u64 << (10 * unit)) as f64, UNITS[unit]),
    }
}

/// Formats a difference of sizes: `+1.5 GiB`, `-3 B`, `0 B`.
pub fn growth(bytes: i64) -> String {
    let sign = match bytes.signum() {
        1 => "+",
        -1 => "-",
        _ => "",
    };
    format!("{sign}{}", size(bytes.unsigned_abs()))
}

/// Formats a number of things: `1 file`, `3 files`, `2 entries`.
pub fn count(n: u64, noun: &str) -> String {
    match noun.strip_suffix('y') {
        _ if n == 1 => format!("1 {noun}"),
        Some(stem) => format!("{n} {stem}ies"),
        None => format!("{n} {noun}s"),
    }
}

/// Formats a time span in its two largest units: `45 s`, `12 min`, `5 h 12 min`, `3 d 4 h`.
pub fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: u64, unit: &str, small: u64, rest: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {rest}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => two(hours, "h", minutes % 60, "min"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

/// Formats a time in the local zone, to the second; the number itself where the calendar ends.
pub fn time(time: Time) -> String {
    match Time::from_seconds(time.seconds).timestamp() {
        Some(t) => t.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        None => format!("@{}", time.seconds),
    }
}

/// Formats a time as RFC 3339 in UTC with nanoseconds, for scripts.
pub fn rfc3339(time: Time) -> String {
    match time.timestamp() {
        Some(timestamp) => format!("{timestamp:.9}"),
        None => format!("@{}.{:09}", time.seconds, time.nanoseconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noun_gets_its_plural() {
        assert_eq!([count(1, "entry"), count(0, "entry"), count(2, "file")], ["1 entry", "0 entries", "2 files"]);
    }

    #[test]
    fn a_span_has_two_units() {
        let spans = [0, 59, 60, 3599, 3600, 18_720, 93_600, 86_400 * 400 + 3600];
        let shown = ["0 s", "59 s", "1 min", "59 min", "1 h", "5 h 12 min", "1 d 2 h", "400 d 1 h"];
        assert_eq!(spans.map(span), shown);
    }

    #[test]
    fn sizes_and_times() {
        assert_eq!([size(0), size(1023), size(1024), size(u64::MAX)], ["0 B", "1023 B", "1.0 KiB", "16.0 EiB"]);
        assert_eq!(rfc3339(Time::new(-1, 5)), "1969-12-31T23:59:59.000000005Z");
        assert_eq!(rfc3339(Time::from_seconds(i64::MAX)), format!("@{}.000000000", i64::MAX));
    }
}
