//! All limits of the format. A value beyond its limit is refused when written, and is damage when read.

/// Plaintext of a full pack as it is written, in bytes.
pub const PACK: usize = 16 << 20;
/// Largest plaintext of a pack that readers accept, so that later writers can choose larger packs.
pub const PACK_READ: usize = 64 << 20;
/// Smallest plaintext of a pack.
pub const PACK_FLOOR: usize = 64 << 10;
/// Smallest plaintext of a record.
pub const RECORD_FLOOR: usize = 4 << 10;
/// Largest plaintext of a record.
pub const RECORD: usize = 128 << 20;
/// Largest encoded head of a record.
pub const HEAD: usize = 32 << 20;
/// Largest section of a record: 1,048,576 index entries.
pub const SECTION: usize = 32 << 20;
/// Largest chunk, in plaintext bytes.
pub const CHUNK: usize = 4 << 20;
/// Largest encoded page of a directory or list.
pub const PAGE: usize = 256 << 10;
/// Levels of pages above a leaf.
pub const LEVELS: usize = 8;
/// Longest name of a directory entry.
pub const NAME: usize = 255;
/// Longest target of a symbolic link.
pub const TARGET: usize = 4096;
/// Most extents in a node; a file with more has a reference list.
pub const INLINE_EXTENTS: usize = 4;
/// Most bytes of extended attributes in a node; larger ones have a chunk of their own.
pub const INLINE_XATTRS: usize = 4 << 10;
/// Longest value of an attribute of nfreezer.
pub const OWN_ATTRIBUTE: usize = 64 << 10;
/// Largest file: the largest `off_t`.
pub const FILE: u64 = i64::MAX as u64;
/// Most levels of directories below the root.
pub const DEPTH: usize = 4096;
/// Longest encoded snapshot.
pub const SNAPSHOT: usize = 4 << 10;
/// Plaintext of one zstd frame.
pub const FRAME: usize = 256 << 10;
/// Key files that are tried.
pub const KEY_FILES: usize = 16;
