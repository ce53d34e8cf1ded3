//! The figures of a progress display: amounts, rates, and an estimate of the remaining time.
//!
//! A push reads ahead of the network, as far as its buffers reach. So the remaining time is computed from the bytes that are
//! still to be sent: the bytes in buffers, and an estimate for the unread files. The estimate assumes that the share of new
//! bytes in them is the same as in the files read so far.

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::{escape, human, output};

/// Seconds over which a rate is averaged: long enough not to jump, short enough to show a stalled connection.
const WINDOW: f64 = 20.0;
/// Seconds before the remaining time is estimated.
const SETTLED: f64 = 2.0;
/// Seconds of sending in buffers that show that the network is slower than reading.
const BACKLOG: f64 = 1.0;

/// The purpose of an operation. It selects the figures of the display.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Reads files and sends their new contents. The verb names the action: `saved`.
    Send(&'static str),
    /// Reads or writes files: `restored`.
    Files(&'static str),
    /// Goes through steps that the events name.
    Steps,
}

impl Work {
    /// Returns the action on a file.
    pub fn verb(self) -> &'static str {
        match self {
            Work::Send(verb) | Work::Files(verb) => verb,
            Work::Steps => "done",
        }
    }
}

/// The total amount of work.
#[derive(Clone, Copy)]
pub struct Total {
    pub files: u64,
    pub bytes: u64,
    pub complete: bool,
}

/// A rate in bytes per second, averaged.
#[derive(Clone, Copy)]
struct Rate {
    value: f64,
    started: Instant,
    /// The count and the time of the last sample.
    last: (u64, Instant),
}

impl Rate {
    fn new(now: Instant) -> Self {
        Rate { value: 0.0, started: now, last: (0, now) }
    }

    /// Takes a sample, about once a second. The time before the first byte does not count.
    fn sample(&mut self, count: u64, now: Instant) {
        if count == 0 {
            *self = Rate::new(now);
            return;
        }
        let seconds = now.saturating_duration_since(self.last.1).as_secs_f64();
        if seconds < 1.0 {
            return;
        }
        let rate = count.saturating_sub(self.last.0) as f64 / seconds;
        // The first samples weigh as much as all time before them.
        let age = now.saturating_duration_since(self.started).as_secs_f64();
        let weight = (seconds / WINDOW).max(seconds / age.max(seconds));
        self.value += (rate - self.value) * weight.min(1.0);
        self.last = (count, now);
    }
}

/// The figures so far.
pub struct Figures {
    work: Work,
    started: Instant,
    now: Instant,
    pub files: u64,
    /// Bytes of files that are done, with those that needed no work.
    pub bytes: u64,
    /// Bytes that were read or written.
    pub worked: u64,
    /// Bytes that became ready to be sent.
    pub to_send: u64,
    /// Bytes that the storage has acknowledged.
    pub sent: u64,
    pub errors: u64,
    pub total: Option<Total>,
    pub current: Vec<u8>,
    /// The step, and the name of its objects.
    pub step: Option<(&'static str, &'static str)>,
    working: Rate,
    sending: Rate,
}

impl Figures {
    pub fn new(work: Work, now: Instant) -> Self {
        Figures {
            work,
            started: now,
            now,
            files: 0,
            bytes: 0,
            worked: 0,
            to_send: 0,
            sent: 0,
            errors: 0,
            total: None,
            current: Vec::new(),
            step: None,
            working: Rate::new(now),
            sending: Rate::new(now),
        }
    }

    /// Begins a step. The errors so far stay.
    pub fn begin(&mut self, name: &'static str, unit: &'static str) {
        let errors = self.errors;
        *self = Figures { step: Some((name, unit)), errors, ..Figures::new(self.work, Instant::now()) };
    }

    /// Takes samples of the rates.
    pub fn sample(&mut self, now: Instant) {
        self.now = now;
        self.working.sample(self.worked, now);
        self.sending.sample(self.sent, now);
    }

    fn is_sending(&self) -> bool {
        matches!(self.work, Work::Send(_))
    }

    fn seconds(&self) -> f64 {
        self.now.saturating_duration_since(self.started).as_secs_f64()
    }

    /// Returns the bytes of files that are not done, once the total is known.
    fn left(&self) -> Option<f64> {
        let total = self.total.filter(|total| total.complete)?;
        Some(total.bytes.saturating_sub(self.bytes) as f64)
    }

    /// Returns the estimated bytes that are still to be sent.
    fn unsent(&self) -> Option<f64> {
        let new = if self.worked == 0 { 0.0 } else { self.to_send as f64 / self.worked as f64 };
        Some(self.left()? * new.min(1.0) + self.to_send.saturating_sub(self.sent) as f64)
    }

    /// Returns the estimated seconds that are left.
    fn remaining(&self) -> Option<u64> {
        let left = self.left().filter(|_| self.seconds() >= SETTLED)?;
        let reading = duration(left, self.working.value);
        if !self.is_sending() || self.to_send == 0 {
            return reading;
        }
        let sending = duration(self.unsent()?, self.sending.value)?;
        let backlog = self.to_send.saturating_sub(self.sent) as f64;
        if backlog > self.sending.value * BACKLOG {
            return Some(sending);
        }
        Some(sending.max(reading.unwrap_or(0)))
    }

    /// Returns one line for people. The most important figures come first, because a narrow terminal cuts the end.
    pub fn line(&self) -> String {
        let mut line = match self.work {
            Work::Send(_) => self.sending(),
            Work::Files(verb) => self.working(verb),
            Work::Steps => self.stepping(),
        };
        if !self.current.is_empty() {
            line += &format!("  {}", escape::text(&self.current));
        }
        line
    }

    /// `sent 120.0 MiB of about 900.0 MiB, 20.0 MiB/s, 0:00:39 left; scanned 300.0 MiB of 900.0 MiB, 2 of 6 files`
    fn sending(&self) -> String {
        let mut line = format!("sent {}", human::size(self.sent));
        if let Some(unsent) = self.unsent().filter(|_| self.to_send > 0) {
            line += &format!(" of about {}", human::size(self.sent + unsent as u64));
        }
        line += &self.rest(self.sending.value);
        line += &format!("; scanned {}", human::size(self.bytes));
        match self.total {
            Some(total) => {
                line + &format!(" of {}, {} of {}", total.size(), self.files, human::count(total.files, "file"))
            }
            None => line + &format!(", {}", human::count(self.files, "file")),
        }
    }

    /// `1.0 MiB of 8.0 MiB, 2 of 9 files restored, 1.0 KiB/s, 0:59:28 left`
    fn working(&self, verb: &str) -> String {
        let (files, bytes) = (human::count(self.files, "file"), human::size(self.bytes));
        let line = match self.total {
            Some(total) => {
                let all = human::count(total.files, "file");
                format!("{bytes} of {}, {} of {all} {verb}", total.size(), self.files)
            }
            None => format!("{files} and {bytes} {verb}"),
        };
        line + &self.rest(self.working.value)
    }

    /// `repacking: 1.0 GiB of 5.0 GiB, 12 of 64 packs, 20.0 MiB/s, 0:03:24 left`
    fn stepping(&self) -> String {
        let Some((name, unit)) = self.step else { return "reading the log".into() };
        let bytes = human::size(self.bytes);
        let line = match self.total {
            Some(total) => {
                format!("{name}: {bytes} of {}, {} of {}", total.size(), self.files, human::count(total.files, unit))
            }
            None => format!("{name}: {bytes}, {}", human::count(self.files, unit)),
        };
        line + &self.rest(self.working.value)
    }

    /// Returns the rate, the remaining time and the errors.
    fn rest(&self, rate: f64) -> String {
        let mut text = format!(", {}/s", human::size(rate as u64));
        if let Some(left) = self.remaining() {
            text += &format!(", {}:{:02}:{:02} left", left / 3600, left / 60 % 60, left % 60);
        }
        if self.errors > 0 {
            text += &format!(", {}", human::count(self.errors, "error"));
        }
        text
    }

    /// Returns the fields of an object of type `status`.
    pub fn fields(&self) -> Map<String, Value> {
        let mut fields = output::object(json!({
            "seconds": self.seconds(), "files": self.files, "bytes": self.bytes,
            "rate": self.working.value as u64, "errors": self.errors,
        }));
        if let Some((name, _)) = self.step {
            fields.insert("step".into(), name.into());
        }
        if self.is_sending() {
            fields.extend(output::object(json!({ "sent": self.sent, "send_rate": self.sending.value as u64 })));
        }
        if let Some(total) = self.total {
            fields.extend(output::object(json!({
                "total_files": total.files, "total_bytes": total.bytes, "total_complete": total.complete,
                "percent": (self.part(total) * 1000.0).round() / 10.0,
            })));
        }
        if let Some(unsent) = self.unsent().filter(|_| self.is_sending()) {
            fields.insert("total_to_send".into(), (self.sent + unsent as u64).into());
        }
        if let Some(left) = self.remaining() {
            fields.insert("seconds_remaining".into(), left.into());
        }
        if !self.current.is_empty() {
            output::put_bytes(&mut fields, "current_file", &self.current);
        }
        fields
    }

    /// Returns the share of the work that is done: of the bytes to send, if any, else of the bytes of the files.
    fn part(&self, total: Total) -> f64 {
        let (done, all) = match self.unsent() {
            Some(unsent) if self.is_sending() && self.to_send > 0 => (self.sent as f64, self.sent as f64 + unsent),
            _ => (self.bytes as f64, total.bytes as f64),
        };
        if all < 1.0 { 0.0 } else { (done / all).min(1.0) }
    }
}

impl Total {
    fn size(self) -> String {
        let more = if self.complete { "" } else { " or more" };
        format!("{}{more}", human::size(self.bytes))
    }
}

fn duration(bytes: f64, rate: f64) -> Option<u64> {
    (rate >= 1.0).then(|| (bytes / rate).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// Figures after 10 s in which `worked` bytes were processed.
    fn figures(work: Work, worked: u64, total: Option<Total>) -> Figures {
        let start = Instant::now();
        let mut figures =
            Figures { files: 2, errors: 1, total, current: b"/a\nb".to_vec(), ..Figures::new(work, start) };
        for second in 0..=10 {
            (figures.bytes, figures.worked) = (worked * second / 10, worked * second / 10);
            figures.sample(start + Duration::from_secs(second));
        }
        figures
    }

    #[test]
    fn a_step_begins_its_amounts_anew() {
        let mut figures = figures(Work::Steps, MIB, None);
        assert!(figures.line().starts_with("reading the log"));
        figures.begin("repacking", "pack");
        (figures.files, figures.bytes) = (1, MIB);
        figures.total = Some(Total { files: 9, bytes: 8 * MIB, complete: true });
        assert_eq!(figures.line(), "repacking: 1.0 MiB of 8.0 MiB, 1 of 9 packs, 0 B/s, 1 error");
        assert_eq!(figures.fields()["step"], "repacking");
    }

    #[test]
    fn a_line_says_what_is_known_and_no_more() {
        let total = |complete| Some(Total { files: 9, bytes: 8 * MIB, complete });
        let restored = Work::Files("restored");
        let line = figures(restored, MIB, total(true)).line();
        assert_eq!(line, "1.0 MiB of 8.0 MiB, 2 of 9 files restored, 102.4 KiB/s, 0:01:10 left, 1 error  /a\\nb");
        let line = figures(restored, MIB, total(false)).line();
        assert!(line.contains("of 8.0 MiB or more") && !line.contains("left"), "{line}");
        let line = figures(restored, MIB, None).line();
        assert!(line.starts_with("2 files and 1.0 MiB restored, 102.4 KiB/s"), "{line}");
        let line = figures(Work::Send("saved"), MIB, total(true)).line();
        let expected = "sent 0 B, 0 B/s, 0:01:10 left, 1 error; scanned 1.0 MiB of 8.0 MiB, 2 of 9 files  /a\\nb";
        assert_eq!(line, expected);
    }

    #[test]
    fn status_objects_hold_a_rest_only_where_the_total_is_known() {
        let total = |complete| Some(Total { files: 9, bytes: 2 * MIB, complete });
        let restored = Work::Files("restored");
        let fields = figures(restored, MIB, total(true)).fields();
        assert_eq!((&fields["percent"], &fields["seconds_remaining"]), (&json!(50.0), &json!(10)));
        assert!(!figures(restored, MIB, total(false)).fields().contains_key("seconds_remaining"));
        assert!(!figures(restored, MIB, None).fields().contains_key("percent"));
    }

    /// Buffers of 190 MiB take everything at once; the network sends 20 MiB/s in bursts of packs. 900 MB take 45 s.
    #[test]
    fn the_remaining_time_is_within_a_factor_of_two_on_a_slow_network() {
        let (start, all, rate, buffers) = (Instant::now(), 900 * MIB, 20 * MIB, 190 * MIB);
        let mut figures = Figures::new(Work::Send("saved"), start);
        figures.total = Some(Total { files: 6, bytes: all, complete: true });
        for tick in 0..5 * 45 {
            figures.sent = (rate * tick / 5).min(all);
            // Packs are finished together, so reading advances in jumps.
            let read = (figures.sent / buffers * buffers + buffers).min(all);
            (figures.worked, figures.bytes, figures.to_send) = (read, read, read);
            figures.sample(start + Duration::from_millis(tick * 200));
            let left = 45.0 - tick as f64 / 5.0;
            if tick >= 15 && left > 2.0 {
                let shown = figures.remaining().unwrap() as f64;
                assert!(shown <= left * 2.0 && shown >= left / 2.0, "{shown} of {left} s at tick {tick}");
            }
        }
        assert!(figures.line().starts_with("sent 896.0 MiB of about 900.0 MiB, 20.0 MiB/s, "), "{}", figures.line());
    }

    #[test]
    fn known_contents_are_not_expected_to_be_sent() {
        let start = Instant::now();
        let mut figures = Figures::new(Work::Send("saved"), start);
        figures.total = Some(Total { files: 6, bytes: 1000 * MIB, complete: true });
        for second in 0..=10 {
            (figures.worked, figures.bytes) = (second * 50 * MIB, second * 50 * MIB);
            (figures.to_send, figures.sent) = (second * 5 * MIB, second * 5 * MIB);
            figures.sample(start + Duration::from_secs(second));
        }
        assert_eq!(figures.remaining(), Some(10));
        assert_eq!(figures.unsent(), Some((50 * MIB) as f64));
        figures.bytes += 250 * MIB; // unchanged files
        assert_eq!(figures.remaining(), Some(5));
    }
}
