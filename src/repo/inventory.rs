//! Questions of `prune`: the condemned objects, each with its time, and the superseded records.

use std::collections::{BTreeMap, BTreeSet};

use super::state::State;
use crate::name::ObjectId;
use crate::storage::Entry;

/// Seconds between the time of a condemnation and the time of the record that made it. A record that copies an older
/// condemnation has a larger difference.
const OWN: u64 = 3600;

/// The condemnation of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condemnation {
    /// Its time by the clock of the writer; the earliest one of several.
    pub since: i64,
    /// Live records that made it (and did not only copy it).
    pub records: Vec<ObjectId>,
}

impl State {
    /// Returns all condemned objects.
    pub fn condemnations(&self) -> BTreeMap<ObjectId, Condemnation> {
        let mut all: BTreeMap<ObjectId, Condemnation> = BTreeMap::new();
        for (record, known) in self.live() {
            let head = &known.record.head;
            for (id, since) in &head.condemned {
                let new = Condemnation { since: *since, records: Vec::new() };
                let condemnation = all.entry(*id).or_insert(new);
                condemnation.since = condemnation.since.min(*since);
                if head.time.abs_diff(*since) <= OWN {
                    condemnation.records.push(*record);
                }
            }
        }
        all
    }

    /// Returns the records of the last listing of the log.
    pub fn listing(&self) -> &BTreeMap<ObjectId, Entry> {
        &self.listing
    }

    /// Returns the records that were read.
    pub fn known_records(&self) -> BTreeSet<ObjectId> {
        self.known.keys().copied().collect()
    }

    /// Returns the listed records that live records supersede and whose sections no live record names.
    pub fn superseded_records(&self) -> BTreeSet<ObjectId> {
        let (superseded, holders) = (self.superseded(), self.holders());
        let listed = self.listed.iter().filter(|id| superseded.contains(id) && !holders.contains(id));
        listed.copied().collect()
    }
}
