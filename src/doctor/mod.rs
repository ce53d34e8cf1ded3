//! Tests a storage as a place for a repository: abilities, speed, protection, clock and space.
//!
//! In: a storage and limits. Out: findings with advice. Objects that are written have random names of packs, are removed
//! afterwards, and are named where the server refuses that. Nothing else is changed. No passphrase is needed.
//!
//! | file | purpose |
//! |---|---|
//! | `own` | the objects of this run, and their removal |
//! | `protection` | which changes of an own object the server allows |
//! | `speed` | latency and throughput |

mod own;
mod protection;
mod speed;

use std::time::SystemTime;

use crate::context::Context;
use crate::error::{Kind, Result};
use crate::name::Name;
use crate::repo::Repository;
use crate::storage::{Extensions, Storage};
use crate::time::Time;
use own::Own;

/// Free space below which the server is nearly full, in bytes, and as a part of all.
const LITTLE_SPACE: (u64, u64) = (1 << 30, 20);
/// The contents of the object that is written first.
const BYTES: [u8; 4096] = [7; 4096];
/// A difference of clocks that matters, in seconds.
const CLOCK: u64 = 60;

/// The level of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, with a risk or slowly.
    Warning,
    /// It does not work, or the protection has a hole.
    Failure,
}

/// The result of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// One word: the test.
    pub test: &'static str,
    /// Its level.
    pub level: Level,
    /// The result, for people.
    pub text: String,
    /// Advice for the user.
    pub advice: Option<String>,
    /// Measured values, with their units in the names.
    pub values: Vec<(&'static str, i64)>,
}

impl Finding {
    /// Returns a finding that is as it should be.
    pub fn ok(test: &'static str, text: impl Into<String>) -> Self {
        Finding { test, level: Level::Ok, text: text.into(), advice: None, values: Vec::new() }
    }

    /// Returns a finding that works with a risk.
    pub fn warning(test: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Finding { level: Level::Warning, advice: Some(advice.into()), ..Finding::ok(test, text) }
    }

    /// Returns a finding that does not work.
    pub fn failure(test: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Finding { level: Level::Failure, ..Finding::warning(test, text, advice) }
    }

    /// Adds measured values.
    #[must_use]
    pub fn with(mut self, values: impl IntoIterator<Item = (&'static str, i64)>) -> Self {
        self.values.extend(values);
        self
    }
}

/// Runs all tests and passes each finding to `show`. `writes`: also those that write. Returns the objects that could not be
/// removed, with their sizes.
pub fn examine(
    ctx: &Context,
    storage: &dyn Storage,
    writes: bool,
    show: &mut dyn FnMut(Finding),
) -> Result<Vec<(Name, u64)>> {
    let is_there = repository(ctx, storage, show)?;
    if let Some(extensions) = storage.extensions(ctx)? {
        show(announced(extensions));
    }
    if is_there {
        show(speed::latency(ctx, storage)?);
        show(space(ctx, storage)?);
    }
    if !is_there || !writes {
        return Ok(Vec::new());
    }
    let own = Own::new(storage);
    let result = written(ctx, storage, &own, show);
    let left = own.remove_all();
    result.map(|()| left)
}

/// Runs the tests that write.
fn written(ctx: &Context, storage: &dyn Storage, own: &Own<'_>, show: &mut dyn FnMut(Finding)) -> Result<()> {
    let before = unix_time();
    let (name, put) = own.put_timed(ctx, &BYTES)?;
    let after = unix_time();
    let time = i64::try_from(put.as_micros()).unwrap_or(i64::MAX);
    let text = format!("an object is written in {:.1} ms", put.as_secs_f64() * 1000.0);
    let synced = if storage.capabilities().durable_put {
        Finding::ok("sync", format!("{text}, and is on the disk then"))
    } else {
        let advice = "after a power failure of the server run `nfreezer check`: the newest objects may be lost";
        Finding::warning("sync", format!("{text}, but the server cannot sync it to the disk"), advice)
    };
    show(synced.with([("put_microseconds", time)]));
    show(create(ctx, storage, &name)?);
    show(clock(ctx, storage, &name, before, after)?);
    let allowed = protection::allowed(ctx, storage, own, &name)?;
    show(protection::judge(allowed, storage.extensions(ctx)?.is_some()));
    for finding in speed::throughput(ctx, storage, own, !allowed.delete)? {
        show(finding);
    }
    Ok(())
}

/// Writes an object a second time, with the same bytes.
fn create(ctx: &Context, storage: &dyn Storage, name: &Name) -> Result<Finding> {
    let is_refused = match storage.put(ctx, name, &BYTES) {
        Ok(()) => false,
        // An SFTP server refuses by itself. Of other storages it is not certain who did.
        Err(e) if e.kind() == Kind::Exists => {
            storage.capabilities().exclusive_create || storage.extensions(ctx)?.is_some()
        }
        Err(e) => return Err(e),
    };
    if is_refused {
        return Ok(Finding::ok("create", "the server does not create an object that exists"));
    }
    let advice = "do not run `init` at the same place on two machines at once; nothing else depends on it";
    Ok(Finding::warning("create", "the server replaces an object when it is created again", advice))
}

fn repository(ctx: &Context, storage: &dyn Storage, show: &mut dyn FnMut(Finding)) -> Result<bool> {
    let is_there = Repository::exists(ctx, storage)?;
    show(if is_there {
        Finding::ok("repository", "it exists")
    } else {
        let advice = "`nfreezer init` makes a repository; then run this again";
        Finding::failure("repository", "there is none at this address", advice)
    });
    Ok(is_there)
}

fn announced(extensions: Extensions) -> Finding {
    let Extensions { fsync, statvfs, limits, posix_rename, hardlink } = extensions;
    let all = [
        ("fsync", fsync),
        ("statvfs", statvfs),
        ("limits", limits),
        ("posix-rename", posix_rename),
        ("hardlink", hardlink),
    ];
    let list = |wanted: bool| {
        let names: Vec<&str> = all.iter().filter(|(_, has)| *has == wanted).map(|(name, _)| *name).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let finding = match (fsync, limits) {
        (true, true) => Finding::ok("extensions", list(true)),
        _ => Finding::warning(
            "extensions",
            format!("{}; absent: {}", list(true), list(false)),
            "fsync makes objects safe against power failures, limits allows larger requests: OpenSSH has both",
        ),
    };
    finding.with(all.map(|(name, has)| (name, i64::from(has))))
}

fn space(ctx: &Context, storage: &dyn Storage) -> Result<Finding> {
    let Some(space) = storage.space(ctx)? else {
        return Ok(Finding::ok("space", "unknown: the server does not report it"));
    };
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let text = format!("{:.1} GiB of {:.1} GiB are free", gib(space.free), gib(space.total));
    let finding = if space.free < LITTLE_SPACE.0 || space.free < space.total / LITTLE_SPACE.1 {
        Finding::warning("space", text, "`nfreezer forget` with a policy and `nfreezer prune` free space")
    } else {
        Finding::ok("space", text)
    };
    let bytes = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Ok(finding.with([("free_bytes", bytes(space.free)), ("total_bytes", bytes(space.total))]))
}

/// Compares the server's time of an object with the time of this machine when it was written.
fn clock(ctx: &Context, storage: &dyn Storage, name: &Name, before: i64, after: i64) -> Result<Finding> {
    let listed = storage.list(ctx, name.folder())?;
    let Some(entry) = listed.iter().find(|entry| entry.name == *name) else {
        let advice = "a listing must show an object once it is written: use another server";
        return Ok(Finding::failure("clock", "the listing does not show a new object", advice));
    };
    // The server's time has whole seconds.
    let ahead = if entry.mtime < before {
        entry.mtime - before
    } else if entry.mtime > after {
        entry.mtime - after
    } else {
        0
    };
    let finding = match ahead {
        0 => Finding::ok("clock", "the server's clock agrees with this machine's"),
        _ => {
            let (seconds, way) = (ahead.unsigned_abs(), if ahead > 0 { "ahead" } else { "behind" });
            let text = format!("the server's clock is {seconds} s {way} of this machine's");
            if seconds > CLOCK {
                Finding::warning("clock", text, "set both clocks by NTP: `timedatectl` shows whether that is on")
            } else {
                Finding::ok("clock", text)
            }
        }
    };
    Ok(finding.with([("server_ahead_seconds", ahead)]))
}

fn unix_time() -> i64 {
    Time::from(SystemTime::now()).seconds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::background;
    use crate::name::Folder;
    use crate::storage::{Local, Memory};

    fn examined(storage: &dyn Storage, writes: bool) -> (Vec<Finding>, Vec<(Name, u64)>) {
        let mut findings = Vec::new();
        let left = examine(background(), storage, writes, &mut |finding| findings.push(finding)).unwrap();
        (findings, left)
    }

    fn level(findings: &[Finding], test: &str) -> Option<Level> {
        findings.iter().find(|finding| finding.test == test).map(|finding| finding.level)
    }

    #[test]
    fn a_folder_allows_all_changes_and_nothing_stays_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Local::new(dir.path());
        let (findings, _) = examined(&storage, true);
        assert_eq!(level(&findings, "repository"), Some(Level::Failure));
        assert_eq!(findings.len(), 1, "nothing is tested where no repository is: {findings:?}");
        storage.create_folders(background()).unwrap();
        storage.put(background(), &Name::Config, b"x").unwrap();
        let (findings, left) = examined(&storage, true);
        for test in ["repository", "sync", "clock", "latency", "upload", "download"] {
            assert_eq!(level(&findings, test), Some(Level::Ok), "{test}: {findings:?}");
        }
        assert_eq!(level(&findings, "protection"), Some(Level::Warning), "{findings:?}");
        assert_eq!(left, []);
        for folder in Folder::all() {
            assert_eq!(storage.list(background(), folder).unwrap(), [], "{folder:?}");
            assert_eq!(storage.foreign(background(), folder).unwrap(), 0, "{folder:?}");
        }
        assert_eq!(storage.read(background(), &Name::Config, 0, 1).unwrap(), b"x");
        let before = storage.traffic();
        examined(&storage, false);
        assert_eq!(storage.traffic().0, before.0, "nothing is written");
    }

    #[test]
    fn memory_refuses_attacks_but_allows_removal() {
        let storage = Memory::default();
        storage.put(background(), &Name::Config, b"x").unwrap();
        let (findings, left) = examined(&storage, true);
        let protection = findings.iter().find(|finding| finding.test == "protection").unwrap();
        assert_eq!((protection.level, left), (Level::Warning, Vec::new()), "{protection:?}");
        assert!(protection.text.contains("deleted") && !protection.text.contains("overwritten"), "{protection:?}");
    }
}
