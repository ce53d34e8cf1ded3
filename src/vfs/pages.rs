//! Decoded pages of directories and reference lists, each fetched when it is needed and dropped when memory is short.

use std::sync::Arc;

use super::attr::Fault;
use super::cache::Cache;
use super::{Mode, inode};
use crate::context::Context;
use crate::crypto::keys::{ChunkId, ChunkKind, Keys};
use crate::error::Result;
use crate::format::list::List;
use crate::format::node::{Content, Node, Xattrs, decode_xattrs};
use crate::format::own;
use crate::format::page::{Page, Row};
use crate::format::reference::{Extent, Ref};
use crate::name::ObjectId;
use crate::repo::{Repository, State};
use crate::trees::{Branch, HasPage, Lookup, Trees};

/// Capacity for decoded directory pages, in bytes; about 45,000 nodes.
const PAGES: usize = 16 << 20;
/// Capacity for decoded reference lists, in bytes; about 200 GiB of files.
const LISTS: usize = 16 << 20;
/// Capacity for extended attributes that have a chunk of their own, in bytes.
const XATTRS: usize = 4 << 20;

/// A page of a directory.
pub struct Directory {
    /// The page.
    pub page: Page,
    /// The inode number of each node of a leaf, or 0 where it depends on the snapshot or the path.
    pub inos: Vec<u64>,
}

impl HasPage for Arc<Directory> {
    fn page(&self) -> &Page {
        &self.page
    }
}

/// A page of a reference list.
pub struct Extents {
    /// The page.
    pub list: List,
    /// The end of each row in the file, in bytes from the beginning of the page.
    pub ends: Vec<u64>,
}

impl Extents {
    /// Takes a decoded page.
    pub fn new(list: List) -> Self {
        let ends = match &list {
            List::Leaf(extents) => ends(extents.iter().map(Extent::len)),
            List::Upper(rows) => ends(rows.iter().map(|row| row.0)),
        };
        Extents { list, ends }
    }
}

/// Extended attributes as (name, value).
pub type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// A chunk, and the pack of its reference.
type PageKey = (ChunkId, ObjectId);

/// The decoded pages of one repository.
pub struct Pages {
    repo: Arc<Repository>,
    lookup: Arc<Lookup>,
    /// Equal files share an inode number.
    shared_inodes: bool,
    directories: Cache<PageKey, Directory>,
    lists: Cache<PageKey, Extents>,
    xattrs: Cache<PageKey, Attributes>,
}

impl Pages {
    pub fn new(repo: Arc<Repository>, state: State, shared_inodes: bool) -> Self {
        Pages {
            repo,
            lookup: Arc::new(Lookup::from_state(state)),
            shared_inodes,
            directories: Cache::new(PAGES),
            lists: Cache::new(LISTS),
            xattrs: Cache::new(XATTRS),
        }
    }

    /// Sets a newer state, which finds more chunks.
    pub fn set_state(&self, state: State) {
        self.lookup.set_state(state);
    }

    /// Returns the trees of the repository.
    pub fn trees(&self) -> Trees<'_> {
        Trees::with(&self.repo, Arc::clone(&self.lookup))
    }

    /// Returns a page of a directory.
    pub fn directory(&self, r: &Ref, mode: Mode<'_>) -> Result<Arc<Directory>, Fault> {
        self.get(&self.directories, ChunkKind::Page, r, mode, |bytes, r| {
            Ok(directory(Page::decode(bytes, &r.pack)?, self.repo.keys(), self.shared_inodes))
        })
    }

    /// Returns the pages below a page of a directory, and the top pages of its subdirectories. The decoded page is cached
    /// only while there is room.
    pub fn below(&self, ctx: &Context, branch: &Branch) -> Result<Vec<Branch>, Fault> {
        let here = self.directories.cached(&(branch.page.id, branch.page.pack.id)).is_some();
        if here || self.directories.bytes() < PAGES / 4 * 3 {
            let directory = self.directory(&branch.page, Mode::Fetch(ctx))?;
            branch.check(&directory.page)?;
            return Ok(below(branch, &directory.page));
        }
        let (_, page) = self.trees().page(ctx, branch)?;
        Ok(below(branch, &page))
    }

    /// Returns a page of a reference list.
    pub fn list(&self, r: &Ref, mode: Mode<'_>) -> Result<Arc<Extents>, Fault> {
        self.get(&self.lists, ChunkKind::List, r, mode, |bytes, r| Ok(extents(List::decode(bytes, &r.pack)?)))
    }

    /// Returns the extended attributes of a node, without the attributes of nfreezer.
    pub fn xattrs(&self, node: &Node, mode: Mode<'_>) -> Result<Arc<Attributes>, Fault> {
        match &node.xattrs {
            Xattrs::Inline(list) => Ok(Arc::new(of_file(list.clone()))),
            Xattrs::Stored(r) => self.get(&self.xattrs, ChunkKind::Xattrs, r, mode, |bytes, _| {
                Ok(attributes(of_file(decode_xattrs(bytes)?)))
            }),
        }
    }

    /// Returns where a chunk is, if it is known to be elsewhere than its reference names. Never waits.
    pub fn relocated(&self, r: &Ref) -> Option<Ref> {
        self.lookup.relocated(r)
    }

    /// Returns where a chunk is: the place of its reference, unless that pack was dropped and the index has another place.
    pub fn locate(&self, ctx: &Context, kind: ChunkKind, r: &Ref) -> Ref {
        self.lookup.locate(ctx, &self.repo, kind, r)
    }

    /// Reads a chunk with `read`, from the pack of its reference or from the pack to which it was relocated.
    pub fn read<T>(&self, ctx: &Context, kind: ChunkKind, r: &Ref, read: impl Fn(&Ref) -> Result<T>) -> Result<T> {
        self.lookup.read(ctx, &self.repo, kind, r, read)
    }

    /// Returns a value from its cache, else from blocks in memory, else (with [`Mode::Fetch`]) from the storage. To decode
    /// blocks in memory takes less time than to wake a worker.
    fn get<V>(
        &self,
        cache: &Cache<PageKey, V>,
        kind: ChunkKind,
        r: &Ref,
        mode: Mode<'_>,
        decode: impl Fn(&[u8], &Ref) -> Result<(Arc<V>, usize)>,
    ) -> Result<Arc<V>, Fault> {
        let key = (r.id, r.pack.id);
        if let Mode::Fetch(ctx) = mode {
            let read = |r: &Ref| decode(&self.repo.metadata(ctx, kind, r)?, r);
            return Ok(cache.get(ctx, key, || self.read(ctx, kind, r, read))?);
        }
        if let Some(value) = cache.cached(&key) {
            return Ok(value);
        }
        let bytes = self.repo.chunk_in_memory(kind, r).ok_or(Fault::Wait)?;
        let (value, weight) = decode(&bytes, r).map_err(|_| Fault::Wait)?;
        cache.put(key, Arc::clone(&value), weight);
        Ok(value)
    }

    /// Returns the bytes of all caches.
    pub fn bytes(&self) -> usize {
        self.directories.bytes() + self.lists.bytes() + self.xattrs.bytes()
    }
}

fn below(branch: &Branch, page: &Page) -> Vec<Branch> {
    match page {
        Page::Leaf(nodes) => nodes.iter().filter_map(top_page).collect(),
        Page::Upper(rows) => branch.children(rows).collect(),
    }
}

/// Returns the top page of a directory that is not empty.
fn top_page(node: &Node) -> Option<Branch> {
    if let Content::Directory(page) = &node.content { page.map(Branch::top) } else { None }
}

fn extents(list: List) -> (Arc<Extents>, usize) {
    let weight = match &list {
        List::Leaf(extents) => extents.len() * (size_of::<Extent>() + 8),
        List::Upper(rows) => rows.len() * (size_of::<(u64, Ref)>() + 8),
    };
    (Arc::new(Extents::new(list)), weight)
}

fn of_file(mut list: Attributes) -> Attributes {
    list.retain(|(name, _)| !own::is_own(name));
    list
}

fn attributes(list: Attributes) -> (Arc<Attributes>, usize) {
    let weight = list.iter().map(|(name, value)| name.len() + value.len() + 48).sum();
    (Arc::new(list), weight)
}

fn directory(page: Page, keys: &Keys, shared_inodes: bool) -> (Arc<Directory>, usize) {
    let (inos, weight) = match &page {
        Page::Leaf(nodes) => {
            let inos = nodes.iter().map(|node| inode::fixed(keys, node, shared_inodes)).collect();
            (inos, nodes.iter().map(weight).sum())
        }
        Page::Upper(rows) => (Vec::new(), rows.iter().map(|row| row.first.len() + size_of::<Row>() + 48).sum()),
    };
    (Arc::new(Directory { page, inos }), weight)
}

/// Returns the size of a decoded node in memory, in bytes.
fn weight(node: &Node) -> usize {
    let content = match &node.content {
        Content::File(extents) => extents.len() * size_of::<Extent>(),
        Content::Symlink(target) => target.len(),
        _ => 0,
    };
    let xattrs = match &node.xattrs {
        Xattrs::Inline(list) => list.iter().map(|(name, value)| name.len() + value.len() + 48).sum(),
        Xattrs::Stored(_) => 0,
    };
    size_of::<Node>() + 8 + node.name.len() + content + xattrs + 48
}

/// Returns the sums of the lengths up to and with each of them.
fn ends(lengths: impl Iterator<Item = u64>) -> Vec<u64> {
    lengths
        .scan(0u64, |end, len| {
            *end = end.saturating_add(len);
            Some(*end)
        })
        .collect()
}
