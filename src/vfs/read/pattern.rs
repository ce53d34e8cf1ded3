//! Recognises how files are read, and advises what to fetch ahead. Pure: it sees the reads and fetches nothing.
//!
//! - **Sequential readers of one file.** A reader has a window before it that grows only when the reader had to wait.
//!   Reads that come slightly out of order (the kernel sends several at once) belong to the same reader. A file has at
//!   most four readers.
//! - **Sequential readers of a pack.** Small files lie in their pack in the order of the walk, and their inode numbers
//!   keep that order (see [`crate::vfs::inode`]), so a program that copies a directory reads packs upwards. Whole
//!   stretches of the pack are fetched then, and the next one ahead. The same holds for larger files in a directory in
//!   which the last files were read to their end.
//!
//! Random reads fetch blocks of 64 KiB, and nothing ahead of them; [`super::random`] advises what to fetch around them.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Mutex;

use lru::LruCache;

use super::heads::{FileRead, HeadPattern, HeadReads};
use crate::crypto::seal::BLOCK;
use crate::format::reference::{PackRef, Ref};
use crate::name::ObjectId;
use crate::repo::Span;

/// First window of a sequential reader that waited, in bytes.
const FIRST_WINDOW: u64 = 1 << 20;
/// Bytes that a reader must have read before it gets a window: a program that looks at the beginning of a file must not
/// fetch the rest.
const PROBATION: u64 = 512 << 10;
/// Distance at which a read behind another still belongs to the same reader, in bytes.
const DISORDER: u64 = 2 << 20;
/// Readers of one file, and readers of one pack.
const READERS: usize = 4;
/// Files, and directories, that are remembered.
const FILES: NonZeroUsize = NonZeroUsize::new(1024).expect("positive");
/// Packs that are remembered.
const PACKS: NonZeroUsize = NonZeroUsize::new(64).expect("positive");
/// Files up to this size are read by pack.
const SMALL: u64 = 256 << 10;
/// Files up to this size are read by pack in directories whose files are read whole.
const MEDIUM: u64 = 16 << 20;
/// Largest gap between two reads of one sequential reader of a pack, in bytes.
const GAP: u32 = 1 << 20;
/// Blocks of a whole stretch: 4 MiB.
const STRETCH: u32 = 64;
/// Bytes of a whole stretch.
const STRETCH_BYTES: u32 = STRETCH * BLOCK as u32;

/// Chunks in ascending order after which a quarter of a stretch is fetched around a read.
const SHORT_RUN: u32 = 3;
/// Chunks in ascending order after which whole stretches are fetched.
const RUN: u32 = 8;
/// Chunks in ascending order after which two stretches are fetched ahead.
const LONG_RUN: u32 = 32;

/// Content to fetch before it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ahead {
    /// Bytes of the file with this inode number.
    File(u64, Range<u64>),
    /// Plaintext bytes of a pack.
    Pack(PackRef, Range<u32>),
    /// Ranges of the file with this inode number, around a read. The blocks of the read itself are not fetched.
    Around {
        /// Inode number.
        ino: u64,
        /// Bytes of the file that are fetched.
        around: Vec<Range<u64>>,
        /// Bytes of the file that are read.
        read: Range<u64>,
    },
    /// The files that come next in the tree; see [`crate::vfs::Vfs::walk_ahead`].
    Tree,
    /// The heads of the files that come next in a directory; see [`crate::vfs::Vfs::walk_ahead`].
    Heads,
}

/// Advice for one chunk of a file that is read by pack.
#[derive(Debug, PartialEq, Eq)]
pub struct PackAdvice {
    /// The range to fetch around the chunk.
    pub span: Span,
    /// The range to fetch after it.
    pub ahead: Option<Ahead>,
}

/// Advice for a read, from the reads of the same directory.
#[derive(Debug, PartialEq, Eq)]
pub struct DirAdvice {
    /// The file is read by pack, as one of many.
    pub by_pack: bool,
    /// A head is read, and so were the last ones in order.
    pub heads: Option<HeadPattern>,
}

/// The patterns of the reads so far.
pub struct AccessPatterns {
    files: Mutex<LruCache<u64, Vec<FileReader>>>,
    packs: Mutex<LruCache<ObjectId, Vec<PackReader>>>,
    directories: Mutex<LruCache<u64, DirPattern>>,
    largest_window: u64,
}

/// The way in which the files of a directory are read.
#[derive(Default)]
struct DirPattern {
    /// Files that were read to their end, one after the other.
    whole: u32,
    /// The file that was begun last, until its end is read.
    open: Option<u64>,
    /// The way in which the heads of the files are read.
    heads: HeadReads,
}

impl DirPattern {
    fn by_pack(&mut self, read: &FileRead) -> bool {
        if read.range.start == 0 && self.open != Some(read.ino) {
            if self.open.is_some() {
                self.whole /= 2;
            }
            self.open = Some(read.ino);
        }
        let reads_whole_files = self.whole >= 2;
        if read.range.end >= read.size && self.open == Some(read.ino) {
            self.whole = self.whole.saturating_add(1);
            self.open = None;
        }
        read.size <= SMALL || (read.size <= MEDIUM && reads_whole_files)
    }
}

/// A sequential reader of a file.
struct FileReader {
    next: u64,
    bytes: u64,
    window: u64,
    /// End of the range that was fetched ahead.
    fetched: u64,
}

/// A reader of small files in the order of their pack.
struct PackReader {
    pack: PackRef,
    end: u32,
    /// Chunks that were read in ascending order.
    chunks: u32,
    /// End of the range that was fetched ahead.
    fetched: u32,
}

impl AccessPatterns {
    /// Windows grow up to `largest_window` bytes.
    pub fn new(largest_window: u64) -> Self {
        AccessPatterns {
            files: Mutex::new(LruCache::new(FILES)),
            packs: Mutex::new(LruCache::new(PACKS)),
            directories: Mutex::new(LruCache::new(FILES)),
            largest_window: largest_window.max(FIRST_WINDOW),
        }
    }

    /// Notes a read. Called for each read, before the other methods.
    pub fn note(&self, read: &FileRead) -> DirAdvice {
        let mut directories = self.directories.lock().expect("no holder panics");
        if !directories.contains(&read.dir) {
            let heads = directories.iter().next().map(|(_, last)| HeadReads::after(&last.heads)).unwrap_or_default();
            directories.put(read.dir, DirPattern { heads, ..DirPattern::default() });
        }
        let pattern = directories.get_or_insert_mut(read.dir, DirPattern::default);
        let by_pack = pattern.by_pack(read);
        if read.size <= SMALL {
            return DirAdvice { by_pack, heads: None };
        }
        pattern.heads.note(read);
        DirAdvice { by_pack, heads: if read.range.start == 0 { pattern.heads.pattern() } else { None } }
    }

    /// Returns whether the last files of a directory were read to their ends.
    pub fn reads_whole_files(&self, dir: u64) -> bool {
        let mut directories = self.directories.lock().expect("no holder panics");
        directories.get(&dir).is_some_and(|pattern| pattern.whole >= 2)
    }

    /// Returns the range to fetch ahead after a read of `range` of a large file; `waits`: the range is not in memory.
    pub fn file(&self, ino: u64, range: &Range<u64>, size: u64, waits: bool) -> Option<Ahead> {
        let mut files = self.files.lock().expect("no holder panics");
        let readers = files.get_or_insert_mut(ino, Vec::new);
        let bytes = range.end - range.start;
        let Some(at) = readers.iter().position(|reader| reader.continues_with(range)) else {
            readers.truncate(READERS - 1);
            readers.insert(0, FileReader { next: range.end, bytes, window: 0, fetched: 0 });
            return None;
        };
        readers[..=at].rotate_right(1);
        let reader = &mut readers[0];
        reader.bytes += bytes;
        reader.next = reader.next.max(range.end);
        if waits && reader.bytes > PROBATION {
            reader.window = (reader.window * 2).clamp(FIRST_WINDOW, self.largest_window);
        }
        reader.ahead(size).map(|range| Ahead::File(ino, range))
    }

    /// Returns whether a reader of the file is still about to reach `range`.
    pub fn wanted(&self, ino: u64, range: &Range<u64>) -> bool {
        let files = self.files.lock().expect("no holder panics");
        files.peek(&ino).is_some_and(|readers| readers.iter().any(|reader| reader.will_reach(range)))
    }

    /// Returns how much to fetch around a chunk of a file that is read by pack, and after it.
    pub fn pack(&self, r: &Ref) -> PackAdvice {
        let mut packs = self.packs.lock().expect("no holder panics");
        let inherited = inherited_run(&packs, r);
        let readers = packs.get_or_insert_mut(r.pack.id, Vec::new);
        match readers.iter().position(|reader| reader.continues_with(r)) {
            Some(at) => readers[..=at].rotate_right(1),
            None => {
                readers.truncate(READERS - 1);
                readers.insert(0, PackReader { pack: r.pack, end: r.offset, chunks: inherited, fetched: 0 });
            }
        }
        let reader = &mut readers[0];
        if r.offset >= reader.end {
            reader.chunks += 1;
        }
        reader.end = reader.end.max(r.offset + r.stored);
        PackAdvice { span: span(reader.chunks), ahead: reader.ahead() }
    }
}

/// Returns the run of a reader that has reached the end of another pack, if this chunk is at the beginning of a pack that
/// has no readers yet: that reader continues here.
fn inherited_run(packs: &LruCache<ObjectId, Vec<PackReader>>, r: &Ref) -> u32 {
    if packs.contains(&r.pack.id) || r.offset >= GAP {
        return 0;
    }
    let mut recent = packs.iter().take(8).flat_map(|(_, readers)| readers);
    recent.find(|reader| reader.has_finished()).map_or(0, |reader| reader.chunks)
}

impl FileReader {
    fn continues_with(&self, range: &Range<u64>) -> bool {
        range.start + DISORDER >= self.next && range.start <= self.next + self.window.max(FIRST_WINDOW / 4)
    }

    fn will_reach(&self, range: &Range<u64>) -> bool {
        self.next < range.end && range.start <= self.next + self.window
    }

    /// Returns the rest of the window, once it is at least a quarter of the window or ends the file.
    fn ahead(&mut self, size: u64) -> Option<Range<u64>> {
        let from = self.fetched.max(self.next);
        let to = (self.next + self.window).min(size);
        if to <= from || (to - from < self.window / 4 && to != size) {
            return None;
        }
        self.fetched = to;
        Some(from..to)
    }
}

impl PackReader {
    fn continues_with(&self, r: &Ref) -> bool {
        let disorder = r.stored.max(BLOCK as u32);
        r.offset.saturating_add(disorder) >= self.end && r.offset <= self.end.saturating_add(GAP)
    }

    /// Returns whether a reader with a run has reached the end of its pack.
    fn has_finished(&self) -> bool {
        self.end + GAP > self.pack.len && self.chunks >= RUN
    }

    /// Returns the stretch after the present one, once the second half of that is reached; two stretches for long runs.
    fn ahead(&mut self) -> Option<Ahead> {
        let (alignment, distance) = match self.chunks {
            0..RUN => return None,
            RUN..LONG_RUN => (STRETCH_BYTES, STRETCH_BYTES / 2),
            LONG_RUN.. => (STRETCH_BYTES / 4, 2 * STRETCH_BYTES),
        };
        let from = self.end.next_multiple_of(alignment).max(self.fetched);
        let to = self.end.saturating_add(distance).next_multiple_of(STRETCH_BYTES).min(self.pack.len);
        if from >= to {
            return None;
        }
        self.fetched = to;
        Some(Ahead::Pack(self.pack, from..to))
    }
}

/// Returns how much to fetch around a chunk after a run of chunks.
fn span(chunks: u32) -> Span {
    match chunks {
        0..SHORT_RUN => Span::Exact,
        SHORT_RUN..RUN => Span::Blocks(STRETCH / 4),
        RUN..LONG_RUN => Span::Blocks(STRETCH),
        // The rest of the stretch is being fetched ahead over other connections.
        LONG_RUN.. => Span::Blocks(STRETCH / 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::keys::ChunkId;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_window_grows_only_for_a_sequential_reader_that_waits() {
        let readers = AccessPatterns::new(16 * MIB);
        let read = |start, waits| readers.file(9, &(start..start + MIB), 1 << 40, waits);
        assert_eq!(read(0, true), None, "the first read shows no pattern");
        assert_eq!(read(MIB, true), Some(Ahead::File(9, 2 * MIB..3 * MIB)));
        assert_eq!(read(3 * MIB, false), Some(Ahead::File(9, 4 * MIB..5 * MIB)), "out of order");
        assert_eq!(read(2 * MIB, true), Some(Ahead::File(9, 5 * MIB..6 * MIB)));
        assert!(readers.wanted(9, &(5 * MIB..6 * MIB)) && !readers.wanted(9, &(50 * MIB..60 * MIB)));
        for at in [100, 900, 300, 700, 500] {
            assert_eq!(read(at * MIB, true), None, "here and there");
        }
        for i in 0..8 {
            assert_eq!(readers.file(8, &(i << 16..(i + 1) << 16), MIB * 4, true), None, "only its first 512 KiB");
        }
    }

    #[test]
    fn small_files_in_the_order_of_their_pack_come_in_stretches() {
        let readers = AccessPatterns::new(MIB);
        let pack = |n| PackRef { id: ObjectId([n; 32]), len: 16 << 20 };
        let chunk = |n, offset| Ref { id: ChunkId([0; 16]), pack: pack(n), offset, stored: 5000, len: 5000 };
        let file = |n, offset| readers.pack(&chunk(n, offset));
        let advice: Vec<_> = (0..3300).map(|i| file(1, i * 5000)).collect();
        assert_eq!([0, 2, 7].map(|i: usize| advice[i].span), [Span::Exact, Span::Blocks(16), Span::Blocks(64)]);
        let ahead = advice.iter().filter_map(|a| a.ahead.clone()).flat_map(|a| match a {
            Ahead::Pack(_, range) => range,
            _ => unreachable!(),
        });
        assert!(ahead.eq(1 << 20..16 << 20), "each further stretch once");
        assert_eq!(file(2, 0).span, Span::Blocks(16), "the next pack goes on");
        assert_eq!(file(2, 5000).ahead, None, "the rest has been fetched ahead");
        assert_eq!([9, 2, 7, 1, 4].map(|i| file(3, i << 20).span), [Span::Exact; 5], "here and there");
    }

    #[test]
    fn photos_are_read_by_pack_only_where_they_are_read_whole() {
        let readers = AccessPatterns::new(MIB);
        let by_pack = |dir, ino, range, size| {
            let position = ino as u32;
            readers.note(&FileRead { dir, position, ino, range, size }).by_pack
        };
        let preview = |ino| by_pack(1, ino, 0..MIB / 8, 4 * MIB);
        let copy = |ino| (0..4).fold(false, |_, i| by_pack(1, ino, i * MIB..(i + 1) * MIB, 4 * MIB));
        assert_eq!((1..5).map(preview).collect::<Vec<_>>(), [false; 4]);
        assert_eq!((5..9).map(copy).collect::<Vec<_>>(), [false, false, true, true]);
        assert_eq!((9..13).map(preview).collect::<Vec<_>>(), [true, true, false, false]);
        assert!(by_pack(2, 77, 0..100, 100) && !by_pack(2, 78, 0..100, 1 << 30));
    }
}
