//! Read-ahead in a tree: fetches the contents of the files that a copy of a directory reads next, wherever they lie.
//!
//! In a repository of many pushes, the files of a directory lie in many small packs, so read-ahead within one pack finds
//! little. A program that reads small files whole, one after the other, and had to wait for several of them, gets a walk
//! over the tree before it. The walk fetches from many packs at the same time, up to a window that grows while its
//! predictions come true.
//!
//! A reader that takes the heads of the files of a directory gets a walk too, over these heads. Its window begins with two
//! heads and doubles each time the reader has to wait, as in the slow start of TCP. So the bytes fetched in vain are at most
//! the bytes that the reader took before, and at most the largest window.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use super::ahead::Piece;
use super::head_walk::HeadWalk;
use super::heads::HeadPattern;
use super::pattern::Ahead;
use super::raw;
use super::tree_walk::TreeWalk;
use crate::context::Context;
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::crypto::seal::BLOCK;
use crate::format::reference::PackRef;
use crate::repo::{Span, parallel};
use crate::vfs::Vfs;

/// Files that waited for the storage, of the last [`LATELY`] small files, from which on a walk begins.
const WAITS: u32 = 4;
/// Files after which the waits before them count half.
const LATELY: u32 = 32;
/// First window of a walk over heads, in heads.
const FIRST_HEADS: u64 = 2;
/// Heads after which a walk ends of which the reader takes less than half.
const TRIAL: u64 = 8;
/// Heads that are read without a walk after a walk of which the reader took too little.
const REST: u32 = 64;
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

/// Advice for the reader of a small file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeAdvice {
    /// The walk has fetched this file, so its neighbours in the pack are not fetched.
    pub is_expected: bool,
    /// The walk should continue, or begin.
    pub walks: bool,
}

/// A walk of a mount, and how well it predicts the reads.
#[derive(Default)]
pub struct TreeAhead(Mutex<State>);

#[derive(Default)]
struct State {
    files: u32,
    waits: u32,
    /// A new walk begins here.
    start: Option<Start>,
    walk: Option<Walk>,
    is_running: bool,
    by_name: bool,
    /// First chunks of the files that were fetched.
    expected: HashMap<ChunkId, Expected>,
    /// Stored bytes fetched by the walk, and of these the bytes up to the reader.
    fetched: u64,
    read: u64,
    window: u64,
    /// The position of the reader when the walk was advised last.
    advised: u64,
    /// Heads fetched by the walk, those up to the reader, and of these the ones that it took.
    heads: u64,
    passed: u64,
    taken: u64,
    /// Heads before the next walk may begin.
    rest: u32,
}

/// The file behind which a walk begins.
enum Start {
    Tree(u64),
    Heads(u64, HeadPattern),
}

enum Walk {
    Tree(TreeWalk),
    Heads(HeadWalk),
}

impl Walk {
    fn next(&mut self, ctx: &Context, vfs: &Vfs) -> Option<Vec<Piece>> {
        match self {
            Walk::Tree(walk) => walk.next(ctx, vfs),
            Walk::Heads(walk) => walk.next(ctx, vfs),
        }
    }
}

/// A file that was fetched: the stored bytes, and the number of heads, fetched up to it and with it.
#[derive(Clone, Copy)]
struct Expected {
    position: u64,
    heads: u64,
}

impl TreeAhead {
    /// Notes that a small file is read from its beginning; `first` is its first chunk, `waits`: it is not in memory.
    /// `is_whole`: the last files of its directory were read to their ends.
    pub fn note(&self, ino: u64, first: &ChunkId, waits: bool, is_whole: bool, most: u64) -> TreeAdvice {
        let mut state = self.lock();
        if state.takes(first) {
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
        state.begin(Start::Tree(ino), FIRST_WINDOW);
        state.by_name = by_name;
        TreeAdvice { is_expected: false, walks: true }
    }

    /// Notes that a file is read from its beginning. `pattern`: so were the last ones, in order.
    pub fn note_head(
        &self,
        ino: u64,
        first: &ChunkId,
        waits: bool,
        pattern: Option<HeadPattern>,
        most: u64,
    ) -> TreeAdvice {
        let mut state = self.lock();
        if state.takes(first) {
            if state.passed >= TRIAL && state.taken < state.passed / 2 {
                state.pause();
                return TreeAdvice { is_expected: true, walks: false };
            }
            return TreeAdvice { is_expected: true, walks: state.goes_on_with_heads(waits, most) };
        }
        let Some(pattern) = pattern.filter(|_| waits) else { return TreeAdvice::default() };
        // The reader took no head that the last walk fetched.
        if state.heads > 0 && state.taken == 0 {
            state.pause();
        }
        if state.rest > 0 {
            state.rest -= 1;
            return TreeAdvice::default();
        }
        // A reader that continues in another directory has shown more than one that begins.
        let known = (state.taken * pattern.bytes).min(state.window) / 2;
        let window = known.max(pattern.bytes * FIRST_HEADS);
        state.begin(Start::Heads(ino, pattern), window);
        TreeAdvice { is_expected: false, walks: true }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder panics")
    }
}

impl State {
    fn begin(&mut self, start: Start, window: u64) {
        *self = State { start: Some(start), is_running: self.is_running, window, ..State::default() };
    }

    /// Ends a walk over heads that predicts badly.
    fn pause(&mut self) {
        *self = State { is_running: self.is_running, rest: REST, ..State::default() };
    }

    /// Moves the reader to a file; returns whether the walk has fetched it.
    fn takes(&mut self, first: &ChunkId) -> bool {
        let Some(Expected { position, heads }) = self.expected.remove(first) else { return false };
        self.read = self.read.max(position);
        self.passed = self.passed.max(heads);
        self.taken += 1;
        true
    }

    /// Returns whether the reader has come far enough for the next part of the walk.
    fn goes_on(&mut self, most: u64) -> bool {
        if self.walk.is_none() || self.room() < self.window / 2 || self.read == self.advised {
            return false;
        }
        self.advised = self.read;
        self.window = (self.window * 2).min(most);
        true
    }

    /// Returns the same for heads: the window grows only if the reader waits, at most once while it takes half a
    /// window.
    fn goes_on_with_heads(&mut self, waits: bool, most: u64) -> bool {
        if waits && self.read.saturating_sub(self.advised) >= self.window / 2 {
            self.advised = self.read;
            self.window = (self.window * 2).min(most);
        }
        self.walk.is_some() && self.room() >= self.window / 2
    }

    /// Returns the stored bytes that may be fetched now.
    fn room(&self) -> u64 {
        if self.start.is_some() { 0 } else { self.window.saturating_sub(self.fetched.saturating_sub(self.read)) }
    }
}

/// A range of a pack, and the chunks in it.
struct Run {
    pack: PackRef,
    start: u32,
    end: u32,
}

impl Vfs {
    /// Goes on with the walk before the reader, until its window is full.
    pub fn walk_ahead(&self, ctx: &Context, advice: &Ahead) {
        let ahead = if *advice == Ahead::Heads { &self.heads } else { &self.ahead };
        while let Some(walk) = self.take_walk(ctx, ahead) {
            self.follow(ctx, ahead, walk);
            if ahead.lock().start.is_none() {
                break;
            }
        }
    }

    /// Fetches the next files of a walk until its window is full, or until another walk is to begin.
    fn follow(&self, ctx: &Context, ahead: &TreeAhead, mut walk: Walk) {
        let mut is_over = false;
        while !is_over && ctx.check().is_ok() && ahead.lock().room() > 0 {
            let pieces = self.batch(ctx, ahead, &mut walk);
            is_over = pieces.is_empty();
            let runs = runs(self.located(ctx, pieces));
            parallel(READERS, runs, |run| {
                let part = raw(run.pack, run.start..run.end);
                drop(self.repo.part(ctx, &part, 0..run.end - run.start, Span::Exact));
            });
        }
        let mut state = ahead.lock();
        state.is_running = false;
        if state.start.is_none() && !is_over {
            state.walk = Some(walk);
        }
    }

    /// Takes the walk, or begins the one that is asked for. `None`: another thread has it.
    fn take_walk(&self, ctx: &Context, ahead: &TreeAhead) -> Option<Walk> {
        let mut state = ahead.lock();
        if state.is_running {
            return None;
        }
        let Some(start) = state.start.take() else {
            let walk = state.walk.take();
            state.is_running = walk.is_some();
            return walk;
        };
        state.is_running = true;
        let by_name = state.by_name;
        drop(state);
        let walk = match start {
            Start::Tree(ino) => self.tree_walk(ctx, ino, by_name).map(Walk::Tree),
            Start::Heads(ino, pattern) => self.head_walk(ctx, ino, &pattern).map(Walk::Heads),
        };
        ahead.lock().is_running = walk.is_ok();
        walk.ok()
    }

    /// Returns the pieces of the next files, and expects their reader.
    fn batch(&self, ctx: &Context, ahead: &TreeAhead, walk: &mut Walk) -> Vec<Piece> {
        let (mut all, mut bytes): (Vec<Piece>, u64) = (Vec::new(), 0);
        let most = ahead.lock().room().min(BATCH.0);
        while bytes < most && all.len() < 4 * BATCH.1 {
            let Some(pieces) = walk.next(ctx, self) else { break };
            let stored: u64 = pieces.iter().map(|piece| piece.stored().len() as u64).sum();
            bytes += stored;
            let mut state = ahead.lock();
            state.fetched += stored;
            state.heads += 1;
            if state.expected.len() >= EXPECTED {
                state.expected.clear();
            }
            let expected = Expected { position: state.fetched, heads: state.heads };
            if let Some(first) = pieces.first() {
                state.expected.insert(first.chunk.id, expected);
            }
            drop(state);
            all.extend(pieces);
        }
        all
    }

    /// Replaces references to packs that were dropped.
    fn located(&self, ctx: &Context, mut pieces: Vec<Piece>) -> Vec<Piece> {
        pieces.iter_mut().for_each(|piece| piece.chunk = self.pages.locate(ctx, ChunkKind::Data, &piece.chunk));
        pieces
    }
}

/// Returns the blocks that hold these pieces; neighbours in one pack become one range.
fn runs(pieces: Vec<Piece>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut ranges: Vec<(PackRef, Range<u32>)> =
        pieces.iter().map(|piece| (piece.chunk.pack, piece.stored())).collect();
    ranges.sort_unstable_by_key(|(pack, range)| (pack.id, range.start));
    for (pack, range) in ranges {
        let start = range.start - range.start % BLOCK as u32;
        let end = range.end.next_multiple_of(BLOCK as u32).min(pack.len);
        match runs.last_mut() {
            Some(run) if run.pack.id == pack.id && start <= run.end && end - run.start <= LARGEST => {
                run.end = run.end.max(end);
            }
            _ => runs.push(Run { pack, start, end }),
        }
    }
    runs
}
