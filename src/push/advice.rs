//! Warnings about a push that follows its options but probably not the user's intention.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::FileType;

use super::walk::select::Select;
use crate::format::record::Snapshot;
use crate::pattern::Pattern;

/// Returns warnings about the sources: devices, of which only the node is saved, and patterns that match a source.
pub fn on_sources(sources: &[PathBuf], select: &Select) -> Vec<String> {
    let mut warnings = Vec::new();
    for source in sources {
        let name = source.to_string_lossy();
        let kind = rustix::fs::lstat(source).ok().map(|stat| FileType::from_raw_mode(stat.st_mode));
        if matches!(kind, Some(FileType::BlockDevice | FileType::CharacterDevice)) {
            warnings.push(format!(
                "{name} is a device: the device node is saved, not its contents; \
                 `nfreezer push --stdin-from-command --stdin-filename NAME -- cat {name}` saves the contents"
            ));
        }
        let folder = kind == Some(FileType::Directory);
        if let Some(pattern) = select.patterns().first(source.as_os_str().as_bytes(), folder) {
            warnings.push(format!("{} matches the source {name}, which is saved anyway", quoted(pattern)));
        }
    }
    warnings
}

/// Returns warnings about a finished snapshot: nothing in it, or far less than in its parent.
pub fn on_snapshot(snapshot: &Snapshot, parent: Option<&Snapshot>) -> Vec<String> {
    let mut warnings = Vec::new();
    let stats = &snapshot.stats;
    if stats.files + stats.others == 0 {
        warnings.push("the snapshot is empty: the sources hold no files".to_owned());
    } else if let Some(parent) = parent.filter(|parent| !parent.partial && parent.group == snapshot.group) {
        let before = &parent.stats;
        if stats.files < before.files / 2 || stats.bytes < before.bytes / 2 {
            warnings.push(format!(
                "the snapshot holds less than half of its parent ({} files and {} bytes, before {} files and {} bytes): \
                 check that all sources are mounted",
                stats.files, stats.bytes, before.files, before.bytes
            ));
        }
    }
    warnings
}

/// Returns a warning about patterns without any effect.
pub fn on_patterns(select: &Select) -> Option<String> {
    let unmatched: Vec<_> = select.patterns().unmatched().map(quoted).collect();
    if unmatched.is_empty() {
        return None;
    }
    let more = unmatched.len().saturating_sub(SHOWN);
    let shown = unmatched[..unmatched.len() - more].join(", ");
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(format!("nothing in the sources matches {shown}{more}"))
}

/// Most patterns that a warning names.
const SHOWN: usize = 5;

fn quoted(pattern: &Pattern) -> String {
    format!("`{}` ({})", String::from_utf8_lossy(&pattern.text), pattern.place)
}
