//! A run that repacks reads packs ahead of its writes, and several stretches of a pack at the same time. The storage
//! makes requests wait for each other, so that nothing depends on time.

use std::collections::HashSet;
use std::fs;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use nfreezer::context::{Context, background};
use nfreezer::error::Result;
use nfreezer::format::record::Action;
use nfreezer::name::{Name, ObjectId};
use nfreezer::prune::{self, Unused};
use nfreezer::repo::{Access, Repository};
use nfreezer::seen::SeenStore;
use nfreezer::storage::Storage;

use super::world::options;
use crate::harness::faults::{Answer, Between, Call, Rule};
use crate::harness::repository::passphrase;
use crate::harness::saved::Saved;

/// Files of 1 MiB: more than 3 full packs.
const FILES: u64 = 54;
/// Reads of at least this many bytes are of file contents.
const LARGE: usize = 1 << 20;

#[derive(Default)]
struct State {
    is_armed: bool,
    /// Packs of which contents were requested, and that were not written since it was armed.
    sources: HashSet<ObjectId>,
    /// Requests of such contents.
    reads: usize,
    written: HashSet<ObjectId>,
    /// Requests of contents of written packs.
    back: usize,
}

/// Once it is armed, the first large reads wait until others have begun too, and so does the first write of a pack.
#[derive(Default)]
struct Together {
    state: Mutex<State>,
    changed: Condvar,
}

impl Together {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn wait(&self, what: &str, is_reached: impl Fn(&State) -> bool) {
        self.changed.notify_all();
        let wait = Duration::from_secs(60);
        let waited = self.changed.wait_timeout_while(self.lock(), wait, |state| !is_reached(state)).unwrap();
        assert!(!waited.1.timed_out(), "{what}");
    }

    fn read(&self, id: ObjectId) {
        let mut state = self.lock();
        if state.written.contains(&id) {
            state.back += 1;
            drop(state);
            return self.wait("a new pack is read back one stretch after the other", |state| state.back >= 2);
        }
        state.sources.insert(id);
        state.reads += 1;
        drop(state);
        self.wait("two packs are not read at the same time, two stretches of each", |state| state.reads >= 4);
    }

    fn write(&self, id: ObjectId) {
        let mut state = self.lock();
        state.written.insert(id);
        let is_first = state.written.len() == 1;
        drop(state);
        if is_first {
            self.wait("no pack is read while one is written", |state| state.sources.len() >= 3);
        }
    }
}

impl Rule for Together {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        if self.lock().is_armed {
            match call {
                Call::Read(Name::Pack(id), _, bytes) if bytes >= LARGE => self.read(*id),
                Call::Put(Name::Pack(id), _) => self.write(*id),
                _ => {}
            }
        }
        call.of(ctx, storage)
    }
}

#[test]
fn packs_are_read_ahead_while_new_ones_are_written_and_read_back() {
    let saved = Saved::on(Arc::<Between<Together>>::default());
    (0..FILES).for_each(|i| saved.write(&i.to_string(), i, 1 << 20));
    let first = saved.push().snapshot;
    (0..FILES).step_by(3).for_each(|i| fs::remove_file(saved.top().join(i.to_string())).unwrap());
    let newest = saved.push().snapshot;
    let mut state = saved.repo.state(background()).unwrap();
    saved.repo.commit_marks(background(), &mut state, [(first.id, Action::Forget)]).unwrap();
    let seen = tempfile::tempdir().unwrap();
    let access = Access { seen: Some(SeenStore::at(seen.path())), ..Access::default() };
    let open = || Repository::open_with(background(), saved.memory.clone(), &access, || Ok(passphrase())).unwrap();
    open().state(background()).unwrap();
    let repo = open();
    saved.memory.lock().is_armed = true;
    let options = prune::Options { exclusive: true, yes: true, max_unused: Unused::Bytes(0), ..options() };
    let report = prune::prune(background(), &repo, &options, &mut |_| Ok(())).unwrap();
    assert!(report.repacked.objects >= 3 && report.deleted.objects >= 3, "{report:?}");
    let state = std::mem::take(&mut *saved.memory.lock());
    assert!(state.sources.len() >= 3 && state.back >= 2, "nothing was large");
    saved.assert_restores(&newest);
}
