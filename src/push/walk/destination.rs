//! The repositories that the walk works for, each with its own parents.

use rustix::fs::Stat;

use crate::context::{Context, Group};
use crate::error::Result;
use crate::push::compare::old::{OldDirectory, OldNode};
use crate::push::compare::parents::Parents;
use crate::push::compare::renames::Renames;
use crate::push::pack::queue::Queue;
use crate::push::read::item::Batch;
use crate::trees::Trees;

/// A repository that the walk works for.
#[derive(Clone, Copy)]
pub struct Destination<'w> {
    pub number: usize,
    /// The threads that work for it. A step of the walk for it runs in this group, so that its failure does not end the walk
    /// for the others.
    pub group: &'w Group<'w>,
    pub parents: &'w Parents,
    pub renames: &'w Renames<'w>,
    /// The trees of the parents.
    pub trees: &'w Trees<'w>,
    pub queue: &'w Queue<'w, Batch>,
}

impl<'w> Destination<'w> {
    /// Returns the context of the steps for this repository.
    pub fn ctx(&self) -> &'w Context<'w> {
        self.group.context()
    }
}

/// Returns the root directories of all parents.
pub fn roots<'w>(destinations: &[Destination<'w>]) -> Vec<OldDirectory<'w>> {
    let roots = |destination: &Destination<'w>| destination.parents.roots(destination.ctx(), destination.trees);
    let of = |destination: &Destination<'w>| {
        roots(destination).into_iter().map(|root| root.of(destination.number)).collect::<Vec<_>>()
    };
    destinations.iter().flat_map(of).collect()
}

/// Returns the directories of the parents to compare a directory with: those at the same path, and for each destination one at
/// another path if this directory was renamed. `above`: the directories that it was looked up in; `found`: its nodes in them;
/// `entries`: number of entries that it has now.
pub fn directories<'w>(
    destinations: &[Destination<'w>],
    above: &[OldDirectory<'w>],
    found: &[Option<OldNode>],
    stat: &Stat,
    entries: usize,
) -> Result<Vec<OldDirectory<'w>>> {
    let mut all = Vec::with_capacity(found.len());
    for destination in destinations {
        let places = OldDirectory::places(above, destination.number);
        let found = &found[places.clone()];
        all.extend(above[places].iter().zip(found).filter_map(|(old, found)| old.below(found.as_ref()?)));
        let look = || destination.renames.directory(destination.ctx(), destination.trees, stat, entries, found);
        all.extend(destination.group.step(look)?.flatten().map(|old| old.of(destination.number)));
    }
    Ok(all)
}
