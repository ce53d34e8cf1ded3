//! What there is now, as far as the newest snapshots say, and what of all that ever was is therefore gone.

use std::collections::{HashMap, HashSet};

use super::history::{Path, Seen, Top, page, shown};
use super::merged::Found;
use super::timeline::Timeline;
use crate::crypto::keys::ChunkId;
use crate::format::record::Snapshot;
use crate::format::reference::Ref;
use crate::format::tree::{Content, Node};
use crate::vfs::attr::{Attr, Fault};
use crate::vfs::{Mode, Vfs};

/// What bears a name now.
#[derive(Default)]
pub struct Present {
    /// Something that is no folder.
    pub file: bool,
    /// A folder.
    folder: bool,
    /// The pages of the folders.
    pages: HashSet<Option<ChunkId>>,
}

impl Present {
    fn add(&mut self, node: &Node) {
        match node.content {
            Content::Directory(page) => {
                self.folder = true;
                self.pages.insert(page.map(|page| page.id));
            }
            _ => self.file = true,
        }
    }
}

/// What bore a name once.
#[derive(Default)]
pub(in crate::vfs) struct Gone {
    /// The folders.
    pub folder: Seen,
    folders: bool,
    /// Some folder had other entries than those that are there now.
    differs: bool,
    /// The newest that was no folder: last snapshot, where, and what `stat` shows.
    pub file: Option<(u32, Found, Attr)>,
}

impl Gone {
    pub fn add(&mut self, node: &Node, last: u32, found: Found, now: &Present, attr: impl Fn() -> Attr) {
        if let Content::Directory(page) = node.content {
            self.folder.add(node, last);
            self.folders = true;
            self.differs |= page.is_some() && !now.pages.contains(&page.map(|page| page.id));
        } else if !now.file && self.file.as_ref().is_none_or(|(newest, ..)| last >= *newest) {
            self.file = Some((last, found, attr()));
        }
    }

    /// Whether there may be something gone below the folders of this name: they are gone, or were not always as now.
    pub fn leads_on(&self, now: &Present) -> bool {
        self.folders && (!now.folder || self.differs)
    }
}

impl Vfs {
    /// What there is now in a folder, or only what bears this name there.
    pub(in crate::vfs) fn present(
        &self,
        time: &Timeline,
        path: &Path,
        name: Option<&[u8]>,
    ) -> Result<HashMap<Vec<u8>, Present>, Fault> {
        let mut found: HashMap<Vec<u8>, Present> = HashMap::new();
        let folder: Vec<u8> = path.iter().flat_map(|name| [b"/".as_slice(), name].concat()).collect();
        for head in time.heads() {
            let Some(top) = self.folder_at(head, path)? else { continue };
            let mut add = |node: &Node| {
                if shown(node) && !time.outdated(head, &[&folder, b"/".as_slice(), &node.name].concat()) {
                    found.entry(node.name.clone()).or_default().add(node);
                }
            };
            match name {
                Some(name) => {
                    let at = self.entry(&top, name, Mode::Fetch)?;
                    at.as_ref().and_then(|at| at.node()).into_iter().for_each(|(node, _)| add(node));
                }
                None => {
                    let broken = self.scan(&[Top { page: top, last: 0 }], &mut |met| add(met.node))?;
                    broken.map_or(Ok(()), |e| Err(Fault::Broken(e)))?;
                }
            }
        }
        Ok(found)
    }

    /// The top page of a folder of a snapshot; `None` if it is none, or empty.
    fn folder_at(&self, snapshot: &Snapshot, path: &Path) -> Result<Option<Ref>, Fault> {
        let mut top = snapshot.root;
        for name in path {
            let Some(above) = top else { return Ok(None) };
            let at = self.entry(&above, name, Mode::Fetch)?;
            top = at.as_ref().and_then(|at| at.node()).and_then(|(node, _)| page(node));
        }
        Ok(top)
    }
}
