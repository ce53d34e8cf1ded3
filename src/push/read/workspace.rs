//! The state that the threads of one push share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use super::attributes::Nodes;
use super::item::Batch;
use super::partial::PartialFiles;
use super::saved::Reading;
use crate::context::Context;
use crate::push::pack::data_packs::DataPacks;
use crate::push::pack::queue::Queue;
use crate::repo::{Index, Repository};
use crate::trees::Trees;

/// The state that the workers and the tree's thread share. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Workspace<'w> {
    pub repo: &'w Repository,
    pub ctx: &'w Context<'w>,
    /// The same context for the last commit: it goes on for some seconds after a stop.
    pub last: &'w Context<'w>,
    pub nodes: &'w Nodes,
    pub index: &'w Index,
    /// The trees of the parents.
    pub trees: &'w Trees<'w>,
    pub data: &'w DataPacks<'w>,
    pub queue: &'w Queue<'w, Batch>,
    pub partial: &'w PartialFiles,
    /// The number of workers that wait for something to do.
    pub idle: &'w AtomicUsize,
    /// Files that changed each time they were read.
    pub unsteady: &'w AtomicU64,
    /// The snapshot of another repository that is being copied.
    pub reading: Option<Reading<'w>>,
    /// Whether the damaged index was reported.
    pub index_damage_reported: &'w AtomicBool,
}
