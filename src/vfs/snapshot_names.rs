//! The names of snapshots, hosts and tags in the directories of the view. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::format::node::valid_name;
use crate::format::record::Snapshot;

/// Bytes after which a host name or tag is cut.
const LONGEST: usize = 200;

/// Returns a time as a file name.
pub fn local(seconds: i64, zone: &TimeZone) -> String {
    let time = Timestamp::from_second(seconds).unwrap_or_default().to_zoned(zone.clone());
    time.strftime("%Y-%m-%d_%H-%M-%S").to_string()
}

/// Returns names by local time, in the order of the snapshots. Snapshots with equal times all get their id as a suffix, so
/// that one of them does not look like another kind of entry.
pub fn names_by_time(snapshots: &[Arc<Snapshot>], zone: &TimeZone) -> Vec<Vec<u8>> {
    let times: Vec<_> = snapshots.iter().map(|snapshot| time_name(snapshot, zone)).collect();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    times.iter().for_each(|name| *counts.entry(name).or_default() += 1);
    let mut taken = BTreeSet::new();
    let mut names = Vec::with_capacity(snapshots.len());
    for (snapshot, time) in snapshots.iter().zip(&times) {
        let mut name = time.clone();
        if counts[time.as_str()] > 1 {
            name = format!("{time}-{}", snapshot.id.short());
        }
        if taken.contains(&name) {
            name = format!("{time}-{}", snapshot.id);
        }
        taken.insert(name.clone());
        names.push(name.into_bytes());
    }
    names
}

fn time_name(snapshot: &Snapshot, zone: &TimeZone) -> String {
    let suffix = if snapshot.partial { "-partial" } else { "" };
    local(snapshot.time.seconds, zone) + suffix
}

/// Returns whether `rest` is what [`names_by_time`] adds to the time of this snapshot where others have the same.
pub fn is_id_suffix(rest: &[u8], snapshot: &Snapshot) -> bool {
    let id = snapshot.id.to_string();
    rest.strip_prefix(b"-").is_some_and(|rest| rest == snapshot.id.short().as_bytes() || rest == id.as_bytes())
}

/// Returns the first eight digits of each id, or all digits where the eight are taken, in the order of the snapshots.
pub fn names_by_id(snapshots: &[Arc<Snapshot>]) -> Vec<Vec<u8>> {
    let mut taken = BTreeSet::new();
    let mut names = Vec::with_capacity(snapshots.len());
    for snapshot in snapshots {
        let short = snapshot.id.short();
        let name = if taken.contains(&short) { snapshot.id.to_string() } else { short };
        taken.insert(name.clone());
        names.push(name.into_bytes());
    }
    names
}

/// Returns a host name or a tag as a file name. `/`, `%`, control characters and a dot at the beginning are written as `%`
/// and two hex digits for each byte; a name that is too long is cut and ends with `%`.
pub fn file_name(text: &str) -> Vec<u8> {
    let mut name = String::new();
    for (i, c) in text.char_indices() {
        if c == '/' || c == '%' || c.is_control() || (i == 0 && c == '.') {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                name.push_str(&format!("%{byte:02X}"));
            }
        } else {
            name.push(c);
        }
        if name.len() > LONGEST {
            name.push('%');
            break;
        }
    }
    if name.is_empty() {
        name.push('%');
    }
    debug_assert!(valid_name(name.as_bytes()));
    name.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_and_tags_become_file_names() {
        for (text, name) in [
            ("laptop", "laptop"),
            ("", "%"),
            ("..", "%2E."),
            ("a/b", "a%2Fb"),
            ("50%", "50%25"),
            ("x\ny", "x%0Ay"),
            ("é", "é"),
        ] {
            assert_eq!(String::from_utf8(file_name(text)).unwrap(), name);
        }
        assert!(valid_name(&file_name(&"é/".repeat(300))));
    }
}
