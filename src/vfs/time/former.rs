//! The nodes that exist now, according to the newest snapshots, and the former ones, which existed in earlier snapshots only.

use std::collections::{HashMap, HashSet};

use super::history::{EntryPlace, NamePath, NameSummary, is_version, page};
use super::scan::ScanTop;
use super::timeline::Timeline;
use crate::context::Context;
use crate::crypto::keys::ChunkId;
use crate::format::node::{Content, Node};
use crate::format::record::{Snapshot, SnapshotId};
use crate::format::reference::Ref;
use crate::vfs::attr::{Attr, Fault};
use crate::vfs::{Mode, Vfs};

/// The nodes that have one name now.
#[derive(Default)]
pub struct CurrentNodes {
    /// There is a node that is not a directory.
    pub file: bool,
    directory: bool,
    /// Ids of the top pages of the directories.
    pages: HashSet<Option<ChunkId>>,
}

impl CurrentNodes {
    fn add(&mut self, node: &Node) {
        match node.content {
            Content::Directory(page) => {
                self.directory = true;
                self.pages.insert(page.map(|page| page.id));
            }
            _ => self.file = true,
        }
    }
}

/// A node of a snapshot, by its place.
#[derive(Clone, Copy)]
pub(super) struct NodePlace {
    pub snapshot: SnapshotId,
    pub entry: EntryPlace,
}

/// The newest former file of a name.
pub(super) struct FormerFile {
    /// The last snapshot that has it.
    last: u32,
    pub place: NodePlace,
    pub attr: Attr,
}

/// The nodes that had one name in any snapshot.
#[derive(Default)]
pub(super) struct FormerNodes {
    /// Summary of the directories.
    pub directories: NameSummary,
    any_directory: bool,
    /// Some directory had other entries than the current ones.
    differs: bool,
    /// The newest node that was not a directory, if there is none now.
    pub file: Option<FormerFile>,
}

impl FormerNodes {
    /// Adds a node, its place in the last snapshot that has it, and the nodes of the name that exist now.
    pub fn add(
        &mut self,
        node: &Node,
        last: u32,
        place: NodePlace,
        current: &CurrentNodes,
        attr: impl FnOnce() -> Attr,
    ) {
        if let Content::Directory(page) = node.content {
            self.directories.add(node, last);
            self.any_directory = true;
            self.differs |= page.is_some() && !current.pages.contains(&page.map(|page| page.id));
        } else if !current.file && self.file.as_ref().is_none_or(|file| last >= file.last) {
            self.file = Some(FormerFile { last, place, attr: attr() });
        }
    }

    /// Returns whether the directories of this name may hold former nodes: none exists now, or not all were as now.
    pub fn may_hold_former(&self, current: &CurrentNodes) -> bool {
        self.any_directory && (!current.directory || self.differs)
    }
}

impl Vfs {
    /// Returns the nodes that exist now in a directory, by name; with `name`, only the nodes of this name.
    pub(super) fn current_nodes(
        &self,
        ctx: &Context,
        time: &Timeline,
        path: &NamePath,
        name: Option<&[u8]>,
    ) -> Result<HashMap<Vec<u8>, CurrentNodes>, Fault> {
        let mut found: HashMap<Vec<u8>, CurrentNodes> = HashMap::new();
        let directory: Vec<u8> = path.iter().flat_map(|name| [b"/".as_slice(), name].concat()).collect();
        for head in time.heads() {
            let Some(top) = self.directory_at(ctx, head, path)? else { continue };
            let mut add = |node: &Node| {
                let path = [&directory, b"/".as_slice(), &node.name].concat();
                if is_version(node) && !time.outdated(head, &path) {
                    found.entry(node.name.clone()).or_default().add(node);
                }
            };
            match name {
                Some(name) => {
                    let entry = self.entry(&top, name, Mode::Fetch(ctx))?;
                    if let Some((node, _)) = entry.as_ref().and_then(|entry| entry.node()) {
                        add(node);
                    }
                }
                None => {
                    let damage = self.scan(ctx, &[ScanTop { page: top, last: 0 }], &mut |scanned| add(scanned.node))?;
                    damage.map_or(Ok(()), |e| Err(Fault::Broken(e)))?;
                }
            }
        }
        Ok(found)
    }

    /// Returns the top page of a directory of a snapshot; `None` if there is no directory, or an empty one.
    fn directory_at(&self, ctx: &Context, snapshot: &Snapshot, path: &NamePath) -> Result<Option<Ref>, Fault> {
        let mut top = snapshot.root;
        for name in path {
            let Some(above) = top else { return Ok(None) };
            let entry = self.entry(&above, name, Mode::Fetch(ctx))?;
            top = entry.as_ref().and_then(|entry| entry.node()).and_then(|(node, _)| page(node));
        }
        Ok(top)
    }
}
