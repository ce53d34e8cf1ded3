//! Properties of every case: no panic on any thread, an end within minutes, bounded memory, no secret in any message.
//! All reads use [`crate::world::look`], which checks that no wrong byte is returned and that no file is written
//! outside of a target.

use std::any::Any;
use std::panic;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Condvar, Mutex, Once};
use std::thread;
use std::time::Duration;

/// Secrets that no message may contain, beside the keys of the world.
pub const PASSPHRASE: &str = "a passphrase that nobody must see";
/// Part of the contents of files, which no message may contain.
pub const CONTENTS: &str = "what only the owner may read";

/// Longest permitted duration of a case. Each takes seconds; the bound is for a case that never ends, on any machine.
const LONGEST: Duration = Duration::from_secs(300);
/// Most memory of this process in KiB, with two cases at once and one key derivation of 64 MiB.
const MEMORY_KIB: u64 = 512 << 10;
/// Cases that run at once. The memory bound is for the whole process.
const AT_ONCE: usize = 2;

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// Runs a case under the oracle.
pub fn case(work: impl FnOnce()) {
    watch_panics();
    let _pass = Pass::enter();
    let (ended, end) = mpsc::channel::<()>();
    let name = thread::current().name().unwrap_or("a case").to_owned();
    let watch = thread::Builder::new().name("test::watch".into()).spawn(move || {
        if end.recv_timeout(LONGEST) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        eprintln!("{name} takes longer than {LONGEST:?}");
        std::process::abort();
    });
    work();
    drop(ended);
    watch.unwrap().join().unwrap();
    let panics = PANICS.lock().unwrap();
    assert!(panics.is_empty(), "a thread of the library panicked: {panics:?}");
    let peak = peak_kib();
    assert!(peak < MEMORY_KIB, "{peak} KiB of memory were used");
}

/// Checks a text that the library would show to the user.
pub fn said(text: &str) {
    for secret in [PASSPHRASE, CONTENTS].into_iter().chain(crate::world::secrets()) {
        assert!(!text.contains(secret), "a message holds a secret: {text}");
    }
}

struct Pass;

impl Pass {
    fn enter() -> Pass {
        let (count, freed) = &RUNNING;
        let mut count = freed.wait_while(count.lock().unwrap(), |count| *count >= AT_ONCE).unwrap();
        *count += 1;
        Pass
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let (count, freed) = &RUNNING;
        *count.lock().unwrap_or_else(|e| e.into_inner()) -= 1;
        freed.notify_all();
    }
}

/// Records panics of library threads. Test threads have a module in their name.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let thread = thread::current();
            if !thread.name().is_some_and(|name| name.contains("::") || name == "main") {
                let payload: &dyn Any = info.payload();
                let text =
                    payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
                PANICS.lock().unwrap().push(format!("{text:?} at {:?}", info.location()));
            }
            before(info);
        }));
    });
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}
