//! Signals during a run. The run itself continues until its hooks have run; the present step is asked to stop.
//!
//! A terminal sends SIGINT and SIGHUP to the step too. SIGTERM is passed on.

use std::process::Child;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::super::signals;
use crate::error::{Error, Result};

static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// The process that SIGTERM is passed to.
static STEP: Mutex<Option<Pid>> = Mutex::new(None);

/// Ends the passing when it is dropped.
#[must_use = "dropping it ends the passing"]
pub struct Passing(());

/// Catches signals from now on.
pub fn catch() -> Result<()> {
    let failed = |e| Error::io("wait for signals", e);
    let mut received = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    let receive = move || received.forever().for_each(receive);
    thread::Builder::new().name("signals of a run".into()).spawn(receive).map_err(failed)?;
    signals::leave_to_others();
    Ok(())
}

fn receive(signal: i32) {
    let _ = SIGNAL.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
    if signal == SIGTERM
        && let Some(step) = *STEP.lock().expect("no holder panics")
    {
        let _ = kill_process(step, Signal::TERM);
    }
}

/// Returns the first signal that was received.
pub fn signal() -> Option<i32> {
    Some(SIGNAL.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
}

/// Passes SIGTERM to this process until the result is dropped.
pub fn pass_to(child: &Child) -> Passing {
    let pid = Pid::from_child(child);
    *STEP.lock().expect("no holder panics") = Some(pid);
    if signal() == Some(SIGTERM) {
        let _ = kill_process(pid, Signal::TERM);
    }
    Passing(())
}

impl Drop for Passing {
    fn drop(&mut self) {
        *STEP.lock().expect("no holder panics") = None;
    }
}
