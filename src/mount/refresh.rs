//! New snapshots: the log is read again from time to time, for as long as somebody looks.

use std::time::Duration;

use crate::repo::State;
use crate::vfs::{Invalidation, Vfs};

/// Reads the log every so often and hands what the kernel must drop to `invalidate`, until [`crate::vfs::Watch::stop`].
pub fn poll(vfs: &Vfs, mut state: State, every: Duration, report: impl Fn(String), invalidate: impl Fn(&Invalidation)) {
    while vfs.watch().sleep(every) {
        match vfs.repository().refresh(&mut state) {
            Ok(true) => vfs.refresh(state.clone()).iter().for_each(&invalidate),
            Ok(false) => {}
            Err(e) => report(format!("cannot look for new snapshots: {e}")),
        }
        vfs.watch().done();
    }
}
