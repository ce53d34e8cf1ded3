//! Decoded pages of directories and reference lists, each fetched when touched and dropped when memory is short; and
//! the way to chunks whose pack was dropped by prune.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::attr::Fault;
use super::cache::Cache;
use super::{Mode, inode};
use crate::context::Context;
use crate::crypto::keys::{ChunkId, ChunkKind, Keys};
use crate::error::{Error, Kind, Result};
use crate::format::list::List;
use crate::format::node::{Content, Node, Xattrs, decode_xattrs};
use crate::format::page::Page;
use crate::format::reference::{Extent, Ref};
use crate::name::ObjectId;
use crate::repo::{Index, Repository, State};

/// Bytes of decoded directory pages; about 90,000 nodes.
const PAGES: usize = 32 << 20;
/// Bytes of decoded reference lists; about 200 GiB of files.
const LISTS: usize = 16 << 20;
/// Bytes of extended attributes that are stored apart.
const XATTRS: usize = 4 << 20;
/// Packs known to be gone, and chunks whose new place is known.
const MOVED: NonZeroUsize = NonZeroUsize::new(64 << 10).expect("positive");
/// The log is read again for a lost chunk at most this often.
const REFRESH: Duration = Duration::from_secs(5);

/// A page of a directory; `ends[i]` = entries up to and with row i.
pub enum Directory {
    /// Nodes, and the inode numbers of those that are no directories and have one link (else 0).
    Leaf(Vec<Node>, Vec<u64>),
    /// First names, pages, ends.
    Upper(Vec<(Vec<u8>, Ref)>, Vec<u64>),
}

/// A page of a reference list; `ends[i]` = bytes up to and with row i.
pub enum Extents {
    /// Extents.
    Leaf(Vec<Extent>, Vec<u64>),
    /// Pages below.
    Upper(Vec<Ref>, Vec<u64>),
}

impl Directory {
    /// The first and the last name in it, and its entries.
    pub fn extent(&self) -> (&[u8], &[u8], u64) {
        match self {
            Directory::Leaf(nodes, _) => (&nodes[0].name, &nodes[nodes.len() - 1].name, nodes.len() as u64),
            Directory::Upper(rows, ends) => (&rows[0].0, &rows[rows.len() - 1].0, ends[ends.len() - 1]),
        }
    }
}

impl Extents {
    /// Bytes of the file that it covers.
    pub fn span(&self) -> u64 {
        let (Extents::Leaf(_, ends) | Extents::Upper(_, ends)) = self;
        ends.last().copied().unwrap_or(0)
    }

    /// A leaf of these.
    pub fn leaf(extents: Vec<Extent>) -> Self {
        let ends = ends(extents.iter().map(Extent::len));
        Extents::Leaf(extents, ends)
    }
}

/// Extended attributes as (name, value).
pub type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

type Key = (ChunkId, ObjectId);

/// See the module.
pub struct Pages {
    repo: Arc<Repository>,
    directories: Cache<Key, Directory>,
    lists: Cache<Key, Extents>,
    xattrs: Cache<Key, Attributes>,
    lost: Mutex<Lost>,
}

struct Lost {
    state: State,
    refreshed: Option<Instant>,
    packs: LruCache<ObjectId, ()>,
    moved: LruCache<ChunkId, Ref>,
}

impl Pages {
    pub fn new(repo: Arc<Repository>, state: State) -> Self {
        let lost = Lost { state, refreshed: None, packs: LruCache::new(MOVED), moved: LruCache::new(MOVED) };
        let lost = Mutex::new(lost);
        let (directories, lists, xattrs) = (Cache::new(PAGES), Cache::new(LISTS), Cache::new(XATTRS));
        Pages { repo, directories, lists, xattrs, lost }
    }

    /// A newer state, in which more is found.
    pub fn set_state(&self, state: State) {
        self.lost().state = state;
    }

    /// A page of a directory.
    pub fn directory(&self, r: &Ref, mode: Mode<'_>) -> Result<Arc<Directory>, Fault> {
        self.get(&self.directories, ChunkKind::Page, r, mode, |bytes, r| {
            Ok(directory(Page::decode(bytes, &r.pack)?, self.repo.keys()))
        })
    }

    /// The pages below a page of a directory, those of its subdirectories included. What is decoded for that is kept only
    /// where there is room.
    pub fn below(&self, ctx: &Context, r: &Ref) -> Result<Vec<Ref>, Fault> {
        let here = self.directories.cached(&(r.id, r.pack.id)).is_some();
        if here || self.directories.bytes() < PAGES / 4 * 3 {
            return Ok(match &*self.directory(r, Mode::Fetch(ctx))? {
                Directory::Leaf(nodes, _) => subdirectories(nodes),
                Directory::Upper(rows, _) => rows.iter().map(|row| row.1).collect(),
            });
        }
        Ok(match self.with(ctx, ChunkKind::Page, r, |r| self.repo.page(ctx, r))? {
            Page::Leaf(nodes) => subdirectories(&nodes),
            Page::Upper(rows) => rows.iter().map(|row| row.page).collect(),
        })
    }

    /// A page of a reference list.
    pub fn list(&self, r: &Ref, mode: Mode<'_>) -> Result<Arc<Extents>, Fault> {
        self.get(&self.lists, ChunkKind::List, r, mode, |bytes, r| Ok(extents(List::decode(bytes, &r.pack)?)))
    }

    /// The extended attributes of a node.
    pub fn xattrs(&self, node: &Node, mode: Mode<'_>) -> Result<Arc<Attributes>, Fault> {
        match &node.xattrs {
            Xattrs::Inline(list) => Ok(Arc::new(list.clone())),
            Xattrs::Stored(r) => {
                self.get(&self.xattrs, ChunkKind::Xattrs, r, mode, |bytes, _| Ok(attributes(decode_xattrs(bytes)?)))
            }
        }
    }

    /// Reads a chunk from the place that its reference names, or, if that pack was dropped, from where it lives now.
    pub fn with<T>(&self, ctx: &Context, kind: ChunkKind, r: &Ref, read: impl Fn(&Ref) -> Result<T>) -> Result<T> {
        if !self.lost().packs.contains(&r.pack.id) {
            match read(r) {
                Err(e) if e.kind() == Kind::Missing => drop(self.lost().packs.put(r.pack.id, ())),
                other => return other,
            }
        }
        read(&self.moved(ctx, kind, r)?)
    }

    fn moved(&self, ctx: &Context, kind: ChunkKind, r: &Ref) -> Result<Ref> {
        let mut lost = self.lost();
        if let Some(found) = lost.moved.get(&r.id) {
            return Ok(*found);
        }
        let mut state = lost.state.clone();
        let again = lost.refreshed.is_none_or(|at| at.elapsed() > REFRESH);
        drop(lost);
        // A state from before the drop still names the old place.
        let find = |state: &State| {
            let found = self.repo.moved(ctx, &Index::new(&self.repo, state), kind, r)?;
            Ok::<_, Error>(found.filter(|found| !self.lost().packs.contains(&found.pack.id)))
        };
        let mut found = find(&state)?;
        if found.is_none() && again {
            self.lost().refreshed = Some(Instant::now());
            self.repo.refresh(ctx, &mut state)?;
            found = find(&state)?;
            self.lost().state = state;
        }
        let missing = || Error::new(Kind::Missing, format!("pack {} is gone, and a chunk of it is nowhere", r.pack.id));
        let found = found.ok_or_else(missing)?;
        self.lost().moved.put(r.id, found);
        Ok(found)
    }

    /// A value from its cache; else from blocks that are in memory, which takes less time than a worker to wake up; else it
    /// is fetched.
    fn get<V>(
        &self,
        cache: &Cache<Key, V>,
        kind: ChunkKind,
        r: &Ref,
        mode: Mode<'_>,
        decode: impl Fn(&[u8], &Ref) -> Result<(Arc<V>, usize)>,
    ) -> Result<Arc<V>, Fault> {
        let key = (r.id, r.pack.id);
        if let Mode::Fetch(ctx) = mode {
            let read = |r: &Ref| decode(&self.repo.metadata(ctx, kind, r)?, r);
            return Ok(cache.get(ctx, key, || self.with(ctx, kind, r, read))?);
        }
        if let Some(value) = cache.cached(&key) {
            return Ok(value);
        }
        let bytes = self.repo.chunk_in_memory(kind, r).ok_or(Fault::Wait)?;
        let (value, weight) = decode(&bytes, r).map_err(|_| Fault::Wait)?;
        cache.put(key, Arc::clone(&value), weight);
        Ok(value)
    }

    fn lost(&self) -> MutexGuard<'_, Lost> {
        self.lost.lock().expect("no holder panics")
    }

    /// Bytes of decoded pages.
    pub fn bytes(&self) -> usize {
        self.directories.bytes() + self.lists.bytes() + self.xattrs.bytes()
    }
}

fn subdirectories(nodes: &[Node]) -> Vec<Ref> {
    let page = |n: &Node| if let Content::Directory(page) = &n.content { *page } else { None };
    nodes.iter().filter_map(page).collect()
}

fn extents(list: List) -> (Arc<Extents>, usize) {
    match list {
        List::Leaf(extents) => {
            let weight = extents.len() * (size_of::<Extent>() + 8);
            (Arc::new(Extents::leaf(extents)), weight)
        }
        List::Upper(rows) => {
            let weight = rows.len() * (size_of::<Ref>() + 8);
            let ends = ends(rows.iter().map(|row| row.0));
            (Arc::new(Extents::Upper(rows.into_iter().map(|row| row.1).collect(), ends)), weight)
        }
    }
}

fn attributes(list: Attributes) -> (Arc<Attributes>, usize) {
    let weight = list.iter().map(|(name, value)| name.len() + value.len() + 48).sum();
    (Arc::new(list), weight)
}

fn directory(page: Page, keys: &Keys) -> (Arc<Directory>, usize) {
    match page {
        Page::Leaf(nodes) => {
            let inos = nodes.iter().map(|n| inode::alone(keys, n)).collect();
            let weight = nodes.iter().map(weight).sum();
            (Arc::new(Directory::Leaf(nodes, inos)), weight)
        }
        Page::Upper(rows) => {
            let ends = ends(rows.iter().map(|row| row.count));
            let weight = rows.iter().map(|row| row.first.len() + size_of::<Ref>() + 48).sum();
            (Arc::new(Directory::Upper(rows.into_iter().map(|row| (row.first, row.page)).collect(), ends)), weight)
        }
    }
}

/// Bytes of a decoded node, with what it points to.
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

fn ends(lengths: impl Iterator<Item = u64>) -> Vec<u64> {
    lengths
        .scan(0u64, |end, len| {
            *end = end.saturating_add(len);
            Some(*end)
        })
        .collect()
}
