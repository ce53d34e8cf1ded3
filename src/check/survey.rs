//! From lost objects to paths: walks the trees of snapshots once more where something is lost, in order and with names,
//! and tells what is hit. For `repair` it writes, with the same eyes, trees that do not need what is lost.
//!
//! Something is lost if neither the place that a reference names nor the one that the index has can be used: contents
//! that a later push has sent again are not lost. Subtrees without loss are remembered and not walked again.

use std::sync::Arc;

use super::packs::Packs;
use super::seen::Seen;
use super::walk::{Said, check_list};
use super::writer::Writer;
use super::{Examined, Finding, Lost};
use crate::context::Context;
use crate::crypto::keys::ChunkKind;
use crate::error::Result;
use crate::format::limits;
use crate::format::list::List;
use crate::format::node::{Attrs, CHANGED, Content, Node, PARTIAL, Xattrs};
use crate::format::page::Page;
use crate::format::record::Snapshot;
use crate::format::reference::{Extent, Ref};
use crate::repo::tree::{LOST, lacks_parts};
use crate::repo::{Index, Repository};

/// Figures of all snapshots so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Snapshots of which something is lost.
    pub hit: u64,
    /// Paths.
    pub paths: u64,
}

/// What becomes of a page, with all that is below it.
#[derive(Debug)]
enum Fate {
    Whole,
    /// Something below it is lost. The page that lacks it (the same one, if none is to be written), and its entries.
    Changed(Ref, u64),
    Lost(String),
}

/// What becomes of a snapshot.
#[derive(Debug)]
pub(super) enum Outcome {
    Whole,
    /// The root of a tree that lacks what is lost.
    Changed(Ref),
    /// Nothing of it is left.
    Lost,
}

pub(super) struct Survey<'a, 'w> {
    ctx: &'a Context<'a>,
    repo: &'a Repository,
    packs: &'a Packs,
    index: &'a Index<'a>,
    found: &'a mut (dyn FnMut(Finding<'_>) + Send),
    writer: Option<&'a mut Writer<'w>>,
    clean: Seen,
    path: Vec<u8>,
    pub tally: Tally,
}

impl<'a, 'w> Survey<'a, 'w> {
    pub fn new(
        ctx: &'a Context<'a>,
        repo: &'a Repository,
        examined: &'a Examined<'a>,
        found: &'a mut (dyn FnMut(Finding<'_>) + Send),
        writer: Option<&'a mut Writer<'w>>,
    ) -> Self {
        let Examined { packs, index, memory, .. } = examined;
        let (clean, path, tally) = (Seen::new(memory / 2), Vec::new(), Tally::default());
        Survey { ctx, repo, packs, index, found, writer, clean, path, tally }
    }

    /// Tells what is lost of a snapshot.
    pub fn snapshot(&mut self, snapshot: &Snapshot) -> Result<Outcome> {
        self.path.clear();
        let before = self.tally.paths;
        let fate = match &snapshot.root {
            Some(root) => self.page(snapshot, root, &Said::default(), 0)?,
            None => Fate::Whole,
        };
        let outcome = match fate {
            Fate::Whole => Outcome::Whole,
            Fate::Changed(root, _) => Outcome::Changed(root),
            Fate::Lost(why) => {
                self.path.push(b'/');
                self.hit(snapshot, Lost::Snapshot, &why);
                Outcome::Lost
            }
        };
        self.tally.hit += u64::from(self.tally.paths > before);
        Ok(outcome)
    }

    fn hit(&mut self, snapshot: &Snapshot, what: Lost, why: &str) {
        self.tally.paths += 1;
        (self.found)(Finding::Path { snapshot, path: &self.path, what, why });
    }

    fn page(&mut self, snapshot: &Snapshot, r: &Ref, said: &Said, depth: usize) -> Result<Fate> {
        self.ctx.check()?;
        if self.clean.contains(&(r, said)) {
            return Ok(Fate::Whole);
        }
        let read = self.wherever(ChunkKind::Page, r, |r| {
            let page = self.repo.page(self.ctx, r)?;
            said.check(&page).map(|()| page)
        });
        let (mut page, mut changed) = match read {
            Ok(page) => (page, false),
            Err(e) if e.kind().is_damage() => return Ok(Fate::Lost(e.to_string())),
            Err(e) => return Err(e),
        };
        match &mut page {
            Page::Upper(rows) => {
                let below = said.below(rows);
                for (row, said) in rows.iter_mut().zip(below) {
                    match self.page(snapshot, &row.page, &said, depth)? {
                        Fate::Whole => continue,
                        Fate::Changed(page, count) => (row.page, row.count) = (page, count),
                        Fate::Lost(why) => {
                            self.hit(snapshot, Lost::Entries(row.count), &why);
                            if let Some(writer) = &mut self.writer {
                                (row.page, row.count) = (writer.page(Page::Leaf(vec![stand_in(&row.first)]))?, 1);
                            }
                        }
                    }
                    changed = true;
                }
            }
            Page::Leaf(nodes) => {
                for node in nodes {
                    let length = self.path.len();
                    self.path.push(b'/');
                    self.path.extend_from_slice(&node.name);
                    changed |= self.node(snapshot, node, depth)?;
                    self.path.truncate(length);
                }
            }
        }
        if !changed {
            self.clean.insert(&(r, said));
            return Ok(Fate::Whole);
        }
        let count = match &page {
            Page::Leaf(nodes) => nodes.len() as u64,
            Page::Upper(rows) => rows.iter().fold(0u64, |sum, row| sum.saturating_add(row.count)),
        };
        let written = self.writer.as_mut().map(|writer| writer.page(page)).transpose()?;
        Ok(Fate::Changed(written.unwrap_or(*r), count))
    }

    /// Tells what is lost of an entry and makes it one that does not need that; gives whether anything is.
    fn node(&mut self, snapshot: &Snapshot, node: &mut Node, depth: usize) -> Result<bool> {
        let mut changed = false;
        if let Xattrs::Stored(r) = &node.xattrs {
            match self.wherever(ChunkKind::Xattrs, r, |r| {
                self.repo.xattrs(self.ctx, &Node { xattrs: Xattrs::Stored(*r), ..node.clone() })
            }) {
                Ok(_) => {}
                Err(e) if e.kind().is_damage() => {
                    self.hit(snapshot, Lost::Attributes, &e.to_string());
                    node.xattrs = Xattrs::Inline(Vec::new());
                    node.flags |= CHANGED;
                    changed = true;
                }
                Err(e) => return Err(e),
            }
        }
        let known = lacks_parts(node);
        match &mut node.content {
            Content::Directory(Some(page)) => {
                let fate = match depth < limits::DEPTH {
                    true => self.page(snapshot, page, &Said::default(), depth + 1)?,
                    false => Fate::Lost("the directories are nested too deeply".into()),
                };
                match fate {
                    Fate::Whole => {}
                    Fate::Changed(new, _) => (*page, changed) = (new, true),
                    Fate::Lost(why) => {
                        self.hit(snapshot, Lost::Directory, &why);
                        node.xattrs = Xattrs::Inline(Vec::new());
                        (node.content, changed) = (Content::Unreadable(LOST), true);
                    }
                }
            }
            Content::File(_) | Content::Large { .. } if !known => {
                if let Some(why) = self.contents(&node.content)? {
                    self.hit(snapshot, Lost::Contents, &why);
                    node.flags |= PARTIAL | CHANGED;
                    changed = true;
                }
            }
            _ => {}
        }
        if changed {
            // No push must take it for a file that it has seen whole.
            node.ctime = 0;
        }
        Ok(changed)
    }

    /// Why contents cannot be read whole; `None` if they can.
    fn contents(&mut self, content: &Content) -> Result<Option<String>> {
        match content {
            Content::File(extents) => self.extents(extents),
            Content::Large { size, list } => self.list(list, *size, 0),
            _ => Ok(None),
        }
    }

    fn list(&mut self, r: &Ref, span: u64, levels: usize) -> Result<Option<String>> {
        if self.clean.contains(&(r, span, levels)) {
            return Ok(None);
        }
        let read = self.wherever(ChunkKind::List, r, |r| {
            let list = self.repo.list(self.ctx, r)?;
            check_list(&list, span, levels).map(|()| list)
        });
        let why = match read {
            Ok(List::Leaf(extents)) => self.extents(&extents)?,
            Ok(List::Upper(rows)) => {
                let mut why = None;
                for (span, r) in rows {
                    why = self.list(&r, span, levels + 1)?;
                    if why.is_some() {
                        break;
                    }
                }
                why
            }
            Err(e) if e.kind().is_damage() => Some(e.to_string()),
            Err(e) => return Err(e),
        };
        if why.is_none() {
            self.clean.insert(&(r, span, levels));
        }
        Ok(why)
    }

    fn extents(&self, extents: &[Extent]) -> Result<Option<String>> {
        for extent in extents {
            if let Extent::Data(r) = extent
                && let Some(why) = self.packs.trouble(self.ctx, self.repo, ChunkKind::Data, r)
                && self.elsewhere(ChunkKind::Data, r)?.is_none()
            {
                return Ok(Some(why));
            }
        }
        Ok(None)
    }

    /// Where the index has this chunk, if nothing speaks against that.
    fn elsewhere(&self, kind: ChunkKind, r: &Ref) -> Result<Option<Ref>> {
        match self.repo.moved(self.ctx, self.index, kind, r) {
            Ok(found) => Ok(found.filter(|new| {
                new.pack.id != r.pack.id && self.packs.trouble(self.ctx, self.repo, kind, new).is_none()
            })),
            Err(e) if e.kind().is_damage() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Metadata from its place, or from where the index has it.
    fn wherever<T>(&self, kind: ChunkKind, r: &Ref, read: impl Fn(&Ref) -> Result<T>) -> Result<T> {
        match read(r) {
            Err(e) if e.kind().is_damage() => match self.elsewhere(kind, r)? {
                Some(new) => read(&new),
                None => Err(e),
            },
            other => other,
        }
    }
}

/// Takes the place of lost entries of a directory, under the first name of them.
fn stand_in(first: &[u8]) -> Node {
    let attrs = Attrs { mode: 0, uid: 0, gid: 0, user: Vec::new(), group: Vec::new(), fs: 0 };
    Node {
        name: first.to_vec(),
        attrs: Arc::new(attrs),
        mtime: crate::time::Time::default(),
        ctime: 0,
        inode: 0,
        nlink: 1,
        flags: 0,
        xattrs: Xattrs::Inline(Vec::new()),
        content: Content::Unreadable(LOST),
    }
}
