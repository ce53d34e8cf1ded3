//! Progress on standard error: a bar on a terminal, a line every 30 seconds elsewhere, nothing with `-q`. What was
//! skipped and what the user should know is said in every case.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::Common;
use super::show::{self, Output};
use crate::progress::{Event, Progress};

/// Between two lines where nobody watches.
const QUIET: Duration = Duration::from_secs(30);
/// Redraws per second.
const RATE: u8 = 5;

/// Shows the events of one operation.
pub struct Reporter {
    verb: &'static str,
    verbose: bool,
    json: bool,
    bar: Option<ProgressBar>,
    lines: bool,
    sums: Mutex<Sums>,
}

struct Sums {
    started: Instant,
    said: Instant,
    drawn: Option<Instant>,
    files: u64,
    bytes: u64,
    total: Option<(u64, u64)>,
}

impl Reporter {
    /// `verb` says what is done to files: `saved`, `restored`.
    pub fn new(common: &Common, verb: &'static str) -> Self {
        let watched = std::io::stderr().is_terminal();
        let bar = (watched && !common.quiet).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(RATE));
            bar.set_style(style(false));
            bar.set_prefix("0");
            bar
        });
        let now = Instant::now();
        let sums = Sums { started: now, said: now, drawn: None, files: 0, bytes: 0, total: None };
        Reporter {
            verb,
            verbose: common.verbose > 0,
            json: common.json,
            bar,
            lines: !watched && !common.quiet,
            sums: Mutex::new(sums),
        }
    }

    /// Takes the bar away, before the summary.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| show::notice(line)),
            None => show::notice(line),
        }
    }

    fn object(&self, kind: &str, fields: serde_json::Value) {
        let mut out = Output::new(true);
        let _ = out.object(kind, show::object(fields)).and_then(|()| out.flush());
    }

    fn add(&self, files: u64, bytes: u64) {
        let mut sums = self.sums.lock().expect("no holder panics");
        sums.files += files;
        sums.bytes += bytes;
        if let Some(bar) = &self.bar {
            bar.set_position(sums.bytes);
            bar.set_prefix(sums.files.to_string());
        } else if self.lines && sums.said.elapsed() >= QUIET {
            sums.said = Instant::now();
            show::notice(sums.line(self.verb));
        }
    }
}

impl Sums {
    fn line(&self, verb: &str) -> String {
        let rate = self.bytes as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        let done = format!(
            "{} and {} {verb}, {}/s",
            show::count(self.files, "file"),
            show::size(self.bytes),
            show::size(rate as u64)
        );
        match self.total {
            Some((files, bytes)) => format!("{done}, of {} and {}", show::count(files, "file"), show::size(bytes)),
            None => done,
        }
    }
}

fn style(total: bool) -> ProgressStyle {
    let template = match total {
        true => "{bytes} of {total_bytes}  {binary_bytes_per_sec}  {prefix} files  ETA {eta}  {wide_msg}",
        false => "{bytes}  {binary_bytes_per_sec}  {prefix} files  {wide_msg}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Progress for Reporter {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Total { files, bytes } => {
                self.sums.lock().expect("no holder panics").total = Some((files, bytes));
                if let Some(bar) = &self.bar {
                    bar.set_length(bytes);
                    bar.set_style(style(true));
                }
            }
            Event::File { path } => {
                if self.verbose {
                    self.say(&format!("{} {}", self.verb, show::text(path)));
                } else if let Some(bar) = &self.bar {
                    let mut sums = self.sums.lock().expect("no holder panics");
                    if sums.drawn.is_none_or(|at| at.elapsed() >= Duration::from_secs(1) / RATE.into()) {
                        sums.drawn = Some(Instant::now());
                        bar.set_message(show::text(path));
                    }
                }
            }
            Event::Done { files, bytes } => self.add(files, bytes),
            Event::Skipped { path, why } => {
                self.say(&format!("skipped {}: {}", show::text(path), show::message(&why.to_string())));
                if self.json {
                    let mut fields = show::object(json!({ "message": why.to_string() }));
                    show::put_bytes(&mut fields, "path", path);
                    self.object("error", fields.into());
                }
            }
            Event::Warning { text } => {
                self.say(&format!("nfreezer: warning: {}", show::message(text)));
                if self.json {
                    self.object("warning", json!({ "message": text }));
                }
            }
        }
    }
}
