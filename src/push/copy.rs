//! Copies a snapshot of another repository: the tree is walked like files, its chunks get ids and packs of this repository.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;

use super::attempt;
use super::options::{Destination, Options, Summary};
use super::pipeline::Sources;
use super::read::saved::{CopiedChunks, Saved, SearchedCopies};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::record::{Action, Snapshot, SnapshotId};
use crate::repo::{Repository, State};
use crate::trees::Trees;

/// Copies snapshots of one repository into others.
pub struct Copier<'c> {
    trees: &'c Trees<'c>,
    snapshots: &'c [Snapshot],
    copied: CopiedChunks,
    searched: SearchedCopies,
}

impl<'c> Copier<'c> {
    /// Makes a copier of these snapshots: all that the other repository shows.
    pub fn new(trees: &'c Trees<'c>, snapshots: &'c [Snapshot]) -> Self {
        let (copied, searched) = Default::default();
        Copier { trees, snapshots, copied, searched }
    }

    /// Copies one of the snapshots into `repo`. Of `options`, only `memory`, `checkpoints` and `full_packs` count. Contents
    /// that are the same in an earlier copy are neither read nor sent.
    ///
    /// # Errors
    ///
    /// Fails if one of the storages fails, and with [`crate::error::Kind::Interrupted`] if the user stops `ctx`. Contents that
    /// were stored by then are kept with a partial snapshot, and the next copy of the same snapshot continues from there.
    pub fn copy(&self, ctx: &Context, repo: &Repository, snapshot: &Snapshot, options: &Options) -> Result<Copied> {
        let saved = Saved {
            trees: self.trees,
            snapshot,
            others: self.snapshots,
            copied: &self.copied,
            searched: &self.searched,
            is_damaged: AtomicBool::new(false),
        };
        let results = attempt::save(ctx, &[Destination { repo, name: "" }], options, &[], Sources::Saved(&saved));
        match attempt::only(results) {
            Err(e) if saved.is_damaged.into_inner() => {
                forget_unfinished(ctx, repo, snapshot)?;
                Ok(Copied::Damaged(e))
            }
            copied => {
                let summary = copied?;
                self.searched.complete(summary.snapshot.id);
                Ok(Copied::Whole(Box::new(summary)))
            }
        }
    }
}

/// The result of copying a snapshot.
pub enum Copied {
    /// It is copied.
    Whole(Box<Summary>),
    /// Something of it is damaged, so it is not copied. The error names the path.
    Damaged(Error),
}

/// Forgets the parts of a snapshot that was not copied because it is damaged: no copy will continue them.
fn forget_unfinished(ctx: &Context, repo: &Repository, snapshot: &Snapshot) -> Result<()> {
    let mut state = repo.state(ctx)?;
    let snapshots = state.snapshots().into_iter();
    let unfinished = snapshots.filter(|s| s.partial && s.copy_of() == Some(snapshot.origin()));
    let marks: Vec<_> = unfinished.map(|s| (s.id, Action::Forget)).collect();
    repo.commit_marks(ctx, &mut state, marks).map(drop)
}

/// The snapshots that a repository has copies or originals of.
pub struct Existing {
    shown: HashSet<SnapshotId>,
    forgotten: HashSet<SnapshotId>,
}

impl Existing {
    /// Returns the copies and originals of a state.
    pub fn of(state: &State) -> Self {
        let origins = |all: Vec<Snapshot>| all.iter().filter(|s| !s.partial).map(Snapshot::origin).collect();
        Existing { shown: origins(state.snapshots()), forgotten: origins(state.forgotten()) }
    }

    /// Returns whether a snapshot of another repository need not be copied. A copy that was forgotten counts unless the user
    /// has named the snapshot.
    pub fn has(&self, snapshot: &Snapshot, is_named: bool) -> bool {
        let origin = snapshot.origin();
        self.shown.contains(&origin) || !is_named && self.forgotten.contains(&origin)
    }
}
