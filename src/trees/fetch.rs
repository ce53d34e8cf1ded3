//! Verified chunks, fetched in large stretches where neighbours will be wanted too, and ahead of their use.
//!
//! The walk announces each reference that it queues. For each stretch of 4 MiB of a pack the number of wanted bytes is
//! counted. A stretch of which most bytes are wanted, or many small chunks, is fetched as a whole, once and early. Other
//! chunks are fetched alone: files that were pushed at the same time lie between each other, and the stretch of the
//! next file would leave the cache before the walk comes to it.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex};

use crossbeam_channel::Sender;

use super::Trees;
use crate::context::Context;
use crate::crypto::keys::ChunkKind;
use crate::crypto::seal::BLOCK;
use crate::error::Result;
use crate::format::reference::Ref;
use crate::name::ObjectId;
use crate::repo::{Span, StoredChunk};

/// Blocks of a stretch: 4 MiB.
const STRETCH: u32 = 64;
/// Stored bytes that may be queued: with [`STRETCH`] and the cache of 96 MiB, a stretch stays in the cache until it is used.
const WINDOW: u64 = 48 << 20;
/// Packs below this size, in bytes, are of pushes that changed little. Their chunks are fetched early one by one, since a
/// tree has few in each of many.
const SMALL_PACK: u32 = 4 << 20;
/// Small chunks in a stretch from which on it is fetched as a whole, and their average length at most.
const SMALL: (u32, u64) = (4, 128 << 10);
/// Wanted bytes in a stretch from which on it is fetched as a whole: 7/8, since a chunk may begin in the stretch before.
const MOST: u64 = (STRETCH as u64 * BLOCK as u64) / 8 * 7;

type Place = (ObjectId, u32);

#[derive(Default)]
struct Wanted {
    queued: u64,
    stretches: HashMap<Place, (u32, u64, bool)>,
}

/// Fetches the chunks that a walk announces.
pub struct Fetch<'a> {
    trees: &'a Trees<'a>,
    wanted: Mutex<Wanted>,
    less: Condvar,
}

fn place(r: &Ref) -> Place {
    (r.pack.id, r.offset / (STRETCH * BLOCK as u32))
}

fn is_worth_it(count: u32, bytes: u64) -> bool {
    bytes >= MOST || count >= SMALL.0 && bytes <= u64::from(count) * SMALL.1
}

/// Announced chunks. They count as queued until this is dropped.
pub struct Announced<'f, R: AsRef<[Ref]>> {
    fetch: &'f Fetch<'f>,
    refs: R,
}

impl<R: AsRef<[Ref]>> Drop for Announced<'_, R> {
    fn drop(&mut self) {
        self.fetch.done(self.refs.as_ref());
    }
}

impl<'a> Fetch<'a> {
    /// Makes a fetcher with nothing announced.
    pub fn new(trees: &'a Trees<'a>) -> Self {
        Fetch { trees, wanted: Mutex::default(), less: Condvar::new() }
    }

    /// Returns where a chunk is: the place of its reference, unless that pack was dropped. Then its neighbours are the ones
    /// at the new place.
    pub fn located(&self, ctx: &Context, r: &Ref) -> Ref {
        self.trees.lookup().locate(ctx, self.trees.repo(), ChunkKind::Data, r)
    }

    /// Waits until more chunks may be announced. Then [`Fetch::announce`] does not wait, if no other thread announces chunks.
    pub fn wait_for_room(&self, ctx: &Context) -> Result<()> {
        let mut wanted = self.wanted.lock().expect("no holder panics");
        while wanted.queued >= WINDOW {
            wanted = ctx.wait(&self.less, wanted)?;
        }
        Ok(())
    }

    /// Announces chunks that will be needed, and waits while too many bytes are queued. A stretch that has become worth it goes to
    /// `early`, whose other end calls [`Fetch::touch`].
    pub fn announce(&self, refs: &[Ref], early: &Sender<Ref>) {
        let mut wanted = self.wanted.lock().expect("no holder panics");
        while wanted.queued >= WINDOW {
            wanted = self.less.wait(wanted).expect("no holder panics");
        }
        let mut worth = Vec::new();
        for r in refs {
            wanted.queued += u64::from(r.stored);
            let (count, bytes, asked) = wanted.stretches.entry(place(r)).or_default();
            *count += 1;
            *bytes += u64::from(r.stored);
            if r.pack.len < SMALL_PACK {
                worth.push(*r);
            } else if !*asked && is_worth_it(*count, *bytes) {
                *asked = true;
                worth.push(*r);
            }
        }
        drop(wanted);
        for r in worth {
            // If this fails, the stretch is not fetched early, but when it is needed.
            let _ = early.send(r);
        }
    }

    /// Returns these announced chunks, which count as queued until the result is dropped, whatever happens.
    pub fn announced<R: AsRef<[Ref]>>(&self, refs: R) -> Announced<'_, R> {
        Announced { fetch: self, refs }
    }

    fn done(&self, refs: &[Ref]) {
        let mut wanted = self.wanted.lock().expect("no holder panics");
        for r in refs {
            wanted.queued -= u64::from(r.stored);
            if let Some((count, bytes, _)) = wanted.stretches.get_mut(&place(r)) {
                *count -= 1;
                *bytes -= u64::from(r.stored);
                if *count == 0 {
                    wanted.stretches.remove(&place(r));
                }
            }
        }
        drop(wanted);
        self.less.notify_all();
    }

    /// Reads the stretch around this chunk, or the chunk of a small pack, into the cache. Errors are reported when the bytes are needed.
    pub fn touch(&self, ctx: &Context, r: &Ref) {
        let (part, span) =
            if r.pack.len < SMALL_PACK { (0..r.len, Span::Exact) } else { (0..1, Span::Blocks(STRETCH)) };
        let _ = self.trees.repo().part(ctx, r, part, span);
    }

    /// Returns the contents of a chunk, verified by their id; from where the index has them if they cannot be read at their place.
    pub fn chunk(&self, ctx: &Context, r: &Ref) -> Result<Vec<u8>> {
        self.trees.chunk(ctx, r, self.span(r))
    }

    /// Returns a chunk like [`Fetch::chunk`], in its stored form too.
    pub fn stored_chunk(&self, ctx: &Context, r: &Ref) -> Result<StoredChunk> {
        let (kind, span, repo) = (ChunkKind::Data, self.span(r), self.trees.repo());
        self.trees.read(ctx, kind, r, |r| repo.stored_chunk(ctx, kind, r, span))
    }

    fn span(&self, r: &Ref) -> Span {
        let last = Ref { offset: r.offset + r.stored.saturating_sub(1), ..*r };
        let wanted = self.wanted.lock().expect("no holder panics");
        // A chunk that reaches into the next stretch does not fetch all of that.
        let is_asked = [r, &last].iter().all(|r| matches!(wanted.stretches.get(&place(r)), Some((_, _, true))));
        if is_asked { Span::Blocks(STRETCH) } else { Span::Exact }
    }
}
