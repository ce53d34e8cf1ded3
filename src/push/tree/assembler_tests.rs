//! Tests the assembler with entries in order.

use std::collections::HashMap;
use std::sync::Arc;

use super::*;
use crate::context::background;
use crate::crypto::keys::{ChunkId, RepoId};
use crate::crypto::secret::Secret;
use crate::format::list::List;
use crate::format::node::Attrs;
use crate::name::ObjectId;

/// Metadata packs in memory, with room for a few chunks each.
struct Packs {
    keys: Keys,
    /// Bytes that fit into a pack.
    room: usize,
    open: Vec<(ChunkId, ChunkKind, Vec<u8>)>,
    stored: HashMap<(ObjectId, ChunkId), (ChunkKind, Vec<u8>)>,
    packs: u8,
}

impl Packs {
    fn new(room: usize) -> Self {
        Packs { keys: keys(), room, open: Vec::new(), stored: HashMap::new(), packs: 0 }
    }

    fn read(&self, r: &Ref, kind: ChunkKind) -> &[u8] {
        let (stored_kind, plain) = &self.stored[&(r.pack.id, r.id)];
        assert_eq!(*stored_kind, kind);
        plain
    }

    /// Returns the names of all files below a directory page, with their sizes.
    fn files(&self, page: Option<Ref>, above: &str) -> Vec<(String, u64)> {
        let Some(page) = page else { return Vec::new() };
        match Page::decode(self.read(&page, ChunkKind::Page), &page.pack).unwrap() {
            Page::Upper(rows) => rows.iter().flat_map(|row| self.files(Some(row.page), above)).collect(),
            Page::Leaf(nodes) => nodes.iter().flat_map(|node| self.below(node, above)).collect(),
        }
    }

    fn below(&self, node: &Node, above: &str) -> Vec<(String, u64)> {
        let path = format!("{above}/{}", String::from_utf8_lossy(&node.name));
        if let Xattrs::Stored(r) = &node.xattrs {
            node::decode_xattrs(self.read(r, ChunkKind::Xattrs)).unwrap();
        }
        match &node.content {
            Content::Directory(page) => self.files(*page, &path),
            Content::Large { size, list } => {
                assert_eq!(*size, self.size(list));
                vec![(path, *size)]
            }
            content => vec![(path, content.size())],
        }
    }

    /// Returns the bytes that a reference list names.
    fn size(&self, list: &Ref) -> u64 {
        match List::decode(self.read(list, ChunkKind::List), &list.pack).unwrap() {
            List::Leaf(extents) => extents.iter().map(Extent::len).sum(),
            List::Upper(rows) => rows.iter().map(|(_, page)| self.size(page)).sum(),
        }
    }
}

impl MetaStore for Packs {
    fn add(&mut self, kind: ChunkKind, plain: &[u8]) -> Result<Option<Ref>> {
        let used: usize = self.open.iter().map(|(_, _, plain)| plain.len()).sum();
        if used > 0 && used + plain.len() > self.room {
            return Ok(None);
        }
        let id = self.keys.chunk_id(kind, plain);
        self.open.push((id, kind, plain.to_vec()));
        Ok(Some(Ref { id, pack: PackRef::SELF, offset: 0, stored: plain.len() as u32, len: plain.len() as u32 }))
    }

    fn find(&self, _: ChunkKind, _: &[u8], _: Option<PackRef>) -> Result<Option<Ref>> {
        Ok(None)
    }

    fn open_chunk(&self, r: &Ref) -> Result<Vec<u8>> {
        let chunk = self.open.iter().find(|(id, ..)| *id == r.id);
        chunk.map(|(_, _, plain)| plain.clone()).ok_or_else(no_directory)
    }

    fn finish_pack(&mut self, _: bool) -> Result<Option<PackRef>> {
        if self.open.is_empty() {
            return Ok(None);
        }
        self.packs += 1;
        let pack = PackRef { id: ObjectId([self.packs; 32]), len: 16 << 20 };
        self.stored.extend(self.open.drain(..).map(|(id, kind, plain)| ((pack.id, id), (kind, plain))));
        Ok(Some(pack))
    }
}

fn keys() -> Keys {
    Keys::derive(&Secret::new([7; 32]), &RepoId([1; 32]))
}

fn node(name: &str, content: Content) -> Node {
    let attrs = Attrs { mode: 0o644, uid: 1, gid: 1, user: Vec::new(), group: Vec::new(), fs: 0 };
    Node {
        name: name.into(),
        attrs: Arc::new(attrs),
        mtime: Default::default(),
        ctime: 0,
        inode: 1,
        nlink: 1,
        flags: 0,
        xattrs: Xattrs::Inline(Vec::new()),
        content,
    }
}

fn extents(count: u32) -> impl ExactSizeIterator<Item = Result<Extent>> {
    let pack = PackRef { id: ObjectId([0xdd; 32]), len: 1 << 20 };
    (0..count).map(move |i| {
        let id = ChunkId(u128::from(i).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834).to_be_bytes());
        Ok(Extent::Data(Ref { id, pack, offset: i, stored: 10, len: 10 }))
    })
}

fn no_beginning() -> Option<(Node, std::vec::IntoIter<Result<Extent>>)> {
    None
}

/// Adds 3 directories with 300 files each; one file in each has a long list, one has large extended attributes.
/// `between` is called after each step with the number of files that are in the tree.
fn assemble(tree: &mut Assembler<'_, Packs>, mut between: impl FnMut(&mut Assembler<'_, Packs>, usize)) -> Option<Ref> {
    for directory in 0..3 {
        let node_of = node(&format!("d{directory}"), Content::Directory(None));
        tree.enter(Enter { node: node_of, passage: false, old: None }).unwrap();
        for file in 0..300 {
            let mut one = node(&format!("f{file:03}"), Content::File(Vec::new()));
            if file == 7 {
                one.content = tree.content(extents(5000 + directory)).unwrap();
            }
            if file == 9 {
                one.xattrs = Xattrs::Inline(vec![(b"user.a".to_vec(), vec![directory as u8; 8000])]);
            }
            tree.file(one, None, None).unwrap();
            between(tree, directory as usize * 300 + file + 1);
        }
        tree.leave().unwrap();
    }
    tree.finish(None).unwrap()
}

#[test]
fn each_reference_names_the_pack_that_holds_its_chunk() {
    let (keys, ctx) = (keys(), background());
    let mut trees = Vec::new();
    for room in [1 << 20, 20_000, 9000] {
        let mut tree = Assembler::new(&keys, ctx, Packs::new(room));
        let root = assemble(&mut tree, |_, _| {});
        assert_eq!(tree.tally.stats.files, 900);
        assert_eq!((tree.tally.stats.directories, tree.tally.stats.xattrs), (3, 3));
        trees.push(tree.store.files(root, ""));
    }
    assert_eq!(trees[0].len(), 900);
    assert_eq!(trees[0][307], ("/d1/f007".to_owned(), 50_010));
    assert!(trees.iter().all(|tree| *tree == trees[0]));
}

#[test]
fn a_checkpoint_holds_the_nodes_so_far_and_leaves_the_assembler_as_it_was() {
    let (keys, ctx) = (keys(), background());
    let mut plain = Assembler::new(&keys, ctx, Packs::new(9000));
    let root = assemble(&mut plain, |_, _| {});
    let expected = plain.store.files(root, "");
    let mut tree = Assembler::new(&keys, ctx, Packs::new(9000));
    let root = assemble(&mut tree, |tree, files| {
        if files % 37 == 0 {
            let beginning = Some((node("g", Content::File(Vec::new())), extents(2))).filter(|_| files % 2 == 0);
            let with = usize::from(beginning.is_some());
            let partial = tree.checkpoint(beginning).unwrap();
            let found = tree.store.files(partial.root, "");
            assert_eq!(found.len(), files + with);
            assert_eq!(found[..files], expected[..files]);
            assert_eq!(partial.tally.stats.files as usize, files + with);
        }
    });
    assert_eq!(tree.store.files(root, ""), expected);
    assert_eq!(tree.tally.stats, plain.tally.stats);
}

#[test]
fn an_empty_tree_has_no_page() {
    let (keys, ctx) = (keys(), background());
    let mut tree = Assembler::new(&keys, ctx, Packs::new(9000));
    assert_eq!(tree.checkpoint(no_beginning()).unwrap().root, None);
    assert_eq!(tree.finish(None).unwrap(), None);
}

#[test]
fn further_links_take_over_the_first_one() {
    let (keys, ctx) = (keys(), background());
    let mut tree = Assembler::new(&keys, ctx, Packs::new(9000));
    let first = Node { nlink: 2, content: tree.content(extents(3)).unwrap(), ..node("a", Content::File(Vec::new())) };
    tree.file(first, Some((1, 1)), None).unwrap();
    tree.link(Node { nlink: 2, ..node("b", Content::File(Vec::new())) }, (1, 1), None).unwrap();
    tree.link(node("c", Content::File(Vec::new())), (1, 2), None).unwrap();
    let root = tree.finish(None).unwrap();
    let sizes: Vec<u64> = tree.store.files(root, "").iter().map(|(_, size)| *size).collect();
    assert_eq!(sizes, [30, 30, 0]);
    assert_eq!(tree.tally.stats.unreadable, 1);
}
