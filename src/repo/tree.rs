//! Walking saved trees: entries of a directory in order, one entry by name, a path in a snapshot, extents of a file.

use std::sync::Arc;

use super::{Repository, State};
use crate::context::Context;
use crate::crypto::keys::ChunkKind;
use crate::error::{Error, Kind, Result};
use crate::format::limits;
use crate::format::list::List;
use crate::format::node::{self, Attrs, Content, Node, Xattrs};
use crate::format::page::{Page, Row};
use crate::format::record::Snapshot;
use crate::format::reference::{Extent, Ref};

/// The error number of a [`Content::Unreadable`] that `repair` has put in the place of what is lost on the server
/// (`EUCLEAN`, which no source gives for a file that is there).
pub const LOST: u32 = 117;

/// Whether `repair` has marked a file of which something is lost on the server.
pub fn lacks_parts(node: &Node) -> bool {
    let is_file = matches!(node.content, Content::File(_) | Content::Large { .. });
    is_file && node.flags == node::PARTIAL | node::CHANGED && node.ctime == 0
}

/// The entries of one directory in order; pages are fetched as they are reached. Names ascend strictly over all pages,
/// so no name comes twice, however the pages were made.
pub struct Entries<'r> {
    ctx: &'r Context<'r>,
    repo: &'r Repository,
    nodes: std::vec::IntoIter<Node>,
    rows: Vec<std::vec::IntoIter<Row>>,
    first: Option<Ref>,
    last: Vec<u8>,
}

impl Iterator for Entries<'_> {
    type Item = Result<Node>;

    fn next(&mut self) -> Option<Result<Node>> {
        loop {
            if let Some(node) = self.nodes.next() {
                return Some(Ok(node));
            }
            let (page, name) = self.first.take().map(|page| (page, None)).or_else(|| self.next_page())?;
            match self.repo.page_from(self.ctx, &page, name.as_deref()) {
                Ok(Page::Leaf(nodes)) if nodes[0].name <= self.last => {
                    self.rows.clear();
                    return Some(Err(Error::damaged("the pages of a directory overlap")));
                }
                Ok(Page::Leaf(nodes)) => {
                    self.last.clone_from(&nodes[nodes.len() - 1].name);
                    self.nodes = nodes.into_iter();
                }
                Ok(Page::Upper(rows)) if self.rows.len() < limits::LEVELS => self.rows.push(rows.into_iter()),
                Ok(Page::Upper(_)) => {
                    self.rows.clear();
                    return Some(Err(Error::damaged("a directory has too many levels of pages")));
                }
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

impl Entries<'_> {
    fn next_page(&mut self) -> Option<(Ref, Option<Vec<u8>>)> {
        while let Some(rows) = self.rows.last_mut() {
            match rows.next() {
                Some(row) => return Some((row.page, Some(row.first))),
                None => drop(self.rows.pop()),
            }
        }
        None
    }
}

/// The extents of one file in order; pages of its list are fetched as they are reached.
pub struct Extents<'r> {
    ctx: &'r Context<'r>,
    repo: &'r Repository,
    extents: std::vec::IntoIter<Extent>,
    rows: Vec<std::vec::IntoIter<(u64, Ref)>>,
    first: Option<(u64, Ref)>,
}

impl Iterator for Extents<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Result<Extent>> {
        loop {
            if let Some(extent) = self.extents.next() {
                return Some(Ok(extent));
            }
            let (span, list) = self.first.take().or_else(|| self.next_list())?;
            match self.repo.wherever(self.ctx, ChunkKind::List, &list, |list| self.repo.list(self.ctx, list)) {
                Ok(list) if list.span() != span => {
                    self.rows.clear();
                    return Some(Err(Error::damaged("a reference list does not cover what it is said to cover")));
                }
                Ok(List::Leaf(extents)) => self.extents = extents.into_iter(),
                Ok(List::Upper(rows)) if self.rows.len() < limits::LEVELS => self.rows.push(rows.into_iter()),
                Ok(List::Upper(_)) => {
                    self.rows.clear();
                    return Some(Err(Error::damaged("a file has too many levels of reference lists")));
                }
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

impl Extents<'_> {
    fn next_list(&mut self) -> Option<(u64, Ref)> {
        while let Some(rows) = self.rows.last_mut() {
            match rows.next() {
                Some(row) => return Some(row),
                None => drop(self.rows.pop()),
            }
        }
        None
    }
}

impl Repository {
    /// The entries of a directory, given its top page (`None`: empty).
    pub fn entries<'r>(&'r self, ctx: &'r Context<'r>, directory: Option<&Ref>) -> Entries<'r> {
        let (nodes, rows, last) = (Vec::new().into_iter(), Vec::new(), Vec::new());
        Entries { ctx, repo: self, nodes, rows, first: directory.copied(), last }
    }

    /// Reads metadata from its place, or where that cannot be read, from where the index has it.
    fn wherever<T>(&self, ctx: &Context, kind: ChunkKind, r: &Ref, read: impl Fn(&Ref) -> Result<T>) -> Result<T> {
        match read(r) {
            Err(e) if e.kind().is_damage() => match self.rescue(ctx, kind, r) {
                Some(new) => read(&new).map_err(|_| e),
                None => Err(e),
            },
            other => other,
        }
    }

    /// A page whose first name is `first`, if that is known from the page above it.
    fn page_from(&self, ctx: &Context, page: &Ref, first: Option<&[u8]>) -> Result<Page> {
        let page = self.wherever(ctx, ChunkKind::Page, page, |page| self.page(ctx, page))?;
        let found = match &page {
            Page::Leaf(nodes) => &nodes[0].name,
            Page::Upper(rows) => &rows[0].first,
        };
        if first.is_some_and(|first| first != found) {
            return Err(Error::damaged(
                "a page of a directory does not begin with the name that it is said to begin with",
            ));
        }
        Ok(page)
    }

    /// One entry of a directory by name, with one page per level.
    pub fn entry(&self, ctx: &Context, directory: Option<&Ref>, name: &[u8]) -> Result<Option<Node>> {
        let Some(mut page) = directory.copied() else { return Ok(None) };
        let mut first = None;
        for _ in 0..=limits::LEVELS {
            match self.page_from(ctx, &page, first.as_deref())? {
                Page::Leaf(nodes) => return Ok(nodes.into_iter().find(|n| n.name == name)),
                Page::Upper(rows) => match rows.into_iter().rev().find(|row| row.first.as_slice() <= name) {
                    Some(row) => (page, first) = (row.page, Some(row.first)),
                    None => return Ok(None),
                },
            }
        }
        Err(Error::damaged("a directory has too many levels of pages"))
    }

    /// The extents of a regular file; nothing for other nodes.
    pub fn extents<'r>(&'r self, ctx: &'r Context<'r>, content: &Content) -> Extents<'r> {
        let (extents, first) = match content {
            Content::File(extents) => (extents.clone(), None),
            Content::Large { size, list } => (Vec::new(), Some((*size, *list))),
            _ => (Vec::new(), None),
        };
        Extents { ctx, repo: self, extents: extents.into_iter(), rows: Vec::new(), first }
    }

    /// The node at a path of a snapshot; slashes at the ends and doubled ones do not matter, the empty path is the root.
    pub fn at(&self, ctx: &Context, snapshot: &Snapshot, path: &[u8]) -> Result<Node> {
        let mut node = root(snapshot);
        for part in path.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            let found = match &node.content {
                Content::Directory(page) => self.entry(ctx, page.as_ref(), part)?,
                _ => None,
            };
            node = found.ok_or_else(|| {
                let text = format!("no {} in snapshot {}", String::from_utf8_lossy(path), snapshot.id.short());
                Error::failed(text).hint("`nfreezer ls SNAPSHOT:PATH` shows what is there")
            })?;
        }
        Ok(node)
    }
}

/// The root of a snapshot as a node; its attributes are nobody's in particular.
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

impl State {
    /// The snapshot that a user means by `latest`, `latest~N`, or the beginning of an id (at least 4 digits).
    /// Partial snapshots are never `latest`.
    pub fn select(&self, text: &str) -> Result<Snapshot> {
        let snapshots = self.snapshots();
        let hint = "`nfreezer snapshots` lists them";
        if let Some(rest) = text.strip_prefix("latest") {
            let back = match rest.strip_prefix('~') {
                None if rest.is_empty() => Some(0),
                n => n.and_then(|n| n.parse::<usize>().ok()),
            };
            if let Some(back) = back {
                let found = snapshots.into_iter().filter(|s| !s.partial).rev().nth(back);
                return found.ok_or_else(|| Error::failed(format!("no snapshot {text}")).hint(hint));
            }
        }
        let prefix = text.to_ascii_lowercase();
        if prefix.len() < 4 || !prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
            let text = format!("not a snapshot: {text}");
            return Err(Error::new(Kind::Usage, text).hint(
                "give `latest`, `latest~N`, or 4 or more digits of an id; a path stands behind it: latest:/home",
            ));
        }
        let mut found = snapshots.into_iter().filter(|s| s.id.to_string().starts_with(&prefix));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(Error::failed(format!("no snapshot {text}")).hint(hint)),
            (Some(_), Some(_)) => Err(Error::failed(format!("more than one snapshot begins with {text}")).hint(hint)),
        }
    }
}
