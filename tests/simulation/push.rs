//! A push without files, threads and chunker. It follows the protocol of a writer and uses the repository's code: it
//! reuses contents from the parent and the index, stores the new ones, and commits.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::context::Context;
use crate::crypto::keys::ChunkKind;
use crate::crypto::seal::ObjectType;
use crate::error::Result;
use crate::format::index;
use crate::format::node::{Attrs, Content, Node, Xattrs};
use crate::format::pack::{Builder, Entry};
use crate::format::page::{Page, Row};
use crate::format::record::{Action, Head, Mark, NewSection, Snapshot, SnapshotId};
use crate::format::reference::{Extent, PackRef, Ref};
use crate::format::sections::index_sections;
use crate::format::stored::Packer;
use crate::name::ObjectId;
use crate::repo::{Index, Repository, State, random};
use crate::time::Time;
use crate::trees::{Directory, MetaPack, SelfRefs, Trees, Which, names_condemned_since};

use super::dice::Dice;
use super::tree::{Model, content, identity, nodes};

/// The end of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Whole,
    /// Ends with a checkpoint.
    Partial,
    /// Ends by a signal: the last commit only puts the record.
    Immediate,
}

/// A directory of the parent.
struct OldDirectory {
    page: Ref,
    files: BTreeMap<Vec<u8>, Node>,
}

/// A push: its inputs, and the chunks that it has stored so far.
pub struct Push<'p> {
    ctx: &'p Context<'p>,
    repo: &'p Repository,
    host: &'p str,
    dice: &'p mut Dice,
    trees: Trees<'p>,
    /// Packs to which new references are forbidden.
    condemned: HashSet<ObjectId>,
    missing: BTreeSet<ObjectId>,
    index: Index,
    parent: BTreeMap<Vec<u8>, OldDirectory>,
    parent_root: Option<Ref>,
    new: BTreeMap<u8, Ref>,
    packs: Vec<(PackRef, ObjectType)>,
    entries: Vec<(u32, Entry)>,
}

impl<'p> Push<'p> {
    /// Reads the parent and determines the missing packs.
    pub fn new(
        ctx: &'p Context<'p>,
        repo: &'p Repository,
        host: &'p str,
        state: &State,
        dice: &'p mut Dice,
    ) -> Result<Self> {
        let mut condemned = state.condemned_packs();
        let missing = if dice.chance(300) { repo.see_packs(ctx, state, 64)?.absent } else { BTreeSet::new() };
        condemned.extend(&missing);
        let index = Index::new(state);
        index.condemn(&missing);
        let (parent, new, packs, entries) = Default::default();
        let trees = Trees::new(repo);
        let parent_root = state.snapshots().iter().rev().find(|s| s.host == host).and_then(|s| s.root);
        let mut push =
            Push { ctx, repo, host, dice, trees, condemned, missing, index, parent, parent_root, new, packs, entries };
        match push.read_parent() {
            Err(e) if e.kind().is_damage() => push.parent.clear(),
            other => other?,
        }
        Ok(push)
    }

    fn read_parent(&mut self) -> Result<()> {
        for directory in nodes(self.ctx, &self.trees, self.parent_root.as_ref())? {
            let Content::Directory(Some(page)) = directory.content else { continue };
            let files = nodes(self.ctx, &self.trees, Some(&page))?;
            let files = files.into_iter().map(|node| (node.name.clone(), node)).collect();
            self.parent.insert(directory.name, OldDirectory { page, files });
        }
        Ok(())
    }

    fn lasts(&self, r: &Ref) -> bool {
        !self.condemned.contains(&r.pack.id)
    }

    /// Stores the tree and returns its root and the sections of its record.
    pub fn store(&mut self, model: &Model) -> Result<(Option<Ref>, Vec<NewSection>)> {
        self.contents(model)?;
        let mut meta = MetaPack::new(self.repo, 1)?;
        let mut directories = Vec::new();
        for (name, files) in &model.0 {
            let node = |(file, chunks): (&String, &Vec<u8>)| {
                self.node(file, Content::File(self.extents(name, file, chunks)), identity(chunks))
            };
            let nodes = files.iter().map(node).collect();
            let old = self.parent.get(name.as_bytes()).map(|old| old.page);
            let top = self.directory(&mut meta, nodes, old)?;
            directories.push(self.node(name, Content::Directory(top), 0));
        }
        let mut top = self.directory(&mut meta, directories, self.parent_root)?;
        if let Some(pack) = meta.finish(self.ctx, false)? {
            top.iter_mut().for_each(|page| page.replace_self(pack));
        }
        let (mut packs, mut entries) = (self.packs.clone(), self.entries.clone());
        for (pack, entry) in meta.uncommitted() {
            if packs.last().is_none_or(|(last, _)| *last != pack) {
                packs.push((pack, ObjectType::Meta));
            }
            entries.push((packs.len() as u32 - 1, *entry));
        }
        Ok((top, index_sections(&packs, index::rows(&entries), 0)))
    }

    /// Stores the contents that the repository lacks, in one or two packs.
    fn contents(&mut self, model: &Model) -> Result<()> {
        let mut wanted = BTreeSet::new();
        for (name, files) in &model.0 {
            for (file, chunks) in files {
                if self.kept(name, file, chunks).is_none() {
                    wanted.extend(chunks.iter().copied());
                }
            }
        }
        let mut builders: Vec<Vec<u8>> = vec![Vec::new(); 1 + self.dice.roll(2) as usize];
        for number in wanted {
            let id = self.repo.keys().chunk_id(ChunkKind::Data, &content(number));
            match self.index.find(self.ctx, self.repo, &id) {
                Ok(Some((ChunkKind::Data, r))) => drop(self.new.insert(number, r)),
                Err(e) if !e.kind().is_damage() => return Err(e),
                _ => {
                    let pack = self.dice.roll(builders.len() as i64) as usize;
                    builders[pack].push(number);
                }
            }
        }
        for numbers in builders.into_iter().filter(|numbers| !numbers.is_empty()) {
            self.data_pack(&numbers)?;
        }
        Ok(())
    }

    fn data_pack(&mut self, numbers: &[u8]) -> Result<()> {
        let mut builder = Builder::new(Vec::new());
        let mut packer = Packer::new(1)?;
        for number in numbers {
            let plain = content(*number);
            let id = self.repo.keys().chunk_id(ChunkKind::Data, &plain);
            let packed = packer.pack(&plain);
            builder.add(id, ChunkKind::Data, packed.as_deref().unwrap_or(&plain), plain.len());
        }
        let (mut plain, entries) = builder.finish(false);
        let pack = self.repo.put_pack(self.ctx, ObjectType::Data, &mut plain)?;
        let number = self.packs.len() as u32;
        self.packs.push((pack, ObjectType::Data));
        for (chunk, entry) in numbers.iter().zip(entries) {
            self.new.insert(*chunk, entry.in_pack(pack));
            self.entries.push((number, entry));
        }
        Ok(())
    }

    /// Returns the extents of an unchanged file of the parent, if none of their packs is condemned or missing.
    fn kept(&self, directory: &str, file: &str, chunks: &[u8]) -> Option<Vec<Extent>> {
        let node = self.parent.get(directory.as_bytes())?.files.get(file.as_bytes())?;
        let Content::File(extents) = &node.content else { return None };
        let last = extents.iter().all(|extent| matches!(extent, Extent::Data(r) if self.lasts(r)));
        (node.inode == identity(chunks) && last).then(|| extents.clone())
    }

    fn extents(&self, directory: &str, file: &str, chunks: &[u8]) -> Vec<Extent> {
        let kept = self.kept(directory, file, chunks);
        kept.unwrap_or_else(|| chunks.iter().map(|number| Extent::Data(self.new[number])).collect())
    }

    /// Writes or reuses the pages of a directory. `old` is its top page in the parent.
    fn directory(&self, meta: &mut MetaPack<'_>, nodes: Vec<Node>, old: Option<Ref>) -> Result<Option<Ref>> {
        let mut directory = Directory::default();
        for node in nodes {
            if directory.add(self.repo.keys(), node) {
                self.pages(meta, &mut directory, Which::Leaf, old)?;
            }
        }
        while let Some(which) = directory.open_page() {
            self.pages(meta, &mut directory, which, old)?;
        }
        Ok(directory.top())
    }

    fn pages(&self, meta: &mut MetaPack<'_>, directory: &mut Directory, which: Which, old: Option<Ref>) -> Result<()> {
        let mut ended = Some(which);
        while let Some(which) = ended {
            let page = directory.take(which);
            let row = Row { first: page.first().to_vec(), count: page.count(), page: self.place(meta, &page, old)? };
            ended = directory.add_row(self.repo.keys(), which, row);
        }
        Ok(())
    }

    fn place(&self, meta: &mut MetaPack<'_>, page: &Page, old: Option<Ref>) -> Result<Ref> {
        let below: Vec<PackRef> = match page {
            Page::Leaf(nodes) => nodes.iter().filter_map(|node| below(&node.content)).collect(),
            Page::Upper(rows) => rows.iter().map(|row| row.page.pack).collect(),
        };
        if below.iter().all(|pack| *pack != PackRef::SELF) {
            if let Some(old) = old.filter(|old| self.lasts(old)) {
                let plain = page.encode(&old.pack);
                if self.repo.keys().chunk_id(ChunkKind::Page, &plain) == old.id {
                    return Ok(old);
                }
            } else {
                let own = below.last().copied();
                let plain = page.encode(&own.unwrap_or(PackRef::SELF));
                if let Some(found) = meta.earlier(self.ctx, Some(&self.index), ChunkKind::Page, &plain, own)? {
                    return Ok(found);
                }
            }
        }
        let added = meta.add(ChunkKind::Page, &page.encode(&PackRef::SELF))?;
        Ok(added.expect("a pack has room for tiny pages"))
    }

    fn node(&self, name: &str, content: Content, inode: u64) -> Node {
        let attrs = Attrs { mode: 0o644, uid: 0, gid: 0, user: Vec::new(), group: Vec::new(), fs: 0 };
        let (mtime, xattrs) = (Time::from_seconds(1), Xattrs::Inline(Vec::new()));
        Node { name: name.into(), attrs: Arc::new(attrs), mtime, ctime: 7, inode, nlink: 1, flags: 0, xattrs, content }
    }

    /// Returns the head of the record, without its sections.
    pub fn head(&self, state: &State, root: Option<Ref>, end: End) -> Result<(SnapshotId, Head)> {
        let snapshot = Snapshot {
            id: SnapshotId(random()?),
            time: self.repo.now(),
            host: self.host.into(),
            user: "user".into(),
            root,
            partial: end != End::Whole,
            program: "simulation".into(),
            ..Snapshot::default()
        };
        let time = self.repo.now().seconds;
        let replaced = state.snapshots().into_iter().filter(|s| s.partial && s.host == self.host);
        let marks = replaced.map(|s| Mark::new(s.id, time, Action::Forget)).collect();
        let condemned = self.missing.iter().map(|id| (*id, time)).collect();
        let id = snapshot.id;
        Ok((id, Head { snapshots: vec![snapshot], marks, condemned, ..Head::default() }))
    }

    /// Returns whether the tree names no pack that was condemned since the push began.
    pub fn is_current(&self, state: &State, root: Option<Ref>) -> Result<bool> {
        let Some(root) = root else { return Ok(true) };
        Ok(!names_condemned_since(self.ctx, self.repo, state, &self.condemned, &[root], 1 << 20)?)
    }
}

fn below(content: &Content) -> Option<PackRef> {
    if let Content::Directory(Some(page)) = content { Some(page.pack) } else { None }
}
