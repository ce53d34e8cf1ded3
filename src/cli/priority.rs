//! `--low-priority`: this thread, and all threads and processes that it starts, use the processor and the disk only if
//! nothing else does. Best effort.

use std::process::{Command, Stdio};

/// Lowers the priority as far as possible.
pub fn lower() {
    let _ = rustix::process::nice(19);
    // There is no safe call for the priority of I/O. `ionice` is a part of util-linux, which every distribution has.
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let mut ionice = Command::new("ionice");
    ionice.args(["-c", "3", "-p", &thread]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _ = ionice.status();
}
