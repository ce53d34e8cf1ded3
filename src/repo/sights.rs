//! When this machine saw ids of the log first ([`crate::seen::Sights`]), for decisions that must not trust dates in records,
//! and when its last runs succeeded ([`crate::seen::Runs`]).

use super::{Repository, State};
use crate::error::{Kind, Result};
use crate::seen::{Run, Runs, SightId, Sights};

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

    /// Stores that a run on this copy succeeded now. A dry run and a reader of an older state store nothing.
    pub fn remember_run(&self, run: Run) -> Result<()> {
        let guard = &self.rollback;
        let Some(store) = guard.store.as_ref().filter(|_| !guard.dry_run && !guard.accept) else { return Ok(()) };
        store.ran(&self.id.0, &guard.address, run, self.now().seconds)
    }

    /// Returns the last runs of this machine on this copy; `None` if this machine keeps no seen data. A damaged file counts
    /// as none.
    pub fn last_runs(&self) -> Result<Option<Runs>> {
        let guard = &self.rollback;
        let Some(store) = &guard.store else { return Ok(None) };
        match store.runs(&self.id.0, &guard.address) {
            Err(e) if e.kind() == Kind::Damaged => Ok(Some(Runs::default())),
            other => other.map(Some),
        }
    }
}
