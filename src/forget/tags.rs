//! Changes the tags of snapshots. A pin is the tag [`PINNED`].

use crate::context::Context;
use crate::error::Result;
use crate::format::record::{Action, PINNED, Snapshot, SnapshotId};
use crate::repo::{Repository, State};

/// A change of tags, in the order of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagChange {
    /// Replaces all tags but the pin.
    pub set: Option<Vec<String>>,
    /// Tags that are added.
    pub add: Vec<String>,
    /// Tags that are removed.
    pub remove: Vec<String>,
    /// Whether the snapshot is pinned from now on.
    pub pin: Option<bool>,
}

impl TagChange {
    /// Returns the tags of a snapshot after the change, ascending.
    pub fn apply(&self, tags: &[String]) -> Vec<String> {
        let mut new = tags.to_vec();
        if let Some(set) = &self.set {
            new.retain(|tag| tag == PINNED);
            new.extend(set.iter().cloned());
        }
        new.extend(self.add.iter().cloned());
        new.retain(|tag| !self.remove.contains(tag));
        if let Some(pin) = self.pin {
            new.retain(|tag| tag != PINNED);
            new.extend(pin.then(|| PINNED.to_owned()));
        }
        new.sort_unstable();
        new.dedup();
        new
    }
}

/// Changes the tags of snapshots in one record, and adds it to `state`. Returns the snapshots that have other tags now.
pub fn tag(
    ctx: &Context,
    repo: &Repository,
    state: &mut State,
    snapshots: &[Snapshot],
    change: &TagChange,
) -> Result<Vec<SnapshotId>> {
    let new = snapshots.iter().map(|s| (s, change.apply(&s.tags))).filter(|(s, tags)| *tags != s.tags);
    let changes: Vec<_> = new.map(|(s, tags)| (s.id, Action::Tag(tags))).collect();
    let ids = changes.iter().map(|(id, _)| *id).collect();
    repo.commit_marks(ctx, state, changes)?;
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_tags_keeps_the_pin() {
        let tags = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let change = TagChange { set: Some(tags("b a")), remove: tags("b"), ..TagChange::default() };
        assert_eq!(change.apply(&tags("pinned x")), tags("a pinned"));
        let unpin = TagChange { pin: Some(false), add: tags("y"), ..TagChange::default() };
        assert_eq!(unpin.apply(&tags("pinned x")), tags("x y"));
        assert_eq!(TagChange { pin: Some(true), ..unpin }.apply(&[]), tags("pinned y"));
    }
}
