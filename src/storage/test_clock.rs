//! Lets a test run days in seconds. In debug builds, `NFREEZER_TEST_CLOCK` makes the clocks of this machine and of a
//! local storage fast by this number of seconds. Release builds ignore it.

use std::fs::File;
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

/// Returns by how much the clocks are fast.
pub fn advance() -> Duration {
    static ADVANCE: OnceLock<Duration> = OnceLock::new();
    *ADVANCE.get_or_init(|| {
        let given = if cfg!(debug_assertions) { std::env::var("NFREEZER_TEST_CLOCK").ok() } else { None };
        Duration::from_secs(given.and_then(|seconds| seconds.parse().ok()).unwrap_or_default())
    })
}

/// Dates a new file by the fast clock.
pub fn date(file: &File) -> io::Result<()> {
    let advance = advance();
    if advance.is_zero() { Ok(()) } else { file.set_modified(SystemTime::now() + advance) }
}
