//! Signals. The first SIGINT, SIGTERM or SIGHUP asks the running operation to stop; the second one ends the process.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Error, Result};

/// Where the first signal is stored (0: none came), once [`stop_flag`] was called. The way to the server looks here too.
pub fn flag() -> Arc<AtomicI32> {
    static FLAG: OnceLock<Arc<AtomicI32>> = OnceLock::new();
    Arc::clone(FLAG.get_or_init(Arc::default))
}

/// From now on the first signal is stored here (0: none came).
pub fn stop_flag() -> Result<Arc<AtomicI32>> {
    let stop = flag();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|e| Error::io("wait for signals", e))?;
    let flag = Arc::clone(&stop);
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if flag.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                    signal_hook::low_level::exit(128 + signal);
                }
            }
        })
        .map_err(|e| Error::io("start a thread", e))?;
    Ok(stop)
}
