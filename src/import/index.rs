//! Reads `.files`, the index of an old repository: a sequence of appended blocks. A later block replaces earlier ones with
//! the same name.
//!
//! ```text
//! block = le32(length of the rest) salt(16) nonce(16) tag(16) AES-GCM(zlib(entry))
//! entry = contents(16) le64(mtime in ns) le64(size) SHA-256(32) name; contents of zeros: the name was deleted
//! ```
//!
//! An interrupted run leaves an incomplete block, and the next run appends behind it. The old program cannot read the rest of
//! such an index. This reader searches for the next block with a valid tag.

use std::collections::{HashMap, HashSet};

use super::crypt::{HEADER, Header, Keys};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::name::Name;
use crate::storage::Storage;

/// Bytes of one read.
const PIECE: u64 = 1 << 20;
/// Bytes of an entry before the name.
const FIXED: usize = 64;
/// Longest accepted name: sixteen times the longest path of Linux, and the longest path of Windows.
const NAME: usize = 64 << 10;
/// Possible lengths of a block. zlib adds a few bytes to data that it cannot compress.
const BLOCK: std::ops::RangeInclusive<usize> = HEADER + 11..=HEADER + FIXED + NAME + 256;
/// Most names in memory.
const NAMES: usize = 10_000_000;
/// Most keys that open no block before the passphrase counts as wrong.
const FAILED_KEYS: usize = 16;
/// Most keys that open no block if others did, before the index counts as an attack on the running time.
const FAILED_KEYS_AFTER_SUCCESS: usize = 1000;

/// A file in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Name as the old program wrote it.
    pub name: Vec<u8>,
    /// Name of the object with the contents.
    pub contents: [u8; 16],
    /// Modification time in nanoseconds since the epoch.
    pub mtime: u64,
    /// SHA-256 of the contents.
    pub hash: [u8; 32],
    /// Offset of the block. Later blocks replace earlier ones.
    pub at: u64,
}

/// The decoded index.
pub(super) struct Index {
    /// Files that were not deleted, unordered.
    pub entries: Vec<Entry>,
    /// Number of damaged blocks. Each was reported.
    pub damaged: u64,
}

/// The bytes at an offset of the index.
enum Block {
    /// A verified entry, and the offset of the next block.
    Entry(Vec<u8>, u64),
    /// Bytes that no key opens.
    Broken,
}

/// Reads the whole index.
pub(super) fn read(ctx: &Context, storage: &dyn Storage, keys: &Keys) -> Result<Index> {
    let end = storage.size(ctx, &Name::OldIndex)?;
    let window = Window { ctx, storage, from: 0, bytes: Vec::new(), end };
    let mut reader = Reader { window, keys, tried: 0, verified: HashSet::new() };
    let (mut files, mut damaged, mut at) = (HashMap::new(), 0, 0);
    let mut skip = |at: u64, why: &Error| {
        ctx.skip(format!(".files, entry at byte {at}").as_bytes(), why);
        damaged += 1;
    };
    while at < end {
        let next = match reader.block(at)? {
            Block::Entry(bytes, next) => {
                enter(&mut files, &bytes, at).unwrap_or_else(|why| skip(at, &why));
                next
            }
            Block::Broken => {
                let next = reader.resume(at)?;
                if reader.verified.is_empty() && reader.tried > 0 {
                    return Err(wrong_passphrase());
                }
                if reader.is_incomplete(at, next - at)? {
                    let len = next - at;
                    let text =
                        format!(".files: {len} bytes from {at} on: a run of the old program was interrupted there");
                    ctx.warn(&text);
                } else {
                    skip(at, &Error::damaged("it is damaged: its tag or its length is wrong"));
                }
                next
            }
        };
        at = next;
        if files.len() > NAMES {
            return Err(Error::failed(format!("the old index holds more than {NAMES} names")));
        }
    }
    let entries = files.into_iter().map(|(name, found): (Vec<u8>, Found)| {
        let Found { contents, mtime, hash, at } = found;
        Entry { name, contents, mtime, hash, at }
    });
    Ok(Index { entries: entries.collect(), damaged })
}

/// A file in the map of names.
pub(super) struct Found {
    contents: [u8; 16],
    mtime: u64,
    hash: [u8; 32],
    at: u64,
}

/// Applies a verified entry to the map of names.
pub(super) fn enter(files: &mut HashMap<Vec<u8>, Found>, zlib: &[u8], at: u64) -> Result<()> {
    let plain = miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(zlib, FIXED + NAME)
        .map_err(|_| Error::damaged(format!("it does not unpack to at most {} bytes", FIXED + NAME)))?;
    let short = || Error::damaged("it is too short");
    let (contents, rest) = plain.split_first_chunk::<16>().ok_or_else(short)?;
    let (mtime, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let (_size, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let (hash, name) = rest.split_first_chunk::<32>().ok_or_else(short)?;
    if *contents == [0; 16] {
        files.remove(name);
    } else {
        let mtime = little(mtime);
        files.insert(name.to_vec(), Found { contents: *contents, mtime, hash: *hash, at });
    }
    Ok(())
}

fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn wrong_passphrase() -> Error {
    Error::new(Kind::Passphrase, "wrong passphrase of the old repository")
        .hint("no entry of its index opens with it; it is the one that the Python nFreezer asked for")
}

struct Reader<'r> {
    window: Window<'r>,
    keys: &'r Keys,
    /// Number of derived keys.
    tried: usize,
    /// Salts whose keys have opened a block.
    verified: HashSet<[u8; 16]>,
}

impl Reader<'_> {
    /// Returns the length in the header of the block at `at`, if it is possible.
    fn length(&mut self, at: u64) -> Result<Option<usize>> {
        let bytes = self.window.get(at, 4)?;
        Ok(bytes.map(|bytes| little(bytes) as usize).filter(|len| BLOCK.contains(len)))
    }

    /// Returns the length and the salt of the block at `at`, if there can be one.
    fn shape(&mut self, at: u64) -> Result<Option<(usize, [u8; 16])>> {
        let Some(len) = self.length(at)?.filter(|len| self.window.end - at - 4 >= *len as u64) else { return Ok(None) };
        let salt = self.window.get(at + 4, 16)?;
        Ok(salt.and_then(|salt| salt.try_into().ok()).map(|salt| (len, salt)))
    }

    /// Returns whether `len` unreadable bytes are an incomplete block.
    fn is_incomplete(&mut self, at: u64, len: u64) -> Result<bool> {
        Ok(len < 4 || self.length(at)?.is_some_and(|whole| len < whole as u64 + 4))
    }

    fn block(&mut self, at: u64) -> Result<Block> {
        self.window.ctx.check()?;
        let Some((len, _)) = self.shape(at)? else { return Ok(Block::Broken) };
        let next = at + 4 + len as u64;
        let Some(bytes) = self.window.get(at + 4, len)? else { return Ok(Block::Broken) };
        let Some((header, sealed)) = Header::split(bytes) else { return Ok(Block::Broken) };
        if !self.keys.knows(&header.salt) {
            self.tried += 1;
            let failed = self.tried - self.verified.len();
            if self.verified.is_empty() && failed > FAILED_KEYS {
                return Err(wrong_passphrase());
            }
            if failed > FAILED_KEYS_AFTER_SUCCESS {
                return Err(Error::damaged("too many entries of the old index are damaged"));
            }
        }
        let mut plain = sealed.to_vec();
        let mut gcm = self.keys.open(&header);
        gcm.decrypt(&mut plain)?;
        if !gcm.verify(&header.tag) {
            return Ok(Block::Broken);
        }
        self.verified.insert(header.salt);
        Ok(Block::Entry(plain, next))
    }

    /// Returns the offset of the next verified block behind a broken one; the end if there is none. Tries every offset,
    /// since the length of the broken block may be wrong.
    fn resume(&mut self, broken: u64) -> Result<u64> {
        for at in broken + 1..self.window.end {
            if self.is_entry(at)? {
                return Ok(at);
            }
        }
        Ok(self.window.end)
    }

    fn is_entry(&mut self, at: u64) -> Result<bool> {
        let Some((len, salt)) = self.shape(at)? else { return Ok(false) };
        // Deriving a key for every four bytes that could be a length would take too long.
        let next = at + 4 + len as u64;
        let likely = self.keys.knows(&salt)
            || next == self.window.end
            || self.shape(next)?.is_some_and(|(_, following)| following == salt);
        Ok(likely && matches!(self.block(at)?, Block::Entry(..)))
    }
}

/// A part of the index in memory.
struct Window<'r> {
    ctx: &'r Context<'r>,
    storage: &'r dyn Storage,
    from: u64,
    bytes: Vec<u8>,
    end: u64,
}

impl Window<'_> {
    /// Returns `len` bytes; `None` if the index ends before.
    fn get(&mut self, at: u64, len: usize) -> Result<Option<&[u8]>> {
        if self.end.checked_sub(at).is_none_or(|left| left < len as u64) {
            return Ok(None);
        }
        let held = self.from + self.bytes.len() as u64;
        if at < self.from || at + len as u64 > held {
            let piece = PIECE.max(len as u64).min(self.end - at);
            self.bytes = self.storage.read(self.ctx, &Name::OldIndex, at, piece as usize)?;
            self.from = at;
        }
        let start = (at - self.from) as usize;
        Ok(self.bytes.get(start..start + len))
    }
}
