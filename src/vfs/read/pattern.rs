//! When to fetch more than was asked for. Nothing is fetched here: it looks at reads and gives advice.
//!
//! - **Files**: a sequential reader has a window before it, which grows only when that reader had to wait. Reads that come
//!   a little out of order (the kernel sends several at once) belong to the same reader; up to four readers a file.
//! - **Packs**: small files lie in their pack in the order of the walk, and their inode numbers keep that order (see
//!   [`crate::vfs::inode`]), so whoever copies a folder reads packs upwards. Then whole stretches are fetched, and the next one
//!   ahead. The same for larger files in a directory where the last ones were read to their end.
//!
//! Whoever reads here and there gets blocks of 64 KiB and nothing else.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Mutex;

use lru::LruCache;

use crate::crypto::seal::BLOCK;
use crate::format::reference::{PackRef, Ref};
use crate::name::ObjectId;
use crate::repo::Span;

/// First window of a sequential reader that waited, in bytes.
const FIRST: u64 = 1 << 20;
/// Nobody has a window before this much was read: looking at the beginning of a file must not fetch more of it.
const PATIENCE: u64 = 512 << 10;
/// How far behind another one a read may come and still belong to the same reader, in bytes.
const BACK: u64 = 2 << 20;
/// Readers a file, and readers a pack.
const READERS: usize = 4;
/// Files and packs whose readers are remembered.
const FILES: NonZeroUsize = NonZeroUsize::new(1024).expect("positive");
const PACKS: NonZeroUsize = NonZeroUsize::new(64).expect("positive");
/// Files up to this size are read by pack, larger ones by file.
const SMALL: u64 = 256 << 10;
/// Files up to this size too, where files are read whole.
const MEDIUM: u64 = 16 << 20;
/// A gap in a pack that still counts as going on, in bytes.
const GAP: u32 = 1 << 20;
/// Blocks of a whole stretch: 4 MiB.
const STRETCH: u32 = 64;

/// So many chunks upwards, and whole stretches are fetched; so many, and two are fetched ahead.
const CLIMBER: u32 = 8;
const LONG: u32 = 32;

/// Something to fetch before it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ahead {
    /// Bytes of the file with this inode number.
    File(u64, Range<u64>),
    /// Plaintext bytes of a pack.
    Pack(PackRef, Range<u32>),
}

/// What the reads so far were like.
pub struct Readers {
    files: Mutex<LruCache<u64, Vec<Stream>>>,
    packs: Mutex<LruCache<ObjectId, Vec<Climb>>>,
    habits: Mutex<LruCache<u64, Habit>>,
    most: u64,
}

/// How files of a directory are read.
#[derive(Default)]
struct Habit {
    /// Files read to their end, one after the other.
    whole: u32,
    /// The one that was begun last, until its end is read.
    open: Option<u64>,
}

/// A sequential reader of a file.
struct Stream {
    next: u64,
    bytes: u64,
    window: u64,
    /// Up to where it was fetched ahead.
    ahead: u64,
}

/// A reader of small files that goes upwards in a pack.
struct Climb {
    pack: PackRef,
    end: u32,
    files: u32,
    ahead: u32,
}

impl Readers {
    /// Windows grow up to `most` bytes.
    pub fn new(most: u64) -> Self {
        Readers {
            files: Mutex::new(LruCache::new(FILES)),
            packs: Mutex::new(LruCache::new(PACKS)),
            habits: Mutex::new(LruCache::new(FILES)),
            most: most.max(FIRST),
        }
    }

    /// Whether a file is one of many that are read by pack: `range` of it, of `size` bytes, in directory `dir`, was asked for.
    pub fn by_pack(&self, dir: u64, ino: u64, range: &Range<u64>, size: u64) -> bool {
        let mut habits = self.habits.lock().expect("no holder panics");
        let habit = habits.get_or_insert_mut(dir, Habit::default);
        if range.start == 0 && habit.open != Some(ino) {
            if habit.open.is_some() {
                habit.whole /= 2;
            }
            habit.open = Some(ino);
        }
        let whole = habit.whole >= 2;
        if range.end >= size && habit.open == Some(ino) {
            (habit.whole, habit.open) = (habit.whole.saturating_add(1), None);
        }
        size <= SMALL || (size <= MEDIUM && whole)
    }

    /// `range` of a large file of `size` bytes was asked for; `waits`: it is not in memory.
    pub fn file(&self, ino: u64, range: &Range<u64>, size: u64, waits: bool) -> Option<Ahead> {
        let mut files = self.files.lock().expect("no holder panics");
        let streams = files.get_or_insert_mut(ino, Vec::new);
        let near = |s: &Stream| range.start + BACK >= s.next && range.start <= s.next + s.window.max(FIRST / 4);
        let Some(at) = streams.iter().position(near) else {
            streams.truncate(READERS - 1);
            let bytes = range.end - range.start;
            streams.insert(0, Stream { next: range.end, bytes, window: 0, ahead: 0 });
            return None;
        };
        streams[..=at].rotate_right(1);
        let stream = &mut streams[0];
        stream.bytes += range.end - range.start;
        stream.next = stream.next.max(range.end);
        if waits && stream.bytes > PATIENCE {
            stream.window = (stream.window * 2).clamp(FIRST, self.most);
        }
        let from = stream.ahead.max(stream.next);
        let to = (stream.next + stream.window).min(size);
        let worth = to > from && (to - from >= stream.window / 4 || to == size);
        worth.then(|| {
            stream.ahead = to;
            Ahead::File(ino, from..to)
        })
    }

    /// Whether a reader of the file is still about to come to `range`.
    pub fn wanted(&self, ino: u64, range: &Range<u64>) -> bool {
        let files = self.files.lock().expect("no holder panics");
        let about = |s: &Stream| s.next < range.end && range.start <= s.next + s.window;
        files.peek(&ino).is_some_and(|streams| streams.iter().any(about))
    }

    /// A chunk of a file that is read by pack was asked for: how much to fetch around it, and what after it.
    pub fn pack(&self, r: &Ref) -> (Span, Option<Ahead>) {
        let mut packs = self.packs.lock().expect("no holder panics");
        // Whoever has climbed to the end of one pack goes on at the beginning of the next.
        let fresh = !packs.contains(&r.pack.id) && r.offset < GAP;
        let done = |c: &&Climb| c.end + GAP > c.pack.len && c.files >= CLIMBER;
        let before = packs.iter().take(8).flat_map(|(_, climbs)| climbs).find(done).map(|c| c.files);
        let climbs = packs.get_or_insert_mut(r.pack.id, Vec::new);
        let back = r.stored.max(BLOCK as u32);
        let near = |c: &Climb| r.offset.saturating_add(back) >= c.end && r.offset <= c.end.saturating_add(GAP);
        match climbs.iter().position(near) {
            Some(at) => climbs[..=at].rotate_right(1),
            None => {
                climbs.truncate(READERS - 1);
                let files = before.filter(|_| fresh).unwrap_or(0);
                climbs.insert(0, Climb { pack: r.pack, end: r.offset, files, ahead: 0 });
            }
        }
        let climb = &mut climbs[0];
        if r.offset >= climb.end {
            climb.files += 1;
        }
        climb.end = climb.end.max(r.offset + r.stored);
        (span(climb.files), climb.ahead())
    }
}

impl Climb {
    /// What to fetch after the stretch that it is in: the next one in the second half of it, and more for long climbs.
    fn ahead(&mut self) -> Option<Ahead> {
        const SIZE: u32 = STRETCH * BLOCK as u32;
        let (begin, look) = match self.files {
            0..CLIMBER => return None,
            CLIMBER..LONG => (SIZE, SIZE / 2),
            LONG.. => (SIZE / 4, 2 * SIZE),
        };
        let from = self.end.next_multiple_of(begin).max(self.ahead);
        let to = self.end.saturating_add(look).next_multiple_of(SIZE).min(self.pack.len);
        (from < to).then(|| {
            self.ahead = to;
            Ahead::Pack(self.pack, from..to)
        })
    }
}

fn span(files: u32) -> Span {
    match files {
        0..3 => Span::Exact,
        3..CLIMBER => Span::Blocks(STRETCH / 4),
        CLIMBER..LONG => Span::Blocks(STRETCH),
        // The rest of the stretch is on its way already, over other connections.
        LONG.. => Span::Blocks(STRETCH / 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::keys::ChunkId;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_window_grows_only_for_a_sequential_reader_who_waits() {
        let readers = Readers::new(16 * MIB);
        let read = |start, waits| readers.file(9, &(start..start + MIB), 1 << 40, waits);
        assert_eq!(read(0, true), None, "the first read says nothing");
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
        let readers = Readers::new(MIB);
        let pack = |n| PackRef { id: ObjectId([n; 32]), len: 16 << 20 };
        let chunk = |n, offset| Ref { id: ChunkId([0; 16]), pack: pack(n), offset, stored: 5000, len: 5000 };
        let file = |n, offset| readers.pack(&chunk(n, offset));
        let advice: Vec<_> = (0..3300).map(|i| file(1, i * 5000)).collect();
        assert_eq!([0, 2, 7].map(|i: usize| advice[i].0), [Span::Exact, Span::Blocks(16), Span::Blocks(64)]);
        let ahead = advice.iter().filter_map(|a| a.1.clone()).flat_map(|a| match a {
            Ahead::Pack(_, range) => range,
            Ahead::File(..) => unreachable!(),
        });
        assert!(ahead.eq(1 << 20..16 << 20), "each further stretch once");
        assert_eq!(file(2, 0).0, Span::Blocks(16), "the next pack goes on");
        assert_eq!(file(2, 5000).1, None, "and what follows is on its way");
        assert_eq!([9, 2, 7, 1, 4].map(|i| file(3, i << 20).0), [Span::Exact; 5], "here and there");
    }

    #[test]
    fn photos_are_read_by_pack_only_where_they_are_read_whole() {
        let readers = Readers::new(MIB);
        let preview = |ino| readers.by_pack(1, ino, &(0..MIB / 8), 4 * MIB);
        let copy = |ino| (0..4).map(|i| readers.by_pack(1, ino, &(i * MIB..(i + 1) * MIB), 4 * MIB)).last().unwrap();
        assert_eq!((1..5).map(preview).collect::<Vec<_>>(), [false; 4]);
        assert_eq!((5..9).map(copy).collect::<Vec<_>>(), [false, false, true, true]);
        assert_eq!((9..13).map(preview).collect::<Vec<_>>(), [true, true, false, false]);
        assert!(readers.by_pack(2, 77, &(0..100), 100) && !readers.by_pack(2, 78, &(0..100), 1 << 30));
    }
}
