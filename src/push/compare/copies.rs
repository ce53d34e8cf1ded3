//! The parents of a copy from another repository: earlier copies, each with its original. A node that equals the one in an
//! original takes over the contents of its copy, and nothing is read.

use std::collections::HashMap;

use crate::format::record::{Snapshot, SnapshotId};

/// Unfinished copies of one snapshot that are compared.
const UNFINISHED: usize = 2;

/// A snapshot of this repository, and the one of the other repository that has the same tree.
pub struct Copied {
    /// The snapshot of this repository.
    pub copy: Snapshot,
    /// The snapshot of the other one. `None`: the one that is being copied, and `copy` has only a part of its tree.
    pub original: Option<Snapshot>,
    /// Whether no pack of the copy is missing, condemned or dropped, so that whole directories can be taken over.
    pub is_intact: bool,
}

/// Returns what `snapshot`, one of the snapshots `others` of the other repository, is compared with: unfinished copies of it,
/// largest first, then a copy of the snapshot of the same host that was taken next to it.
pub fn choose(ours: &[Snapshot], others: &[Snapshot], snapshot: &Snapshot) -> Vec<Copied> {
    let is_unfinished = |s: &&Snapshot| s.partial && s.root.is_some() && s.copy_of() == Some(snapshot.origin());
    let mut unfinished: Vec<&Snapshot> = ours.iter().filter(is_unfinished).collect();
    unfinished.sort_by_key(|s| std::cmp::Reverse((s.stats.files, s.stats.bytes)));
    let unfinished = unfinished.into_iter().take(UNFINISHED);
    let unfinished = unfinished.map(|copy| Copied { copy: copy.clone(), original: None, is_intact: false });
    unfinished.chain(nearest(ours, others, snapshot)).collect()
}

fn nearest(ours: &[Snapshot], others: &[Snapshot], snapshot: &Snapshot) -> Option<Copied> {
    let is_whole = |s: &&Snapshot| !s.partial && s.root.is_some() && s.host == snapshot.host;
    let originals: HashMap<SnapshotId, &Snapshot> = others.iter().filter(is_whole).map(|s| (s.origin(), s)).collect();
    let pairs = ours.iter().filter(is_whole).filter_map(|copy| Some((*originals.get(&copy.origin())?, copy)));
    let (original, copy) = pairs.min_by_key(|(original, _)| {
        (original.group != snapshot.group, original.time.seconds.abs_diff(snapshot.time.seconds))
    })?;
    Some(Copied { copy: copy.clone(), original: Some(original.clone()), is_intact: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::keys::ChunkId;
    use crate::format::record::COPY_OF;
    use crate::format::reference::{PackRef, Ref};
    use crate::time::Time;

    fn snapshot(id: u8, seconds: i64, group: u64) -> Snapshot {
        let root = Some(Ref { id: ChunkId([id; 16]), pack: PackRef::SELF, offset: 0, stored: 1, len: 1 });
        Snapshot { id: SnapshotId([id; 16]), time: Time::new(seconds, 0), group, root, ..Snapshot::default() }
    }

    fn copy(of: &Snapshot, id: u8) -> Snapshot {
        let mut copy = Snapshot { id: SnapshotId([id; 16]), group: 0, ..of.clone() };
        copy.set_extra(COPY_OF, of.origin().0.to_vec());
        copy
    }

    #[test]
    fn the_nearest_copied_snapshot_of_the_same_paths_is_compared_after_unfinished_copies() {
        let others = [snapshot(1, 100, 1), snapshot(2, 200, 1), snapshot(3, 290, 2), snapshot(4, 300, 1)];
        let chosen = |ours: &[Snapshot]| {
            let chosen = choose(ours, &others, &others[3]);
            chosen.iter().map(|c| (c.copy.id.0[0], c.original.as_ref().map(|s| s.id.0[0]))).collect::<Vec<_>>()
        };
        assert_eq!(chosen(&[]), []);
        let whole: Vec<_> = others[..3].iter().map(|s| copy(s, s.id.0[0] + 10)).collect();
        assert_eq!(chosen(&whole), [(12, Some(2))]);
        assert_eq!(chosen(&whole[2..]), [(13, Some(3))], "other paths of the same host are better than nothing");
        let unfinished = Snapshot { partial: true, ..copy(&others[3], 20) };
        let of_another = Snapshot { partial: true, ..copy(&others[2], 21) };
        assert_eq!(chosen(&[unfinished, of_another, whole[0].clone()]), [(20, None), (11, Some(1))]);
        // The other way round: a copy is copied back to where its original is.
        assert_eq!(choose(&others, &whole, &whole[1])[0].copy.id, others[1].id);
    }
}
