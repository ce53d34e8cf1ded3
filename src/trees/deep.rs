//! A thread with a large stack, for walks that recurse into directories.

use crate::error::{Error, Result};

/// Bytes of the stack. The system provides memory only for the part that is used.
const STACK: usize = 256 << 20;

/// Runs a recursion over nested directories with up to 9 levels of pages each, on a thread with a large stack.
pub fn deep<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(Error::no_thread)?;
        thread.join().unwrap_or_else(|_| Err(Error::failed("the walk over the trees has failed")))
    })
}
