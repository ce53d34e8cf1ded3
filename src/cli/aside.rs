//! Messages that come from elsewhere while a command runs: that the line was lost, that it is there again. They go where the
//! command wants them: above its progress bar, into the log of a mount; else to standard error, or with `--json` as objects.

use std::sync::{Arc, Mutex};

use serde_json::json;

use super::show::{self, Output};

/// Takes one line of text.
pub type Sink = Arc<dyn Fn(&str) + Send + Sync>;

static SINK: Mutex<Option<Sink>> = Mutex::new(None);

/// Sends them to `sink` until this is dropped.
#[must_use = "dropping it ends the diversion"]
pub struct Diverted(());

/// See [`Diverted`].
pub fn divert(sink: Sink) -> Diverted {
    *SINK.lock().expect("no holder panics") = Some(sink);
    Diverted(())
}

impl Drop for Diverted {
    fn drop(&mut self) {
        *SINK.lock().expect("no holder panics") = None;
    }
}

/// Something that the user should know and that changes nothing.
pub fn warning(json: bool, text: &str) {
    let sink = SINK.lock().expect("no holder panics").clone();
    if let Some(sink) = sink {
        return sink(text);
    }
    show::notice(format_args!("nfreezer: warning: {}", show::message(text)));
    if json {
        let mut out = Output::new(true);
        let _ = out.object("warning", show::object(json!({ "message": text }))).and_then(|()| out.flush());
    }
}
