//! Takes a snapshot: reads the files that changed, stores the chunks that the repository does not have, commits a record.
//!
//! ```text
//!            batches           chunks, stored form            packs
//! walk    ------------->  workers  ------------->  open data packs  ------>  uploading threads
//!    |  \_____________________|_____ the same batches, in order _____            |
//!    |        unchanged       |                                     \            | stored
//!  parents                 index, chunks of this push              tree  <------'
//!                                                                    |  pages, lists
//!                                                            metadata packs, then the record
//! ```
//!
//! Rooms, from the bottom: [`pack`] stores chunks, [`read`] reads and cuts files, [`compare`] knows the parents, [`walk`]
//! finds the files, [`tree`] writes the tree. [`pipeline`] runs the threads.
//!
//! Every queue is bounded; the first failure ends all threads. Stored packs have no effect before a record names them, so
//! the existing snapshots are not affected if a push is interrupted. Checkpoints ([`Checkpoints`]) commit a partial snapshot
//! from time to time, from which the next push continues.

mod advice;
mod attempt;
mod budget;
mod compare;
mod copy;
mod counts;
mod options;
mod pack;
mod pipeline;
mod read;
mod tree;
mod walk;

use crate::context::Context;
use crate::error::Result;
use crate::repo::Repository;
use pipeline::Sources;
use walk::sources;

pub use budget::LEAST;
pub use copy::{Copied, Copier, Existing};
pub use options::{Options, Summary};
pub use read::stream::{Failure, Opener, Stream, StreamKind, tree_order};
pub use tree::checkpoint::Checkpoints;
pub use walk::select::{IGNORE_FILE, Select};

/// Takes a snapshot of `options.sources`. Files that cannot be read are reported to `ctx` and counted; the push goes on.
///
/// # Errors
///
/// Fails if a source does not exist, if the storage fails, and with [`crate::error::Kind::Interrupted`] if the user stops
/// `ctx`. Contents that were stored by then are kept with a partial snapshot, and the next push continues from there.
pub fn push(ctx: &Context, repo: &Repository, options: &Options) -> Result<Summary> {
    let paths = sources::paths(&options.sources)?;
    let plan = sources::plan(&paths)?;
    for text in advice::on_sources(&paths, &options.select) {
        ctx.warn(&text);
    }
    attempt::save(ctx, repo, options, &paths, Sources::Files(&plan, &paths))
}

/// Takes a snapshot of streams instead of files. They must come in [`tree_order`], each path once. Streams are cut, stored
/// and compared with the parents like files, but each of them is read.
///
/// # Errors
///
/// Fails like [`push`], with an error of `streams`, and if a path is out of order, below a file, or not absolute.
pub fn push_streams(
    ctx: &Context,
    repo: &Repository,
    options: &Options,
    mut streams: impl Iterator<Item = Result<Stream>>,
) -> Result<Summary> {
    let paths = sources::paths(&options.sources)?;
    attempt::save(ctx, repo, options, &paths, Sources::Streams(&mut streams))
}
