//! Takes a snapshot: reads what has changed, stores what the repository does not have, commits one record.
//!
//! ```text
//!            batches           chunks, stored form            packs
//! walker  ------------->  workers  ------------->  open data packs  ------>  sealing and storing threads
//!    |  \_____________________|_____ the same batches, in order _____            |
//!    |        unchanged       |                                     \            | acknowledged
//!  parent snapshot         index, run's chunks                     tree  <------'
//!                                                                    |  pages, lists
//!                                                            metadata packs, then the record
//! ```
//!
//! Every queue is bounded; the first failure ends all threads. Nothing counts before a record is there, so a push that
//! is cut off anywhere leaves the snapshots that there were as they are. What is stored is committed now and then with an
//! unfinished snapshot ([`Checkpoints`]), so that the next push goes on from there.

mod advice;
mod attempt;
mod budget;
mod compare;
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
pub use options::{Options, Summary};
pub use read::stream::{Failure, Opener, Stream, StreamKind, tree_order};
pub use tree::checkpoint::Checkpoints;
pub use walk::select::{IGNORE_FILE, Pattern, Select};

/// Takes a snapshot of `options.sources`. Files that cannot be read are reported to `ctx`, counted, and do not
/// stop it.
///
/// # Errors
///
/// A source that does not exist; everything that the storage cannot do; [`crate::error::Kind::Interrupted`] when
/// the user stops `ctx`. What was stored until then is kept with a partial snapshot, and the same push again goes on
/// from there.
pub fn push(ctx: &Context, repo: &Repository, options: &Options) -> Result<Summary> {
    let paths = sources::paths(&options.sources)?;
    let plan = sources::plan(&paths)?;
    for text in advice::on_sources(&paths, &options.select) {
        ctx.warn(&text);
    }
    attempt::save(ctx, repo, options, &paths, Sources::Files(&plan, &paths))
}

/// Takes a snapshot of streams instead of files, which come in [`tree_order`], each path once. They are cut, sent and
/// compared with the previous snapshot as files are, but every one of them is read.
///
/// # Errors
///
/// Those of [`push`]; an error that `streams` gives; a path out of order, below a file, or not absolute.
pub fn push_streams(
    ctx: &Context,
    repo: &Repository,
    options: &Options,
    mut streams: impl Iterator<Item = Result<Stream>>,
) -> Result<Summary> {
    let paths = sources::paths(&options.sources)?;
    attempt::save(ctx, repo, options, &paths, Sources::Streams(&mut streams))
}
