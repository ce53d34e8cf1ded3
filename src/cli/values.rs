//! Parses the values of options: times, sizes, rates, parts of the data, compression levels, patterns, snapshots with a path.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

use super::escape;
use crate::check::Part;
use crate::error::{Error, Kind, Result};
use crate::forget::{GroupBy, Within};
use crate::moment::moment;
use crate::pattern::{self, Rules};
use crate::storage::Limit;
use crate::time::Time;

/// Parses `90s`, `15m`, `1h30m`, `2h`, `1d`; a plain number counts seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time such as 90s, 15m, 1h30m or 1d".to_owned();
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let span = text.parse::<Span>().map_err(|_| wrong())?;
    let time = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(time).map_err(|_| wrong())
}

/// Parses `256M`, `1.5G`, `512MiB` into bytes; units are powers of 1024.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || "write a size such as 256M or 1.5G".to_owned();
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[number.len()..].to_ascii_lowercase();
    let shift = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    scaled(number, shift).ok_or_else(wrong)
}

/// Multiplies a decimal number by `2^shift`, rounding down. Bytes have no fractions.
fn scaled(number: &str, shift: u32) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || fraction.len() > 9 || (shift == 0 && number.contains('.')) {
        return None;
    }
    let part = (u128::from(fraction.parse::<u32>().ok()?) << shift) / 10u128.pow(fraction.len() as u32);
    let bytes = (u128::from(whole.parse::<u64>().ok()?) << shift) + part;
    u64::try_from(bytes).ok()
}

/// Parses a rate, or a timetable in the local zone: `08:00,2M 19:00,off`.
pub fn limit(text: &str) -> Result<Limit, String> {
    if !text.contains(',') {
        return rate(text).map(Limit::from);
    }
    let wrong = || "write a timetable such as `08:00,2M 19:00,off`, each time once".to_owned();
    let change = |entry: &str| {
        let (at, what) = entry.split_once(',').ok_or_else(wrong)?;
        let at = time_of_day(at)?;
        let minute = u16::from(at.hour().unsigned_abs()) * 60 + u16::from(at.minute().unsigned_abs());
        Ok((minute, if what == "off" { None } else { Some(rate(what)?) }))
    };
    let changes = text.split_whitespace().map(change).collect::<Result<_, String>>()?;
    Limit::timetable(changes).ok_or_else(wrong)
}

/// Parses `03:00`.
pub fn time_of_day(text: &str) -> Result<jiff::civil::Time, String> {
    let parts = text.split_once(':').and_then(|(hour, minute)| Some((hour.parse().ok()?, minute.parse().ok()?)));
    let time = parts.and_then(|(hour, minute)| jiff::civil::Time::new(hour, minute, 0, 0).ok());
    time.ok_or_else(|| "write a time such as 03:00".to_owned())
}

/// Parses `500K`, `1.5M`, `2M/s` into bytes per second; a plain number counts KiB, as in restic.
fn rate(text: &str) -> Result<u64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    let is_plain = number.bytes().all(|b| b.is_ascii_digit());
    let rate = size(&if is_plain { format!("{number}K") } else { number.into() });
    match rate {
        Ok(0) => Err("a limit of 0 stops all transfers; leave the option out for no limit".into()),
        other => other.map_err(|_| "write a rate such as 500K or 1.5M, or a number of KiB per second".into()),
    }
}

/// Parses `5%`, `2.5%`, `2G`, `10min`, `1h30m`, `1/7`. `10m` is refused: in sizes it means MiB, in times minutes.
pub fn part(text: &str) -> Result<Part, String> {
    let wrong = || "write 5%, 2G, 10min, or 3/10 for part 3 of 10".to_owned();
    if let Some(number) = text.strip_suffix('%') {
        let share = number.parse::<f64>().ok().filter(|share| *share > 0.0 && *share <= 100.0);
        return share.map(|share| Part::Share(share / 100.0)).ok_or_else(wrong);
    }
    if let Some((n, m)) = text.split_once('/') {
        let (n, m) = (n.parse::<u64>().map_err(|_| wrong())?, m.parse::<u64>().map_err(|_| wrong())?);
        return if (1..=m).contains(&n) { Ok(Part::Slice(n, m)) } else { Err(wrong()) };
    }
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    if number.is_empty() || number == text {
        return Err(wrong());
    }
    match (&text[number.len()..], number.parse::<f64>()) {
        ("m", Ok(_)) => Err(format!("`{text}` could be minutes or MiB: write {number}min or {number}M")),
        _ => bytes_or_time(text).ok_or_else(wrong),
    }
}

fn bytes_or_time(text: &str) -> Option<Part> {
    if let Ok(bytes) = size(text) {
        return (bytes > 0).then_some(Part::Bytes(bytes));
    }
    duration(text).ok().filter(|time| !time.is_zero()).map(Part::Time)
}

/// Parses `1y5m7d2h`, `14d`, `2w`; in calendar units, so `m` counts months.
pub fn within(text: &str) -> Result<Within, String> {
    let wrong = || "write a time such as 14d, 8w, 6m or 1y5m7d2h (y, m for months, w, d, h)".to_owned();
    let (mut within, mut rest) = (Within::default(), text);
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: i64 = rest[..digits].parse().ok().filter(|n| (0..=99_999).contains(n)).ok_or_else(wrong)?;
        let unit = rest[digits..].chars().next().ok_or_else(wrong)?;
        match unit {
            'y' => within.years += number,
            'm' => within.months += number,
            'w' => within.days += 7 * number,
            'd' => within.days += number,
            'h' => within.hours += number,
            _ => return Err(wrong()),
        }
        rest = &rest[digits + 1..];
    }
    if within == Within::default() { Err(wrong()) } else { Ok(within) }
}

/// Parses the number of snapshots or periods to keep; `unlimited` for all.
pub fn keep_count(text: &str) -> Result<u32, String> {
    let number = || text.parse().ok().filter(|n| (1..u32::MAX).contains(n));
    let count = if text == "unlimited" { Some(u32::MAX) } else { number() };
    count.ok_or_else(|| "write a number from 1, or `unlimited`".to_owned())
}

/// Parses `host,paths,tags`, or nothing for one group of all.
pub fn group_by(text: &str) -> Result<GroupBy, String> {
    let mut group_by = GroupBy { host: false, paths: false, tags: false };
    for word in text.split(',').filter(|word| !word.is_empty()) {
        match word {
            "host" | "hosts" => group_by.host = true,
            "path" | "paths" => group_by.paths = true,
            "tag" | "tags" => group_by.tags = true,
            _ => return Err("write some of host,paths,tags, or '' for one group".to_owned()),
        }
    }
    Ok(group_by)
}

/// Level of zstd; 0 for none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompressionLevel(pub i32);

/// Parses the name of a compression level, or its number.
pub fn compression(text: &str) -> Result<CompressionLevel, String> {
    let number = || text.parse().ok().filter(|n| (1..=22).contains(n));
    let level = match text {
        "off" => Some(0),
        "fastest" => Some(1),
        "auto" => Some(3),
        "better" => Some(9),
        "max" => Some(19),
        _ => number(),
    };
    level.map(CompressionLevel).ok_or_else(|| "write off, fastest, auto, better, max, or 1 to 22".into())
}

/// Parses `2026-11-22 10:00:00` (local), `2026-11-22T09:00:00Z`, or a moment such as `yesterday` or `2w ago`.
pub fn time(text: &str) -> Result<Time, String> {
    let zoned = || text.parse::<jiff::civil::DateTime>()?.to_zoned(jiff::tz::TimeZone::system());
    let time = text.parse::<jiff::Timestamp>().or_else(|_| zoned().map(|z| z.timestamp())).ok();
    let time = time.or_else(|| whole_second(moment(text, &jiff::Zoned::now())?));
    let time = time.ok_or("write `2026-11-22 10:00:00`, `2026-11-22T10:00:00Z`, `yesterday` or `2w ago`")?;
    let nanoseconds = u32::try_from(time.subsec_nanosecond()).map_err(|_| "before 1970".to_owned())?;
    Ok(Time::new(time.as_second(), nanoseconds))
}

fn whole_second(time: jiff::Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_second(time.as_second()).ok()
}

/// Compiles the patterns of an option.
pub fn rules(option: &str, patterns: &[OsString], ignore_case: bool) -> Result<Rules> {
    let rule = |text: &OsString| {
        pattern::rule(text.as_bytes()).map_err(|why| {
            let text = escape::text(text.as_bytes());
            Error::new(Kind::Usage, format!("{option}: the pattern `{text}` is wrong: {why}"))
        })
    };
    let rules = patterns.iter().map(rule).collect::<Result<Vec<_>>>()?;
    Rules::new(&rules, ignore_case).map_err(|e| Error::new(Kind::Usage, format!("these patterns are too many: {e}")))
}

/// Splits `latest:/etc` into `latest` and `/etc`. Without a colon the path is empty. A leading `~` of the path is the home
/// folder, since shells do not expand it there.
pub fn snapshot_and_path(argument: &OsStr) -> Result<(String, Vec<u8>)> {
    let bytes = argument.as_encoded_bytes();
    let at = end_of_snapshot(bytes);
    let (snapshot, path) = (&bytes[..at], bytes.get(at + 1..).unwrap_or_default());
    if snapshot.contains(&b'/') || snapshot.starts_with(b"~") {
        let text = format!("not a snapshot: {}", escape::text(snapshot));
        let path = std::path::absolute(OsStr::from_bytes(snapshot)).unwrap_or_default();
        let hint = format!("a path follows a snapshot: `latest:{}`", escape::path(&path));
        return Err(Error::new(Kind::Usage, text).hint(hint));
    }
    let snapshot = if snapshot.is_empty() { b"latest" } else { snapshot };
    match std::str::from_utf8(snapshot) {
        Ok(snapshot) => Ok((snapshot.to_owned(), in_home(path))),
        Err(_) => Err(Error::new(Kind::Usage, format!("not a snapshot: {}", escape::text(snapshot)))
            .hint("`nfreezer snapshots` lists the snapshots")),
    }
}

/// Returns the length of SNAPSHOT in `SNAPSHOT:PATH`: up to the first colon, or to a later one if the text before it is a
/// time, such as `2026-11-22 14:00`.
fn end_of_snapshot(bytes: &[u8]) -> usize {
    let colons = bytes.iter().enumerate().filter(|(_, b)| **b == b':').map(|(at, _)| at);
    let ends: Vec<usize> = colons.chain([bytes.len()]).take(4).collect();
    let is_time =
        |end: &usize| std::str::from_utf8(&bytes[..*end]).is_ok_and(|text| moment(text, &jiff::Zoned::now()).is_some());
    ends.iter().rev().copied().find(is_time).unwrap_or(ends[0])
}

fn in_home(path: &[u8]) -> Vec<u8> {
    let Some(rest) = path.strip_prefix(b"~").filter(|rest| rest.is_empty() || rest.starts_with(b"/")) else {
        return path.to_vec();
    };
    match std::env::var_os("HOME") {
        Some(home) => [home.as_encoded_bytes(), rest].concat(),
        None => path.to_vec(),
    }
}

/// Reports whether an argument has the form `user@host:/path`, in which the Python nFreezer took a remote folder.
pub fn looks_remote(argument: &OsStr) -> bool {
    let bytes = argument.as_encoded_bytes();
    let at = bytes.iter().position(|b| *b == b'@');
    let colon = bytes.iter().position(|b| *b == b':');
    matches!((at, colon), (Some(at), Some(colon)) if at > 0 && at + 1 < colon && !bytes[..colon].contains(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_with_units() {
        let sizes = ["256M", "1G", "512MiB", "64mb", "7", "1k", "1.5G", "0.25K"].map(|s| size(s).unwrap());
        assert_eq!(sizes, [256 << 20, 1 << 30, 512 << 20, 64 << 20, 7, 1024, 3 << 29, 256]);
        for bad in ["", "M", "-1M", "1.5", "1..5G", ".5G", "5.G", "1X", "99999999999T", "1,5G"] {
            size(bad).unwrap_err();
        }
        let times = ["0", "90", "90s", "15m", "15min", "2h", "1h30m", "1d", "1.5h"];
        let seconds = [0, 90, 90, 900, 900, 7200, 5400, 86400, 5400];
        assert_eq!(times.map(|d| duration(d).unwrap().as_secs()), seconds);
        for bad in ["", "m", "1y", "2mo", "-5m", "5m ago", "soon"] {
            duration(bad).unwrap_err();
        }
    }

    #[test]
    fn lengths_of_time_to_keep_are_in_calendar_units() {
        let all = Within { years: 1, months: 5, days: 7, hours: 2 };
        assert_eq!(within("1y5m7d2h"), Ok(all));
        assert_eq!(within("2w"), Ok(Within { days: 14, ..Within::default() }));
        for bad in ["", "7", "d", "7x", "1.5d", "-1d", "7d ", "0d", "7ä", "100000d"] {
            within(bad).unwrap_err();
        }
        assert_eq!(["7", "unlimited"].map(|n| keep_count(n).unwrap()), [7, u32::MAX]);
        assert!(["0", "-1", "-2", "x", ""].into_iter().all(|bad| keep_count(bad).is_err()));
        assert_eq!(group_by("host,tags"), Ok(GroupBy { host: true, paths: false, tags: true }));
        assert!(group_by("") == Ok(GroupBy { host: false, paths: false, tags: false }) && group_by("user").is_err());
    }

    #[test]
    fn rates_count_kib_unless_they_say_otherwise() {
        let rates = ["500K", "2M", "100", "1MiB", "1.5M", "10M/s"].map(|s| rate(s).unwrap());
        assert_eq!(rates, [500 << 10, 2 << 20, 100 << 10, 1 << 20, 3 << 19, 10 << 20]);
        for bad in ["", "0", "0M", "fast", "-1", "/s"] {
            rate(bad).unwrap_err();
        }
        assert_eq!(limit("2M"), Ok(Limit::from(2 << 20)));
        let day = limit("19:00,off 8:30,2M 12:00,100").unwrap();
        let at = [0, 8 * 60 + 29, 8 * 60 + 30, 12 * 60, 19 * 60].map(|minute| day.at(minute));
        assert_eq!(at, [None, None, Some(2 << 20), Some(100 << 10), None]);
        for bad in ["", "off", "08:00,", "08:00,2M 08:00,off", "24:00,2M", "08:00 2M", "08:00,2M, 19:00,off", ","] {
            limit(bad).unwrap_err();
        }
    }

    #[test]
    fn parts_of_the_data() {
        let minutes = |n: u64| Part::Time(Duration::from_secs(60 * n));
        for (text, wanted) in [
            ("5%", Part::Share(0.05)),
            ("2.5%", Part::Share(0.025)),
            ("2G", Part::Bytes(2 << 30)),
            ("2GiB", Part::Bytes(2 << 30)),
            ("1.5G", Part::Bytes(3 << 29)),
            ("512MiB", Part::Bytes(512 << 20)),
            ("10M", Part::Bytes(10 << 20)),
            ("10min", minutes(10)),
            ("1h", minutes(60)),
            ("1h30m", minutes(90)),
            ("3/10", Part::Slice(3, 10)),
        ] {
            assert_eq!(part(text), Ok(wanted), "{text}");
        }
        for bad in ["", "0%", "101%", "0/3", "4/3", "1/0", "x", "0G", "0min", "7", "-5%", "NaN%", "m"] {
            part(bad).unwrap_err();
        }
        assert!(part("10m").unwrap_err().contains("10min or 10M"));
    }

    #[test]
    fn levels_and_times() {
        assert_eq!(["off", "auto", "max", "22"].map(|c| compression(c).unwrap().0), [0, 3, 19, 22]);
        for bad in ["0", "23", "-1", "best", ""] {
            compression(bad).unwrap_err();
        }
        assert_eq!(time("1970-01-01T00:01:00.5Z").unwrap(), Time::new(60, 500_000_000));
        assert!(time("2026-11-22 10:00:00").is_ok() && time("2026-11-22").is_ok());
        for bad in ["", "noon", "2026-13-01"] {
            time(bad).unwrap_err();
        }
    }

    #[test]
    fn a_snapshot_is_parted_from_its_path_at_the_first_colon() {
        let split = |s: &str| snapshot_and_path(s.as_ref()).unwrap();
        assert_eq!(split("latest"), ("latest".into(), b"".to_vec()));
        assert_eq!(split("ab12:/a:b"), ("ab12".into(), b"/a:b".to_vec()));
        assert_eq!(split(":/etc"), ("latest".into(), b"/etc".to_vec()));
    }

    #[test]
    fn old_addresses_are_known_and_snapshots_are_not_taken_for_them() {
        let remote = |s: &str| looks_remote(s.as_ref());
        assert!(remote("user@host:/path") && remote("u@h:path"));
        assert!(!["latest", "latest:/a@b:c", "/x@y:z", "@:", "a@b", "abcd1234:/home/a@b"].into_iter().any(remote));
    }
}
