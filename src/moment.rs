//! Expressions for moments: `yesterday`, `2026-11-03`, `3 days ago`, and Samba's names of shadow copies. Pure.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan, Zoned};

/// Returns the last nanosecond of the year, month, day or second that an expression names. Relative expressions count from
/// `now`; days and longer units follow the calendar of its time zone.
pub fn moment(text: &str, now: &Zoned) -> Option<Timestamp> {
    let text = text.trim().to_ascii_lowercase().replace('_', " ");
    let zone = now.time_zone();
    match text.as_str() {
        "now" => return Some(now.timestamp()),
        "today" => return end_of(now.date(), zone),
        "yesterday" => return end_of(now.date().yesterday().ok()?, zone),
        _ => {}
    }
    if text.ends_with("ago") {
        return ago(&text, now);
    }
    // A time with an offset. It must have a colon, since `14-00` would be fourteen hours with the offset zero.
    if let Some(exact) = text.contains(':').then(|| text.to_ascii_uppercase().parse::<Timestamp>().ok()).flatten() {
        return end_of_second(exact);
    }
    let (date, time) = match text.find([' ', 't']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text.as_str(), None),
    };
    let date: Vec<&str> = date.split('-').collect();
    let Some(time) = time else { return end_of(last_day(&date)?, zone) };
    let [_, _, _] = date.as_slice() else { return None };
    end_of_second(in_zone(DateTime::from_parts(last_day(&date)?, clock(time)?), zone)?)
}

/// Parses `3 days ago`, `3-days-ago`, `2w ago`, `1h30m ago`.
fn ago(text: &str, now: &Zoned) -> Option<Timestamp> {
    let words = text.replace(['-', '.'], " ");
    let amount = words.strip_suffix("ago")?.trim_end();
    let amount = amount.strip_prefix("an ").or(amount.strip_prefix("a ")).map_or(amount.into(), |a| format!("1 {a}"));
    let span: Span = format!("{amount} ago").parse().ok()?;
    let then = now.checked_add(span).ok()?.timestamp();
    (then <= now.timestamp()).then_some(then)
}

/// Returns the last day of `2026`, `2026-11` or `2026-11-03`.
fn last_day(parts: &[&str]) -> Option<Date> {
    match *parts {
        [year] => Date::new(digits(year, 4)?, 12, 31).ok(),
        [year, month] => Some(Date::new(digits(year, 4)?, digits(month, 2)? as i8, 1).ok()?.last_of_month()),
        [year, month, day] => Date::new(digits(year, 4)?, digits(month, 2)? as i8, digits(day, 2)? as i8).ok(),
        _ => None,
    }
}

/// Parses a number with exactly this many digits.
fn digits(text: &str, count: usize) -> Option<i16> {
    let valid = text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    if valid { text.parse().ok() } else { None }
}

/// Parses `14`, `14-00`, `14:00:59`.
fn clock(text: &str) -> Option<Time> {
    let mut fields = [0i8; 3];
    let parts: Vec<&str> = text.split([':', '-', '.']).collect();
    if parts.len() > 3 {
        return None;
    }
    for (field, part) in fields.iter_mut().zip(&parts) {
        *field = digits(part, 2)? as i8;
    }
    Time::new(fields[0], fields[1], fields[2], 0).ok()
}

/// Returns the last nanosecond of a day.
fn end_of(day: Date, zone: &TimeZone) -> Option<Timestamp> {
    let next = in_zone(day.tomorrow().ok()?.to_datetime(Time::midnight()), zone)?;
    next.checked_sub(1.nanosecond()).ok()
}

fn in_zone(time: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    // Of an hour that occurs twice, the later one: `at/` shows the newest snapshot of the hour.
    Some(zone.to_ambiguous_zoned(time).later().ok()?.timestamp())
}

fn end_of_second(time: Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.as_second(), 999_999_999).ok()
}

/// Returns the second that `@GMT-2026.11.22-10.00.00` names, which is Samba's name for a snapshot of that time.
pub fn shadow(name: &str) -> Option<i64> {
    let (date, time) = name.strip_prefix("@GMT-")?.split_once('-')?;
    let date: Vec<&str> = date.split('.').collect();
    let [_, _, _] = date.as_slice() else { return None };
    (time.len() == 8 && time.split('.').count() == 3).then_some(())?;
    Some(in_zone(DateTime::from_parts(last_day(&date)?, clock(time)?), &TimeZone::UTC)?.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, zone: &str, now: &str) -> Option<String> {
        let zone = TimeZone::get(zone).unwrap();
        let now: DateTime = now.parse().unwrap();
        let found = moment(text, &now.to_zoned(zone.clone()).unwrap())?.to_zoned(zone);
        assert!(found.subsec_nanosecond() == 999_999_999 || found.subsec_nanosecond() == 0, "{text}");
        Some(found.strftime("%F %T").to_string())
    }

    #[test]
    fn expressions_for_moments() {
        for (text, wanted) in [
            ("now", "2026-11-22 10:00:00"),
            ("today", "2026-11-22 23:59:59"),
            ("Yesterday", "2026-11-21 23:59:59"),
            ("2026-11-03", "2026-11-03 23:59:59"),
            ("2026-11", "2026-11-30 23:59:59"),
            ("2024-02", "2024-02-29 23:59:59"),
            ("2025", "2025-12-31 23:59:59"),
            ("2026-11-03_14-00", "2026-11-03 14:00:00"),
            ("2026-11-03_14", "2026-11-03 14:00:00"),
            ("2026-11-03_14-00-30", "2026-11-03 14:00:30"),
            ("2026-11-03T14:00:00", "2026-11-03 14:00:00"),
            ("2026-11-03 14:00", "2026-11-03 14:00:00"),
            ("2026-11-03T14:00:00Z", "2026-11-03 15:00:00"),
            ("2026-11-03T14:00:00-05:00", "2026-11-03 20:00:00"),
            ("2026-07-01_12-00", "2026-07-01 12:00:00"),
            ("3 days ago", "2026-11-19 10:00:00"),
            ("3-days-ago", "2026-11-19 10:00:00"),
            ("3_days_ago", "2026-11-19 10:00:00"),
            ("1 day ago", "2026-11-21 10:00:00"),
            ("a week ago", "2026-11-15 10:00:00"),
            ("2 weeks ago", "2026-11-08 10:00:00"),
            ("2w ago", "2026-11-08 10:00:00"),
            ("1h ago", "2026-11-22 09:00:00"),
            ("an hour ago", "2026-11-22 09:00:00"),
            ("90 minutes ago", "2026-11-22 08:30:00"),
            ("1h30m ago", "2026-11-22 08:30:00"),
            ("1 day 2 hours ago", "2026-11-21 08:00:00"),
            ("30s ago", "2026-11-22 09:59:30"),
            ("1 month ago", "2026-10-22 10:00:00"),
            ("1y ago", "2025-11-22 10:00:00"),
        ] {
            assert_eq!(at(text, "Europe/Berlin", "2026-11-22T10:00:00").as_deref(), Some(wanted), "{text}");
        }
    }

    #[test]
    fn texts_that_name_no_moment() {
        let texts = "|ago|days ago|3 days|tomorrow|-3 days ago|2026-13|2026-11-31|2026-1-1|26-11-03|latest|letter.txt|.|\
            2026-11-03_25-00|2026-11-03_14-00-00-00|2026-11_14-00|2026-11-03_|2026-11-03_1|99999999 years ago|é|P3D|3 days ago ago";
        for text in texts.split('|') {
            assert_eq!(at(text, "Europe/Berlin", "2026-11-22T10:00:00"), None, "{text:?}");
        }
    }

    #[test]
    fn days_follow_the_calendar_when_the_clock_is_changed() {
        let berlin = |text: &str, now: &str| at(text, "Europe/Berlin", now).unwrap();
        assert_eq!(berlin("1 day ago", "2026-10-26T10:00:00"), "2026-10-25 10:00:00");
        assert_eq!(berlin("2 days ago", "2026-10-26T10:00:00"), "2026-10-24 10:00:00");
        assert_eq!(berlin("2026-10-25", "2026-11-22T10:00:00"), "2026-10-25 23:59:59");
        assert_eq!(berlin("2026-10-25_02-30", "2026-11-22T10:00:00"), "2026-10-25 02:30:00", "it comes twice");
        assert_eq!(berlin("2026-03-29_02-30", "2026-11-22T10:00:00"), "2026-03-29 03:30:00", "there was none");
    }

    #[test]
    fn names_of_shadow_copies() {
        assert_eq!(shadow("@GMT-2001.09.09-01.46.40"), Some(1_000_000_000));
        for wrong in
            ["@GMT-2001.09.09", "@GMT-2001.09.09-01.46", "@GMT-2001.9.9-01.46.40", "GMT-2001.09.09-01.46.40", "@GMT-"]
        {
            assert_eq!(shadow(wrong), None, "{wrong}");
        }
    }
}
