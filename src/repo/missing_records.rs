//! Records that a state should have: missing and incomplete ones, and those that were seen before.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::state::State;
use crate::crypto::seal;
use crate::format::ancestry::prefix;
use crate::name::ObjectId;
use crate::seen::SeenHead;

/// Least amount of data that a file system stores, in bytes.
const SECTOR: u64 = 512;
/// Records that a warning names.
const NAMED: usize = 3;
/// Records that verbose output names.
const DETAILS: usize = 1000;
/// The hint of a warning about incomplete records.
const EXPLAINS: &str = "`nfreezer check` reports whether a snapshot is lost";

impl State {
    /// Returns warnings for the user: the notes of the rollback checks, incomplete records, missing records. Anyone who can
    /// write to `log/` can make many incomplete records, so they are summed up.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.notes.clone();
        let incomplete: Vec<_> = self.incomplete_records().collect();
        match incomplete.as_slice() {
            [] => {}
            [(id, why)] => warnings.push(format!("incomplete record {} is ignored: {why}; {EXPLAINS}", short(id))),
            all => {
                let named = all.iter().take(NAMED).map(|(id, _)| short(id)).collect::<Vec<_>>().join(", ");
                let more = all.len().saturating_sub(NAMED);
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                warnings.push(format!("{} incomplete records are ignored: {named}{more}; {EXPLAINS}", all.len()));
            }
        }
        warnings.extend(self.false_claim_warnings());
        let missing = self.missing();
        for id in missing.iter().take(NAMED) {
            warnings.push(format!("record {id} is missing: the server has lost it or hides it"));
        }
        if missing.len() > NAMED {
            warnings.push(format!("{} more records are missing", missing.len() - NAMED));
        }
        warnings
    }

    /// Returns a warning for each of the first records with false claims.
    fn false_claim_warnings(&self) -> Vec<String> {
        let mut first = BTreeMap::new();
        for (claim, what) in self.false_claims() {
            first.entry(claim.by).or_insert((claim.of, what));
        }
        let warning = |(by, (of, what)): (ObjectId, (ObjectId, &String))| {
            format!(
                "record {} claims to contain record {}, but lacks {what}: the claim is ignored. A thief of the passphrase, \
                 or a fault of a program, has written it; `nfreezer repair` replaces it",
                by.short(),
                of.short()
            )
        };
        first.into_iter().take(NAMED).map(warning).collect()
    }

    /// Returns a line for each incomplete or missing record that [`State::warnings`] only counts; 1000 at most.
    pub fn warning_details(&self) -> Vec<String> {
        let mut details = Vec::new();
        if self.incomplete_records().nth(1).is_some() {
            details.extend(
                self.incomplete_records().map(|(id, why)| format!("incomplete record {id}: {why}")).take(DETAILS),
            );
        }
        let missing = self.missing().into_iter().skip(NAMED).map(|id| format!("record {id} is missing"));
        details.extend(missing.take(DETAILS));
        details
    }

    /// Returns the incomplete records that no other record supersedes, each with the reason.
    fn incomplete_records(&self) -> impl Iterator<Item = (&ObjectId, &str)> {
        let superseded = self.superseded();
        let incomplete = self.incomplete.iter().filter(move |(id, _)| !superseded.contains(id));
        incomplete.map(|(id, (_, why))| (id, why.as_str()))
    }

    /// Returns the number of records that do not open and do not have the size of a torso ([`is_torso`]).
    pub(super) fn strange_records(&self) -> usize {
        self.incomplete.values().filter(|(size, _)| !is_torso(*size)).count()
    }

    /// Returns the records that others name as predecessors and that are missing or incomplete, and not superseded.
    pub fn lost(&self) -> BTreeSet<ObjectId> {
        let superseded = self.superseded();
        let heads = self.known.values().flat_map(|k| &k.record.head.heads);
        // A copy of a record listed under another sequence is ignored; the record that was read stays valid.
        let is_incomplete = |id: &&ObjectId| self.incomplete.contains_key(id) && !self.known.contains_key(id);
        let incomplete = heads.filter(is_incomplete).filter(|id| !superseded.contains(id)).copied();
        incomplete.chain(self.missing()).collect()
    }

    /// Returns the records that others name as predecessors and that are neither listed nor superseded nor merged.
    pub(super) fn missing(&self) -> BTreeSet<ObjectId> {
        let heads = self.known.values().map(|k| &k.record.head);
        let covered = self.superseded();
        let named = heads.flat_map(|h| &h.heads);
        let missing = named.filter(|id| !self.listed.contains(id) && !covered.contains(id));
        missing.filter(|id| !self.ancestry.contains(&prefix(id))).copied().collect()
    }

    /// Returns whether a record is listed and was read.
    fn is_there(&self, id: &ObjectId) -> bool {
        self.listed.contains(id) && self.known.contains_key(id)
    }

    /// Returns what happened to a seen record, for a message.
    pub(super) fn fate(&self, id: &ObjectId) -> &'static str {
        if self.incomplete.contains_key(id) { " is damaged now" } else { " is gone" }
    }

    /// Returns whether a seen record is there, or its contents are in a superseding record.
    pub(super) fn explains(&self, id: &ObjectId) -> bool {
        self.is_there(id) || self.superseded().contains(id) || self.ancestry.contains(&prefix(id))
    }

    pub(super) fn explains_prefix(&self, wanted: u64) -> bool {
        let is_there = self.known.keys().filter(|id| self.is_there(id)).any(|id| prefix(id) == wanted);
        is_there || self.ancestry.contains(&wanted) || self.superseded().iter().any(|id| prefix(id) == wanted)
    }

    /// Returns the live records that were read before and are no longer listed.
    pub(super) fn vanished(&self) -> impl Iterator<Item = SeenHead> {
        let vanished = self.live().filter(|(id, _)| !self.is_there(id)).map(|(id, known)| known.seen(id));
        vanished.collect::<Vec<_>>().into_iter()
    }

    /// Returns the frontier as [`crate::seen`] stores it.
    pub(super) fn frontier_heads(&self) -> Vec<SeenHead> {
        let frontier: HashSet<ObjectId> = self.frontier().into_iter().collect();
        self.live().filter(|(id, _)| frontier.contains(id)).map(|(id, known)| known.seen(id)).collect()
    }
}

/// Returns whether a record that does not open and has this size is the beginning of one, as far as the size shows. A file
/// system that becomes full stores whole sectors, or nothing.
fn is_torso(size: u64) -> bool {
    size.is_multiple_of(SECTOR) || seal::plain_len(size).is_none()
}

/// Returns the first digits of a record's id.
fn short(id: &ObjectId) -> String {
    id.to_string()[..8].to_owned()
}
