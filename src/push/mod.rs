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
//! A push into several repositories shares the walk and the workers; everything from the packs on, and the parents, exists for
//! each repository ([`stock`]).
//!
//! Every queue is bounded; the first failure ends all threads that work for its repository. Stored packs have no effect before
//! a record names them, so the existing snapshots are not affected if a push is interrupted. Checkpoints ([`Checkpoints`])
//! commit a partial snapshot from time to time, from which the next push continues.
//!
//! The user's stop ends the walk and the reading of files. The rest goes on as at the end of a push: open packs are stored, and
//! a partial snapshot names all files that were read ([`read::worker`], [`stock::REST`]).

mod advice;
mod attempt;
mod budget;
mod compare;
mod copy;
mod counts;
mod named;
mod options;
mod pack;
mod pipeline;
mod read;
mod stock;
mod tree;
mod walk;

use crate::context::Context;
use crate::error::Result;
use crate::repo::Repository;
use pipeline::Sources;
use walk::sources;

pub use budget::{LEAST, check_memory};
pub use copy::{Copied, Copier, Existing};
pub use options::{Destination, Options, Summary};
pub use read::stream::{Failure, Opener, Stream, StreamKind, tree_order};
pub use stock::REST;
pub use tree::checkpoint::Checkpoints;
pub use walk::select::{IGNORE_FILE, Select};

/// Takes a snapshot of `options.sources`. Files that cannot be read are reported to `ctx` and counted; the push continues.
///
/// # Errors
///
/// Fails if a source does not exist, if the storage fails, and with [`crate::error::Kind::Interrupted`] if the user stops
/// `ctx`. Contents that were stored by then are kept with a partial snapshot, and the next push continues from there.
pub fn push(ctx: &Context, repo: &Repository, options: &Options) -> Result<Summary> {
    attempt::only(push_to(ctx, &[Destination { repo, name: "" }], options)?)
}

/// Takes a snapshot of `options.sources` in several repositories. The sources are walked once, and each file that a repository
/// needs is read once. If a repository fails, the others continue. Returns the results in the order of `destinations`, each like
/// the result of [`push`].
///
/// # Errors
///
/// Fails if a source does not exist.
pub fn push_to(ctx: &Context, destinations: &[Destination<'_>], options: &Options) -> Result<Vec<Result<Summary>>> {
    let paths = sources::paths(&options.sources)?;
    let plan = sources::plan(&paths)?;
    for text in advice::on_sources(&paths, &options.select) {
        ctx.warn(&text);
    }
    Ok(attempt::save(ctx, destinations, options, &paths, Sources::Files(&plan, &paths)))
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
    streams: impl Iterator<Item = Result<Stream>>,
) -> Result<Summary> {
    attempt::only(push_streams_to(ctx, &[Destination { repo, name: "" }], options, streams)?)
}

/// Takes a snapshot of streams in several repositories, as [`push_to`] does of files. Each stream is read once.
///
/// # Errors
///
/// Fails if no source is given.
pub fn push_streams_to(
    ctx: &Context,
    destinations: &[Destination<'_>],
    options: &Options,
    mut streams: impl Iterator<Item = Result<Stream>>,
) -> Result<Vec<Result<Summary>>> {
    let paths = sources::paths(&options.sources)?;
    Ok(attempt::save(ctx, destinations, options, &paths, Sources::Streams(&mut streams)))
}
