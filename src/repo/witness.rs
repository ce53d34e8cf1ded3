//! Compares the log on the server with the records that this machine has seen ([`crate::seen`]): before each listing the seen
//! records are read, after it they are updated. A seen record must be listed, superseded or merged into a listed one, so a
//! server that goes back to an older state or hides a record is detected. A machine that has seen nothing accepts the first
//! state that the server shows.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::Repository;
use super::log::State;
use crate::crypto::keys::RepoId;
use crate::error::{Error, Kind, Result};
use crate::format::ancestry::prefix;
use crate::name::{ObjectId, hex};
use crate::seen::{Seen, SeenHead, SeenKey, SeenStore};
use crate::time::Time;

/// Records side by side whose times differ by more than this were not written at the same time: listing the log and putting a
/// record are seconds apart, minutes on a bad line.
const APART: i64 = 3600;
/// Records up to which forks are looked for.
const COMPARED: usize = 4096;

/// Set if something was found that the user must know although the work went on: exit code 15.
pub type Alarm = Arc<AtomicBool>;

/// The knowledge of this machine about a repository, and how to react if the server shows another state.
#[derive(Default)]
pub(super) struct Witness {
    pub store: Option<SeenStore>,
    /// Nothing is remembered: this is a dry run.
    pub dry_run: bool,
    /// An older state is shown with a warning, and not remembered.
    pub accept: bool,
    /// The first 8 bytes of a record's id that the caller has seen.
    pub expect: Option<u64>,
    pub alarm: Alarm,
    pub address: String,
    /// Nothing was known of it when it was opened.
    pub stranger: bool,
    pub notes: Mutex<Vec<String>>,
}

impl Witness {
    /// Something to tell the user with the next state.
    pub fn note(&self, text: String) {
        let mut notes = self.notes.lock().expect("no holder panics");
        if !notes.contains(&text) {
            notes.push(text);
        }
    }

    /// Returns the seen heads of this repository; none if their file is damaged.
    pub fn seen(&self, id: &RepoId) -> Option<Seen> {
        match self.store.as_ref()?.of(&id.0) {
            Ok(seen) => seen,
            Err(e) => {
                self.note(format!("{e}: what the newest snapshots were cannot be verified this time"));
                None
            }
        }
    }

    /// Refuses another repository than the one that was seen at this address.
    pub fn check_identity(&self, id: &RepoId) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        let Some((other, seen)) = store.at_address(&self.address).filter(|(other, _)| *other != id.0) else {
            return Ok(());
        };
        let [new, old] = [hex(&id.0[..4]), hex(&other[..4])];
        let newest = seen.heads.last().map(|head| format!(", last with {}", described(head))).unwrap_or_default();
        let text = format!("another repository than before is at {}: {new}; here {old} was seen{newest}", self.address);
        self.refuse(text, store, &other)
    }

    /// Compares the key file that opened the repository with the one of the last time.
    pub fn check_key(&self, id: &RepoId, key: SeenKey) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        let seen = self.seen(id);
        let weaker = |old: &SeenKey| key.work < old.work || (old.local && !key.local);
        // A later key file was made with an existing key, so it replaces the earlier requirement.
        if let Some(old) =
            seen.as_ref().and_then(|seen| seen.key).filter(|old| weaker(old) && key.created <= old.created)
        {
            let text = format!(
                "the server gives an older key file {} that is easier to guess than {}, which opened the repository before",
                key.id.short(),
                old.id.short()
            );
            self.refuse(text, store, &id.0)?;
            return Ok(());
        }
        let note = |seen: &mut Seen| {
            seen.found_at(&self.address);
            seen.key = Some(key);
        };
        self.remembered(if self.dry_run || self.accept { Ok(()) } else { store.update(&id.0, note) });
        Ok(())
    }

    /// An error, or a warning where older states are accepted.
    fn refuse(&self, text: String, store: &SeenStore, id: &[u8; 32]) -> Result<()> {
        if self.accept {
            self.note(text);
            return Ok(());
        }
        let hint = format!(
            "`--accept-rollback` reads what is shown; if it was changed on purpose, remove {}",
            store.path(id).display()
        );
        Err(Error::new(Kind::Tampering, text).hint(hint))
    }

    pub fn remembered(&self, result: Result<()>) {
        if let Err(e) = result {
            self.note(format!("{e}: the next run cannot tell whether the server shows an older state"));
        }
    }
}

impl Repository {
    /// Whether this machine had never seen it when it was opened, though it has a memory.
    pub fn is_stranger(&self) -> bool {
        self.witness.stranger
    }

    /// What must be found in the next listing.
    pub(super) fn wanted(&self) -> Vec<SeenHead> {
        self.witness.seen(&self.id).map(|seen| seen.heads).unwrap_or_default()
    }

    /// Of what was seen, here or before, what the listing neither has nor explains.
    pub(super) fn unexplained(&self, state: &State, wanted: &[SeenHead]) -> Vec<SeenHead> {
        let mut gone: Vec<_> = wanted.iter().filter(|head| !state.explains(&head.id)).copied().collect();
        gone.extend(state.vanished());
        gone.sort_unstable();
        gone.dedup_by_key(|head| head.id);
        gone
    }

    /// Whether the record that the caller expects is not there.
    pub(super) fn lacks_expected(&self, state: &State) -> bool {
        self.witness.expect.is_some_and(|expected| !state.explains_prefix(expected))
    }

    /// Fails, or warns where that is wanted, if the listing lacks what was seen. Then remembers what it shows.
    pub(super) fn witness(&self, state: &mut State, gone: &[SeenHead], new: bool) -> Result<()> {
        let witness = &self.witness;
        if self.lacks_expected(state) {
            let text =
                format!("the record {:016x}, which --expect-head names, is not there", witness.expect.unwrap_or(0));
            match witness.accept {
                true => witness.note(text),
                false => {
                    let hint = "the server shows an older state, or hides it; `--accept-rollback` reads what is shown";
                    return Err(Error::new(Kind::Tampering, text).hint(hint));
                }
            }
        }
        if !gone.is_empty() {
            let rows: Vec<String> = gone.iter().map(|head| described(head) + state.fate(&head.id)).collect();
            let text = format!("the server shows an older state than this machine has seen: {}", rows.join("; "));
            match &witness.store {
                Some(store) => witness.refuse(text, store, &self.id.0)?,
                None if witness.accept => witness.note(text),
                None => return Err(Error::new(Kind::Tampering, text)),
            }
        } else {
            if new {
                self.tell_forks(state);
            }
            self.remember(state);
        }
        witness.alarm.fetch_or(!state.lost().is_empty(), Relaxed);
        for note in witness.notes.lock().expect("no holder panics").drain(..) {
            if !state.notes.contains(&note) {
                state.notes.push(note);
            }
        }
        Ok(())
    }

    /// Notes the frontier. What another process has noted meanwhile and this state does not explain stays.
    pub(super) fn remember(&self, state: &State) {
        self.noting(|seen| {
            seen.heads.retain(|head| !state.explains(&head.id));
            seen.heads.extend(state.heads());
        });
    }

    /// Notes a record that was written without looking at the log again.
    pub(super) fn remember_own(&self, head: SeenHead) {
        self.noting(|seen| seen.heads.push(head));
    }

    fn noting(&self, change: impl FnOnce(&mut Seen)) {
        let witness = &self.witness;
        let Some(store) = witness.store.as_ref().filter(|_| !witness.dry_run && !witness.accept) else { return };
        let note = |seen: &mut Seen| {
            seen.found_at(&witness.address);
            change(seen);
        };
        witness.remembered(store.update(&self.id.0, note));
    }

    /// Notes a key file that was made here: it is what is wanted now, even if it is easier to guess than the one before it and was
    /// made within the same second.
    pub(super) fn remember_key(&self, key: SeenKey) {
        self.noting(|seen| seen.key = Some(key));
    }

    /// Notes that a key file was removed, so that its return is told.
    pub fn remember_removed(&self, key: ObjectId) {
        self.noting(|seen| seen.removed.push(key));
    }

    /// Tells of records that were written side by side at different times: their writers were shown different states. Each is told
    /// once, where there is a memory of it.
    fn tell_forks(&self, state: &State) {
        let told = self.witness.seen(&self.id).map(|seen| seen.told).unwrap_or_default();
        let new: Vec<_> = state.forks().into_iter().filter(|(_, later)| !told.contains(&later.id)).collect();
        for (earlier, later) in &new {
            self.witness.note(format!(
                "two clients were shown different states: {} was written without knowledge of {} (or a clock is wrong). \
                 Both are there now",
                described(later),
                described(earlier)
            ));
            self.witness.alarm.fetch_or(self.witness.store.is_some(), Relaxed);
        }
        if !new.is_empty() {
            self.noting(|seen| seen.told.extend(new.iter().map(|(_, later)| later.id)));
        }
    }
}

impl State {
    /// Pairs of records of which the later does not follow the earlier, and was written long after it. Records of pushes that
    /// ended early do not count: they are put without looking at the log again.
    pub fn forks(&self) -> Vec<(SeenHead, SeenHead)> {
        let records: Vec<_> = self.by_sequence();
        if records.len() > COMPARED {
            return Vec::new();
        }
        let place: HashMap<ObjectId, usize> = records.iter().enumerate().map(|(i, (id, _))| (*id, i)).collect();
        let stand_ins: HashMap<ObjectId, usize> = records
            .iter()
            .enumerate()
            .flat_map(|(i, (_, known))| known.record.head.superseded.iter().map(move |id| (*id, i)))
            .collect();
        // What each follows, as bits; what it follows that was not read counts as all that could be meant.
        let words = records.len().div_ceil(64);
        let mut follows = vec![vec![0u64; words]; records.len()];
        for (i, (_, known)) in records.iter().enumerate() {
            let mut row = vec![0u64; words];
            for id in &known.record.head.heads {
                let (before, itself) = match (place.get(id), stand_ins.get(id)) {
                    (Some(before), _) => (Some(*before), true),
                    (None, before) => (before.copied().filter(|before| *before < i), false),
                };
                match before {
                    Some(before) => {
                        row.iter_mut().zip(&follows[before]).for_each(|(a, b)| *a |= b);
                        row[before / 64] |= u64::from(itself) << (before % 64);
                    }
                    None => (0..i).for_each(|j| row[j / 64] |= 1 << (j % 64)),
                }
            }
            for id in &known.record.head.superseded {
                if let Some(before) = place.get(id).filter(|before| **before < i) {
                    row.iter_mut().zip(&follows[*before]).for_each(|(a, b)| *a |= b);
                    row[before / 64] |= 1 << (before % 64);
                }
            }
            follows[i] = row;
        }
        let heads: Vec<SeenHead> = records.iter().map(|(id, known)| known.seen(id)).collect();
        let whole = |i: usize| records[i].1.record.head.snapshots.iter().any(|s| !s.partial);
        let follow = |a: usize, b: usize| follows[a][b / 64] >> (b % 64) & 1 == 1;
        let mut found: Vec<(usize, usize)> = Vec::new();
        for later in (0..records.len()).filter(|i| whole(*i)) {
            // What goes on from there is the same fork.
            if found.iter().any(|(_, before)| follow(later, *before)) {
                continue;
            }
            let apart = |i: &usize| heads[later].time.saturating_sub(heads[*i].time) > APART;
            let side_by_side = |i: &usize| !follow(later, *i) && !follow(*i, later);
            let earlier = (0..records.len()).filter(apart).find(side_by_side);
            found.extend(earlier.map(|earlier| (earlier, later)));
        }
        found.into_iter().map(|(earlier, later)| (heads[earlier], heads[later])).collect()
    }

    /// Whether a record that was seen is there, or what it said is in one that is.
    pub(super) fn explains(&self, id: &ObjectId) -> bool {
        self.is_there(id) || self.superseded().contains(id) || self.ancestry.contains(&prefix(id))
    }

    fn explains_prefix(&self, wanted: u64) -> bool {
        let there = || self.known_ids().filter(|id| self.is_there(id)).any(|id| prefix(id) == wanted);
        there() || self.ancestry.contains(&wanted) || self.superseded().iter().any(|id| prefix(id) == wanted)
    }

    /// Records in force that were read and are not listed any more.
    fn vanished(&self) -> impl Iterator<Item = SeenHead> {
        let gone = self.live().filter(|(id, _)| !self.is_there(id)).map(|(id, known)| known.seen(id));
        gone.collect::<Vec<_>>().into_iter()
    }

    /// The frontier with its sequences and times.
    fn heads(&self) -> Vec<SeenHead> {
        let frontier: HashSet<ObjectId> = self.frontier().into_iter().collect();
        self.live().filter(|(id, _)| frontier.contains(id)).map(|(id, known)| known.seen(id)).collect()
    }
}

fn described(head: &SeenHead) -> String {
    let time = Time::from_seconds(head.time);
    format!("record {} (sequence {}, of {time})", head.id.short(), head.sequence)
}
