//! Writes pages of the new tree again that lie scattered over many small metadata packs.
//!
//! Each push writes the pages that changed into a pack of its own. After many pushes, the unchanged pages of a tree lie in
//! as many packs, and a reader needs a request for each of them. So a push that finds its tree in more than [`MOST`] small
//! packs writes these pages into its own pack, and the pages above them. The copies in the small packs are not needed by
//! this snapshot. Every page is written about twice, since [`MOST`] further pushes must pass before the next time.

use std::collections::{HashMap, HashSet};

use super::store::MetaStore;
use crate::crypto::keys::ChunkKind;
use crate::error::{Error, Result};
use crate::format::limits;
use crate::format::node::{Content, Node, Xattrs};
use crate::format::page::Page;
use crate::format::reference::{PackRef, Ref};
use crate::name::ObjectId;
use crate::trees::{Branch, SelfRefs};

/// Stored bytes of a tree in one pack below which the pack is small: larger ones are worth a request.
const SMALL: u64 = 512 << 10;
/// Small packs that a tree may lie in.
const MOST: usize = 8;
/// Stored bytes of pages that one push writes again.
const BUDGET: u64 = 8 << 20;
/// Directories below each other that are visited.
const DEPTH: usize = 100;
/// Stands for the open pack while one of its pages is decoded, with the length that references are checked against.
const OPEN: PackRef = PackRef { id: ObjectId([0xff; 32]), len: limits::PACK_READ as u32 };

/// Reads a page of an earlier pack.
pub type ReadPage<'a> = dyn Fn(&Branch) -> Result<Page> + 'a;

/// The packs that hold the unchanged pages of a tree.
#[derive(Default)]
pub struct Spread {
    /// Stored bytes of pages in each pack.
    packs: HashMap<ObjectId, u64>,
}

impl Spread {
    /// Counts a page that an earlier pack holds.
    pub fn add(&mut self, page: &Ref) {
        *self.packs.entry(page.pack.id).or_default() += u64::from(page.stored);
    }

    /// Returns the small packs whose pages are written again: none while there are few, and the smallest ones within
    /// [`BUDGET`].
    fn scattered(&self) -> HashSet<ObjectId> {
        let mut small: Vec<(u64, ObjectId)> =
            self.packs.iter().filter(|(_, bytes)| **bytes < SMALL).map(|(id, bytes)| (*bytes, *id)).collect();
        if small.len() <= MOST {
            return HashSet::new();
        }
        small.sort_unstable();
        let mut left = BUDGET;
        let fits = |(bytes, _): &(u64, ObjectId)| {
            let fits = *bytes <= left;
            left = left.saturating_sub(*bytes);
            fits
        };
        small.into_iter().take_while(fits).map(|(_, id)| id).collect()
    }
}

/// Writes scattered pages again. `root` is the top page of a complete tree and lies in the open pack, as every page above a
/// new page does; it is replaced. A page that cannot be read stays where it is.
pub fn gather<S: MetaStore>(store: &mut S, read: &ReadPage<'_>, spread: &Spread, root: &mut Ref) -> Result<()> {
    let scattered = spread.scattered();
    if scattered.is_empty() || root.pack != PackRef::SELF {
        return Ok(());
    }
    let mut gather = Gather { store, read, scattered, open: Vec::new(), root: *root };
    let moved = gather.page(&Branch::top(*root), 0)?;
    *root = moved.unwrap_or(gather.root);
    Ok(())
}

struct Gather<'g, S> {
    store: &'g mut S,
    read: &'g ReadPage<'g>,
    scattered: HashSet<ObjectId>,
    /// The pages at hand, the root's first. They may refer to the open pack.
    open: Vec<Page>,
    root: Ref,
}

impl<S: MetaStore> Gather<'_, S> {
    /// Visits a page. Returns its new place; `None` if it stays.
    fn page(&mut self, branch: &Branch, depth: usize) -> Result<Option<Ref>> {
        let is_scattered = self.scattered.contains(&branch.page.pack.id);
        let Ok(page) = self.read(branch) else { return Ok(None) };
        self.open.push(page);
        let below = self.below(branch, depth);
        let page = self.open.pop().ok_or_else(no_page)?;
        if below? || is_scattered { self.write(page).map(Some) } else { Ok(None) }
    }

    fn read(&self, branch: &Branch) -> Result<Page> {
        if branch.page.pack != PackRef::SELF {
            return (self.read)(branch);
        }
        let mut page = Page::decode(&self.store.open_chunk(&branch.page)?, &OPEN)?;
        meta_refs(&mut page).filter(|r| r.pack == OPEN).for_each(|r| r.pack = PackRef::SELF);
        Ok(page)
    }

    /// Visits the pages below the page at hand. Returns whether any has a new place.
    fn below(&mut self, branch: &Branch, depth: usize) -> Result<bool> {
        let at = self.open.len() - 1;
        let mut is_changed = false;
        for i in 0..entries(&self.open[at]) {
            let (child, depth) = match &self.open[at] {
                Page::Upper(rows) => (branch.child(rows, i), depth),
                Page::Leaf(nodes) => match &nodes[i].content {
                    Content::Directory(Some(top)) if depth < DEPTH => (Branch::top(*top), depth + 1),
                    _ => continue,
                },
            };
            if let Some(new) = self.page(&child, depth)? {
                is_changed = true;
                match &mut self.open[at] {
                    Page::Upper(rows) => rows[i].page = new,
                    Page::Leaf(nodes) => nodes[i].content = Content::Directory(Some(new)),
                }
            }
        }
        Ok(is_changed)
    }

    /// Writes a page. Where that stores the open pack, everything at hand learns its name.
    fn write(&mut self, mut page: Page) -> Result<Ref> {
        loop {
            if let Some(written) = self.store.add(ChunkKind::Page, &page.encode(&PackRef::SELF))? {
                return Ok(written);
            }
            let pack = self.store.finish_pack(true)?;
            let pack = pack.ok_or_else(|| Error::failed("a chunk that fits into no pack"))?;
            self.open.iter_mut().chain([&mut page]).for_each(|page| page.replace_self(pack));
            self.root.replace_self(pack);
        }
    }
}

fn entries(page: &Page) -> usize {
    match page {
        Page::Upper(rows) => rows.len(),
        Page::Leaf(nodes) => nodes.len(),
    }
}

/// Returns the references of a page to chunks of metadata.
fn meta_refs(page: &mut Page) -> Box<dyn Iterator<Item = &mut Ref> + '_> {
    match page {
        Page::Upper(rows) => Box::new(rows.iter_mut().map(|row| &mut row.page)),
        Page::Leaf(nodes) => Box::new(nodes.iter_mut().flat_map(|Node { content, xattrs, .. }| {
            let content = match content {
                Content::Large { list: r, .. } | Content::Directory(Some(r)) => Some(r),
                _ => None,
            };
            let xattrs = if let Xattrs::Stored(r) = xattrs { Some(r) } else { None };
            content.into_iter().chain(xattrs)
        })),
    }
}

/// Cannot happen: a page is at hand while its entries are.
fn no_page() -> Error {
    Error::failed("the pages of the tree are out of order")
}
