//! Progress on standard error: a bar on a terminal, a line every 30 seconds elsewhere, nothing with `-q`; with `--json`
//! an object of type `status` every second on standard output. Skipped files and warnings are reported in every case.

use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::options::ProgressArgs;
use super::output::{self, Output};
use super::{escape, human, warnings};
use crate::context::Context;
use crate::progress::{Event, Progress};

/// Interval between two lines if standard error is not a terminal.
const QUIET: Duration = Duration::from_secs(30);
/// Between two objects of type `status`.
const STATUS: Duration = Duration::from_secs(1);
/// Between two looks at the clock; the bar is drawn as often.
const TICK: Duration = Duration::from_millis(200);
/// Seconds over which the rate is averaged: long enough not to jump, short enough to show a stalled connection.
const WINDOW: f64 = 20.0;

/// Shows the events of one operation, and that time passes where there are none.
pub struct Reporter {
    inner: Arc<Inner>,
    clock: Option<(Sender<()>, JoinHandle<()>)>,
    /// News of the line go above the bar.
    _diverted: warnings::Diverted,
}

struct Inner {
    verb: &'static str,
    verbose: bool,
    json: bool,
    quiet: bool,
    bar: Option<ProgressBar>,
    sums: Mutex<Sums>,
}

/// The figures so far.
struct Sums {
    started: Instant,
    files: u64,
    bytes: u64,
    errors: u64,
    total: Option<Total>,
    current: Vec<u8>,
    /// Bytes a second, averaged; the bytes and the time of the last sample.
    rate: f64,
    sampled: (u64, Instant),
}

#[derive(Clone, Copy)]
struct Total {
    files: u64,
    bytes: u64,
    complete: bool,
}

impl Reporter {
    /// `verb` names the action on files: `saved`, `restored`.
    pub fn new(args: ProgressArgs, verb: &'static str) -> Self {
        let watched = std::io::stderr().is_terminal();
        let bar = (watched && !args.output.quiet).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let now = Instant::now();
        let (files, bytes, errors, total, current) = Default::default();
        let sums = Sums { started: now, files, bytes, errors, total, current, rate: 0.0, sampled: (0, now) };
        let (verbose, json, quiet) = (args.verbose > 0, args.output.json, args.output.quiet);
        let inner = Arc::new(Inner { verb, verbose, json, quiet, bar, sums: Mutex::new(sums) });
        let (stop, stopped) = mpsc::channel();
        let shown = Arc::clone(&inner);
        // Without the thread only the passing of time would not be shown.
        let clock = std::thread::Builder::new().name("progress".into()).spawn(move || shown.show(&stopped)).ok();
        let news = Arc::clone(&inner);
        let diverted = warnings::divert(Arc::new(move |text| news.warn(text)));
        Reporter { inner, _diverted: diverted, clock: clock.map(|thread| (stop, thread)) }
    }

    /// Returns `ctx`, reporting here.
    pub fn attach(&self, ctx: &Context) -> Context<'_> {
        ctx.with_progress(&*self.inner)
    }

    /// A line of the result on standard output, while the bar may be shown.
    pub fn print(&self, line: &str) {
        let print = || {
            let mut out = Output::new(false);
            let _ = out.line(line).and_then(|()| out.flush());
        };
        match &self.inner.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Takes the bar away, before the summary. Nothing is shown by itself afterwards.
    pub fn finish(&mut self) {
        if let Some((stop, thread)) = self.clock.take() {
            drop(stop);
            let _ = thread.join();
        }
        if let Some(bar) = &self.inner.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Inner {
    /// The body of the thread that shows the figures at every tick, until `stopped` is set.
    fn show(&self, stopped: &mpsc::Receiver<()>) {
        let (mut line, mut status) = (Instant::now(), Instant::now());
        while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            let mut sums = self.sums();
            sums.sample();
            if let Some(bar) = &self.bar {
                bar.set_message(sums.line(self.verb));
            } else if !self.quiet && line.elapsed() >= QUIET {
                line = Instant::now();
                output::notice(sums.line(self.verb));
            }
            if self.json && !self.quiet && status.elapsed() >= STATUS {
                status = Instant::now();
                let fields = sums.fields();
                drop(sums);
                object("status", fields);
            }
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::notice(line)),
            None => output::notice(line),
        }
    }

    fn warn(&self, text: &str) {
        self.say(&format!("nfreezer: warning: {}", escape::message(text)));
        if self.json {
            object("warning", output::object(json!({ "message": text })));
        }
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().expect("no holder panics")
    }
}

fn object(kind: &str, fields: serde_json::Map<String, serde_json::Value>) {
    let mut out = Output::new(true);
    let _ = out.object(kind, fields).and_then(|()| out.flush());
}

impl Sums {
    /// Takes the rate anew, about once a second.
    fn sample(&mut self) {
        let seconds = self.sampled.1.elapsed().as_secs_f64();
        if seconds < 1.0 {
            return;
        }
        let now = self.bytes.saturating_sub(self.sampled.0) as f64 / seconds;
        // The first samples weigh as much as all time before them.
        let weight = (seconds / WINDOW).max(seconds / self.started.elapsed().as_secs_f64().max(seconds));
        self.rate += (now - self.rate) * weight.min(1.0);
        self.sampled = (self.bytes, Instant::now());
    }

    /// Seconds that are left at this rate, once it is known how much there is.
    fn remaining(&self) -> Option<u64> {
        let total = self.total.filter(|total| total.complete)?;
        let left = total.bytes.saturating_sub(self.bytes) as f64;
        (self.rate >= 1.0).then(|| (left / self.rate).ceil() as u64)
    }

    fn line(&self, verb: &str) -> String {
        let (files, bytes) = (human::count(self.files, "file"), human::size(self.bytes));
        let mut line = match self.total {
            Some(total) => {
                let more = if total.complete { "" } else { " or more" };
                let (all, size) = (human::count(total.files, "file"), human::size(total.bytes));
                format!("{bytes} of {size}{more}, {} of {all} {verb}", self.files)
            }
            None => format!("{files} and {bytes} {verb}"),
        };
        line += &format!(", {}/s", human::size(self.rate as u64));
        if let Some(left) = self.remaining() {
            line += &format!(", {}:{:02}:{:02} left", left / 3600, left / 60 % 60, left % 60);
        }
        if self.errors > 0 {
            line += &format!(", {}", human::count(self.errors, "error"));
        }
        if !self.current.is_empty() {
            line += &format!("  {}", escape::text(&self.current));
        }
        line
    }

    fn fields(&self) -> serde_json::Map<String, serde_json::Value> {
        let mut fields = output::object(json!({
            "seconds": self.started.elapsed().as_secs_f64(), "files": self.files, "bytes": self.bytes,
            "rate": self.rate as u64, "errors": self.errors,
        }));
        if let Some(total) = self.total {
            let part = if total.bytes == 0 { 0.0 } else { (self.bytes as f64 / total.bytes as f64).min(1.0) };
            fields.extend(output::object(json!({
                "total_files": total.files, "total_bytes": total.bytes, "total_complete": total.complete,
                "percent": (part * 1000.0).round() / 10.0,
            })));
        }
        if let Some(left) = self.remaining() {
            fields.insert("seconds_remaining".into(), left.into());
        }
        if !self.current.is_empty() {
            output::put_bytes(&mut fields, "current_file", &self.current);
        }
        fields
    }
}

impl Progress for Inner {
    fn event(&self, event: Event<'_>) {
        let inner = self;
        match event {
            Event::Total { files, bytes, complete } => inner.sums().total = Some(Total { files, bytes, complete }),
            Event::File { path } => {
                inner.sums().current = path.to_vec();
                if inner.verbose {
                    inner.say(&format!("{} {}", inner.verb, escape::text(path)));
                }
            }
            Event::Done { files, bytes } => {
                let mut sums = inner.sums();
                (sums.files, sums.bytes) = (sums.files + files, sums.bytes + bytes);
            }
            Event::Skipped { path, why } => {
                inner.sums().errors += 1;
                inner.say(&format!("skipped {}: {}", escape::text(path), escape::message(&why.to_string())));
                if inner.json {
                    let mut fields = output::object(json!({ "message": why.to_string() }));
                    output::put_bytes(&mut fields, "path", path);
                    object("error", fields);
                }
            }
            Event::Excluded { path } => {
                if inner.verbose {
                    inner.say(&format!("excluded {}", escape::text(path)));
                }
            }
            Event::Warning { text } => inner.warn(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(bytes: u64, total: Option<Total>) -> Sums {
        let now = Instant::now();
        let current = b"/a\nb".to_vec();
        Sums { started: now, files: 2, bytes, errors: 1, total, current, rate: 1024.0, sampled: (bytes, now) }
    }

    #[test]
    fn a_line_says_what_is_known_and_no_more() {
        let total = |complete| Some(Total { files: 9, bytes: 8 << 20, complete });
        let line = sums(1 << 20, total(true)).line("saved");
        assert_eq!(line, "1.0 MiB of 8.0 MiB, 2 of 9 files saved, 1.0 KiB/s, 1:59:28 left, 1 error  /a\\nb");
        let line = sums(1 << 20, total(false)).line("saved");
        assert!(line.contains("of 8.0 MiB or more") && !line.contains("left"), "{line}");
        let line = sums(1 << 20, None).line("restored");
        assert!(line.starts_with("2 files and 1.0 MiB restored, 1.0 KiB/s"), "{line}");
    }

    #[test]
    fn news_of_the_line_go_to_whoever_shows_something_and_back_when_it_ends() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&heard);
        let diverted = warnings::divert(Arc::new(move |text: &str| sink.lock().unwrap().push(text.to_owned())));
        warnings::warn(false, "lost");
        drop(diverted);
        warnings::warn(false, "to standard error");
        assert_eq!(*heard.lock().unwrap(), ["lost"]);
    }

    #[test]
    fn status_objects_hold_a_rest_only_where_the_whole_is_known() {
        let total = |complete| Some(Total { files: 9, bytes: 2048, complete });
        let fields = sums(1024, total(true)).fields();
        assert_eq!((&fields["percent"], &fields["seconds_remaining"]), (&json!(50.0), &json!(1)));
        assert!(!sums(1024, total(false)).fields().contains_key("seconds_remaining"));
        assert!(!sums(1024, None).fields().contains_key("percent"));
    }
}
