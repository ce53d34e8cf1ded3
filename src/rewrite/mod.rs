//! Replaces snapshots: by ones whose trees lack some files, or with other metadata.
//!
//! In: snapshots of a state, a rule for the nodes to leave out, new metadata. Out: one record with the new snapshots, the new
//! pages, and the marks that forget the old ones. Contents that no snapshot needs any more stay on the server until `prune`
//! removes them. If only metadata changes, no tree is read.

use std::sync::Arc;
use std::time::Duration;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::codec;
use crate::format::record::{Action, BEGUN, Head, Mark, NewSection, PINNED, Snapshot, SnapshotId};
use crate::format::reference::Ref;
use crate::repo::{Repository, State, random};
use crate::time::Time;
use crate::trees::{LeavesOut, Lookup, Removed, Rewriter, Trees, Without, deep, names_condemned_since};

/// The level of zstd for new pages.
const COMPRESSION: i32 = 3;
/// Memory for the search for condemned packs.
const MEMORY: u64 = 64 << 20;

/// Values that replace the values of each snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The host.
    pub host: Option<String>,
    /// The time.
    pub time: Option<Time>,
    /// The description.
    pub description: Option<String>,
    /// The tags. A pin stays.
    pub tags: Option<Vec<String>>,
}

/// The changes.
pub struct Options<'o> {
    /// Paths to leave out; none if only metadata changes.
    pub leaves_out: Option<&'o LeavesOut<'o>>,
    /// New metadata.
    pub metadata: Metadata,
    /// Keeps the replaced snapshots, instead of forgetting them.
    pub keep_old: bool,
    /// Commits nothing. The storage must write nothing.
    pub dry_run: bool,
}

/// A snapshot and the one that takes its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewritten {
    /// The old one.
    pub old: Snapshot,
    /// The new one; none if nothing changes.
    pub new: Option<Snapshot>,
    /// The nodes that were left out of the tree.
    pub removed: Removed,
}

/// Rewrites snapshots and adds the record to `state`.
///
/// # Errors
///
/// A page cannot be read: then nothing is committed. Errors of a commit.
pub fn rewrite(
    ctx: &Context,
    repo: &Repository,
    state: &mut State,
    snapshots: &[Snapshot],
    options: &Options<'_>,
) -> Result<Vec<Rewritten>> {
    let trees = Trees::with(repo, Arc::new(Lookup::fixed(state.clone())));
    let (new_trees, sections) = match options.leaves_out {
        Some(leaves_out) => without(ctx, &trees, snapshots, leaves_out)?,
        None => (snapshots.iter().map(|s| Without { root: s.root, removed: Removed::default() }).collect(), Vec::new()),
    };
    let mut all = Vec::new();
    for (old, tree) in snapshots.iter().zip(new_trees) {
        all.push(Rewritten { old: old.clone(), new: replacement(repo, old, tree, options)?, removed: tree.removed });
    }
    if !options.dry_run {
        commit(ctx, &trees, state, &all, &sections, options.keep_old)?;
    }
    Ok(all)
}

/// Writes the trees of all snapshots without some nodes.
fn without(
    ctx: &Context,
    trees: &Trees<'_>,
    snapshots: &[Snapshot],
    leaves_out: &LeavesOut<'_>,
) -> Result<(Vec<Without>, Vec<NewSection>)> {
    let mut rewriter = Rewriter::new(ctx, trees, leaves_out, COMPRESSION)?;
    deep(|| {
        snapshots.iter().try_for_each(|snapshot| rewriter.tree(snapshot.root).map_err(|e| explained(e, snapshot)))
    })?;
    let (new_trees, writer) = rewriter.finish()?;
    Ok((new_trees, writer.sections(0)))
}

fn explained(e: Error, snapshot: &Snapshot) -> Error {
    if !e.kind().is_damage() {
        return e;
    }
    let text = format!("cannot rewrite snapshot {}", snapshot.id.short());
    e.while_doing(text).hint("`nfreezer check` names the damage; `nfreezer repair` comes before a rewrite")
}

/// Returns the new snapshot; `None` if it would be the same.
fn replacement(repo: &Repository, old: &Snapshot, tree: Without, options: &Options<'_>) -> Result<Option<Snapshot>> {
    let mut new = Snapshot { root: tree.root, ..old.clone() };
    let Removed { files, directories, others, bytes } = tree.removed;
    new.stats.files = new.stats.files.saturating_sub(files);
    new.stats.directories = new.stats.directories.saturating_sub(directories);
    new.stats.others = new.stats.others.saturating_sub(others);
    new.stats.bytes = new.stats.bytes.saturating_sub(bytes);
    change(repo, &mut new, &options.metadata);
    if new == *old {
        return Ok(None);
    }
    new.id = SnapshotId(random()?);
    new.set_replaces(&old.id);
    if new.shorten_paths() {
        return Ok(Some(new));
    }
    Err(Error::failed("the description and the tags are too long for a snapshot"))
}

fn change(repo: &Repository, s: &mut Snapshot, metadata: &Metadata) {
    if let Some(host) = metadata.host.as_ref().filter(|host| **host != s.host) {
        s.host.clone_from(host);
        s.group = repo.group(host, s.paths.iter().map(|path| path.as_slice()));
    }
    if let Some(time) = metadata.time.filter(|time| *time != s.time) {
        // Pushes compare the times of files with the real start of the push.
        if !s.extra.iter().any(|extra| extra.0 == BEGUN) {
            s.set_extra(BEGUN, codec::encode(&s.time));
        }
        s.time = time;
    }
    if let Some(description) = &metadata.description {
        s.description.clone_from(description);
    }
    if let Some(tags) = &metadata.tags {
        s.tags.retain(|tag| tag == PINNED);
        s.tags.extend(tags.iter().cloned());
        s.tags.sort_unstable();
        s.tags.dedup();
    }
}

/// Commits the new snapshots, unless another client has condemned packs meanwhile that they name.
fn commit(
    ctx: &Context,
    trees: &Trees<'_>,
    state: &mut State,
    all: &[Rewritten],
    sections: &[NewSection],
    keep_old: bool,
) -> Result<()> {
    let repo = trees.repo();
    let replaced: Vec<&Rewritten> = all.iter().filter(|one| one.new.is_some()).collect();
    if replaced.is_empty() {
        return Ok(());
    }
    let time = repo.now().seconds;
    let mut head = Head { snapshots: replaced.iter().filter_map(|one| one.new.clone()).collect(), ..Head::default() };
    if !keep_old {
        head.marks = replaced.iter().map(|one| Mark::new(one.old.id, time, Action::Forget)).collect();
    }
    let roots: Vec<Ref> = head.snapshots.iter().filter_map(|s| s.root).collect();
    let known = state.condemned_packs();
    // A stop does not end the commit: then it would not be known whether it took place.
    let ctx = &ctx.with_grace(Duration::MAX);
    let commit = repo.commit_if(ctx, state, head, sections, |state| {
        if !names_condemned_since(ctx, repo, state, &known, &roots, MEMORY)? {
            return Ok(());
        }
        Err(Error::failed("packs were condemned while the rewrite went on").hint("run `nfreezer rewrite` again"))
    })?;
    commit.doubt.map_or(Ok(()), Err)
}
