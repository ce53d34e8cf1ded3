//! Signals. The first SIGINT, SIGTERM or SIGHUP asks the running operation to stop; the second one ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Error, Result};

/// From now on the first signal is stored here (0: none came).
pub fn stop_flag() -> Result<Arc<AtomicI32>> {
    let stop = Arc::new(AtomicI32::new(0));
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
