//! Detects rollbacks: compares the server's state with the records, key file and addresses that this machine has seen
//! ([`crate::seen`]).
//!
//! A seen record must be listed, superseded, or merged into a listed record. So a server that returns to an older state
//! or hides a record is detected. Records that this machine has not seen cannot be missed: without stored heads the first
//! state is accepted. Forks are detected too ([`super::forks`]).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::Repository;
use super::state::State;
use crate::crypto::keys::RepoId;
use crate::error::{Error, Kind, Result};
use crate::name::{ObjectId, hex};
use crate::seen::{Run, Seen, SeenHead, SeenKey, SeenStore};
use crate::time::Time;

/// Set if the server showed a suspicious state although the operation continued. The program then exits with code 15.
pub type Alarm = Arc<AtomicBool>;

/// The seen data of a repository, and the reaction to a server that contradicts it.
#[derive(Default)]
pub(super) struct RollbackGuard {
    pub store: Option<SeenStore>,
    /// Nothing is stored as seen, since a dry run writes nothing.
    pub dry_run: bool,
    /// An older state causes a warning instead of an error, and is not stored as seen.
    pub accept: bool,
    /// The first 8 bytes of the id of a record that must be there.
    pub expect: Option<u64>,
    pub alarm: Alarm,
    pub address: String,
    /// This machine had not seen the repository before it was opened.
    pub is_first_contact: bool,
    /// The master key is known to be the repository's: it was made here, was seen before, or opened a record.
    pub proven: AtomicBool,
    /// The key file that opened the repository, until it is stored as seen.
    pub key: Mutex<Option<SeenKey>>,
    /// Key files that were removed on this machine and are there again.
    pub returned: Mutex<Vec<ObjectId>>,
    /// Warnings for the next state.
    pub notes: Mutex<Vec<String>>,
}

impl RollbackGuard {
    /// Adds a warning to the next state.
    pub fn note(&self, text: String) {
        let mut notes = self.notes.lock().expect("no holder panics");
        if !notes.contains(&text) {
            notes.push(text);
        }
    }

    /// Returns the seen data of this repository. A damaged file causes a warning and counts as none.
    pub fn seen(&self, id: &RepoId) -> Option<Seen> {
        match self.store.as_ref()?.of(&id.0) {
            Ok(seen) => seen,
            Err(e) => {
                self.note(format!("{e}: what the newest snapshots were cannot be verified this time"));
                None
            }
        }
    }

    /// Refuses a repository other than the one that was seen at this address.
    pub fn check_identity(&self, id: &RepoId) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        let Some((other, seen)) = store.at_address(&self.address).filter(|(other, _)| *other != id.0) else {
            return Ok(());
        };
        let [new, old] = [hex(&id.0[..4]), hex(&other[..4])];
        let newest = seen.heads_at(&self.address).last();
        let newest = newest.map(|head| format!(", last with {}", described(head))).unwrap_or_default();
        let text = format!("another repository than before is at {}: {new}; here {old} was seen{newest}", self.address);
        self.refuse(text)
    }

    /// Refuses a master key other than the seen one, and a key file that is weaker and not newer than the one that opened
    /// the repository before. Both are stored as seen only once a record has opened: before that, an attacker may have
    /// made them.
    pub fn check_key(&self, id: &RepoId, fingerprint: [u8; 16], key: SeenKey) -> Result<()> {
        let seen = self.seen(id).unwrap_or_default();
        if let Some(master) = seen.master {
            if master != fingerprint {
                return self.refuse(format!(
                    "key file {} opens with this passphrase, but holds another master key than this repository had before: \
                     the server, or someone who may write to it, has added it",
                    key.id.short()
                ));
            }
            self.proven.store(true, Relaxed);
        }
        // A newer key file was created with the master key, so it is accepted even if it is weaker.
        if let Some(old) = seen.key.filter(|old| is_weaker(&key, old) && key.created <= old.created) {
            return self.refuse(format!(
                "the server gives an older key file {} that is easier to guess than {}, which opened the repository before",
                key.id.short(),
                old.id.short()
            ));
        }
        *self.key.lock().expect("no holder panics") = Some(key);
        Ok(())
    }

    /// Adds a warning for each key file that was removed on this machine and is there again.
    pub fn warn_of_returned_keys<'k>(&self, id: &RepoId, keys: impl Iterator<Item = &'k ObjectId>) {
        let removed = self.seen(id).map(|seen| seen.removed).unwrap_or_default();
        for key in keys.filter(|key| removed.contains(key)) {
            self.note(format!(
                "key file {}, which was removed from here, is there again: its passphrase opens the repository \
                 (`nfreezer accept` accepts it)",
                key.short()
            ));
            self.returned.lock().expect("no holder panics").push(*key);
        }
    }

    /// Fails, or adds a warning if older states are accepted.
    fn refuse(&self, text: String) -> Result<()> {
        if self.accept {
            self.note(text);
            return Ok(());
        }
        let hint =
            "`--accept-rollback` reads the present state; if it is intended, `nfreezer accept` accepts it for good";
        Err(Error::new(Kind::Tampering, text).hint(hint))
    }

    /// Adds a warning if seen data could not be stored.
    pub fn remembered(&self, result: Result<()>) {
        if let Err(e) = result {
            self.note(format!("{e}: the next run cannot tell whether the server shows an older state"));
        }
    }
}

impl Repository {
    /// Returns whether this machine stores seen data and had none of this repository when it was opened.
    pub fn is_first_contact(&self) -> bool {
        self.rollback.is_first_contact
    }

    /// Returns the heads that the next listing must have or explain.
    pub(super) fn seen_heads(&self) -> Vec<SeenHead> {
        let seen = self.rollback.seen(&self.id);
        seen.map(|seen| seen.heads_at(&self.rollback.address).to_vec()).unwrap_or_default()
    }

    /// Returns the superseding records that were verified at this address; `None` if its log was never seen.
    pub(super) fn verified(&self) -> Option<BTreeSet<ObjectId>> {
        let seen = self.rollback.seen(&self.id)?;
        let copy = seen.copies.iter().find(|copy| copy.address == self.rollback.address && !copy.heads.is_empty())?;
        Some(copy.verified.iter().copied().collect())
    }

    /// Adds a warning for each other copy of this repository that has records which this one lacks.
    fn warn_of_lag(&self, state: &State) {
        let address = &self.rollback.address;
        let copies = self.rollback.seen(&self.id).map(|seen| seen.copies).unwrap_or_default();
        for copy in copies.iter().filter(|copy| copy.address != *address && !self.pushes_to_both(&copy.address)) {
            if let Some(head) = copy.heads.iter().rev().find(|head| !state.explains(&head.id)) {
                self.rollback.note(format!(
                    "{address} is behind the copy of this repository at {}: it lacks {}",
                    copy.address,
                    described(head)
                ));
            }
        }
    }

    /// Returns whether this machine pushes to this copy and to another one. Then each has records that the other one lacks,
    /// and neither is behind.
    fn pushes_to_both(&self, other: &str) -> bool {
        let Some(store) = &self.rollback.store else { return false };
        let pushes = |address| store.runs(&self.id.0, address).is_ok_and(|runs| runs.last(Run::Push).is_some());
        pushes(&self.rollback.address) && pushes(other)
    }

    /// Fails if no record opens and nothing proves that the master key is the repository's.
    fn check_master_key(&self, state: &State) -> Result<()> {
        let guard = &self.rollback;
        let strangers = state.strange_records();
        if state.has_records() || strangers == 0 || guard.proven.load(Relaxed) {
            guard.proven.fetch_or(state.has_records(), Relaxed);
            return Ok(());
        }
        guard.refuse(format!(
            "none of the {strangers} records of {} opens with the master key of key file {}: it is not the key of this \
             repository, or all records are damaged",
            guard.address,
            self.opened_by.0.short()
        ))
    }

    /// Returns the seen heads, and the records read before, that the listing neither has nor explains.
    pub(super) fn unexplained(&self, state: &State, seen: &[SeenHead]) -> Vec<SeenHead> {
        let mut unexplained: Vec<_> = seen.iter().filter(|head| !state.explains(&head.id)).copied().collect();
        unexplained.extend(state.vanished());
        unexplained.sort_unstable();
        unexplained.dedup_by_key(|head| head.id);
        unexplained
    }

    /// Returns whether the record of `--expect-head` is not there.
    pub(super) fn lacks_expected(&self, state: &State) -> bool {
        self.rollback.expect.is_some_and(|expected| !state.explains_prefix(expected))
    }

    /// Fails if the listing lacks seen records (or adds a warning if older states are accepted). Else stores its heads as
    /// seen.
    pub(super) fn check_rollback(&self, state: &mut State, unexplained: &[SeenHead], is_new: bool) -> Result<()> {
        let guard = &self.rollback;
        if self.lacks_expected(state) {
            let text =
                format!("the record {:016x}, which --expect-head names, is not there", guard.expect.unwrap_or(0));
            if !guard.accept {
                let hint =
                    "the server shows an older state, or hides it; `--accept-rollback` reads the state that it shows";
                return Err(Error::new(Kind::Tampering, text).hint(hint));
            }
            guard.note(text);
        }
        self.check_master_key(state)?;
        if !unexplained.is_empty() {
            let rows: Vec<String> = unexplained.iter().map(|head| described(head) + state.fate(&head.id)).collect();
            let text = format!("the server shows an older state than this machine has seen: {}", rows.join("; "));
            guard.refuse(text)?;
        } else {
            self.warn_of_lag(state);
            if is_new {
                self.warn_of_forks(state);
            }
            self.remember(state);
        }
        guard.alarm.fetch_or(!state.lost().is_empty() || !state.false_claims().is_empty(), Relaxed);
        for note in guard.notes.lock().expect("no holder panics").drain(..) {
            if !state.notes.contains(&note) {
                state.notes.push(note);
            }
        }
        Ok(())
    }

    /// Stores the frontier as seen. Keeps heads that another process has stored and that this state does not explain.
    pub(super) fn remember(&self, state: &State) {
        self.update_seen(|seen| {
            let copy = seen.copy(&self.rollback.address);
            copy.heads.retain(|head| !state.explains(&head.id));
            copy.heads.extend(state.frontier_heads());
            copy.verified = verified(state);
        });
    }

    /// Stores a record as seen that was committed without listing the log again.
    pub(super) fn remember_own(&self, head: SeenHead) {
        self.update_seen(|seen| seen.copy(&self.rollback.address).heads.push(head));
    }

    fn update_seen(&self, change: impl FnOnce(&mut Seen)) {
        let guard = &self.rollback;
        let Some(store) = guard.store.as_ref().filter(|_| !guard.dry_run && !guard.accept) else { return };
        let stored = store.update(&self.id.0, |seen| {
            seen.copy(&guard.address);
            if guard.proven.load(Relaxed) {
                seen.master = Some(self.keys.fingerprint());
                seen.key = guard.key.lock().expect("no holder panics").take().or(seen.key);
            }
            change(seen);
        });
        guard.remembered(stored);
    }

    /// Compares the key that opened the repository with the seen one.
    pub(super) fn check_key(&self, key: SeenKey) -> Result<()> {
        self.rollback.check_key(&self.id, self.keys.fingerprint(), key)
    }

    /// Stores a repository as seen that was just created here.
    pub(super) fn remember_created(&self) {
        self.rollback.proven.store(true, Relaxed);
        self.update_seen(|_| {});
    }

    /// Accepts the present state at this address: from now on its key and its heads are the seen ones. The repository must
    /// have been opened with [`super::Access::accept_rollback`]; the differences are in the warnings of `state`.
    pub fn accept(&self, state: &State) -> Result<()> {
        let guard = &self.rollback;
        let Some(store) = &guard.store else {
            return Err(Error::new(Kind::Usage, "this machine stores no seen heads, so there is nothing to accept"));
        };
        store.bind(&guard.address, &self.id.0)?;
        store.update(&self.id.0, |seen| {
            seen.copy(&guard.address).heads = state.frontier_heads();
            seen.copy(&guard.address).verified = verified(state);
            seen.master = Some(self.keys.fingerprint());
            seen.key = guard.key.lock().expect("no holder panics").take();
            let returned = guard.returned.lock().expect("no holder panics");
            seen.removed.retain(|key| !returned.contains(key));
        })
    }

    /// Stores a key file as seen that was created here. It replaces the previous one even if it is weaker and was created
    /// within the same second.
    pub(super) fn remember_key(&self, key: SeenKey) {
        self.update_seen(|seen| seen.key = Some(key));
    }

    /// Stores that a key file was removed, so that its return causes a warning.
    pub fn remember_removed(&self, key: ObjectId) {
        self.update_seen(|seen| seen.removed.push(key));
    }

    /// Adds a warning for each fork that was not reported before.
    fn warn_of_forks(&self, state: &State) {
        let reported = self.rollback.seen(&self.id).map(|seen| seen.told).unwrap_or_default();
        let new: Vec<_> = state.forks().into_iter().filter(|(_, later)| !reported.contains(&later.id)).collect();
        for (earlier, later) in &new {
            self.rollback.note(format!(
                "two clients were shown different states: {} was written without knowledge of {} (or a clock is wrong). \
                 Both are there now",
                described(later),
                described(earlier)
            ));
            self.rollback.alarm.fetch_or(self.rollback.store.is_some(), Relaxed);
        }
        if !new.is_empty() {
            self.update_seen(|seen| seen.told.extend(new.iter().map(|(_, later)| later.id)));
        }
    }
}

/// Returns the live superseding records that make no false claims.
fn verified(state: &State) -> Vec<ObjectId> {
    state.superseding().into_iter().filter(|id| !state.makes_false_claims(id)).collect()
}

fn is_weaker(key: &SeenKey, old: &SeenKey) -> bool {
    key.work < old.work || (old.local && !key.local)
}

fn described(head: &SeenHead) -> String {
    let time = Time::from_seconds(head.time);
    format!("record {} (sequence {}, of {time})", head.id.short(), head.sequence)
}
