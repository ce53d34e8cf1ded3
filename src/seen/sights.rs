//! When this machine saw an entry of a log first: ids of snapshots or records, with the time by this machine's clock.
//!
//! Dates inside records are written by their writers, and one of them may be a thief. The time at which an id appeared in
//! the log cannot be forged: it lies between the last look without it and the first look with it. Each kind of ids of each
//! copy of a repository has one text file beside the file of seen heads. Ids that a look does not show are dropped.

use std::collections::{BTreeMap, BTreeSet};

use super::file::sum;
use super::{SeenStore, copy_name, decoded, or_set_aside};
use crate::error::{Error, Result};
use crate::name::hex;

const MAGIC: &str = "nfreezer sights 1";
/// Most ids that are kept; the ones that were seen first stay. An id takes 68 bytes.
const KEPT: usize = 100_000;
/// Largest file that is read.
const LARGEST: u64 = 16 << 20;

/// An id of a log: of a record, or of a snapshot (padded with zeros).
pub type SightId = [u8; 32];

/// The looks between which an id appeared, in seconds since the epoch by this machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sight {
    /// The first look that showed the id.
    pub first: i64,
    /// The last look before that; `None` if there was none.
    pub previous: Option<i64>,
}

impl Sight {
    /// Returns a time that a writer claims, moved into the span in which the id appeared. Without an earlier look only
    /// the future is cut off.
    pub fn bound(&self, claimed: i64) -> i64 {
        claimed.max(self.previous.unwrap_or(i64::MIN)).min(self.first)
    }
}

/// The ids of one kind that the last look at a copy of a repository showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sights {
    /// The last look and the one before it.
    looks: (Option<i64>, Option<i64>),
    rows: BTreeMap<SightId, Sight>,
}

impl Sights {
    /// Takes a look: adds the ids that are new and drops those that are gone.
    pub fn look(&mut self, present: impl IntoIterator<Item = SightId>, now: i64) {
        let present: BTreeSet<SightId> = present.into_iter().collect();
        self.rows.retain(|id, _| present.contains(id));
        self.looks = (Some(now), self.looks.0);
        let new = Sight { first: now, previous: self.looks.1 };
        for id in present {
            if self.rows.len() >= KEPT {
                break;
            }
            self.rows.entry(id).or_insert(new);
        }
    }

    /// Returns when an id was seen first. An id that is not kept counts as new in the last look.
    pub fn first_seen(&self, id: &SightId) -> Sight {
        let unknown = Sight { first: self.looks.0.unwrap_or(i64::MAX), previous: self.looks.1 };
        self.rows.get(id).copied().unwrap_or(unknown)
    }

    /// Returns whether the last look showed an id.
    pub fn has(&self, id: &SightId) -> bool {
        self.rows.contains_key(id)
    }

    /// Returns the time of the last look.
    pub fn last_look(&self) -> Option<i64> {
        self.looks.0
    }

    /// Returns the time of the look before the last one.
    pub fn previous_look(&self) -> Option<i64> {
        self.looks.1
    }

    fn encode(&self, copy: &str) -> Vec<u8> {
        let number = |time: Option<i64>| time.map_or("-".to_owned(), |time| time.to_string());
        let mut text = format!("{MAGIC}\ncopy {copy}\nlooks {} {}\n", number(self.looks.0), number(self.looks.1));
        let mut groups: BTreeMap<Sight, Vec<&SightId>> = BTreeMap::new();
        self.rows.iter().for_each(|(id, sight)| groups.entry(*sight).or_default().push(id));
        for (sight, ids) in groups {
            text += &format!("first {} {}\n", sight.first, number(sight.previous));
            ids.iter().for_each(|id| text += &format!("id {}\n", hex(*id)));
        }
        text += &format!("sum {}\n", sum(&text));
        text.into_bytes()
    }

    /// Decodes the output of [`Sights::encode`]; `None` for any other text.
    fn decode(bytes: &[u8], copy: &str) -> Option<Self> {
        let number = |word: &str| if word == "-" { Some(None) } else { word.parse().ok().map(Some) };
        let (mut sights, mut sight) = (Sights::default(), None);
        for line in std::str::from_utf8(bytes).ok()?.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["nfreezer" | "copy" | "sum", ..] => {}
                ["looks", last, before] => sights.looks = (number(last)?, number(before)?),
                ["first", first, previous] => {
                    sight = Some(Sight { first: first.parse().ok()?, previous: number(previous)? });
                }
                ["id", id] => drop(sights.rows.insert(crate::name::ObjectId::parse(id)?.0, sight?)),
                _ => return None,
            }
        }
        (sights.encode(copy) == bytes).then_some(sights)
    }
}

impl SeenStore {
    /// Returns the sights of one kind of ids (a word for the file name) in one copy of a repository.
    pub fn sights(&self, repository: &[u8; 32], address: &str, kind: &str) -> Result<Sights> {
        let copy = copy_name(repository, address);
        let path = self.folder.join(format!("{copy}.{kind}"));
        decoded(&path, LARGEST, |bytes| Sights::decode(bytes, &copy)).map(Option::unwrap_or_default)
    }

    /// Takes a look and stores it, on top of the looks of other processes. A damaged file is renamed, and this look counts
    /// as the first one.
    pub fn look(
        &self,
        repository: &[u8; 32],
        address: &str,
        kind: &str,
        present: impl IntoIterator<Item = SightId>,
        now: i64,
    ) -> Result<Sights> {
        let copy = copy_name(repository, address);
        let path = self.folder.join(format!("{copy}.{kind}"));
        let failed = |e| Error::io(format!("remember in {} when snapshots appeared", path.display()), e);
        let _lock = self.lock().map_err(failed)?;
        let found = self.sights(repository, address, kind);
        let mut sights = or_set_aside(found, &path, &format!("{kind}-damaged"), failed)?;
        sights.look(present, now);
        super::replace(&path, &sights.encode(&copy)).map_err(failed)?;
        Ok(sights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const A: SightId = [1; 32];
    const B: SightId = [2; 32];

    #[test]
    fn an_id_appears_between_two_looks_and_its_claimed_time_is_moved_there() {
        let mut sights = Sights::default();
        sights.look([A], 1000);
        assert_eq!(sights.first_seen(&A), Sight { first: 1000, previous: None });
        assert_eq!(sights.first_seen(&A).bound(5), 5, "on the first look the own time counts");
        assert_eq!(sights.first_seen(&A).bound(2000), 1000, "a time in the future counts as now");
        sights.look([A, B], 2000);
        assert_eq!(sights.first_seen(&A).first, 1000);
        let sight = sights.first_seen(&B);
        assert_eq!(sight, Sight { first: 2000, previous: Some(1000) });
        assert_eq!([5, 1500, 9000].map(|claimed| sight.bound(claimed)), [1000, 1500, 2000]);
        sights.look([B], 3000);
        sights.look([A, B], 4000);
        assert_eq!(sights.first_seen(&A), Sight { first: 4000, previous: Some(3000) }, "A was gone and is new again");
        assert_eq!(sights.first_seen(&[9; 32]), Sight { first: 4000, previous: Some(3000) }, "never shown");
    }

    #[test]
    fn a_clock_that_goes_back_breaks_nothing() {
        let mut sights = Sights::default();
        sights.look([A], 5000);
        sights.look([A, B], 3000);
        assert_eq!(sights.first_seen(&B).bound(4000), 3000);
    }

    #[test]
    fn looks_are_stored_for_each_copy_and_kind_and_survive_a_damaged_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = SeenStore::at(dir.path());
        let look = |address: &str, kind: &str, ids: &[SightId], now| {
            store.look(&[7; 32], address, kind, ids.iter().copied(), now).unwrap()
        };
        look("host:/a", "snapshots", &[A], 10);
        let sights = look("host:/a", "snapshots", &[A, B], 20);
        assert_eq!(sights, store.sights(&[7; 32], "host:/a", "snapshots").unwrap());
        assert_eq!(sights.first_seen(&B), Sight { first: 20, previous: Some(10) });
        assert_eq!(look("host:/b", "snapshots", &[B], 30).first_seen(&B).previous, None, "another copy");
        assert_eq!(look("host:/a", "records", &[B], 30).first_seen(&B).previous, None, "another kind");
        let path = dir.path().join(format!("{}.snapshots", copy_name(&[7; 32], "host:/a")));
        std::fs::write(&path, "nfreezer sights 1\n").unwrap();
        assert_eq!(store.sights(&[7; 32], "host:/a", "snapshots").unwrap_err().kind(), Kind::Damaged);
        assert_eq!(look("host:/a", "snapshots", &[A], 40).first_seen(&A).previous, None);
        assert_eq!(store.at_address("host:/a"), None, "the file of seen heads is another one");
    }

    #[test]
    fn only_what_was_written_is_read_back_and_the_oldest_ids_stay() {
        let mut sights = Sights::default();
        sights.look([A], 10);
        sights.look([A, B], 20);
        let bytes = sights.encode("copy");
        assert_eq!(Sights::decode(&bytes, "copy"), Some(sights.clone()));
        assert_eq!(Sights::decode(&bytes, "other"), None);
        (0..bytes.len()).for_each(|len| assert_eq!(Sights::decode(&bytes[..len], "copy"), None, "{len}"));
        let flood = (0..KEPT as u64 + 10).map(|i| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&i.to_be_bytes());
            id
        });
        sights.look([A, B].into_iter().chain(flood), 30);
        assert_eq!(sights.rows.len(), KEPT);
        assert_eq!(sights.first_seen(&A).first, 10);
        assert!((sights.encode("copy").len() as u64) < LARGEST);
    }
}
