//! Warnings that arise while a command runs, for example that the connection was lost. They go to the current sink: the
//! progress bar prints them above itself, a mount writes them into its log. Without a sink they go to standard error and, with
//! `--json`, to standard output.

use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::json;

use super::escape;
use super::output::{self, Output};

/// Takes one line of text.
pub type Sink = Arc<dyn Fn(&str) + Send + Sync>;

static SINK: Mutex<Option<Sink>> = Mutex::new(None);

/// Restores the default sink when it is dropped.
#[must_use = "dropping it ends the diversion"]
pub struct Diverted(());

/// Sends warnings to `sink` until the result is dropped.
pub fn divert(sink: Sink) -> Diverted {
    *current() = Some(sink);
    Diverted(())
}

impl Drop for Diverted {
    fn drop(&mut self) {
        *current() = None;
    }
}

fn current() -> MutexGuard<'static, Option<Sink>> {
    SINK.lock().expect("no holder panics")
}

/// Sends a warning to the current sink.
pub fn warn(json: bool, text: &str) {
    let sink = current().clone();
    match sink {
        Some(sink) => sink(text),
        None => print(json, text),
    }
}

fn print(json: bool, text: &str) {
    output::notice(format_args!("nfreezer: warning: {}", escape::message(text)));
    if json {
        let mut out = Output::new(true);
        let _ = out.object("warning", output::object(json!({ "message": text }))).and_then(|()| out.flush());
    }
}
