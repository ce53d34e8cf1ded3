//! Progress on standard error: a bar on a terminal, a line every 30 seconds elsewhere, nothing with `-q`; with `--json`
//! an object of type `status` every second on standard output. Skipped files and warnings are reported in every case.

use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::figures::{Figures, Total, Work};
use super::options::ProgressArgs;
use super::output::{self, Output};
use super::repeated::Repeated;
use super::{escape, human, warnings};
use crate::context::Context;
use crate::progress::{Change, Event, Progress};

/// Interval between two lines if standard error is not a terminal.
const QUIET: Duration = Duration::from_secs(30);
/// Between two objects of type `status`.
const STATUS: Duration = Duration::from_secs(1);
/// Between two looks at the clock; the bar is drawn as often.
const TICK: Duration = Duration::from_millis(200);

/// Shows the events of one operation, and that time passes where there are none.
pub struct Reporter {
    inner: Arc<Inner>,
    clock: Option<(Sender<()>, JoinHandle<()>)>,
    /// News of the line go above the bar.
    _diverted: warnings::Diverted,
}

struct Inner {
    work: Work,
    verbose: u8,
    json: bool,
    quiet: bool,
    bar: Option<ProgressBar>,
    figures: Mutex<Figures>,
    repeated: Mutex<Repeated>,
}

impl Reporter {
    /// Shows the progress of this kind of work.
    pub fn new(args: ProgressArgs, work: Work) -> Self {
        let watched = std::io::stderr().is_terminal();
        let bar = (watched && !args.output.quiet).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let (verbose, json, quiet) = (args.verbose, args.output.json, args.output.quiet);
        let inner = Arc::new(Inner {
            work,
            verbose,
            json,
            quiet,
            bar,
            figures: Mutex::new(Figures::new(work, Instant::now())),
            repeated: Mutex::new(Repeated::new(verbose > 0 || json)),
        });
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

    /// Prints a line of the result on standard output, while the bar may be shown.
    pub fn print(&self, line: &str) {
        self.inner.print(line);
    }

    /// Takes the bar away, before the summary. Nothing is shown by itself afterwards.
    pub fn finish(&mut self) {
        if let Some((stop, thread)) = self.clock.take() {
            drop(stop);
            let _ = thread.join();
        }
        let summaries = self.inner.repeated().summaries();
        summaries.iter().for_each(|text| self.inner.warn(text));
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
            let mut figures = self.figures();
            figures.sample(Instant::now());
            if let Some(bar) = &self.bar {
                bar.set_message(figures.line());
            } else if !self.quiet && line.elapsed() >= QUIET {
                line = Instant::now();
                output::notice(figures.line());
            }
            if self.json && !self.quiet && status.elapsed() >= STATUS {
                status = Instant::now();
                let fields = figures.fields();
                drop(figures);
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

    /// Prints what happens to a path, if the output is at least this verbose.
    fn name(&self, least: u8, verb: &str, path: &[u8]) {
        if self.verbose >= least {
            self.say(&format!("{verb} {}", escape::text(path)));
        }
    }

    fn warn(&self, text: &str) {
        self.say(&format!("nfreezer: warning: {}", escape::message(text)));
        if self.json {
            object("warning", output::object(json!({ "message": text })));
        }
    }

    /// Shows a change of the target: all of a dry run as its result, otherwise deletions with `-v`.
    fn changed(&self, path: &[u8], change: Change, dry_run: bool) {
        let verb = match change {
            Change::Write => "write",
            Change::Overwrite => "overwrite",
            Change::Delete => "delete",
        };
        if self.json && dry_run {
            let mut fields = output::object(json!({ "change": verb }));
            output::put_bytes(&mut fields, "path", path);
            return object("change", fields);
        }
        match (dry_run, change) {
            (true, _) if !self.quiet => self.print(&format!("would {verb} {}", escape::text(path))),
            (false, Change::Delete) if self.verbose > 0 => self.say(&format!("deleted {}", escape::text(path))),
            _ => {}
        }
    }

    fn print(&self, line: &str) {
        let print = || {
            let mut out = Output::new(false);
            let _ = out.line(line).and_then(|()| out.flush());
        };
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn repeated(&self) -> MutexGuard<'_, Repeated> {
        self.repeated.lock().expect("no holder panics")
    }

    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().expect("no holder panics")
    }
}

fn object(kind: &str, fields: serde_json::Map<String, serde_json::Value>) {
    let mut out = Output::new(true);
    let _ = out.object(kind, fields).and_then(|()| out.flush());
}

impl Progress for Inner {
    fn event(&self, event: Event<'_>) {
        let inner = self;
        match event {
            Event::Changed { path, change, dry_run } => inner.changed(path, change, dry_run),
            Event::Total { files, bytes, complete } => inner.figures().total = Some(Total { files, bytes, complete }),
            Event::Step { name, unit } => inner.figures().begin(name, unit),
            Event::File { path } => {
                inner.figures().current = path.to_vec();
                inner.name(1, inner.work.verb(), path);
            }
            Event::Same { path, renamed: true } => inner.name(1, "renamed", path),
            Event::Same { path, renamed: false } => inner.name(2, "unchanged", path),
            Event::Done { files, bytes } => {
                let mut figures = inner.figures();
                (figures.files, figures.bytes) = (figures.files + files, figures.bytes + bytes);
                figures.worked += bytes;
            }
            Event::Unchanged { files, bytes } => {
                let mut figures = inner.figures();
                (figures.files, figures.bytes) = (figures.files + files, figures.bytes + bytes);
            }
            Event::ToSend { bytes } => inner.figures().to_send += bytes,
            Event::Sent { bytes } => inner.figures().sent += bytes,
            Event::Unsent { bytes } => {
                let mut figures = inner.figures();
                figures.sent = figures.sent.saturating_sub(bytes);
            }
            Event::Skipped { path, why } => {
                inner.figures().errors += 1;
                inner.say(&format!("skipped {}: {}", escape::text(path), escape::message(&why.to_string())));
                if inner.json {
                    let mut fields = output::object(json!({ "message": why.to_string() }));
                    output::put_bytes(&mut fields, "path", path);
                    object("error", fields);
                }
            }
            Event::Reused { path, bytes, of } => {
                if inner.verbose > 0 {
                    let (bytes, of) = (human::size(bytes), human::size(of));
                    inner.say(&format!("{bytes} of {of} are in the target: {}", escape::text(path)));
                }
            }
            Event::Excluded { path } => inner.name(1, "excluded", path),
            Event::Warning { text } => {
                let admitted = inner.repeated().admits(text);
                if admitted {
                    inner.warn(text);
                }
            }
            Event::Detail { text } => {
                if inner.verbose > 0 {
                    inner.warn(text);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
