//! The trees of snapshots: each rule about pages, places and references once, for all operations.
//!
//! In: a snapshot's root or a reference, from [`crate::repo`]. Out: nodes, extents, contents, comparisons, new pages.
//!
//! | file | purpose |
//! |---|---|
//! | `branch` | one page below another: the check of a page against the row that names it; the way down to one entry |
//! | `entries`, `extents` | the nodes of a directory, the extents of a file, in order |
//! | `chunk_lookup` | reads a chunk from its place or, if that is damaged, from any other place (format.md 11.4) |
//! | `ahead` | reads the pages of many directories at the same time, before a walk comes to them |
//! | `stretches` | reads many pages at the same time, and neighbours in a pack with one request |
//! | `below` | visits everything below a directory |
//! | `fetch` | chunks of many files, in large stretches and ahead of their use |
//! | `link_key` | recognises the names of one file |
//! | `lockstep` | walks a directory of several trees in step and skips equal pages |
//! | `compare` | compares two trees: added, removed, changed and renamed entries |
//! | `write`, `directory` | new pages, bottom-up, into a metadata pack that has no name yet |
//! | `without` | writes trees anew without some nodes |
//! | `deep` | a thread with a large stack for recursions |
//! | `reach`, `visited` | reads all pages of many trees once and reports the references in them |
//! | `on_disk` | whether a file on the disk has saved contents |
//! | `named` | whether trees name any of some packs |
//! | `reachable`, `hash_set` | which chunks in which packs are reachable |

mod ahead;
mod below;
mod branch;
mod chunk_lookup;
mod compare;
mod deep;
mod directory;
mod entries;
mod extents;
mod fetch;
mod hash_set;
mod link_key;
mod lockstep;
mod named;
mod on_disk;
mod reach;
mod reachable;
#[cfg(test)]
mod sample_trees_for_tests;
mod stretches;
mod visited;
mod without;
mod write;

pub use ahead::{Ahead, Tops};
pub use below::{Below, Found};
pub use branch::{Branch, HasPage, ListBranch, Spot, Wanted, descend};
pub use chunk_lookup::Lookup;
pub use compare::{Change, Difference, compare};
pub use deep::deep;
pub use directory::{Directory, Which};
pub use entries::Entries;
pub use extents::Extents;
pub use fetch::{Announced, Fetch};
pub use link_key::LinkKey;
pub use lockstep::{Lockstep, Step};
pub use named::names_condemned_since;
pub use on_disk::check_size;
pub use reach::{Visit, walk, walk_one_by_one};
pub use reachable::{Reachable, Reached, Scope};
pub use stretches::{Answer, Request, Stretches};
pub use visited::Visited;
pub use without::{LeavesOut, Removed, Rewriter, Without};
pub use write::{MetaPack, SelfRefs};

use std::sync::Arc;

use crate::context::Context;
use crate::crypto::keys::ChunkKind;
use crate::error::{Error, Result};
use crate::format::list::List;
use crate::format::node::{self, Attrs, Content, Node, Xattrs};
use crate::format::own;
use crate::format::page::Page;
use crate::format::record::Snapshot;
use crate::format::reference::Ref;
use crate::repo::{Repository, Span};

/// The error number of a [`Content::Unreadable`] that `repair` puts in the place of lost entries (`EUCLEAN`,
/// which no source returns for a file that is there).
pub const LOST: u32 = 117;

/// The end of the name that a file gets if only its beginning was saved, or if parts of it are lost.
pub const PARTIAL_SUFFIX: &[u8] = b".nfreezer-partial";

/// Returns whether `repair` has marked a file of which something is lost on the server.
pub fn lacks_parts(node: &Node) -> bool {
    node.content.is_file() && node.flags == node::PARTIAL | node::CHANGED && node.ctime == 0
}

/// Reads the trees of a repository. Every chunk is read from its place or, if that is missing or damaged, from any other
/// place that the index knows.
#[derive(Clone)]
pub struct Trees<'r> {
    repo: &'r Repository,
    lookup: Arc<Lookup>,
}

impl<'r> Trees<'r> {
    /// Reads trees of this repository; the log is read when the first chunk is not at its place.
    pub fn new(repo: &'r Repository) -> Self {
        Trees::with(repo, Arc::default())
    }

    /// Reads trees with a lookup that others use too.
    pub fn with(repo: &'r Repository, lookup: Arc<Lookup>) -> Self {
        Trees { repo, lookup }
    }

    /// Returns the repository.
    pub fn repo(&self) -> &'r Repository {
        self.repo
    }

    /// Returns the lookup.
    pub fn lookup(&self) -> &Lookup {
        &self.lookup
    }

    /// Reads a chunk by `read`, from its place or from another one.
    pub fn read<T>(&self, ctx: &Context, kind: ChunkKind, r: &Ref, read: impl Fn(&Ref) -> Result<T>) -> Result<T> {
        self.lookup.read(ctx, self.repo, kind, r, read)
    }

    /// Returns the contents of a chunk of a file, verified by their id.
    pub fn chunk(&self, ctx: &Context, r: &Ref, span: Span) -> Result<Vec<u8>> {
        self.read(ctx, ChunkKind::Data, r, |r| self.repo.chunk(ctx, ChunkKind::Data, r, span))
    }

    /// Returns a page of a directory, checked against the page above, and the place where it was read.
    pub fn page(&self, ctx: &Context, branch: &Branch) -> Result<(Ref, Page)> {
        let found = self.read(ctx, ChunkKind::Page, &branch.page, |r| Ok((*r, self.repo.page(ctx, r)?)))?;
        branch.check(&found.1).map(|()| found)
    }

    /// Returns a page like [`Trees::page`], and reads only as much around it as `span` has.
    pub fn page_within(&self, ctx: &Context, branch: &Branch, span: Span) -> Result<(Ref, Page)> {
        let read = |r: &Ref| Ok((*r, Page::decode(&self.repo.chunk(ctx, ChunkKind::Page, r, span)?, &r.pack)?));
        let found = self.read(ctx, ChunkKind::Page, &branch.page, read)?;
        branch.check(&found.1).map(|()| found)
    }

    /// Returns a page of a reference list, checked against the page above.
    pub fn list(&self, ctx: &Context, branch: &ListBranch) -> Result<List> {
        let list = self.read(ctx, ChunkKind::List, &branch.list, |r| self.repo.list(ctx, r))?;
        branch.check(&list).map(|()| list)
    }

    /// Returns the extended attributes that the file of a node had, without the attributes of nfreezer.
    pub fn xattrs_of_file(&self, ctx: &Context, node: &Node) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut pairs = self.xattrs(ctx, node)?;
        pairs.retain(|(name, _)| !own::is_own(name));
        Ok(pairs)
    }

    /// Returns the extended attributes of a node, with the attributes of nfreezer.
    pub fn xattrs(&self, ctx: &Context, node: &Node) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        match &node.xattrs {
            Xattrs::Inline(list) => Ok(list.clone()),
            Xattrs::Stored(r) => self.read(ctx, ChunkKind::Xattrs, r, |r| self.repo.stored_xattrs(ctx, r)),
        }
    }

    /// Returns the nodes of a directory, given its top page (`None`: empty).
    pub fn entries<'t>(&'t self, ctx: &'t Context<'t>, directory: Option<&Ref>) -> Entries<'t> {
        Entries::new(ctx, self, directory.copied())
    }

    /// Returns the extents of a regular file; nothing for other nodes.
    pub fn extents<'t>(&'t self, ctx: &'t Context<'t>, content: &Content) -> Extents<'t> {
        Extents::new(ctx, self, content)
    }

    /// Returns one entry of a directory by name, with one page a level.
    pub fn entry(&self, ctx: &Context, directory: Option<&Ref>, name: &[u8]) -> Result<Option<Node>> {
        let Some(top) = directory else { return Ok(None) };
        let read = |branch: &Branch| self.page(ctx, branch).map(|(_, page)| page);
        let Some(Spot { leaf: Page::Leaf(mut nodes), index, .. }) = descend(*top, Wanted::Name(name), read)? else {
            return Ok(None);
        };
        Ok(Some(nodes.swap_remove(index)))
    }

    /// Returns the node at a path of a snapshot; slashes at the ends and doubled ones do not matter, the empty path is the
    /// root.
    pub fn at(&self, ctx: &Context, snapshot: &Snapshot, path: &[u8]) -> Result<Node> {
        self.find(ctx, snapshot, path)?.ok_or_else(|| {
            let text = format!("no {} in snapshot {}", String::from_utf8_lossy(path), snapshot.id.short());
            Error::failed(text).hint(if path.starts_with(b"/") {
                "`nfreezer ls SNAPSHOT:PATH` lists a folder of the snapshot"
            } else {
                "paths in a snapshot are absolute, such as latest:/home/me; `nfreezer ls SNAPSHOT:PATH` lists a folder"
            })
        })
    }

    /// Returns the node at `path` like [`Trees::at`]; `None` if there is none.
    pub fn find(&self, ctx: &Context, snapshot: &Snapshot, path: &[u8]) -> Result<Option<Node>> {
        let mut node = root(snapshot);
        for part in path.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            let Content::Directory(page) = &node.content else { return Ok(None) };
            let Some(found) = self.entry(ctx, page.as_ref(), part)? else { return Ok(None) };
            node = found;
        }
        Ok(Some(node))
    }
}

/// Returns the root of a snapshot as a node; it has no saved attributes.
pub fn root(snapshot: &Snapshot) -> Node {
    let attrs = Attrs { mode: 0o755, uid: 0, gid: 0, user: Vec::new(), group: Vec::new(), fs: 0 };
    Node {
        name: Vec::new(),
        attrs: Arc::new(attrs),
        mtime: snapshot.time,
        ctime: 0,
        inode: 0,
        nlink: 2,
        flags: 0,
        xattrs: Xattrs::Inline(Vec::new()),
        content: Content::Directory(snapshot.root),
    }
}
