//! The size of some snapshots, or of paths in them: distinct chunks, before and after compression, and how many of them
//! other snapshots share.
//!
//! In: the contents of the snapshots, and the roots of all others. Out: [`Stats`].

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

use crate::context::Context;
use crate::crypto::keys::ChunkKind;
use crate::error::{Error, Kind, Result};
use crate::format::node::{Content, Node};
use crate::format::reference::{Extent, Ref};
use crate::trees::{self, Below, Trees, Visit};

/// Most distinct chunks: about 1 GiB of memory.
const MOST: usize = 24 << 20;
/// Bytes that hold the visited pages of a walk.
const VISITED: u64 = 64 << 20;

/// The size of some chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Distinct chunks.
    pub chunks: u64,
    /// Their bytes before compression.
    pub bytes: u64,
    /// Their bytes as they are stored, before encryption.
    pub stored: u64,
}

/// The size of some snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Contents of files.
    pub contents: Figures,
    /// Directories, reference lists and extended attributes.
    pub metadata: Figures,
    /// The part of both that no other snapshot has.
    pub unique: Figures,
    /// Pages that could not be read; their contents are not counted.
    pub damaged: u64,
}

/// Computes the size of the directories and files `wanted`. `others` are the roots of all snapshots that they are not in. Of
/// a file, only the contents count.
///
/// # Errors
///
/// Errors that are no damage, and more chunks than memory for them.
pub fn stats(ctx: &Context, trees: &Trees<'_>, wanted: &[Content], others: &[Ref]) -> Result<Stats> {
    let collector = Collector { key: RandomState::new(), state: Mutex::default() };
    let top = |content: &Content| if let Content::Directory(top) = content { *top } else { None };
    let tops: Vec<Ref> = wanted.iter().filter_map(top).collect();
    collector.references(&roots(&tops));
    trees::walk(ctx, trees.repo(), Some(trees.lookup()), &tops, VISITED, &collector)?;
    wanted.iter().try_for_each(|content| collector.file(ctx, trees, content))?;
    collector.lock().is_of_others = true;
    if !others.is_empty() {
        collector.references(&roots(others));
        trees::walk(ctx, trees.repo(), Some(trees.lookup()), others, VISITED, &collector)?;
    }
    let state = collector.state.into_inner().expect("no holder panics");
    if state.known.len() >= MOST {
        let text = format!("these snapshots have more than {MOST} chunks, which needs more memory");
        return Err(Error::new(Kind::Failed, text).hint("restrict it to some snapshots, with ids or `--host`"));
    }
    let mut stats = Stats { damaged: state.damaged, ..Stats::default() };
    for chunk in state.known.values() {
        (if chunk.is_content { &mut stats.contents } else { &mut stats.metadata }).add(chunk);
        if !chunk.is_shared {
            stats.unique.add(chunk);
        }
    }
    Ok(stats)
}

/// Returns the number of files in and below a node, and their bytes. Directories that cannot be read count as empty.
///
/// # Errors
///
/// Errors that are no damage.
pub fn restore_size(ctx: &Context, trees: &Trees<'_>, node: &Node) -> Result<(u64, u64)> {
    let Content::Directory(top) = node.content else {
        return Ok((u64::from(node.content.is_file()), node.content.size()));
    };
    let (mut files, mut bytes) = (0, 0u64);
    for found in Below::new(ctx, trees, top) {
        let Ok(node) = found?.node else { continue };
        if node.content.is_file() {
            files += 1;
            bytes = bytes.saturating_add(node.content.size());
        }
    }
    Ok((files, bytes))
}

fn roots(roots: &[Ref]) -> Vec<(ChunkKind, Ref)> {
    roots.iter().map(|root| (ChunkKind::Page, *root)).collect()
}

struct Chunk {
    len: u32,
    stored: u32,
    is_content: bool,
    is_shared: bool,
}

impl Figures {
    fn add(&mut self, chunk: &Chunk) {
        self.chunks += 1;
        self.bytes += u64::from(chunk.len);
        self.stored += u64::from(chunk.stored);
    }
}

#[derive(Default)]
struct State {
    /// The chunks of the wanted snapshots. Hashes under a key of this run stand for them.
    known: HashMap<u64, Chunk>,
    /// The trees of other snapshots are being read.
    is_of_others: bool,
    damaged: u64,
}

struct Collector {
    key: RandomState,
    state: Mutex<State>,
}

impl Collector {
    /// Adds the chunks of a file.
    fn file(&self, ctx: &Context, trees: &Trees<'_>, content: &Content) -> Result<()> {
        for extent in trees.extents(ctx, content) {
            match extent {
                Ok(Extent::Data(r)) => self.references(&[(ChunkKind::Data, r)]),
                Ok(Extent::Hole(_)) => {}
                Err(e) if e.kind().is_damage() => self.lock().damaged += 1,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl Visit for Collector {
    fn references(&self, references: &[(ChunkKind, Ref)]) {
        let mut state = self.lock();
        for (kind, r) in references {
            let hash = self.key.hash_one(r.id);
            if state.is_of_others {
                state.known.entry(hash).and_modify(|chunk| chunk.is_shared = true);
            } else if state.known.len() < MOST {
                let is_content = *kind == ChunkKind::Data;
                let new = || Chunk { len: r.len, stored: r.stored, is_content, is_shared: false };
                state.known.entry(hash).or_insert_with(new);
            }
        }
    }

    fn read(&self, _: u64, _: &[Node]) {}

    fn unreadable(&self, _: &Ref, _: &Error) {
        self.lock().damaged += 1;
    }
}
