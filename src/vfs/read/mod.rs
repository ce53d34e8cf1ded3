//! Contents of files: from positions to extents to verified bytes.

pub mod pattern;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use lru::LruCache;

use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::crypto::seal::BLOCK;
use crate::error::{Error, Kind, Result};
use crate::format::limits::{FRAME, LEVELS};
use crate::format::reference::{Extent, PackRef, Ref};
use crate::format::stored::unpack_frame;
use crate::format::tree::Content;
use crate::repo::{Span, parallel};
use crate::vfs::attr::{Fault, passing};
use crate::vfs::cache::Cache;
use crate::vfs::failures::RecentFailures;
use crate::vfs::inode_table::Place;
use crate::vfs::pages::Extents;
use crate::vfs::{Mode, Vfs};
use pattern::Ahead;

/// Bytes of decompressed frames that are kept.
const FRAMES: usize = 24 << 20;
/// Files whose extents are at hand without a page of their directory.
const OPENED: NonZeroUsize = NonZeroUsize::new(2048).expect("positive");
/// Places fetched at the same time for one read.
const PARTS: usize = 4;
/// Pages of a list that one search for a hole reads; behind them it calls holes data, which is allowed.
const SEARCH: usize = 64;

/// Bytes of a pack of file contents, see [`Vfs::plan`].
pub struct PackRange(PackRef, Range<u32>);

/// What to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next byte that is stored.
    Data,
    /// The next byte that is not, at the latest the end of the file.
    Hole,
}

/// What is known of contents at the moment.
pub(in crate::vfs) struct Contents {
    opened: Mutex<LruCache<u64, Arc<Opened>>>,
    frames: Cache<(ChunkId, u32), [u8]>,
    failures: RecentFailures<([u8; 16], u32)>,
}

impl Contents {
    pub fn new() -> Self {
        Contents {
            opened: Mutex::new(LruCache::new(OPENED)),
            frames: Cache::new(FRAMES),
            failures: RecentFailures::default(),
        }
    }
}

struct Opened {
    /// The directory where it was first seen.
    dir: u64,
    size: u64,
    top: Top,
}

enum Top {
    Inline(Arc<Extents>),
    List(Ref),
}

/// A stretch of a file: bytes of one extent.
enum Piece {
    Zeros(usize),
    Part(Ref, Range<u32>),
}

impl Vfs {
    /// The bytes of a file from `offset` on, at most `size`; fewer only at its end. `advise` hears what should be fetched
    /// now that this is read, before anything is waited for; see [`Vfs::plan`].
    pub fn read(&self, ino: u64, offset: u64, size: u32, mode: Mode, advise: &dyn Fn(Ahead)) -> Result<Vec<u8>, Fault> {
        let file = self.opened(ino, mode)?;
        let range = offset..offset.saturating_add(size.into()).min(file.size);
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let pieces = self.pieces(&file, range.clone(), mode)?;
        let here = self.in_memory(&pieces);
        if here.is_none() && mode == Mode::Cached {
            return Err(Fault::Wait);
        }
        let mut span = Span::Exact;
        if self.readers.by_pack(file.dir, ino, &range, file.size) {
            for piece in &pieces {
                let Piece::Part(r, _) = piece else { continue };
                let (wide, ahead) = self.readers.pack(r);
                span = wide;
                ahead.into_iter().for_each(advise);
            }
        } else {
            self.readers.file(ino, &range, file.size, here.is_none()).into_iter().for_each(advise);
        }
        match here {
            Some(bytes) => Ok(bytes),
            None => Ok(self.fetch(pieces, span)?),
        }
    }

    fn fetch(&self, pieces: Vec<Piece>, span: Span) -> Result<Vec<u8>> {
        if let [Piece::Part(r, part)] = pieces.as_slice() {
            return self.part(r, part, span);
        }
        // Chunks that lie one behind the other come with one read.
        if let Some(all) = joined(&pieces)
            && let Ok(bytes) = self.repo.part(&all, 0..all.len, span)
        {
            return Ok(bytes);
        }
        let parts = parallel(PARTS, pieces, |piece| match piece {
            Piece::Zeros(len) => Ok(vec![0; len]),
            Piece::Part(r, part) => self.part(&r, &part, span),
        });
        let mut parts = parts.into_iter();
        let mut bytes = parts.next().unwrap_or_else(|| Ok(Vec::new()))?;
        for part in parts {
            bytes.extend_from_slice(&part?);
        }
        Ok(bytes)
    }

    /// Where the bytes are that a read advised to fetch, in stretches of at most 1 MiB; nothing if nobody is about to
    /// come to them any more.
    pub fn plan(&self, ahead: &Ahead, mode: Mode) -> Result<Vec<PackRange>, Fault> {
        const STRETCH: usize = 1 << 20;
        let mut runs: Vec<(PackRef, Range<u32>)> = Vec::new();
        match ahead {
            Ahead::Pack(pack, range) => runs.push((*pack, range.clone())),
            Ahead::File(ino, range) if self.wanted(ahead) => {
                let file = self.opened(*ino, mode)?;
                for piece in self.pieces(&file, range.clone(), mode)? {
                    let Piece::Part(r, part) = piece else { continue };
                    let place = match r.stored == r.len {
                        true => r.offset + part.start..r.offset + part.end,
                        false => r.offset..r.offset + r.stored,
                    };
                    match runs.last_mut() {
                        Some((pack, run)) if pack.id == r.pack.id && run.end == place.start => run.end = place.end,
                        _ => runs.push((r.pack, place)),
                    }
                }
            }
            Ahead::File(..) => {}
        }
        let aligned = |(pack, run): (PackRef, Range<u32>)| {
            let from = run.start - run.start % BLOCK as u32;
            let to = run.end.next_multiple_of(BLOCK as u32).min(pack.len);
            (from..to).step_by(STRETCH).map(move |at| PackRange(pack, at..to.min(at + STRETCH as u32)))
        };
        Ok(runs.into_iter().flat_map(aligned).collect())
    }

    /// Whether somebody is still about to come to what was advised.
    pub fn wanted(&self, ahead: &Ahead) -> bool {
        match ahead {
            Ahead::File(ino, range) => self.readers.wanted(*ino, range),
            Ahead::Pack(..) => true,
        }
    }

    /// Fetches a stretch of a pack of file contents. Errors will be seen by whoever reads it.
    pub fn fetch_ahead(&self, PackRange(pack, range): &PackRange) {
        drop(self.repo.part(&raw(*pack, range.clone()), 0..range.len() as u32, Span::Exact));
    }

    /// The first position from `offset` on that is data, or a hole.
    pub fn seek(&self, ino: u64, offset: u64, what: Seek, mode: Mode) -> Result<u64, Fault> {
        let file = self.opened(ino, mode)?;
        if offset >= file.size {
            return Err(Fault::Beyond);
        }
        let mut at = offset;
        for _ in 0..SEARCH {
            let (leaf, base) = self.leaf(&file, at, mode)?;
            let Extents::Leaf(extents, ends) = &*leaf else { return Err(broken()) };
            for i in ends.partition_point(|end| base + end <= at)..extents.len() {
                if matches!(extents[i], Extent::Hole(_)) == (what == Seek::Hole) {
                    return Ok(at);
                }
                at = base + ends[i];
            }
            if at >= file.size {
                return if what == Seek::Hole { Ok(file.size) } else { Err(Fault::Beyond) };
            }
        }
        Ok(if what == Seek::Hole { file.size } else { at })
    }

    fn opened(&self, ino: u64, mode: Mode) -> Result<Arc<Opened>, Fault> {
        let cache = || self.contents.opened.lock().expect("no holder panics");
        if let Some(file) = cache().get(&ino) {
            return Ok(Arc::clone(file));
        }
        let opened = |content: &Content| match content {
            Content::File(extents) => Some(Top::Inline(Arc::new(Extents::leaf(extents.clone())))),
            Content::Large { list, .. } => Some(Top::List(*list)),
            _ => None,
        };
        let dir = match self.place(ino) {
            Some(Place::Entry(dir, _)) => dir.attr.ino,
            _ => ino,
        };
        let file = self.with_node(ino, mode, |node| {
            Some(Arc::new(Opened { dir, size: node.content.size(), top: opened(&node.content)? }))
        })?;
        let file = file.ok_or(Fault::Invalid)?;
        cache().put(ino, Arc::clone(&file));
        Ok(file)
    }

    /// The page of the list that holds a position, and where in the file it begins.
    fn leaf(&self, file: &Opened, position: u64, mode: Mode) -> Result<(Arc<Extents>, u64), Fault> {
        let mut list = match &file.top {
            Top::Inline(leaf) => return Ok((Arc::clone(leaf), 0)),
            Top::List(list) => *list,
        };
        let (mut base, mut span) = (0, file.size);
        for _ in 0..=LEVELS {
            let page = self.pages.list(&list, mode)?;
            if page.span() != span || position - base >= span {
                return Err(broken());
            }
            match &*page {
                Extents::Leaf(..) => return Ok((page, base)),
                Extents::Upper(rows, ends) => {
                    let row = ends.partition_point(|end| base + end <= position);
                    let before = if row > 0 { ends[row - 1] } else { 0 };
                    list = *rows.get(row).ok_or_else(broken)?;
                    (base, span) = (base + before, ends[row] - before);
                }
            }
        }
        Err(broken())
    }

    fn pieces(&self, file: &Opened, range: Range<u64>, mode: Mode) -> Result<Vec<Piece>, Fault> {
        let mut pieces = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let (leaf, base) = self.leaf(file, at, mode)?;
            let Extents::Leaf(extents, ends) = &*leaf else { return Err(broken()) };
            let before = at;
            for i in ends.partition_point(|end| base + end <= at)..extents.len() {
                let (start, end) = (base + ends[i] - extents[i].len(), (base + ends[i]).min(range.end));
                pieces.push(match &extents[i] {
                    Extent::Hole(_) => Piece::Zeros((end - at) as usize),
                    Extent::Data(r) => Piece::Part(*r, (at - start) as u32..(end - start) as u32),
                });
                at = end;
                if at >= range.end {
                    break;
                }
            }
            if at == before {
                return Err(broken());
            }
        }
        Ok(pieces)
    }

    /// The bytes of these pieces, if all of them are in memory.
    fn in_memory(&self, pieces: &[Piece]) -> Option<Vec<u8>> {
        let len = |p: &Piece| match p {
            Piece::Zeros(len) => *len,
            Piece::Part(_, part) => part.len(),
        };
        let mut out = Vec::with_capacity(pieces.iter().map(len).sum());
        for piece in pieces {
            match piece {
                Piece::Zeros(len) => out.resize(out.len() + len, 0),
                Piece::Part(r, part) if r.stored == r.len => {
                    self.repo.part_in_memory(r, part.clone(), &mut out).then_some(())?;
                }
                Piece::Part(r, part) => {
                    self.unpack_in_memory(r);
                    for i in frames(part) {
                        self.contents.frames.cached(&(r.id, i)).map(|frame| cut(&frame, i, part, &mut out))?;
                    }
                }
            }
        }
        Some(out)
    }

    /// Unpacks a chunk of one frame whose bytes are in memory: that takes less time than a worker to wake up.
    fn unpack_in_memory(&self, r: &Ref) {
        let mut bytes = Vec::new();
        if r.len as usize <= FRAME
            && self.contents.frames.cached(&(r.id, 0)).is_none()
            && self.repo.part_in_memory(&raw(r.pack, r.offset..r.offset + r.stored), 0..r.stored, &mut bytes)
            && let Ok(frame) = unpack_frame(r, 0, &bytes)
        {
            let weight = frame.len();
            self.contents.frames.put((r.id, 0), Arc::from(frame), weight);
        }
    }

    /// Bytes of a chunk, fetched and verified. What failed a moment ago fails again without being tried.
    fn part(&self, r: &Ref, part: &Range<u32>, span: Span) -> Result<Vec<u8>> {
        let units = units(r, part);
        if let Some(error) = self.contents.failures.find(units.iter().copied()) {
            return Err(error);
        }
        let result = self.pages.with(ChunkKind::Data, r, |r| {
            if r.stored == r.len { self.repo.part(r, part.clone(), span) } else { self.unpacked(r, part, span) }
        });
        if let Err(e) = &result
            && (units.len() == 1 || passing(e))
        {
            self.contents.failures.add(units, e);
        }
        result
    }

    /// Bytes of a compressed chunk; whole frames are fetched and kept.
    fn unpacked(&self, r: &Ref, part: &Range<u32>, span: Span) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(part.len());
        let wanted: Vec<u32> = frames(part).collect();
        let missing = |i: &&u32| self.contents.frames.cached(&(r.id, **i)).is_none();
        if let (Some(first), Some(last)) = (wanted.iter().find(missing), wanted.iter().rev().find(missing)) {
            let whole = first * FRAME as u32..r.len.min((last + 1) * FRAME as u32);
            let plain = self.repo.part(r, whole, span)?;
            for (i, frame) in (*first..).zip(plain.chunks(FRAME)) {
                self.contents.frames.put((r.id, i), Arc::from(frame), frame.len());
                cut(frame, i, part, &mut out);
            }
            if out.len() == part.len() {
                return Ok(out);
            }
            out.clear();
        }
        for i in wanted {
            match self.contents.frames.cached(&(r.id, i)) {
                Some(frame) => cut(&frame, i, part, &mut out),
                None => return self.repo.part(r, part.clone(), span),
            }
        }
        Ok(out)
    }
}

/// Bytes of a pack as if they were a chunk.
fn raw(pack: PackRef, range: Range<u32>) -> Ref {
    let len = range.len() as u32;
    Ref { id: ChunkId([0; 16]), pack, offset: range.start, stored: len, len }
}

/// The place of pieces of raw chunks that lie one behind the other in one pack.
fn joined(pieces: &[Piece]) -> Option<Ref> {
    let mut all: Option<(PackRef, Range<u32>)> = None;
    for piece in pieces {
        let Piece::Part(r, part) = piece else { return None };
        let (from, to) = (r.offset.checked_add(part.start)?, r.offset.checked_add(part.end)?);
        match &mut all {
            _ if r.stored != r.len => return None,
            None => all = Some((r.pack, from..to)),
            Some((pack, range)) if *pack == r.pack && range.end == from => range.end = to,
            Some(_) => return None,
        }
    }
    all.map(|(pack, range)| raw(pack, range))
}

/// The frames that hold these bytes of a compressed chunk.
fn frames(part: &Range<u32>) -> impl Iterator<Item = u32> + use<> {
    part.start / FRAME as u32..part.end.div_ceil(FRAME as u32)
}

/// Appends what `part` wants of frame `i`.
fn cut(frame: &[u8], i: u32, part: &Range<u32>, out: &mut Vec<u8>) {
    let at = i as usize * FRAME;
    let from = (part.start as usize).saturating_sub(at);
    let to = (part.end as usize).saturating_sub(at).min(frame.len());
    out.extend_from_slice(frame.get(from..to).unwrap_or_default());
}

/// What fails together: blocks of the pack for raw chunks, frames for compressed ones.
fn units(r: &Ref, part: &Range<u32>) -> Vec<([u8; 16], u32)> {
    if r.stored < r.len {
        return frames(part).map(|i| (r.id.0, i)).collect();
    }
    let pack = *r.pack.id.0.first_chunk().expect("32 bytes");
    let block = |i: u32| ((u64::from(r.offset) + u64::from(i)) / BLOCK as u64) as u32;
    (block(part.start)..=block(part.end - 1)).map(|i| (pack, i)).collect()
}

fn broken() -> Fault {
    Fault::Broken(Error::new(Kind::Damaged, "a file's reference list does not cover its size"))
}
