//! Snapshots that the user names, and a snapshot as cells of a table and as a JSON object.

use serde_json::{Map, Value, json};

use super::output;
use super::{escape, human};
use crate::error::Result;
use crate::format::record::Snapshot;

/// Returns snapshots that were selected one by one, each once, the oldest first.
pub fn each_once(selected: impl Iterator<Item = Result<Snapshot>>) -> Result<Vec<Snapshot>> {
    let mut all = selected.collect::<Result<Vec<_>>>()?;
    all.sort_by_key(|snapshot| (snapshot.time, snapshot.id));
    all.dedup_by_key(|snapshot| snapshot.id);
    Ok(all)
}

/// Returns the first digits of its id, marked if it is partial.
pub fn id(s: &Snapshot) -> String {
    format!("{}{}", s.id.short(), if s.partial { "*" } else { "" })
}

/// Returns the sources, escaped.
pub fn paths(s: &Snapshot) -> String {
    let mut paths = s.paths.iter().map(|p| escape::text(p)).collect::<Vec<_>>().join(" ");
    if s.more_paths > 0 {
        paths += &format!(" +{}", s.more_paths);
    }
    paths
}

/// Returns a snapshot as an object.
pub fn fields(s: &Snapshot) -> Map<String, Value> {
    let stats = &s.stats;
    let mut fields = output::object(json!({
        "id": s.id.to_string(), "short_id": s.id.short(), "time": human::rfc3339(s.time), "host": s.host, "user": s.user,
        "more_paths": s.more_paths, "tags": s.tags,
        "description": s.description, "partial": s.partial, "program": s.program,
        "files": stats.files, "directories": stats.directories, "others": stats.others, "bytes": stats.bytes,
        "new": stats.new, "changed": stats.changed, "added": stats.added, "stored": stats.stored,
        "unreadable": stats.unreadable, "milliseconds": stats.milliseconds,
    }));
    output::put_paths(&mut fields, "paths", &s.paths);
    if let Some(original) = s.copy_of() {
        fields.insert("copy_of".into(), original.to_string().into());
    }
    fields
}
