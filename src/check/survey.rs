//! From lost objects to paths: walks the trees of snapshots once more where something is lost, in order and with names,
//! and reports the paths that lost data. For `repair` the same walk writes trees that do not need the lost chunks.
//!
//! Something is lost if neither the place that a reference names nor the one that the index has can be used: contents
//! that a later push has sent again are not lost. Subtrees without loss are remembered and not walked again.

use std::sync::Arc;

use super::packs::Packs;
use super::{Examined, Finding, Lost};
use crate::context::Context;
use crate::crypto::keys::ChunkKind;
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::list::List;
use crate::format::node::{Attrs, CHANGED, Content, Node, PARTIAL, Xattrs};
use crate::format::page::Page;
use crate::format::record::Snapshot;
use crate::format::reference::{Extent, PackRef, Ref};
use crate::repo::Repository;
use crate::trees::{Branch, LOST, ListBranch, MetaPack, SelfRefs, Trees, Visited, lacks_parts};

/// Figures of all snapshots so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Snapshots of which something is lost.
    pub hit: u64,
    /// Paths.
    pub paths: u64,
}

/// The fate of a page and everything below it.
#[derive(Debug)]
enum Fate {
    Whole,
    /// Something below it is lost. The page that lacks it (the same one, if none is to be written), and its entries.
    Changed(Ref, u64),
    Lost(String),
}

/// The fate of a snapshot that lost data.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The root of a tree without the lost parts.
    Changed(Ref),
    /// Nothing of it is left.
    Lost,
}

impl SelfRefs for Outcome {
    fn replace_self(&mut self, pack: PackRef) {
        if let Outcome::Changed(root) = self {
            root.replace_self(pack);
        }
    }
}

pub(super) struct Survey<'a, 'w> {
    ctx: &'a Context<'a>,
    repo: &'a Repository,
    packs: &'a Packs,
    trees: &'a Trees<'a>,
    found: &'a mut (dyn FnMut(Finding<'_>) + Send),
    writer: Option<&'a mut MetaPack<'w>>,
    /// The pages at hand, the root directory's first. They may refer to the open pack of the writer.
    open: Vec<Page>,
    clean: Visited,
    path: Vec<u8>,
    pub tally: Tally,
    /// The snapshots of which something is lost. New roots may refer to the open pack of the writer.
    pub outcomes: Vec<(Snapshot, Outcome)>,
}

impl<'a, 'w> Survey<'a, 'w> {
    pub fn new(
        ctx: &'a Context<'a>,
        repo: &'a Repository,
        examined: &'a Examined<'a>,
        found: &'a mut (dyn FnMut(Finding<'_>) + Send),
        writer: Option<&'a mut MetaPack<'w>>,
    ) -> Self {
        let Examined { packs, trees, memory, .. } = examined;
        let (clean, tally) = (Visited::new(memory / 2), Tally::default());
        Survey {
            ctx,
            repo,
            packs,
            trees,
            found,
            writer,
            open: Vec::new(),
            clean,
            path: Vec::new(),
            tally,
            outcomes: Vec::new(),
        }
    }

    /// Reports the lost parts of a snapshot.
    pub fn snapshot(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.path.clear();
        let before = self.tally.paths;
        let fate = match &snapshot.root {
            Some(root) => self.page(snapshot, &Branch::top(*root), 0)?,
            None => Fate::Whole,
        };
        match fate {
            Fate::Whole => {}
            Fate::Changed(root, _) => self.outcomes.push((snapshot.clone(), Outcome::Changed(root))),
            Fate::Lost(why) => {
                self.path.push(b'/');
                self.hit(snapshot, Lost::Snapshot, &why);
                self.outcomes.push((snapshot.clone(), Outcome::Lost));
            }
        }
        self.tally.hit += u64::from(self.tally.paths > before);
        Ok(())
    }

    fn hit(&mut self, snapshot: &Snapshot, what: Lost, why: &str) {
        self.tally.paths += 1;
        (self.found)(Finding::Path { snapshot, path: &self.path, what, why });
    }

    fn page(&mut self, snapshot: &Snapshot, branch: &Branch, depth: usize) -> Result<Fate> {
        self.ctx.check()?;
        if self.clean.contains(branch) {
            return Ok(Fate::Whole);
        }
        let page = match self.trees.page(self.ctx, branch) {
            Ok((_, page)) => page,
            Err(e) if e.kind().is_damage() => return Ok(Fate::Lost(e.to_string())),
            Err(e) => return Err(e),
        };
        self.open.push(page);
        let changed = self.entries(snapshot, branch, depth);
        let page = self.open.pop().ok_or_else(no_page)?;
        if !changed? {
            self.clean.insert(branch);
            return Ok(Fate::Whole);
        }
        let count = page.count();
        let written = if self.writer.is_some() { self.write(page)? } else { branch.page };
        Ok(Fate::Changed(written, count))
    }

    /// Goes through the page at hand. Returns whether something below it is lost.
    fn entries(&mut self, snapshot: &Snapshot, branch: &Branch, depth: usize) -> Result<bool> {
        let at = self.open.len() - 1;
        let mut changed = false;
        for i in 0.. {
            match &mut self.open[at] {
                Page::Upper(rows) if i < rows.len() => {
                    let child = branch.child(rows, i);
                    changed |= self.row(snapshot, &child, at, i, depth)?;
                }
                Page::Leaf(nodes) if i < nodes.len() => {
                    let length = self.path.len();
                    let node = nodes[i].clone();
                    self.path.push(b'/');
                    self.path.extend_from_slice(&node.name);
                    changed |= self.node(snapshot, node, at, i, depth)?;
                    self.path.truncate(length);
                }
                _ => break,
            }
        }
        Ok(changed)
    }

    /// Goes through the page below row `i` of the page `at`. Returns whether something there is lost.
    fn row(&mut self, snapshot: &Snapshot, child: &Branch, at: usize, i: usize, depth: usize) -> Result<bool> {
        let (page, count) = match self.page(snapshot, child, depth)? {
            Fate::Whole => return Ok(false),
            Fate::Changed(page, count) => (page, count),
            Fate::Lost(why) => {
                self.hit(snapshot, Lost::Entries(child.count().unwrap_or(0)), &why);
                if self.writer.is_none() {
                    return Ok(true);
                }
                (self.write(Page::Leaf(vec![stand_in(child.first().unwrap_or_default())]))?, 1)
            }
        };
        if let Page::Upper(rows) = &mut self.open[at] {
            (rows[i].page, rows[i].count) = (page, count);
        }
        Ok(true)
    }

    /// Writes a page. Where that stores the open pack, all pages at hand learn its name.
    fn write(&mut self, mut page: Page) -> Result<Ref> {
        let writer = self.writer.as_mut().ok_or_else(no_page)?;
        loop {
            let plain = page.encode(&PackRef::SELF);
            if plain.len() > limits::PAGE {
                return Err(Error::failed("a page of a directory would grow beyond what a page may hold"));
            }
            if let Some(written) = writer.add(ChunkKind::Page, &plain)? {
                return Ok(written);
            }
            let pack = writer.finish(self.ctx, true)?.ok_or_else(|| Error::failed("a chunk that fits into no pack"))?;
            self.open.iter_mut().chain([&mut page]).for_each(|page| page.replace_self(pack));
            self.outcomes.iter_mut().for_each(|(_, outcome)| outcome.replace_self(pack));
        }
    }

    /// Reports the lost parts of node `i` of the page `at`, and removes the need for them. Returns whether
    /// anything is lost.
    fn node(&mut self, snapshot: &Snapshot, mut node: Node, at: usize, i: usize, depth: usize) -> Result<bool> {
        let mut changed = self.attributes(snapshot, &mut node)?;
        match &node.content {
            Content::Directory(Some(page)) => {
                let fate = if depth < limits::DEPTH {
                    self.page(snapshot, &Branch::top(*page), depth + 1)?
                } else {
                    Fate::Lost("the directories are nested too deeply".into())
                };
                match fate {
                    Fate::Whole => {}
                    Fate::Changed(new, _) => (node.content, changed) = (Content::Directory(Some(new)), true),
                    Fate::Lost(why) => {
                        self.hit(snapshot, Lost::Directory, &why);
                        node.xattrs = Xattrs::Inline(Vec::new());
                        (node.content, changed) = (Content::Unreadable(LOST), true);
                    }
                }
            }
            Content::File(_) | Content::Large { .. } if !lacks_parts(&node) => {
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
            if let Page::Leaf(nodes) = &mut self.open[at] {
                nodes[i] = node;
            }
        }
        Ok(changed)
    }

    /// Takes lost extended attributes off a node. Returns whether they are lost.
    fn attributes(&mut self, snapshot: &Snapshot, node: &mut Node) -> Result<bool> {
        match self.trees.xattrs(self.ctx, node) {
            Ok(_) => Ok(false),
            Err(e) if e.kind().is_damage() => {
                self.hit(snapshot, Lost::Attributes, &e.to_string());
                node.xattrs = Xattrs::Inline(Vec::new());
                node.flags |= CHANGED;
                Ok(true)
            }
            Err(e) => Err(e),
        }
    }

    /// Returns why contents cannot be read whole; `None` if they can.
    fn contents(&mut self, content: &Content) -> Result<Option<String>> {
        match content {
            Content::File(extents) => self.extents(extents),
            Content::Large { size, list } => self.list(&ListBranch::top(*list, *size)),
            _ => Ok(None),
        }
    }

    fn list(&mut self, branch: &ListBranch) -> Result<Option<String>> {
        if self.clean.contains(branch) {
            return Ok(None);
        }
        let why = match self.trees.list(self.ctx, branch) {
            Ok(List::Leaf(extents)) => self.extents(&extents)?,
            Ok(List::Upper(rows)) => {
                let mut why = None;
                for row in &rows {
                    why = self.list(&branch.child(row))?;
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
            self.clean.insert(branch);
        }
        Ok(why)
    }

    fn extents(&self, extents: &[Extent]) -> Result<Option<String>> {
        for extent in extents {
            if let Extent::Data(r) = extent
                && let Err(e) = self.trees.read(self.ctx, ChunkKind::Data, r, |r| self.is_readable(r))
            {
                return if e.kind().is_damage() { Ok(Some(e.to_string())) } else { Err(e) };
            }
        }
        Ok(None)
    }

    /// Fails if something speaks against reading a chunk at this place.
    fn is_readable(&self, r: &Ref) -> Result<()> {
        match self.packs.trouble(self.ctx, self.repo, ChunkKind::Data, r) {
            Some(why) => Err(Error::damaged(why)),
            None => Ok(()),
        }
    }
}

/// Cannot happen: a page is at hand while its entries are.
fn no_page() -> Error {
    Error::failed("the survey has left its page")
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
