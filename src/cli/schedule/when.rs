//! When a profile runs: as an option, for systemd, and for cron.

use jiff::civil::Time;

use crate::cli::values::time_of_day as time;

/// The days of the week as systemd writes them, from Sunday as cron counts them.
const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// The times of a timer, in the local zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At the beginning of each hour.
    Hourly,
    /// Each day at this time.
    Daily(Time),
    /// Each week on this day, counted from Sunday, at this time.
    Weekly(usize, Time),
}

/// Parses `03:00`.
pub fn daily(text: &str) -> Result<When, String> {
    time(text).map(When::Daily)
}

/// Parses `sun 03:00`.
pub fn weekly(text: &str) -> Result<When, String> {
    let wrong = || "write a day and a time, such as `sun 03:00`".to_owned();
    let (day, at) = text.split_once(' ').ok_or_else(wrong)?;
    let day = day.to_ascii_lowercase();
    let number = DAYS.iter().position(|name| day.starts_with(&name.to_ascii_lowercase())).ok_or_else(wrong)?;
    Ok(When::Weekly(number, time(at.trim())?))
}

impl When {
    /// Returns the value of `OnCalendar` in a timer of systemd.
    pub fn calendar(self) -> String {
        match self {
            When::Hourly => "*-*-* *:00:00".to_owned(),
            When::Daily(at) => format!("*-*-* {}", at.strftime("%H:%M:00")),
            When::Weekly(day, at) => format!("{} *-*-* {}", DAYS[day], at.strftime("%H:%M:00")),
        }
    }

    /// Returns the largest random delay. It spreads the load of a server with many clients.
    pub fn delay(self) -> &'static str {
        match self {
            When::Hourly => "5min",
            When::Daily(_) | When::Weekly(..) => "30min",
        }
    }

    /// Returns the first five fields of a line of a crontab.
    pub fn cron(self) -> String {
        match self {
            When::Hourly => "0 * * * *".to_owned(),
            When::Daily(at) => format!("{} {} * * *", at.minute(), at.hour()),
            When::Weekly(day, at) => format!("{} {} * * {day}", at.minute(), at.hour()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_for_systemd_and_cron() {
        let night = daily("03:05").unwrap();
        assert_eq!((night.calendar().as_str(), night.cron().as_str()), ("*-*-* 03:05:00", "5 3 * * *"));
        let sunday = weekly("Sunday 23:00").unwrap();
        assert_eq!((sunday.calendar().as_str(), sunday.cron().as_str()), ("Sun *-*-* 23:00:00", "0 23 * * 0"));
        assert_eq!((When::Hourly.calendar().as_str(), When::Hourly.cron().as_str()), ("*-*-* *:00:00", "0 * * * *"));
        assert_eq!(daily("3:05"), Ok(night));
        for bad in ["", "3", "24:00", "03:60", "-1:00", "03:00:00", "sun 03:00"] {
            daily(bad).unwrap_err();
        }
        for bad in ["", "sun", "03:00", "noday 03:00", "sun 3"] {
            weekly(bad).unwrap_err();
        }
    }
}
