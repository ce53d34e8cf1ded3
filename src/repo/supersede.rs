//! The rule for a record that supersedes others: it contains everything that they contained. Pure.
//!
//! A superseded record is not read any more, so a record that claims too much would hide snapshots. [`lacks`] compares two
//! heads. A pair that fails is a false claim: the fold ignores it, and the superseded record stays live.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::record::{Head, Mark, Section, SectionKind, SnapshotId};
use crate::name::ObjectId;

/// A record that claims to supersede another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The superseding record.
    pub by: ObjectId,
    /// The superseded one.
    pub of: ObjectId,
}

/// A record with its id.
#[derive(Clone, Copy)]
pub struct Contents<'h> {
    /// Its id.
    pub id: &'h ObjectId,
    /// Its head.
    pub head: &'h Head,
}

/// Returns what of an older record a superseding one lacks; `None` if it contains everything: snapshots, marks,
/// condemned and dropped packs, values of later versions, and sections by name or by an own section of the same kind.
pub fn lacks(new: Contents<'_>, old: Contents<'_>) -> Option<String> {
    snapshots(new.head, old.head)
        .or_else(|| marks(new, old))
        .or_else(|| packs(new.head, old.head))
        .or_else(|| sections(new, old))
}

fn snapshots(new: &Head, old: &Head) -> Option<String> {
    let kept: BTreeMap<SnapshotId, _> = new.snapshots.iter().map(|s| (s.id, s)).collect();
    let lacking = old.snapshots.iter().find(|s| kept.get(&s.id) != Some(s))?;
    Some(format!("snapshot {}", lacking.id.short()))
}

fn marks(new: Contents<'_>, old: Contents<'_>) -> Option<String> {
    let kept: BTreeMap<_, _> = new.head.marks.iter().map(|mark| (first(mark, new.id).order(), mark)).collect();
    let is_kept = |mark: &Mark| {
        let kept = kept.get(&first(mark, old.id).order());
        kept.is_some_and(|kept| kept.time == mark.time && kept.action == mark.action)
    };
    let lacking = old.head.marks.iter().find(|mark| !is_kept(mark))?;
    Some(format!("a mark of snapshot {}", lacking.snapshot.short()))
}

/// Returns a mark with the record that held it first.
fn first(mark: &Mark, holder: &ObjectId) -> Mark {
    Mark { record: Some(mark.record.unwrap_or(*holder)), ..mark.clone() }
}

fn packs(new: &Head, old: &Head) -> Option<String> {
    let (condemned, dropped): (BTreeMap<_, _>, BTreeSet<_>) =
        (new.condemned.iter().copied().collect(), new.dropped.iter().collect());
    let is_kept =
        |pack: &ObjectId, since: &i64| dropped.contains(pack) || condemned.get(pack).is_some_and(|kept| kept <= since);
    if let Some((pack, _)) = old.condemned.iter().find(|(pack, since)| !is_kept(pack, since)) {
        return Some(format!("the condemned pack {}", pack.short()));
    }
    let pack = old.dropped.iter().find(|pack| !dropped.contains(pack))?;
    Some(format!("the dropped pack {}", pack.short()))
}

fn sections(new: Contents<'_>, old: Contents<'_>) -> Option<String> {
    if old.head.extra.iter().any(|value| !new.head.extra.contains(value)) {
        return Some("a value of a later version".into());
    }
    // Rows of dropped packs are left out, so a copy of a section may be empty.
    let has_own = |kind: &SectionKind| {
        let own = |section: &Section| section.record.is_none() && is_same_kind(&section.kind, kind);
        !new.head.dropped.is_empty() || new.head.sections.iter().any(own)
    };
    let place = |section: &Section, holder: &ObjectId| {
        (section.record.map_or(*holder, |(_, id, _)| id), section.offset, section.len, section.sha256)
    };
    let named: BTreeSet<_> = new.head.sections.iter().map(|section| place(section, new.id)).collect();
    let is_kept =
        |section: &&Section| section.len == 0 || named.contains(&place(section, old.id)) || has_own(&section.kind);
    let lacking = old.head.sections.iter().filter(|section| section.kind != SectionKind::Ancestry);
    let lacking = lacking.into_iter().find(|section| !is_kept(section))?;
    Some(if lacking.kind == SectionKind::Packs { "its table of packs" } else { "its part of the index" }.into())
}

fn is_same_kind(a: &SectionKind, b: &SectionKind) -> bool {
    matches!((a, b), (SectionKind::Packs, SectionKind::Packs) | (SectionKind::Index { .. }, SectionKind::Index { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::{Action, Snapshot};

    const OLD: ObjectId = ObjectId([1; 32]);
    const NEW: ObjectId = ObjectId([2; 32]);
    const PACK: ObjectId = ObjectId([3; 32]);
    const DROPPED: ObjectId = ObjectId([4; 32]);
    const ID: SnapshotId = SnapshotId([5; 16]);

    fn section(kind: SectionKind, record: Option<(u32, ObjectId, u64)>) -> Section {
        Section { kind, record, offset: 64, len: 40, sha256: [6; 32], fences: Vec::new() }
    }

    fn old() -> Head {
        let sections = [SectionKind::Packs, SectionKind::Index { packs: 0 }].map(|kind| section(kind, None));
        Head {
            sequence: 7,
            snapshots: vec![Snapshot { id: ID, host: "host".into(), ..Snapshot::default() }],
            marks: vec![Mark { sequence: 7, ..Mark::new(ID, 100, Action::Forget) }],
            condemned: vec![(PACK, 100)],
            dropped: vec![DROPPED],
            sections: sections.to_vec(),
            extra: vec![(9, vec![1].into())],
            ..Head::default()
        }
    }

    /// Returns a record that contains the old one and names its sections.
    fn new() -> Head {
        let old = old();
        let named = |s: &Section| section(s.kind, Some((7, OLD, 4096)));
        Head {
            sequence: 8,
            marks: old.marks.iter().map(|mark| first(mark, &OLD)).collect(),
            sections: old.sections.iter().map(named).collect(),
            superseded: vec![OLD],
            ..old
        }
    }

    fn lacking(change: impl Fn(&mut Head)) -> Option<String> {
        let (mut new, old) = (new(), old());
        change(&mut new);
        lacks(Contents { id: &NEW, head: &new }, Contents { id: &OLD, head: &old })
    }

    #[test]
    fn a_record_that_contains_everything_lacks_nothing() {
        assert_eq!(lacking(|_| {}), None);
        assert_eq!(lacking(|new| new.condemned[0].1 = 50), None, "the earlier time holds");
        let dropped = |new: &mut Head| {
            new.condemned.clear();
            new.dropped = vec![PACK, DROPPED];
        };
        assert_eq!(lacking(dropped), None, "a condemned pack was dropped meanwhile");
        let copied = |new: &mut Head| new.sections.iter_mut().for_each(|s| (s.record, s.offset) = (None, 0));
        assert_eq!(lacking(copied), None, "an own section takes the place of the old one");
    }

    #[test]
    fn each_thing_that_is_left_out_or_changed_is_named() {
        type Change = fn(&mut Head);
        let cases: [(&str, Change); 9] = [
            ("snapshot 05050505", |new| new.snapshots.clear()),
            ("snapshot 05050505", |new| new.snapshots[0].host = "other".into()),
            ("a mark of snapshot 05050505", |new| new.marks.clear()),
            ("a mark of snapshot 05050505", |new| new.marks[0].action = Action::Undelete),
            ("a mark of snapshot 05050505", |new| new.marks[0].record = None),
            ("the condemned pack 03030303", |new| new.condemned.clear()),
            ("the condemned pack 03030303", |new| new.condemned[0].1 = 200),
            ("the dropped pack 04040404", |new| new.dropped.clear()),
            ("a value of a later version", |new| new.extra.clear()),
        ];
        for (what, change) in cases {
            assert_eq!(lacking(change).as_deref().map(|found| &found[..what.len().min(found.len())]), Some(what));
        }
        let without = |new: &mut Head| {
            (new.dropped, new.sections) = (vec![], vec![]);
        };
        let (mut head, mut before) = (new(), old());
        without(&mut head);
        before.dropped.clear();
        let lacking = lacks(Contents { id: &NEW, head: &head }, Contents { id: &OLD, head: &before });
        assert_eq!(lacking.as_deref(), Some("its table of packs"));
    }
}
