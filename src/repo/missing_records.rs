//! Records that a state should have: missing and incomplete ones, and those that were seen before.

use std::collections::{BTreeSet, HashSet};

use super::state::State;
use crate::format::ancestry::prefix;
use crate::name::ObjectId;
use crate::seen::SeenHead;

impl State {
    /// Returns warnings for the user: the notes of the rollback checks, incomplete records, missing records.
    pub fn warnings(&self) -> Vec<String> {
        let superseded = self.superseded();
        let mut warnings = self.notes.clone();
        for (id, (_, why)) in self.incomplete.iter().filter(|(id, _)| !superseded.contains(id)) {
            warnings.push(format!("incomplete record log/*-{id}: {why}"));
        }
        for id in self.missing() {
            warnings.push(format!("record {id} is missing: the server has lost it or hides it"));
        }
        warnings
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
        let covered: HashSet<&ObjectId> = heads.clone().flat_map(|h| &h.superseded).collect();
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
