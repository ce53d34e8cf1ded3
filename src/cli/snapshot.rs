//! One snapshot as cells of a table and as a JSON object.

use serde_json::{Map, Value, json};

use super::output;
use super::{escape, human};
use crate::format::record::Snapshot;
use crate::name::hex;

/// The first digits of its id, marked if it is partial.
pub fn id(s: &Snapshot) -> String {
    format!("{}{}", s.id.short(), if s.partial { "*" } else { "" })
}

/// The sources, escaped.
pub fn paths(s: &Snapshot) -> String {
    let mut paths = s.paths.iter().map(|p| escape::text(p)).collect::<Vec<_>>().join(" ");
    if s.more_paths > 0 {
        paths += &format!(" +{}", s.more_paths);
    }
    paths
}

/// A snapshot as an object.
pub fn fields(s: &Snapshot) -> Map<String, Value> {
    let paths = |exact: fn(&[u8]) -> String| s.paths.iter().map(|p| exact(p)).collect::<Vec<_>>();
    let stats = &s.stats;
    let mut fields = output::object(json!({
        "id": s.id.to_string(), "short_id": s.id.short(), "time": human::rfc3339(s.time), "host": s.host, "user": s.user,
        "paths": paths(|p| String::from_utf8_lossy(p).into_owned()), "more_paths": s.more_paths, "tags": s.tags,
        "description": s.description, "partial": s.partial, "program": s.program,
        "files": stats.files, "directories": stats.directories, "others": stats.others, "bytes": stats.bytes,
        "new": stats.new, "changed": stats.changed, "added": stats.added, "stored": stats.stored,
        "unreadable": stats.unreadable, "milliseconds": stats.milliseconds,
    }));
    if s.paths.iter().any(|p| std::str::from_utf8(p).is_err()) {
        fields.insert("paths_bytes".into(), paths(hex).into());
    }
    fields
}
