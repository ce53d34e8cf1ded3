//! Open files: how many of them a part of the program may hold, and what to do when the system has none left.

use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use crate::error::exhausts;

/// Attempts before the lack of descriptors or memory is final.
const ATTEMPTS: u32 = 40;
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// Returns a share of the descriptors that this process may open: the limit divided by `parts`, from `least` to `most`.
pub fn share(parts: u64, least: usize, most: usize) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit / parts).unwrap_or(most).clamp(least, most)
}

/// Makes a call. While the system lacks descriptors or memory, waits and repeats it, for two seconds at most.
pub fn patiently<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    for _ in 1..ATTEMPTS {
        match call() {
            Err(errno) if exhausts(errno) => thread::sleep(PAUSE),
            other => return other,
        }
    }
    call()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_stays_within_its_bounds() {
        assert_eq!(share(u64::MAX, 3, 9), 3);
        assert_eq!(share(1, 1, 2), 2);
    }

    #[test]
    fn a_lack_that_passes_is_waited_for() {
        let mut calls = 0;
        let result = patiently(|| {
            calls += 1;
            if calls < 3 { Err(Errno::MFILE) } else { Ok(calls) }
        });
        assert_eq!(result, Ok(3));
        let mut calls = 0;
        let failed: Result<(), Errno> = patiently(|| {
            calls += 1;
            Err(Errno::IO)
        });
        assert_eq!((failed, calls), (Err(Errno::IO), 1));
    }
}
