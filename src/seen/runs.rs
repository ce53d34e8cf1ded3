//! When this machine last completed a push, check or prune of a repository, for `status` and for runs that are due.
//!
//! Each copy of a repository has one small text file beside the file of seen heads. Losing it is harmless: the runs count as
//! never done.

use std::collections::BTreeMap;

use super::file::sum;
use super::{SeenStore, copy_name, decoded, or_set_aside, replace};
use crate::error::{Error, Result};

const MAGIC: &str = "nfreezer runs 1";
/// Largest file that is read.
const LARGEST: u64 = 4 << 10;

/// A kind of run whose last success is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Run {
    /// A push that saved a snapshot, or found nothing to save.
    Push,
    /// A check of the whole repository without damage.
    Check,
    /// A check that also read all packs. It counts as [`Run::Check`] too.
    CheckData,
    /// A prune without a doubt.
    Prune,
}

impl Run {
    /// All kinds.
    pub const ALL: [Run; 4] = [Run::Push, Run::Check, Run::CheckData, Run::Prune];

    /// Returns the word in the file.
    fn word(self) -> &'static str {
        match self {
            Run::Push => "push",
            Run::Check => "check",
            Run::CheckData => "check-data",
            Run::Prune => "prune",
        }
    }
}

/// When each kind of run succeeded last, in seconds since the epoch by this machine's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    times: BTreeMap<Run, i64>,
}

impl Runs {
    /// Returns when a run of this kind succeeded last; `None` if none is remembered.
    pub fn last(&self, run: Run) -> Option<i64> {
        self.times.get(&run).copied()
    }

    fn encode(&self, copy: &str) -> Vec<u8> {
        let mut text = format!("{MAGIC}\ncopy {copy}\n");
        self.times.iter().for_each(|(run, time)| text += &format!("{} {time}\n", run.word()));
        text += &format!("sum {}\n", sum(&text));
        text.into_bytes()
    }

    /// Decodes the output of [`Runs::encode`]; `None` for any other text.
    fn decode(bytes: &[u8], copy: &str) -> Option<Self> {
        let mut runs = Runs::default();
        for line in std::str::from_utf8(bytes).ok()?.lines() {
            let (word, rest) = line.split_once(' ')?;
            if let Some(run) = Run::ALL.into_iter().find(|run| run.word() == word) {
                runs.times.insert(run, rest.parse().ok()?);
            }
        }
        (runs.encode(copy) == bytes).then_some(runs)
    }
}

impl SeenStore {
    /// Returns the last runs on a copy of a repository. Without a file, all count as never done. Fails with
    /// [`crate::error::Kind::Damaged`] if the file was not written by this program.
    pub fn runs(&self, repository: &[u8; 32], address: &str) -> Result<Runs> {
        let copy = copy_name(repository, address);
        let path = self.folder.join(format!("{copy}.runs"));
        decoded(&path, LARGEST, |bytes| Runs::decode(bytes, &copy)).map(Option::unwrap_or_default)
    }

    /// Stores that a run on a copy of a repository succeeded at this time. A damaged file is renamed.
    pub fn ran(&self, repository: &[u8; 32], address: &str, run: Run, now: i64) -> Result<()> {
        let copy = copy_name(repository, address);
        let path = self.folder.join(format!("{copy}.runs"));
        let failed = |e| Error::io(format!("remember in {} when the last run was", path.display()), e);
        let _lock = self.lock().map_err(failed)?;
        let mut runs = or_set_aside(self.runs(repository, address), &path, "runs-damaged", failed)?;
        runs.times.insert(run, now);
        if run == Run::CheckData {
            runs.times.insert(Run::Check, now);
        }
        replace(&path, &runs.encode(&copy)).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const ID: [u8; 32] = [7; 32];

    #[test]
    fn runs_are_stored_for_each_copy_and_survive_a_damaged_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = SeenStore::at(dir.path().join("new"));
        assert_eq!(store.runs(&ID, "host:/a").unwrap(), Runs::default());
        store.ran(&ID, "host:/a", Run::Push, 10).unwrap();
        store.ran(&ID, "host:/a", Run::CheckData, 20).unwrap();
        store.ran(&ID, "host:/a", Run::Push, 30).unwrap();
        let runs = store.runs(&ID, "host:/a").unwrap();
        assert_eq!(Run::ALL.map(|run| runs.last(run)), [Some(30), Some(20), Some(20), None]);
        assert_eq!(store.runs(&ID, "host:/b").unwrap(), Runs::default(), "another copy");
        assert_eq!(store.runs(&[8; 32], "host:/a").unwrap(), Runs::default(), "another repository");
        let path = dir.path().join("new").join(format!("{}.runs", copy_name(&ID, "host:/a")));
        std::fs::write(&path, "nfreezer runs 1\npush 5\n").unwrap();
        assert_eq!(store.runs(&ID, "host:/a").unwrap_err().kind(), Kind::Damaged);
        store.ran(&ID, "host:/a", Run::Prune, 40).unwrap();
        let runs = store.runs(&ID, "host:/a").unwrap();
        assert_eq!(Run::ALL.map(|run| runs.last(run)), [None, None, None, Some(40)]);
        assert!(path.with_extension("runs-damaged").exists());
    }

    #[test]
    fn only_what_was_written_is_read_back() {
        let runs = Runs { times: BTreeMap::from([(Run::Push, -1), (Run::CheckData, i64::MAX)]) };
        let bytes = runs.encode("copy");
        assert_eq!(Runs::decode(&bytes, "copy"), Some(runs));
        assert_eq!(Runs::decode(&bytes, "other"), None);
        (0..bytes.len()).for_each(|len| assert_eq!(Runs::decode(&bytes[..len], "copy"), None, "{len}"));
    }
}
