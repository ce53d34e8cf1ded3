//! The state that the threads of one push share.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::item::Batch;
use super::partial::PartialFiles;
use super::saved::Reading;
use crate::context::{Context, Group};
use crate::push::pack::data_packs::DataPacks;
use crate::push::pack::queue::Queue;
use crate::repo::{Index, Repository};
use crate::trees::Trees;

/// The state that the workers and the tree's thread of one repository share. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Workspace<'w> {
    pub repo: &'w Repository,
    /// The threads that work for this repository. A step of a worker for it runs in this group, so that its failure does not
    /// end the work for the others.
    pub group: &'w Group<'w>,
    /// The context of the group. It goes on for a while after the user's stop ([`crate::push::REST`]).
    pub ctx: &'w Context<'w>,
    /// The same context for the last commit: it is valid for some seconds after a failure too.
    pub last: &'w Context<'w>,
    pub index: &'w Index,
    /// The trees of the parents.
    pub trees: &'w Trees<'w>,
    pub data: &'w DataPacks<'w>,
    pub queue: &'w Queue<'w, Batch>,
    pub partial: &'w PartialFiles,
    /// The number of workers that wait for something to do, shared by all repositories.
    pub idle: &'w AtomicUsize,
    /// Whether something was left out because of the user's stop, so that the snapshot is not complete.
    pub is_cut: &'w AtomicBool,
    /// The snapshot of another repository that is being copied.
    pub reading: Option<Reading<'w>>,
    /// Whether the damaged index was reported.
    pub index_damage_reported: &'w AtomicBool,
}
