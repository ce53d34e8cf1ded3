//! Signals. The first SIGINT, SIGTERM or SIGHUP asks the running operation to stop; the second one ends the process.
//!
//! The kernel delivers a signal to the first thread of the process. If that thread waited for a file system that does not
//! answer, no handler would run. So commands run in a thread of their own ([`run`]), and the first thread only waits.

use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::progress::Silent;
use crate::push;

/// Time in which an operation must have noticed that it was asked to stop, and in which most of them must have ended.
const NOTICE: Duration = Duration::from_millis(1800);
/// Time in which an operation must have ended that commits its work first.
const COMMIT: Duration = Duration::from_secs(60);
/// Further time for an operation that sends what it has read.
const REST: Duration = push::REST;

/// Bytes of the stack of a command: as much as the first thread usually has.
const STACK: usize = 8 << 20;

/// The number of the first signal since [`catch`]; 0 until then.
static SIGNAL: LazyLock<Arc<AtomicI32>> = LazyLock::new(Arc::default);
/// The effect of a signal: one of the constants below.
static EFFECT: AtomicU8 = AtomicU8::new(END_AT_ONCE);

const END_AT_ONCE: u8 = 0;
/// The first signal stops the operation, which ends soon.
const STOP: u8 = 1;
/// The first signal stops the operation, which may still commit its work.
const STOP_AND_COMMIT: u8 = 2;
/// Another thread receives signals too and decides.
const LEFT_TO_OTHERS: u8 = 3;

/// Returns the context of the command that this process runs.
pub fn context() -> &'static Context<'static> {
    static CONTEXT: LazyLock<Context<'static>> = LazyLock::new(|| Context::new(&Silent, Arc::clone(&SIGNAL)));
    &CONTEXT
}

/// Runs a command in a thread of its own. Until it calls [`catch`], a signal ends the process.
///
/// # Errors
///
/// Fails if the system has no thread left.
pub fn run<T: Send + 'static>(command: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    // Without a handler, a file that becomes too large would end the process, instead of being an error.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(|e| Error::io("wait for signals", e))?;
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|e| Error::io("wait for signals", e))?;
    let receive = move || signals.forever().for_each(receive);
    thread::Builder::new().name("signals".into()).spawn(receive).map_err(Error::no_thread)?;
    let command =
        thread::Builder::new().name("command".into()).stack_size(STACK).spawn(command).map_err(Error::no_thread)?;
    command.join().map_err(|_| Error::failed("the command ended by a panic"))
}

fn receive(signal: i32) {
    let effect = EFFECT.load(Ordering::SeqCst);
    if effect == LEFT_TO_OTHERS {
        return;
    }
    let is_first = SIGNAL.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_ok();
    let started =
        is_first && effect != END_AT_ONCE && thread::Builder::new().spawn(move || limit(signal, effect)).is_ok();
    if !started {
        signal_hook::low_level::exit(128 + signal);
    }
}

/// Ends the process if the operation does not end by itself: its threads may hang.
fn limit(signal: i32, effect: u8) {
    thread::sleep(NOTICE);
    if effect == STOP_AND_COMMIT && context().has_noticed_stop() {
        thread::sleep(COMMIT);
        if context().sends_rest() {
            thread::sleep(REST);
        }
    }
    signal_hook::low_level::exit(128 + signal);
}

/// Returns [`context`], which from now on the first signal stops. The process ends within two seconds.
pub fn catch() -> &'static Context<'static> {
    EFFECT.store(STOP, Ordering::SeqCst);
    context()
}

/// Returns [`context`], which from now on the first signal stops. The process then has time to commit its work.
pub fn catch_and_commit() -> &'static Context<'static> {
    EFFECT.store(STOP_AND_COMMIT, Ordering::SeqCst);
    context()
}

/// Leaves all signals to another thread, which must have registered for them.
pub fn leave_to_others() {
    EFFECT.store(LEFT_TO_OTHERS, Ordering::SeqCst);
}
