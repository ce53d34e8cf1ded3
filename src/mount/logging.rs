//! Messages of the mount: at most one line for each failure, and a limited number of lines.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A receiver of lines of text, called from any thread.
pub type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// Lines that are logged within each [`PERIOD`].
const LINES: u32 = 20;
const PERIOD: Duration = Duration::from_secs(10);

/// A log that drops lines above the limit and reports their number.
pub struct RateLimitedLog {
    log: Log,
    period: Mutex<LogPeriod>,
}

struct LogPeriod {
    start: Instant,
    lines: u32,
}

impl RateLimitedLog {
    pub fn new(log: Log) -> Self {
        RateLimitedLog { log, period: Mutex::new(LogPeriod { start: Instant::now(), lines: 0 }) }
    }

    /// Logs a line; `text` is called only if the line is within the limit.
    pub fn line(&self, text: impl FnOnce() -> String) {
        let mut period = self.period.lock().expect("no holder panics");
        let mut dropped = 0;
        if period.start.elapsed() > PERIOD {
            dropped = period.lines.saturating_sub(LINES);
            *period = LogPeriod { start: Instant::now(), lines: 0 };
        }
        period.lines += 1;
        let within_limit = period.lines <= LINES;
        drop(period);
        if dropped > 0 {
            (self.log)(&format!("{dropped} more messages were left out"));
        }
        if within_limit {
            (self.log)(&text());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_messages_is_cut() {
        let lines = Arc::new(Mutex::new(0));
        let log = RateLimitedLog::new(Arc::new({
            let lines = Arc::clone(&lines);
            move |_| *lines.lock().unwrap() += 1
        }));
        (0..1000).for_each(|i| log.line(|| i.to_string()));
        assert_eq!(*lines.lock().unwrap(), LINES);
    }
}
