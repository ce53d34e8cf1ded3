//! Recognises a reader that takes the heads (the first bytes) of the files of a directory in the order of their names, as
//! a file manager does for previews. Pure: it sees the reads and fetches nothing.

use std::collections::VecDeque;
use std::ops::Range;

/// Files whose heads must be read, one after the other, before further heads are fetched ahead.
const RUN: u32 = 3;
/// Largest distance of two files that follow each other, in positions of their directory.
const GAP: u32 = 8;
/// Largest head, in bytes.
const LARGEST: u64 = 1 << 20;
/// Files of a directory that are remembered.
const RECENT: usize = 8;

/// A read of a file.
#[derive(Clone, Debug)]
pub struct FileRead {
    /// Inode number of the directory.
    pub dir: u64,
    /// Position of the file in the directory.
    pub position: u32,
    /// Inode number of the file.
    pub ino: u64,
    /// Bytes that are read.
    pub range: Range<u64>,
    /// Bytes of the file.
    pub size: u64,
}

/// The heads that a reader takes next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadPattern {
    /// Bytes of a head.
    pub bytes: u64,
    /// The reader goes from the last name to the first.
    pub backwards: bool,
    /// Positions of the files that were read last, the present one at the end.
    pub positions: Vec<u32>,
}

/// The way in which the heads of the files of a directory were read.
#[derive(Default)]
pub struct HeadReads {
    /// Files whose heads were read in order.
    run: u32,
    /// The files that were begun last, the newest at the end.
    recent: VecDeque<Begun>,
    /// Bytes of the heads in the directory that was read before.
    inherited: u64,
}

/// A file that was read from its beginning.
struct Begun {
    ino: u64,
    position: u32,
    /// End of the bytes that were read.
    end: u64,
}

impl HeadReads {
    /// Begins the reads of a directory after the reads of another one, `before`. A reader of heads needs no new run there if it
    /// begins with the first files.
    pub fn after(before: &HeadReads) -> Self {
        match before.pattern().filter(|pattern| pattern.positions.len() >= RUN as usize) {
            Some(pattern) => HeadReads { run: RUN - 1, inherited: pattern.bytes, ..HeadReads::default() },
            None => HeadReads::default(),
        }
    }

    /// Notes a read of a file that is larger than a head.
    pub fn note(&mut self, read: &FileRead) {
        match self.recent.iter_mut().rev().find(|begun| begun.ino == read.ino) {
            Some(begun) if read.range.start <= begun.end => begun.end = begun.end.max(read.range.end),
            None if read.range.start == 0 => self.begin(read),
            _ => return,
        }
        if read.range.end > LARGEST || read.range.end >= read.size {
            self.run = 0;
        }
    }

    fn begin(&mut self, read: &FileRead) {
        let follows = match self.recent.back() {
            Some(last) => last.position.abs_diff(read.position) <= GAP,
            None => self.inherited > 0 && read.position <= GAP,
        };
        self.run = if follows { self.run + 1 } else { 1 };
        self.recent.push_back(Begun { ino: read.ino, position: read.position, end: read.range.end });
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    /// Returns the pattern of the last heads.
    pub fn pattern(&self) -> Option<HeadPattern> {
        let run = self.recent.len().min(self.run as usize);
        if self.run < RUN {
            return None;
        }
        let last = self.recent.range(self.recent.len() - run..);
        let positions: Vec<u32> = last.clone().map(|begun| begun.position).collect();
        let bytes = last.map(|begun| begun.end).max()?.max(self.inherited).min(LARGEST);
        Some(HeadPattern { bytes, backwards: positions.first() > positions.last(), positions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 3 << 20;

    fn read(position: u32, range: Range<u64>) -> FileRead {
        FileRead { dir: 1, position, ino: u64::from(position) + 100, range, size: SIZE }
    }

    /// Reads the heads of these files; returns their pattern.
    fn heads(positions: impl IntoIterator<Item = u32>) -> Option<HeadPattern> {
        let mut reads = HeadReads::default();
        for position in positions {
            reads.note(&read(position, 0..32 << 10));
            reads.note(&read(position, 32 << 10..96 << 10));
        }
        reads.pattern()
    }

    #[test]
    fn three_heads_in_order_are_a_pattern_in_both_directions() {
        assert_eq!(heads([4, 5]), None);
        assert_eq!(
            heads([4, 5, 7]).unwrap(),
            HeadPattern { bytes: 96 << 10, backwards: false, positions: vec![4, 5, 7] }
        );
        assert!(heads([40, 39, 37]).unwrap().backwards);
        assert!(!heads([1, 2, 4, 3]).unwrap().backwards, "four threads that make previews");
        assert_eq!(heads([10, 500, 11, 400, 12, 300]), None, "here and there");
        assert_eq!(heads([1, 2, 3, 4, 90]), None, "the reader has left");
    }

    #[test]
    fn a_reader_of_heads_goes_on_in_the_next_directory() {
        let mut reads = HeadReads::default();
        (0..3).for_each(|position| reads.note(&read(position, 0..90 << 10)));
        let mut next = HeadReads::after(&reads);
        next.note(&read(1, 0..32 << 10));
        assert_eq!(next.pattern(), Some(HeadPattern { bytes: 90 << 10, backwards: false, positions: vec![1] }));
        let mut third = HeadReads::after(&next);
        third.note(&read(0, 0..32 << 10));
        assert_eq!(third.pattern(), None, "one file of a directory shows nothing about the next");
        let mut middle = HeadReads::after(&reads);
        middle.note(&read(100, 0..32 << 10));
        assert_eq!(middle.pattern(), None);
    }

    #[test]
    fn a_reader_of_whole_files_has_no_pattern() {
        let mut reads = HeadReads::default();
        for position in 0..10 {
            for at in 0..3 {
                reads.note(&read(position, at << 20..(at + 1) << 20));
            }
            assert_eq!(reads.pattern(), None);
        }
    }
}
