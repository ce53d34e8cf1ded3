//! Read-ahead in a tree: fetches the contents of the files that a copy of a directory reads next, wherever they lie.
//!
//! In a repository of many pushes, the files of a directory lie in many small packs, so read-ahead within one pack finds
//! little. A program that reads small files whole, one after the other, and had to wait for several of them, gets a walk
//! over the tree before it. The walk fetches from many packs at the same time, up to a window that grows while its
//! predictions come true.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use super::raw;
use super::tree_walk::TreeWalk;
use crate::context::Context;
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::crypto::seal::BLOCK;
use crate::format::reference::{PackRef, Ref};
use crate::repo::{Span, parallel};
use crate::vfs::Vfs;

/// Files that waited for the storage, of the last [`LATELY`] small files, from which on a walk begins.
const WAITS: u32 = 4;
/// Files after which the waits before them count half.
const LATELY: u32 = 32;
/// First window, in stored bytes.
const FIRST_WINDOW: u64 = 2 << 20;
/// Stored bytes, and ranges of packs, that are fetched at the same time.
const BATCH: (u64, usize) = (4 << 20, 96);
/// Ranges that are fetched at the same time.
const READERS: usize = 24;
/// Largest range of a pack, in bytes.
const LARGEST: u32 = 1 << 20;
/// Chunks of the walk that were not read yet: beyond that they are forgotten.
const EXPECTED: usize = 1 << 16;

/// What the reader of a small file is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeAdvice {
    /// The walk has fetched this file, so its neighbours in the pack are not fetched.
    pub is_expected: bool,
    /// The walk should go on, or begin.
    pub walks: bool,
}

/// The walk of a mount, and how well it predicts the reads.
#[derive(Default)]
pub struct TreeAhead(Mutex<State>);

#[derive(Default)]
struct State {
    files: u32,
    waits: u32,
    /// A file behind which a new walk begins.
    start: Option<u64>,
    walk: Option<TreeWalk>,
    is_running: bool,
    by_name: bool,
    /// First chunks of the files that were fetched, with the stored bytes fetched up to them.
    expected: HashMap<ChunkId, u64>,
    /// Stored bytes fetched by the walk, and of these the bytes up to the reader.
    fetched: u64,
    read: u64,
    window: u64,
    /// The position of the reader when the walk was advised last.
    advised: u64,
}

impl TreeAhead {
    /// Notes that a small file is read from its beginning; `first` is its first chunk, `waits`: it is not in memory.
    /// `is_whole`: the last files of its directory were read to their ends.
    pub fn note(&self, ino: u64, first: &ChunkId, waits: bool, is_whole: bool, most: u64) -> TreeAdvice {
        let mut state = self.lock();
        if let Some(position) = state.expected.remove(first) {
            state.read = state.read.max(position);
            return TreeAdvice { is_expected: true, walks: state.goes_on(most) };
        }
        state.files += 1;
        if state.files >= LATELY {
            (state.files, state.waits) = (0, state.waits / 2);
        }
        state.waits += u32::from(waits);
        if state.waits < WAITS || !waits || !is_whole {
            return TreeAdvice::default();
        }
        // The reader has left a walk that came to nothing: perhaps it goes by the other order.
        let failed = state.window > 0 && state.read == 0;
        let by_name = state.by_name != failed;
        let is_running = state.is_running;
        *state = State { start: Some(ino), by_name, is_running, window: FIRST_WINDOW, ..State::default() };
        TreeAdvice { is_expected: false, walks: true }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder panics")
    }
}

impl State {
    /// Returns whether the reader has come far enough for the next part of the walk.
    fn goes_on(&mut self, most: u64) -> bool {
        if self.walk.is_none() || self.fetched.saturating_sub(self.read) > self.window / 2 {
            return false;
        }
        if self.read == self.advised {
            return false;
        }
        self.advised = self.read;
        self.window = (self.window * 2).min(most);
        true
    }

    fn has_room(&self) -> bool {
        self.start.is_none() && self.fetched.saturating_sub(self.read) < self.window
    }
}

/// A range of a pack, and the chunks in it.
struct Run {
    pack: PackRef,
    start: u32,
    end: u32,
}

impl Vfs {
    /// Goes on with the walk over the tree before the reader, until its window is full.
    pub fn walk_ahead(&self, ctx: &Context) {
        let Some(mut walk) = self.take_walk(ctx) else { return };
        let mut is_over = false;
        while !is_over && ctx.check().is_ok() && self.ahead.lock().has_room() {
            let chunks = self.batch(ctx, &mut walk);
            is_over = chunks.is_empty();
            let runs = runs(self.located(ctx, chunks));
            parallel(READERS, runs, |run| {
                let part = raw(run.pack, run.start..run.end);
                drop(self.repo.part(ctx, &part, 0..run.end - run.start, Span::Exact));
            });
        }
        let mut state = self.ahead.lock();
        state.is_running = false;
        if state.start.is_none() && !is_over {
            state.walk = Some(walk);
        }
    }

    /// Takes the walk, or begins the one that is asked for. `None`: another thread has it.
    fn take_walk(&self, ctx: &Context) -> Option<TreeWalk> {
        let mut state = self.ahead.lock();
        if state.is_running {
            return None;
        }
        let Some(ino) = state.start.take() else {
            let walk = state.walk.take();
            state.is_running = walk.is_some();
            return walk;
        };
        state.is_running = true;
        let by_name = state.by_name;
        drop(state);
        let walk = self.tree_walk(ctx, ino, by_name).ok();
        self.ahead.lock().is_running = walk.is_some();
        walk
    }

    /// Returns the chunks of the next files, and expects their reader.
    fn batch(&self, ctx: &Context, walk: &mut TreeWalk) -> Vec<Ref> {
        let (mut all, mut bytes): (Vec<Ref>, u64) = (Vec::new(), 0);
        while bytes < BATCH.0 && all.len() < 4 * BATCH.1 {
            let Some(chunks) = walk.next(ctx, self) else { break };
            let stored: u64 = chunks.iter().map(|r| u64::from(r.stored)).sum();
            bytes += stored;
            let mut state = self.ahead.lock();
            state.fetched += stored;
            if state.expected.len() >= EXPECTED {
                state.expected.clear();
            }
            if let (Some(first), fetched) = (chunks.first(), state.fetched) {
                state.expected.insert(first.id, fetched);
            }
            drop(state);
            all.extend(chunks);
        }
        all
    }

    /// Replaces references to packs that were dropped.
    fn located(&self, ctx: &Context, chunks: Vec<Ref>) -> Vec<Ref> {
        chunks.into_iter().map(|r| self.pages.locate(ctx, ChunkKind::Data, &r)).collect()
    }
}

/// Returns the blocks that hold these chunks; neighbours in one pack become one range.
fn runs(mut chunks: Vec<Ref>) -> Vec<Run> {
    chunks.sort_unstable_by_key(|r| (r.pack.id, r.offset));
    let mut runs: Vec<Run> = Vec::new();
    for r in chunks {
        let start = r.offset - r.offset % BLOCK as u32;
        let end = (r.offset + r.stored).next_multiple_of(BLOCK as u32).min(r.pack.len);
        match runs.last_mut() {
            Some(run) if run.pack.id == r.pack.id && start <= run.end && end - run.start <= LARGEST => {
                run.end = run.end.max(end);
            }
            _ => runs.push(Run { pack: r.pack, start, end }),
        }
    }
    runs
}
