//! Writes trees into a repository without `push`, with any shape of pages and lists, any node and any snapshot.

mod item;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use nfreezer::context::background;
use nfreezer::crypto::keys::{ChunkId, ChunkKind};
use nfreezer::crypto::seal::ObjectType;
use nfreezer::format::list::List;
use nfreezer::format::node::{Attrs, Content, Node, Xattrs, encode_xattrs};
use nfreezer::format::pack::Builder;
use nfreezer::format::page::{Page, Row};
use nfreezer::format::record::{Head, NewSection, SectionKind, Snapshot, SnapshotId, Stats};
use nfreezer::format::reference::{Extent, PackRef, Ref};
use nfreezer::format::stored::Packer;
use nfreezer::format::{index, pack};
use nfreezer::name::ObjectId;
use nfreezer::repo::{Repository, State};
use nfreezer::time::Time;

use super::tree::noise;
pub use item::{Body, Item, Segment};

/// A writer with the sizes of chunks, pages and lists. Small sizes produce many levels.
pub struct Writer<'r> {
    pub repo: &'r Repository,
    pub chunk: usize,
    pub page_rows: usize,
    pub list_rows: usize,
    /// Error added to the counts in pages above other pages, as only a hostile writer would.
    pub lie: u64,
    data: Filling,
    meta: Filling,
    /// Chunks of contents that are already stored, from [`Writer::commit_and_keep`].
    pub known: HashMap<ChunkId, Ref>,
    stats: Stats,
}

/// A pack that is being filled, and the stored packs before it. References to pack n use `fake(n)` until it is stored.
#[derive(Default)]
struct Filling {
    builder: Builder,
    real: Vec<PackRef>,
    entries: Vec<(u32, pack::Entry)>,
}

fn fake(kind: ObjectType, n: usize) -> PackRef {
    let mut id = [0xee; 32];
    id[0] = kind as u8;
    id[1..9].copy_from_slice(&(n as u64).to_be_bytes());
    PackRef { id: ObjectId(id), len: 16 << 20 }
}

/// Returns an odd number that depends on a directory and a name in it.
fn hash(parent: u64, name: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (parent, name).hash(&mut hasher);
    hasher.finish() >> 1 | 1
}

impl<'r> Writer<'r> {
    pub fn new(repo: &'r Repository) -> Self {
        let (data, meta) = Default::default();
        Writer {
            repo,
            chunk: 1 << 20,
            page_rows: 600,
            list_rows: 1000,
            lie: 0,
            data,
            meta,
            known: HashMap::new(),
            stats: Stats::default(),
        }
    }

    /// Writes a tree and commits it as a snapshot. `change` may alter the snapshot before the commit.
    pub fn commit(self, state: &mut State, tree: &Item, change: impl FnOnce(&mut Snapshot)) -> Snapshot {
        self.commit_and_keep(state, tree, change).0
    }

    /// Like [`Writer::commit`]. Also returns the references of all contents, for the next snapshot.
    pub fn commit_and_keep(
        mut self,
        state: &mut State,
        tree: &Item,
        change: impl FnOnce(&mut Snapshot),
    ) -> (Snapshot, HashMap<ChunkId, Ref>) {
        let Body::Directory(entries) = &tree.body else { panic!("a root is a directory") };
        let mut nodes = self.contents(entries, 0);
        self.flush(ObjectType::Data);
        let root = self.pages(&mut nodes);
        self.flush(ObjectType::Meta);
        let root = root.map(|r| self.final_ref(&r, false));
        let mut snapshot = Snapshot {
            id: SnapshotId(nfreezer::repo::random().unwrap()),
            time: Time::new(1_764_000_000, 0),
            host: "host".into(),
            user: "me".into(),
            root,
            stats: self.stats,
            program: "test".into(),
            ..Snapshot::default()
        };
        change(&mut snapshot);
        let (packs, index) = self.index();
        let (index, fences) = index::encode(&index);
        let sections = [
            NewSection { kind: SectionKind::Packs, bytes: index::encode_packs(&packs), fences: Vec::new() },
            NewSection { kind: SectionKind::Index { packs: 0 }, bytes: index, fences },
        ];
        let head = Head { snapshots: vec![snapshot.clone()], ..Head::default() };
        self.repo.commit(background(), state, head, &sections).unwrap();
        let known = self.known.iter().map(|(id, r)| (*id, self.final_ref(r, false))).collect();
        (snapshot, known)
    }

    #[allow(clippy::type_complexity)]
    fn index(&self) -> (Vec<(PackRef, ObjectType)>, Vec<(u32, pack::Entry)>) {
        let of = |f: &Filling, kind| f.real.iter().map(|p| (*p, kind)).collect::<Vec<_>>();
        let packs = [of(&self.data, ObjectType::Data), of(&self.meta, ObjectType::Meta)].concat();
        let base = self.data.real.len() as u32;
        let meta = self.meta.entries.iter().map(|(n, e)| (n + base, *e));
        let mut index: Vec<_> = self.data.entries.iter().copied().chain(meta).collect();
        index.sort_by_key(|(_, e)| e.id);
        (packs, index)
    }

    /// Stores all contents. Returns nodes with preliminary references; the nodes of directories are in [`Sub::below`].
    /// `path` is a hash of the directory's path.
    fn contents(&mut self, entries: &BTreeMap<Vec<u8>, Item>, path: u64) -> Vec<Sub> {
        entries.iter().map(|(name, item)| self.node(name, item, hash(path, name))).collect()
    }

    fn node(&mut self, name: &[u8], item: &Item, path: u64) -> Sub {
        let (mut extents, mut below) = (Vec::new(), Vec::new());
        let content = match &item.body {
            Body::File(segments) => {
                self.stats.files += 1;
                segments.iter().for_each(|s| self.segment(s, &mut extents));
                self.stats.bytes += extents.iter().map(Extent::len).sum::<u64>();
                Content::File(Vec::new())
            }
            Body::Directory(entries) => {
                self.stats.directories += 1;
                below = self.contents(entries, path);
                Content::Directory(None)
            }
            Body::Other(content) => content.clone(),
        };
        self.stats.xattrs += u64::from(!item.xattrs.is_empty());
        let (user, group) = Default::default();
        let attrs = Attrs { mode: item.mode, uid: item.uid, gid: item.gid, user, group, fs: 0 };
        let xattrs = Xattrs::Inline(item.xattrs.clone());
        let (mtime, nlink) = (item.mtime, item.nlink);
        // Without a given inode number, the hash of the path is the inode number, the same in each snapshot.
        let inode = if item.inode == 0 { path } else { item.inode };
        let node = Node {
            name: name.to_vec(),
            attrs: Arc::new(attrs),
            mtime,
            ctime: 7,
            inode,
            nlink,
            flags: 0,
            xattrs,
            content,
        };
        Sub { node, extents, below }
    }

    fn segment(&mut self, segment: &Segment, extents: &mut Vec<Extent>) {
        match segment {
            Segment::Hole(len) => extents.push(Extent::Hole(*len)),
            Segment::Bytes(bytes) => {
                bytes
                    .chunks(self.chunk)
                    .for_each(|c| extents.push(Extent::Data(self.chunk(ObjectType::Data, ChunkKind::Data, c))));
            }
            Segment::Noise(seed, len) => {
                let mut at = 0;
                while at < *len {
                    let part = noise(seed.wrapping_add(at << 20), (*len - at).min(self.chunk as u64) as usize);
                    extents.push(Extent::Data(self.chunk(ObjectType::Data, ChunkKind::Data, &part)));
                    at += part.len() as u64;
                }
            }
        }
    }

    fn chunk(&mut self, pack: ObjectType, kind: ChunkKind, plain: &[u8]) -> Ref {
        let id = self.repo.keys().chunk_id(kind, plain);
        if let Some(r) = self.known.get(&id) {
            return *r;
        }
        let packed = Packer::new(3).unwrap().pack(plain);
        let stored = packed.as_deref().unwrap_or(plain);
        if self.filling(pack).builder.room() < stored.len() {
            self.flush(pack);
        }
        let filling = self.filling(pack);
        let entry = filling.builder.add(id, kind, stored, plain.len());
        let r = entry.in_pack(fake(pack, filling.real.len()));
        if kind == ChunkKind::Data {
            self.known.insert(id, r);
        }
        r
    }

    fn filling(&mut self, kind: ObjectType) -> &mut Filling {
        if kind == ObjectType::Data { &mut self.data } else { &mut self.meta }
    }

    fn flush(&mut self, kind: ObjectType) {
        let repo = self.repo;
        let filling = self.filling(kind);
        if filling.builder.is_empty() {
            return;
        }
        let (mut plain, entries) = std::mem::take(&mut filling.builder).finish(false);
        let number = filling.real.len() as u32;
        filling.entries.extend(entries.into_iter().map(|e| (number, e)));
        let pack = repo.put_pack(background(), kind, &mut plain).unwrap();
        self.filling(kind).real.push(pack);
    }

    fn final_ref(&self, r: &Ref, in_page: bool) -> Ref {
        if r.pack.id.0[9..] != [0xee; 23] {
            return *r;
        }
        let n = u64::from_be_bytes(r.pack.id.0[1..9].try_into().unwrap()) as usize;
        let real = if r.pack.id.0[0] == ObjectType::Data as u8 { &self.data.real } else { &self.meta.real };
        let pack = real.get(n).copied().unwrap_or_else(|| {
            assert!(in_page);
            PackRef::SELF
        });
        Ref { pack, ..*r }
    }

    fn final_extent(&self, e: &Extent) -> Extent {
        match e {
            Extent::Data(r) => Extent::Data(self.final_ref(r, true)),
            hole => *hole,
        }
    }

    /// Adds a page or list. If the pack is full, starts a new one and encodes again, since references within a pack
    /// differ.
    fn add(&mut self, kind: ChunkKind, encode: &dyn Fn(&Self) -> Vec<u8>) -> Ref {
        let plain = encode(self);
        if self.meta.builder.room() < plain.len() {
            self.flush(ObjectType::Meta);
        }
        let plain = encode(self);
        self.chunk(ObjectType::Meta, kind, &plain)
    }

    fn pages(&mut self, nodes: &mut [Sub]) -> Option<Ref> {
        for Sub { node, extents, below } in nodes.iter_mut() {
            match &mut node.content {
                Content::Directory(page) => {
                    node.nlink =
                        2 + below.iter().filter(|b| matches!(b.node.content, Content::Directory(_))).count() as u32;
                    *page = self.pages(below);
                }
                Content::File(inline) if extents.len() <= 4 => inline.clone_from(extents),
                Content::File(_) => {
                    let size = extents.iter().map(Extent::len).sum();
                    node.content = Content::Large { size, list: self.list(extents) };
                }
                _ => {}
            }
            if let Xattrs::Inline(list) = &node.xattrs
                && list.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>() > 4096
            {
                let plain = encode_xattrs(list);
                node.xattrs = Xattrs::Stored(self.add(ChunkKind::Xattrs, &|_| plain.clone()));
            }
        }
        let leaves: Vec<Vec<Node>> =
            nodes.chunks(self.page_rows).map(|c| c.iter().map(|sub| sub.node.clone()).collect()).collect();
        let mut rows: Vec<Row> = Vec::new();
        for leaf in leaves {
            let (first, count) = (leaf[0].name.clone(), leaf.len() as u64 + self.lie);
            let page = self.add(ChunkKind::Page, &|w| {
                let nodes = leaf.iter().map(|n| w.final_node(n)).collect();
                Page::Leaf(nodes).encode(&PackRef::SELF)
            });
            rows.push(Row { first, count, page });
        }
        while rows.len() > 1 {
            let mut above = Vec::new();
            for below in rows.chunks(self.page_rows) {
                let (first, count) = (below[0].first.clone(), below.iter().map(|r| r.count).sum::<u64>() + self.lie);
                let page = self.add(ChunkKind::Page, &|w| {
                    let rows = below.iter().map(|r| Row { page: w.final_ref(&r.page, true), ..r.clone() }).collect();
                    Page::Upper(rows).encode(&PackRef::SELF)
                });
                above.push(Row { first, count, page });
            }
            rows = above;
        }
        rows.pop().map(|row| row.page)
    }

    fn final_node(&self, node: &Node) -> Node {
        let mut node = node.clone();
        match &mut node.content {
            Content::File(extents) => extents.iter_mut().for_each(|e| *e = self.final_extent(e)),
            Content::Large { list, .. } => *list = self.final_ref(list, true),
            Content::Directory(Some(page)) => *page = self.final_ref(page, true),
            _ => {}
        }
        if let Xattrs::Stored(r) = &mut node.xattrs {
            *r = self.final_ref(r, true);
        }
        node
    }

    fn list(&mut self, extents: &[Extent]) -> Ref {
        let mut rows: Vec<(u64, Ref)> = Vec::new();
        for leaf in extents.chunks(self.list_rows) {
            let span = leaf.iter().map(Extent::len).sum::<u64>() + self.lie;
            let list = self.add(ChunkKind::List, &|w| {
                List::Leaf(leaf.iter().map(|e| w.final_extent(e)).collect()).encode(&PackRef::SELF)
            });
            rows.push((span, list));
        }
        while rows.len() > 1 {
            let mut above = Vec::new();
            for below in rows.chunks(self.list_rows) {
                let span = below.iter().map(|(span, _)| span).sum();
                let list = self.add(ChunkKind::List, &|w| {
                    let rows = below.iter().map(|(span, r)| (*span, w.final_ref(r, true))).collect();
                    List::Upper(rows).encode(&PackRef::SELF)
                });
                above.push((span, list));
            }
            rows = above;
        }
        rows.pop().expect("a file with a list is not empty").1
    }
}

/// A node, its extents, and the nodes in it if it is a directory.
struct Sub {
    node: Node,
    extents: Vec<Extent>,
    below: Vec<Sub>,
}
