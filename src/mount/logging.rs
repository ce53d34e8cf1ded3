//! One line for each thing that goes wrong, but never a flood of them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Takes one line of text, from any thread.
pub type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// Lines in each [`PERIOD`].
const LINES: u32 = 20;
const PERIOD: Duration = Duration::from_secs(10);

/// A log that drops what is too much and says how much that was.
pub struct Limited {
    log: Log,
    window: Mutex<(Instant, u32)>,
}

impl Limited {
    /// Lines go to `log`.
    pub fn new(log: Log) -> Self {
        Limited { log, window: Mutex::new((Instant::now(), 0)) }
    }

    /// Logs a line; it is made only if it is wanted.
    pub fn line(&self, text: impl FnOnce() -> String) {
        let mut window = self.window.lock().expect("no holder panics");
        let mut dropped = 0;
        if window.0.elapsed() > PERIOD {
            dropped = window.1.saturating_sub(LINES);
            *window = (Instant::now(), 0);
        }
        window.1 += 1;
        let wanted = window.1 <= LINES;
        drop(window);
        if dropped > 0 {
            (self.log)(&format!("{dropped} more messages were left out"));
        }
        if wanted {
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
        let log = Limited::new(Arc::new({
            let lines = Arc::clone(&lines);
            move |_| *lines.lock().unwrap() += 1
        }));
        (0..1000).for_each(|i| log.line(|| i.to_string()));
        assert_eq!(*lines.lock().unwrap(), LINES);
    }
}
