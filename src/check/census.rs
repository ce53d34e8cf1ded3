//! Counts the nodes and references of all trees and notes the packs that they name.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::packs::{Packs, object_type};
use super::{Meter, Report};
use crate::crypto::keys::ChunkKind;
use crate::crypto::seal::ObjectType;
use crate::error::{Error, Result};
use crate::format::node::{Content, Node};
use crate::format::record::Snapshot;
use crate::format::reference::Ref;
use crate::repo::Repository;
use crate::trees::{self, LOST, Visit, lacks_parts};

/// The sums over all pages of the trees.
pub(super) struct Census<'a> {
    packs: &'a Packs,
    meter: Meter<'a>,
    /// A page could not be read.
    is_suspect: AtomicBool,
    files: AtomicU64,
    directories: AtomicU64,
    others: AtomicU64,
    pages: AtomicU64,
    references: AtomicU64,
    known: AtomicU64,
}

impl<'a> Census<'a> {
    /// Reads the trees of these snapshots.
    pub fn take(
        repo: &Repository,
        snapshots: &[Snapshot],
        packs: &'a Packs,
        meter: Meter<'a>,
        memory: u64,
    ) -> Result<Self> {
        let (files, directories, others, pages, references, known) = Default::default();
        let is_suspect = AtomicBool::new(false);
        let census = Census { packs, meter, is_suspect, files, directories, others, pages, references, known };
        let roots: Vec<Ref> = snapshots.iter().filter_map(|s| s.root).collect();
        roots.iter().for_each(|root| packs.note(ObjectType::Meta, &root.pack, true));
        trees::walk(meter.ctx, repo, None, &roots, memory, &census)?;
        Ok(census)
    }

    /// Enters the figures into the report. Returns whether a page could not be read.
    pub fn report(&self, report: &mut Report) -> bool {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (report.files, report.directories, report.others) =
            (get(&self.files), get(&self.directories), get(&self.others));
        (report.pages, report.references, report.known) = (get(&self.pages), get(&self.references), get(&self.known));
        self.is_suspect.load(Ordering::Relaxed)
    }

    /// Counts a node. Returns whether it is a file.
    fn node(&self, node: &Node) -> bool {
        if node.content == Content::Unreadable(LOST) || lacks_parts(node) {
            self.known.fetch_add(1, Ordering::Relaxed);
        }
        let is_file = matches!(node.content, Content::File(_) | Content::Large { .. });
        let counter = match node.content {
            _ if is_file => &self.files,
            Content::Directory(_) => &self.directories,
            _ => &self.others,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        is_file
    }
}

impl Visit for Census<'_> {
    fn references(&self, references: &[(ChunkKind, Ref)]) {
        let packs: HashSet<_> = references.iter().map(|(kind, r)| (object_type(*kind), r.pack)).collect();
        packs.iter().for_each(|(kind, pack)| self.packs.note(*kind, pack, true));
        self.references.fetch_add(references.len() as u64, Ordering::Relaxed);
    }

    fn read(&self, bytes: u64, nodes: &[Node]) {
        let files = nodes.iter().filter(|node| self.node(node)).count();
        self.pages.fetch_add(1, Ordering::Relaxed);
        self.meter.done(files as u64, bytes);
    }

    fn unreadable(&self, _: &Ref, _: &Error) {
        self.is_suspect.store(true, Ordering::Relaxed);
    }
}
