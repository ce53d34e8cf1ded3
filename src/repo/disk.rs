//! The disk cache of a repository: sealed blocks between the memory and the server.
//!
//! Two rules have their home here.
//!
//! - *A block of the disk counts only if it is verified like one of the server.* A block that is absent, cut off, altered or
//!   of another object is no error: the server is asked, and its bytes replace those on the disk.
//! - *The disk never shows that an object exists.* A client that writes could otherwise refer to a pack that the server has
//!   lost. It reads a pack from the disk only if the server has shown it to this process, with its right size.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::object::{Block, Object, Opened};
use crate::context::Context;
use crate::crypto::keys::Keys;
use crate::crypto::seal::{self, HEADER, ObjectType, TAG};
use crate::name::{Name, ObjectId};
use crate::storage::{CachedObject, DiskCache, Part, Sort, Storage};

/// The use of the disk cache by a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheUse {
    /// It reads.
    #[default]
    Read,
    /// It reads, and will read contents of files again.
    Mount,
    /// It writes to the repository.
    Write,
    /// It would write to the repository.
    DryRun,
}

/// The result of a look at the disk.
pub(super) enum Found {
    /// Blocks from this number on, the wanted one among them.
    Blocks(u32, Vec<Option<Block>>, Arc<Opened>),
    /// The wanted block is not on the disk, and neither are these blocks around it.
    Nothing(Range<u32>),
}

/// The disk cache.
pub(super) struct Disk {
    cache: DiskCache,
    usage: CacheUse,
    storage: Arc<dyn Storage>,
    keys: Arc<Keys>,
    /// Sizes of packs that the server has shown.
    shown: Mutex<HashMap<ObjectId, u64>>,
    is_bypassed: AtomicBool,
}

impl Disk {
    pub fn new(cache: DiskCache, usage: CacheUse, storage: &Arc<dyn Storage>, keys: &Arc<Keys>) -> Self {
        let (storage, keys) = (Arc::clone(storage), Arc::clone(keys));
        Disk { cache, usage, storage, keys, shown: Mutex::default(), is_bypassed: AtomicBool::new(false) }
    }

    /// Reads and writes nothing any more.
    pub fn bypass(&self) {
        self.is_bypassed.store(true, Ordering::Relaxed);
    }

    /// Notes the number of packs for the next command that lists them.
    pub fn note_packs(&self, count: u64) {
        if self.usage == CacheUse::Write
            && !self.is_bypassed.load(Ordering::Relaxed)
            && self.cache.noted_packs() != Some(count)
        {
            self.cache.note_packs(count);
        }
    }

    /// Returns whether blocks of this kind are added.
    pub fn keeps(&self, kind: ObjectType) -> bool {
        let is_wanted = kind != ObjectType::Data || self.usage == CacheUse::Mount;
        is_wanted && !self.is_bypassed.load(Ordering::Relaxed)
    }

    /// Notes that the server has a pack of this size.
    pub fn show(&self, id: ObjectId, size: u64) {
        if self.confirms() {
            self.shown.lock().expect("no holder panics").insert(id, size);
        }
    }

    fn confirms(&self) -> bool {
        matches!(self.usage, CacheUse::Write | CacheUse::DryRun)
    }

    /// Returns whether the server has the object. A server that cannot be asked has nothing.
    fn is_shown(&self, ctx: &Context, object: &Object) -> bool {
        let Name::Pack(id) = object.name else { return true };
        if !self.confirms() {
            return true;
        }
        let known = self.shown.lock().expect("no holder panics").get(&id).copied();
        let size = known.or_else(|| self.storage.size(ctx, &object.name).ok());
        size.iter().for_each(|size| self.show(id, *size));
        size == Some(seal::sealed_len(object.len))
    }

    /// Looks for block `wanted`, and the blocks of `run` beside it. `known`: the header, if it was verified before.
    pub fn find(
        &self,
        ctx: &Context,
        object: &Object,
        known: Option<Arc<Opened>>,
        run: Range<u32>,
        wanted: u32,
    ) -> Found {
        if self.is_bypassed.load(Ordering::Relaxed) {
            return Found::Nothing(run);
        }
        let Some(file) = self.cache.find(sort(object.kind), &object.id) else { return Found::Nothing(run) };
        let is_here = has(&file, object, wanted);
        let is_alike = |i: &u32| has(&file, object, *i) == is_here;
        let start = (run.start..wanted).rev().take_while(is_alike).last().unwrap_or(wanted);
        let alike = start..(wanted + 1..run.end).find(|i| !is_alike(i)).unwrap_or(run.end);
        if !is_here {
            return Found::Nothing(alike);
        }
        if !self.is_shown(ctx, object) {
            return Found::Nothing(run);
        }
        let header = || Opened::new(&self.keys, object, &file.at(0, HEADER)).ok().map(Arc::new);
        let Some(opened) = known.or_else(header) else { return Found::Nothing(run) };
        let (offset, len) = opened.place(&alike);
        let mut sealed = file.at(offset, len);
        if sealed.len() < len {
            return Found::Nothing(run);
        }
        let blocks: Vec<_> = opened.open(alike.clone(), &mut sealed).map(|block| block.ok()).collect();
        match blocks[(wanted - alike.start) as usize] {
            Some(_) => Found::Blocks(alike.start, blocks, opened),
            None => Found::Nothing(run),
        }
    }

    /// Adds the valid ones of these blocks, whose sealed bytes are `sealed`.
    pub fn add(&self, object: &Object, opened: &Opened, first: u32, sealed: &[u8], blocks: &[Option<Block>]) {
        let base = opened.place(&(first..first + 1)).0;
        let mut parts = vec![Part { offset: 0, bytes: &opened.header }];
        let mut at = first;
        for alike in blocks.chunk_by(|a, b| a.is_some() == b.is_some()) {
            let run = at..at + alike.len() as u32;
            at = run.end;
            if alike[0].is_some() {
                let (offset, len) = opened.place(&run);
                parts.push(Part { offset, bytes: &sealed[(offset - base) as usize..][..len] });
            }
        }
        self.cache.add(sort(object.kind), &object.id, &parts);
    }

    /// Adds an object that this client has just stored.
    pub fn add_own(&self, kind: ObjectType, name: &Name, id: &ObjectId, sealed: &[u8]) {
        if matches!(name, Name::Pack(_)) {
            self.show(*id, sealed.len() as u64);
        }
        if self.keeps(kind) && self.usage != CacheUse::DryRun {
            self.cache.add(sort(kind), id, &[Part { offset: 0, bytes: sealed }]);
        }
    }
}

/// Returns whether the file has bytes of the block: its tag is not a hole.
fn has(file: &CachedObject, object: &Object, block: u32) -> bool {
    let (offset, len) = seal::block_place(object.len, block.into(), u64::from(block) + 1);
    let tag = file.at(offset + len as u64 - TAG as u64, TAG);
    tag.len() == TAG && tag.iter().any(|byte| *byte != 0)
}

fn sort(kind: ObjectType) -> Sort {
    if kind == ObjectType::Data { Sort::Contents } else { Sort::Others }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::context::background;
    use crate::crypto::kdf::KdfCost;
    use crate::crypto::secret::Passphrase;
    use crate::repo::fetch::Span;
    use crate::repo::{Access, Repository};
    use crate::storage::{CacheFolder, Memory};

    /// A section of the index is streamed past the memory. Each of its blocks may be bad on the disk.
    #[test]
    fn a_stream_asks_the_server_for_blocks_that_are_bad_on_the_disk() {
        let (memory, dir) = (Arc::<Memory>::default(), tempfile::tempdir().unwrap());
        let passphrase = Passphrase::new("test".into()).unwrap();
        let repo = Repository::init(background(), memory.clone(), &passphrase, KdfCost::DEFAULT, "").unwrap();
        let plain: Vec<u8> = (0..400_000_u32).map(|i| (i / 7) as u8).collect();
        let pack = repo.put_pack(background(), ObjectType::Data, &mut plain.clone()).unwrap();
        let object = Object { name: Name::Pack(pack.id), id: pack.id, kind: ObjectType::Data, len: pack.len.into() };
        let process = || {
            let cache = Some(CacheFolder::open(dir.path(), 0, Arc::new(|_| ())).unwrap());
            let access = Access { cache, cache_use: CacheUse::Mount, ..Access::default() };
            repo.behind_with(memory.clone(), &access)
        };
        let stream = |from_disk| {
            let (repo, mut read) = (process(), Vec::new());
            repo.fetcher.stream(background(), &object, 0..object.len, |piece| read.extend_from_slice(piece)).unwrap();
            assert!(read == plain);
            assert_eq!(repo.cache_stats().from_disk > 0 && repo.cache_stats().reads == 0, from_disk);
        };
        stream(false);
        stream(true);
        let path = dir.path().join(crate::name::hex(&repo.id().0)).join("contents").join(pack.id.to_string());
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        for block in 0..seal::blocks(object.len) {
            let at = seal::block_place(object.len, block, block + 1).0 + 9;
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            stream(false);
            stream(true);
            // Single blocks beside a bad one are still used.
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            let repo = process();
            let (bad, other) = (block as u32, if block == 0 { 3 } else { 0 });
            let byte_of = |block: u32| u64::from(block) * 65_536..u64::from(block) * 65_536 + 1;
            for (block, reads) in [(other, 0), (bad, 1)] {
                repo.fetcher.read(background(), &object, byte_of(block), Span::Exact).unwrap();
                assert_eq!(repo.cache_stats().reads, reads);
            }
        }
    }
}
