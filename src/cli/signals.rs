//! Signals. The first SIGINT, SIGTERM or SIGHUP asks the running operation to stop; the second one ends the process.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::progress::Silent;

/// The number of the first signal since [`catch`]; 0 until then.
static SIGNAL: LazyLock<Arc<AtomicI32>> = LazyLock::new(Arc::default);

/// Returns the context of the command that this process runs.
pub fn context() -> &'static Context<'static> {
    static CONTEXT: LazyLock<Context<'static>> = LazyLock::new(|| Context::new(&Silent, Arc::clone(&SIGNAL)));
    &CONTEXT
}

/// Returns [`context`], which from now on the first signal stops.
pub fn catch() -> Result<&'static Context<'static>> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|e| Error::io("wait for signals", e))?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if SIGNAL.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                    signal_hook::low_level::exit(128 + signal);
                }
            }
        })
        .map_err(|e| Error::io("start a thread", e))?;
    Ok(context())
}
