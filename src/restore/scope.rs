//! Which entries of the snapshot are restored: by the paths that were named and by patterns; and where entries of the
//! target are deleted that the snapshot lacks.

use crate::error::Result;
use crate::format::record::Snapshot;
use crate::pattern::Patterns;

/// The entries to restore. By default these are all.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Absolute paths in the snapshot: only these, with everything below them. Empty: all.
    pub paths: Vec<Vec<u8>>,
    /// Only entries that match, with everything below them. Empty: all.
    pub include: Patterns,
    /// No entries that match, and nothing below them.
    pub exclude: Patterns,
}

/// The part of the selection that holds for everything in a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    named: bool,
    included: bool,
}

/// The decision about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Restore(Chosen),
    /// A directory that is not restored for its own sake, but entries below it may be.
    Below(Chosen),
    LeaveOut,
}

impl Chosen {
    /// Everything is chosen, apart from what patterns exclude.
    pub fn all(self) -> Self {
        Chosen { named: true, included: true }
    }
}

/// The selection of one restore.
pub(super) struct Scope<'s> {
    selection: &'s Selection,
    paths: Vec<Vec<u8>>,
    /// The sources of the snapshot. In directories above them it knows only the way to the sources.
    sources: Vec<Vec<u8>>,
}

impl<'s> Scope<'s> {
    pub fn new(selection: &'s Selection, snapshot: &Snapshot) -> Self {
        let paths = selection.paths.iter().map(|path| normal(path)).collect();
        Scope { selection, paths, sources: snapshot.paths.iter().map(|path| normal(path)).collect() }
    }

    /// Returns whether everything is restored.
    pub fn is_all(&self) -> bool {
        self.paths.is_empty() && self.selection.include.is_empty() && self.selection.exclude.is_empty()
    }

    /// Returns the part that holds for the directory that is restored into the target.
    pub fn top(&self, path: &[u8]) -> Chosen {
        let path = normal(path);
        let named = self.paths.is_empty() || self.paths.iter().any(|named| is_below(&path, named));
        Chosen { named, included: self.selection.include.is_empty() }
    }

    /// Decides about the entry at an absolute path, in a directory of which `above` is known.
    pub fn choose(&self, path: &[u8], folder: bool, above: Chosen) -> Choice {
        let named = above.named || self.paths.iter().any(|named| is_below(path, named));
        let leads_to_named = folder && !named && self.paths.iter().any(|named| is_below(named, path));
        if !named {
            return if leads_to_named { Choice::Below(above) } else { Choice::LeaveOut };
        }
        if self.selection.exclude.matches(path, folder) {
            return Choice::LeaveOut;
        }
        let included = above.included || self.selection.include.matches(path, folder);
        match (included, folder) {
            (true, _) => Choice::Restore(Chosen { named, included }),
            (false, true) => Choice::Below(Chosen { named, included }),
            (false, false) => Choice::LeaveOut,
        }
    }

    /// Returns whether the snapshot is complete in this directory, so that an entry it lacks did not exist.
    pub fn knows_all_in(&self, path: &[u8]) -> bool {
        let path = normal(path);
        self.sources.iter().any(|source| is_below(&path, source))
    }

    /// Returns warnings about patterns without any effect.
    pub fn unmatched(&self) -> Vec<String> {
        let patterns = self.selection.include.unmatched().chain(self.selection.exclude.unmatched());
        patterns
            .map(|p| format!("nothing in the snapshot matches `{}` ({})", String::from_utf8_lossy(&p.text), p.place))
            .collect()
    }
}

/// Returns a path with one slash before each part; the root is empty.
fn normal(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty());
    parts.flat_map(|part| [b"/", part]).flatten().copied().collect()
}

/// Returns whether a path is `other` or lies below it.
fn is_below(path: &[u8], other: &[u8]) -> bool {
    path.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Refuses a deletion that the user probably does not intend, as restic does.
pub(super) fn check_delete(snapshot: &Snapshot, target: &std::path::Path, selection: &Selection) -> Result<()> {
    use crate::error::{Error, Kind};
    let is_filtered = !selection.paths.is_empty() || !selection.include.is_empty() || !selection.exclude.is_empty();
    if snapshot.partial {
        let text = format!("snapshot {} is partial: --delete would remove what it lacks", snapshot.id.short());
        return Err(Error::new(Kind::Usage, text).hint("restore without --delete, or choose a complete snapshot"));
    }
    let is_root = std::path::absolute(target).is_ok_and(|path| path.parent().is_none());
    if is_root && !is_filtered {
        return Err(Error::new(Kind::Usage, "--delete with the target / needs a path, --include or --exclude")
            .hint("add --dry-run to see what would be deleted"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Pattern;

    fn patterns(texts: &[&str]) -> Patterns {
        let pattern = |text: &&str| Pattern { text: text.as_bytes().into(), ignore_case: false, place: "-".into() };
        Patterns::new(&texts.iter().map(pattern).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn paths_and_patterns_choose_together() {
        let selection = Selection {
            paths: vec![b"/home/me/docs/".into(), b"/etc".into()],
            include: patterns(&["*.tex", "/etc"]),
            exclude: patterns(&["old", "!/etc"]),
        };
        let scope = Scope::new(&selection, &Snapshot::default());
        let top = scope.top(b"/");
        let Choice::Below(home) = scope.choose(b"/home", true, top) else { panic!("it leads to docs") };
        assert_eq!(scope.choose(b"/homes", true, top), Choice::LeaveOut);
        assert_eq!(scope.choose(b"/home", false, top), Choice::LeaveOut);
        assert_eq!(scope.choose(b"/home/me/a.tex", false, home), Choice::LeaveOut);
        let Choice::Below(docs) = scope.choose(b"/home/me/docs", true, home) else { panic!("it holds texts") };
        assert!(matches!(scope.choose(b"/home/me/docs/a.tex", false, docs), Choice::Restore(_)));
        assert_eq!(scope.choose(b"/home/me/docs/a.txt", false, docs), Choice::LeaveOut);
        assert_eq!(scope.choose(b"/home/me/docs/old", true, docs), Choice::LeaveOut);
        let Choice::Restore(etc) = scope.choose(b"/etc", true, top) else { panic!("it is included") };
        assert!(matches!(scope.choose(b"/etc/passwd", false, etc), Choice::Restore(_)));
    }

    #[test]
    fn a_snapshot_knows_all_only_below_its_sources() {
        let snapshot = Snapshot { paths: vec![b"/home/me".to_vec().into()], ..Snapshot::default() };
        let selection = Selection::default();
        let scope = Scope::new(&selection, &snapshot);
        assert!(scope.knows_all_in(b"/home/me") && scope.knows_all_in(b"home/me/a/"));
        assert!(!scope.knows_all_in(b"/home") && !scope.knows_all_in(b"/") && !scope.knows_all_in(b"/home/men"));
    }
}
