//! When this machine saw ids of the log first ([`crate::seen::Sights`]), for decisions that must not trust dates in records.

use super::{Repository, State};
use crate::error::{Kind, Result};
use crate::seen::{SightId, Sights};

impl Repository {
    /// Takes a look at ids of one kind (a word for the file name) at this address, by this machine's clock, and stores it.
    /// A dry run, and a reader of an older state, store nothing. Returns `None` if this machine keeps no seen data.
    pub fn look(&self, kind: &str, present: impl IntoIterator<Item = SightId>, now: i64) -> Result<Option<Sights>> {
        let guard = &self.rollback;
        let Some(store) = &guard.store else { return Ok(None) };
        if !guard.dry_run && !guard.accept {
            return store.look(&self.id.0, &guard.address, kind, present, now).map(Some);
        }
        self.sights(kind, present, now)
    }

    /// Returns the sights as [`Repository::look`] would, and stores nothing.
    pub fn sights(&self, kind: &str, present: impl IntoIterator<Item = SightId>, now: i64) -> Result<Option<Sights>> {
        let Some(mut sights) = self.stored_sights(kind)? else { return Ok(None) };
        sights.look(present, now);
        Ok(Some(sights))
    }

    /// Returns the sights of the last look.
    pub fn stored_sights(&self, kind: &str) -> Result<Option<Sights>> {
        let guard = &self.rollback;
        let Some(store) = &guard.store else { return Ok(None) };
        match store.sights(&self.id.0, &guard.address, kind) {
            Err(e) if e.kind() == Kind::Damaged => Ok(Some(Sights::default())),
            other => other.map(Some),
        }
    }

    /// Returns whether this machine stores its sights of this repository.
    pub fn remembers(&self) -> bool {
        let guard = &self.rollback;
        guard.store.is_some() && !guard.accept
    }

    /// Takes a look at the ids of all snapshots of a state, forgotten ones too.
    pub fn look_at_snapshots(&self, state: &State) -> Result<Option<Sights>> {
        let all = state.snapshots().into_iter().chain(state.forgotten());
        self.look("snapshots", all.map(|snapshot| snapshot.id.padded()), self.now().seconds)
    }
}
