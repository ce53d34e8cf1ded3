//! The names of snapshots, hosts and tags in the directories of the view. Pure.

use std::collections::BTreeSet;
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

/// Returns names by local time, in the order of the snapshots. Of equal names, the first stays plain and the others get
/// the id of their snapshot.
pub fn names_by_time(snapshots: &[Arc<Snapshot>], zone: &TimeZone) -> Vec<Vec<u8>> {
    let mut taken = BTreeSet::new();
    let mut names = Vec::with_capacity(snapshots.len());
    for snapshot in snapshots {
        let mut name = local(snapshot.time.seconds, zone);
        if snapshot.partial {
            name.push_str("-partial");
        }
        if taken.contains(&name) {
            name = format!("{name}-{}", snapshot.id.short());
        }
        if taken.contains(&name) {
            name = format!("{name}-{}", snapshot.id);
        }
        taken.insert(name.clone());
        names.push(name.into_bytes());
    }
    names
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
