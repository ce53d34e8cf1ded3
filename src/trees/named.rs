//! Whether trees name packs that were condemned or dropped meanwhile. A writer asks this before and after its commit.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::reach::{Visit, walk};
use super::{Lookup, Trees};
use crate::context::Context;
use crate::crypto::keys::ChunkKind;
use crate::error::{Error, Result};
use crate::format::node::Node;
use crate::format::reference::Ref;
use crate::name::ObjectId;
use crate::repo::{Repository, State};

/// Returns whether the trees with these roots name a pack that is condemned or dropped in `state` and not in `known`. A page
/// that cannot be read counts as if it did.
pub fn names_condemned_since(
    ctx: &Context,
    repo: &Repository,
    state: &State,
    known: &HashSet<ObjectId>,
    roots: &[Ref],
    memory: u64,
) -> Result<bool> {
    let new: HashSet<ObjectId> = state.condemned_packs().difference(known).copied().collect();
    if new.is_empty() {
        return Ok(false);
    }
    names_any(ctx, &Trees::with(repo, Arc::new(Lookup::fixed(state.clone()))), roots, &new, memory)
}

fn names_any(ctx: &Context, trees: &Trees<'_>, roots: &[Ref], packs: &HashSet<ObjectId>, memory: u64) -> Result<bool> {
    let search = Search { packs, found: AtomicBool::default() };
    search.references(&roots.iter().map(|root| (ChunkKind::Page, *root)).collect::<Vec<_>>());
    if search.found.load(Ordering::Relaxed) {
        return Ok(true);
    }
    walk(ctx, trees.repo(), Some(trees.lookup()), roots, memory, &search)?;
    Ok(search.found.load(Ordering::Relaxed))
}

struct Search<'p> {
    packs: &'p HashSet<ObjectId>,
    found: AtomicBool,
}

impl Visit for Search<'_> {
    fn references(&self, references: &[(ChunkKind, Ref)]) {
        if references.iter().any(|(_, r)| self.packs.contains(&r.pack.id)) {
            self.found.store(true, Ordering::Relaxed);
        }
    }

    fn read(&self, _: u64, _: &[Node]) {}

    fn unreadable(&self, _: &Ref, _: &Error) {
        self.found.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::background;
    use crate::name::Name;
    use crate::storage::Storage;
    use crate::trees::sample_trees_for_tests::{data, file, repository, write};

    #[test]
    fn packs_of_pages_and_of_contents_are_found_and_damage_counts() {
        let (memory, repo) = repository();
        let [root] = write(&repo, [&[("a".into(), file(3, 11))].into()]);
        let root = root.unwrap();
        let find =
            |pack| names_any(background(), &Trees::new(&repo), &[root], &HashSet::from([pack]), 1 << 20).unwrap();
        assert!(find(root.pack.id) && find(data(11).pack.id));
        assert!(!find(ObjectId([1; 32])));
        memory.remove(background(), &Name::Pack(root.pack.id)).unwrap();
        repo.forget_blocks();
        assert!(find(ObjectId([1; 32])), "nothing is known about the tree");
    }
}
