//! Trees for unit tests: written into a repository in memory, without contents.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Directory, MetaPack, SelfRefs, Which};
use crate::context::background;
use crate::crypto::kdf::KdfCost;
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::crypto::secret::Passphrase;
use crate::format::node::{Attrs, Content, Node, Xattrs};
use crate::format::page::{Page, Row};
use crate::format::reference::{Extent, PackRef, Ref};
use crate::name::ObjectId;
use crate::repo::Repository;
use crate::storage::Memory;
use crate::time::Time;

pub(super) fn repository() -> (Arc<Memory>, Repository) {
    let memory = Arc::<Memory>::default();
    let passphrase = Passphrase::new("test".into()).unwrap();
    let repo = Repository::init(background(), memory.clone(), &passphrase, KdfCost::DEFAULT, "test").unwrap();
    (memory, repo)
}

/// A directory, by names.
pub(super) type Tree = BTreeMap<String, Item>;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub inode: u64,
    pub mtime: i64,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    /// A file of this content.
    File(u64),
    Dir(Tree),
}

pub(super) fn file(inode: u64, content: u64) -> Item {
    Item { inode, mtime: 1, what: What::File(content) }
}

pub(super) fn dir(inode: u64, entries: Tree) -> Item {
    Item { inode, mtime: 1, what: What::Dir(entries) }
}

/// Returns a reference to contents that are not stored.
pub(super) fn data(content: u64) -> Ref {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&content.to_be_bytes());
    let pack = PackRef { id: ObjectId([9; 32]), len: 1 << 20 };
    Ref { id: ChunkId(id), pack, offset: 0, stored: 100, len: 100 }
}

fn node(name: &str, item: &Item, content: Content) -> Node {
    let attrs = Attrs { mode: 0o644, uid: 0, gid: 0, user: Vec::new(), group: Vec::new(), fs: 0 };
    Node {
        name: name.into(),
        attrs: Arc::new(attrs),
        mtime: Time::from_seconds(item.mtime),
        ctime: 0,
        inode: item.inode,
        nlink: 1,
        flags: 0,
        xattrs: Xattrs::Inline(Vec::new()),
        content,
    }
}

/// Writes a tree; all of it must fit into one pack. References name the pack by `SELF`.
fn write_directory(repo: &Repository, meta: &mut MetaPack<'_>, tree: &Tree) -> Option<Ref> {
    let mut directory = Directory::default();
    for (name, item) in tree {
        let content = match &item.what {
            What::File(content) => Content::File(vec![Extent::Data(data(*content))]),
            What::Dir(entries) => Content::Directory(write_directory(repo, meta, entries)),
        };
        if directory.add(repo.keys(), node(name, item, content)) {
            write_pages(repo, meta, &mut directory, Which::Leaf);
        }
    }
    while let Some(which) = directory.open_page() {
        write_pages(repo, meta, &mut directory, which);
    }
    directory.top()
}

fn write_pages(repo: &Repository, meta: &mut MetaPack<'_>, directory: &mut Directory, which: Which) {
    let mut ended = Some(which);
    while let Some(which) = ended {
        let row = write_page(meta, &directory.take(which));
        ended = directory.add_row(repo.keys(), which, row);
    }
}

fn write_page(meta: &mut MetaPack<'_>, page: &Page) -> Row {
    let written = meta.add(ChunkKind::Page, &page.encode(&PackRef::SELF)).unwrap().expect("one pack is enough");
    Row { first: page.first().to_vec(), count: page.count(), page: written }
}

/// Writes trees into packs of their own, one after the other, and returns their top pages.
pub(super) fn write<const N: usize>(repo: &Repository, trees: [&Tree; N]) -> [Option<Ref>; N] {
    let mut meta = MetaPack::new(repo, 3).unwrap();
    trees.map(|tree| {
        let mut top = write_directory(repo, &mut meta, tree);
        if let Some(pack) = meta.finish(background(), false).unwrap() {
            top.iter_mut().for_each(|page| page.replace_self(pack));
        }
        top
    })
}

/// A small generator of choices, from a seed.
pub(super) struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}
