//! Decides what becomes of a regular file in each repository: a parent there has its contents, or it must be read.

use std::iter::repeat_n;
use std::sync::Arc;

use rustix::fs::Stat;

use super::batcher::Batcher;
use super::destination::Destination;
use crate::error::Result;
use crate::format::node::{Node, PARTIAL};
use crate::push::compare::old::{OldDirectory, OldNode};
use crate::push::compare::renames::SourceFile;
use crate::push::read::attributes::Nodes;
use crate::push::read::dir::Dir;
use crate::push::read::item::{Change, Item, Job, Link, Other};

/// A regular file that the walk has met.
pub struct MetFile<'a> {
    pub dir: &'a Arc<Dir>,
    pub stat: &'a Stat,
    /// Set if the file has several links.
    pub link: Option<Link>,
    /// Whether this is a further link to a file that came before.
    pub is_further: bool,
}

/// The step of a file for one repository.
enum FileStep {
    /// A parent has its contents.
    Same { node: Node, change: Change },
    /// It has the contents of a file that came before.
    Link(Item),
    /// It must be read. The job has no directory yet.
    Read(Box<Job>),
}

impl MetFile<'_> {
    /// Adds the steps of the repositories that have its contents. Returns the job of the others, without a directory. `above`:
    /// the directories of the parents that it was looked up in; `found`: its nodes in them.
    pub fn decide(
        &self,
        batcher: &mut Batcher<'_>,
        nodes: &Nodes,
        node: Node,
        above: &[OldDirectory<'_>],
        found: &mut [Option<OldNode>],
    ) -> Result<Option<Box<Job>>> {
        let (mut to_read, mut same, link) = (None::<Box<Job>>, None, self.link);
        let destinations = batcher.destinations;
        for (destination, node) in destinations.iter().zip(repeat_n(node, destinations.len())) {
            let number = destination.number;
            let places = OldDirectory::places(above, number);
            let Some(step) = self.step(destination, nodes, node, &mut found[places])? else { continue };
            match (step, &mut to_read) {
                (FileStep::Read(job), None) => to_read = Some(job),
                (FileStep::Read(job), Some(first)) => first.others.push(Other { destination: number, at: 0, job }),
                (FileStep::Link(item), _) => batcher.push(number, item),
                (FileStep::Same { node, change }, _) => {
                    same.get_or_insert_with(|| (self.dir.path_of(&node.name), change == Change::Renamed));
                    batcher.push(number, Item::Node { node, change, link });
                }
            }
        }
        match (&to_read, same) {
            (Some(_), _) => {}
            (None, Some((path, renamed))) => batcher.same(&path, self.stat.st_size as u64, renamed),
            (None, None) => batcher.done(self.stat.st_size as u64),
        }
        Ok(to_read)
    }

    /// Decides for one repository. Returns `None` if it has failed.
    fn step(
        &self,
        destination: &Destination<'_>,
        nodes: &Nodes,
        mut node: Node,
        found: &mut [Option<OldNode>],
    ) -> Result<Option<FileStep>> {
        let MetFile { stat, link, is_further, .. } = *self;
        let Some(same) = destination.group.step(|| self.same_content(destination, &node.name, found))? else {
            return Ok(None);
        };
        if let Some(OldNode { node: old, renamed, .. }) = same {
            node.content.clone_from(&old.content);
            node.xattrs = nodes.with_names(&old.xattrs);
            let change = if renamed { Change::Renamed } else { Change::compare(Some(&old), &node) };
            return Ok(Some(FileStep::Same { node, change }));
        }
        let (mut prefix, mut old) = (None, None);
        for found in found.iter_mut().filter_map(Option::take) {
            let is_partial = found.node.flags & PARTIAL != 0;
            if is_partial && prefix.is_none() && self.continues(destination, &found) {
                prefix = Some(found.node.content);
            } else if !is_partial && old.is_none() {
                old = Some(Box::new(found.node));
            }
        }
        if let Some(link) = link.filter(|_| is_further) {
            return Ok(Some(FileStep::Link(Item::Link { node, link, old })));
        }
        let (number, others, pieces) = (destination.number, Vec::new(), Vec::new());
        let job =
            Job { destination: number, others, dir: None, stat: *stat, node, old, link, prefix, pieces, gone: false };
        Ok(Some(FileStep::Read(Box::new(job))))
    }

    /// Returns the file in a parent whose content can be taken over, at the same path or at another one.
    fn same_content(
        &self,
        destination: &Destination<'_>,
        name: &[u8],
        found: &mut [Option<OldNode>],
    ) -> Result<Option<OldNode>> {
        let Destination { trees, parents, renames, .. } = *destination;
        let (ctx, dir, stat) = (destination.ctx(), self.dir, self.stat);
        for old in found.iter_mut() {
            if old.as_ref().is_some_and(|old| parents.same_file(ctx, trees, old, stat)) {
                return Ok(old.take());
            }
        }
        renames.file(ctx, trees, &SourceFile { dir, name, stat }, found)
    }

    /// Returns whether the file continues this partial file of a parent.
    fn continues(&self, destination: &Destination<'_>, old: &OldNode) -> bool {
        destination.parents.same_beginning(destination.ctx(), destination.trees, old, self.stat)
    }
}
