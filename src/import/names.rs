//! Converts the names of the old index to paths of a tree. Names are relative to the directory that was backed up, with the
//! separators of the system that wrote them. Names are not trusted: one that could leave its directory is refused.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::index::Entry;
use crate::context::Context;
use crate::error::{Error, Result};

/// Longest part of a path in a tree.
const PART: usize = 255;
/// Most parts of a path in a tree.
const DEPTH: usize = 4000;

/// Converts the names of all entries to relative paths with `/` as separator, in tree order. Returns the number of entries
/// with impossible names too. Each was reported.
pub(super) fn to_paths(ctx: &Context, mut entries: Vec<Entry>) -> (Vec<Entry>, u64) {
    let windows = written_on_windows(&entries);
    let mut impossible = 0;
    entries.retain_mut(|entry| match path(&entry.name, windows) {
        Ok(path) => {
            entry.name = path;
            true
        }
        Err(why) => {
            ctx.skip(&entry.name, &why);
            impossible += 1;
            false
        }
    });
    entries.sort_by(|a, b| tree_order(&a.name, &b.name).then(b.at.cmp(&a.at)));
    let before = entries.len();
    entries.dedup_by(|later, first| later.name == first.name);
    if entries.len() < before {
        let text = format!(
            "{} names of the old index mean the same path as a later one (written by Windows and by another system): \
             the later ones count",
            before - entries.len()
        );
        ctx.warn(&text);
    }
    (without_conflicts(ctx, entries), impossible)
}

/// Returns whether Windows has written names. The old program kept the separators of its system. A name of Windows has no
/// `/`; on other systems `\` is an ordinary letter. A repository that both have written has some paths in both forms.
fn written_on_windows(entries: &[Entry]) -> bool {
    let slash = |entry: &&Entry| entry.name.contains(&b'/');
    let mut backslashes = entries.iter().filter(|entry| is_windows(&entry.name)).peekable();
    if backslashes.peek().is_none() || !entries.iter().any(|entry| slash(&entry)) {
        return backslashes.peek().is_some();
    }
    let others: HashSet<&[u8]> = entries.iter().filter(slash).map(|entry| entry.name.as_slice()).collect();
    backslashes.any(|entry| others.contains(slashed(&entry.name).as_slice()))
}

/// Returns whether the name can be a path of Windows with directories.
fn is_windows(name: &[u8]) -> bool {
    name.contains(&b'\\') && !name.contains(&b'/')
}

fn slashed(name: &[u8]) -> Vec<u8> {
    name.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect()
}

/// Converts a name to a path below the directory that was backed up. Absolute names, which the old program never wrote,
/// become relative.
fn path(name: &[u8], windows: bool) -> Result<Vec<u8>> {
    let mut path = if windows && is_windows(name) { slashed(name) } else { name.to_vec() };
    let slashes = path.iter().take_while(|byte| **byte == b'/').count();
    path.drain(..slashes);
    let refuse = |why: &str| Err(Error::damaged(format!("its name in the old index cannot be used: {why}")));
    if path.contains(&0) {
        return refuse("it holds a NUL");
    }
    for (depth, part) in path.split(|byte| *byte == b'/').enumerate() {
        match part {
            b"" if path.is_empty() => return refuse("it is empty"),
            b"" => return refuse("a part of it is empty"),
            b"." | b".." => return refuse("`.` or `..` is a part of it"),
            part if part.len() > PART => return refuse("a part of it is longer than 255 bytes"),
            _ if depth >= DEPTH => return refuse("it has too many parts"),
            _ => {}
        }
    }
    Ok(path)
}

/// Compares part by part: `a/z` comes before `a.b`.
fn tree_order(a: &[u8], b: &[u8]) -> Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(key).cmp(b.iter().map(key))
}

/// Removes files whose path is also a directory, or the other way round, whichever is older. The old program kept a file
/// that had become a directory.
fn without_conflicts(ctx: &Context, entries: Vec<Entry>) -> Vec<Entry> {
    let below = |folder: &[u8], name: &[u8]| name.strip_prefix(folder).is_some_and(|rest| rest.starts_with(b"/"));
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
    let mut entries = entries.into_iter().peekable();
    while let Some(entry) = entries.next() {
        let mut inner = Vec::new();
        while let Some(next) = entries.next_if(|next| below(&entry.name, &next.name)) {
            inner.push(next);
        }
        if inner.is_empty() {
            kept.push(entry);
            continue;
        }
        let (removed, why, left) = if inner.iter().any(|inner| inner.at > entry.at) {
            (vec![entry], "it became a folder later, which the old program did not notice", inner)
        } else {
            (inner, "a file stands in the place of its folder since then", vec![entry])
        };
        for entry in removed {
            let text = format!("left out {} of the old index: {why}", String::from_utf8_lossy(&entry.name));
            ctx.warn(&text);
        }
        kept.extend(without_conflicts(ctx, left));
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::context::background;
    use crate::progress::{Event, Progress};

    #[derive(Default)]
    struct Messages(Mutex<Vec<String>>);

    impl Progress for Messages {
        fn event(&self, event: Event<'_>) {
            self.0.lock().unwrap().push(match event {
                Event::Skipped { path, why } => format!("skipped {}: {why}", String::from_utf8_lossy(path)),
                Event::Warning { text } => text.to_owned(),
                other => panic!("{other:?}"),
            });
        }
    }

    /// Converts names in the order in which they were written. Returns `path@number` and the messages.
    fn paths_of(names: &[&[u8]]) -> (Vec<String>, Vec<String>) {
        let entry =
            |(at, name): (u64, &&[u8])| Entry { name: name.to_vec(), contents: [1; 16], mtime: 0, hash: [0; 32], at };
        let said = Messages::default();
        let (entries, impossible) = to_paths(&background().with_progress(&said), (0..).zip(names).map(entry).collect());
        let said = said.0.into_inner().unwrap();
        assert_eq!(said.iter().filter(|text| text.starts_with("skipped")).count() as u64, impossible);
        (entries.iter().map(|e| format!("{}@{}", String::from_utf8_lossy(&e.name), e.at)).collect(), said)
    }

    #[test]
    fn the_order_is_that_of_the_tree() {
        let (paths, said) = paths_of(&[b"b", b"a.b", b"a/z", b"a/b/c", b"a-"]);
        assert_eq!((paths, said.len()), (["a/b/c@3", "a/z@2", "a-@4", "a.b@1", "b@0"].map(String::from).to_vec(), 0));
    }

    #[test]
    fn names_of_windows_have_folders_and_backslashes_of_others_are_letters() {
        assert_eq!(paths_of(&[b"a\\b", b"c"]).0, ["a/b@0", "c@1"]);
        assert_eq!(paths_of(&[b"C:\\x\\y"]).0, ["C:/x/y@0"]);
        assert_eq!(paths_of(&[b"dev\\x2dsda.swap", b"etc/fstab"]).0, ["dev\\x2dsda.swap@0", "etc/fstab@1"]);
        // Written by both: `a/b` is there in both forms.
        let (paths, said) = paths_of(&[b"a/b", b"a\\b", b"new\\c", b"odd/x\\y"]);
        assert_eq!(paths, ["a/b@1", "new/c@2", "odd/x\\y@3"]);
        assert!(said[0].contains("later ones count"), "{said:?}");
    }

    #[test]
    fn a_name_that_could_leave_its_folder_is_refused_and_named() {
        let long = [b'x'; 256];
        let bad: [&[u8]; 9] = [b"", b"/", b"..", b"a/../b", b"./a", b"a//b", b"a/", b"a\0b", &long];
        let (paths, said) = paths_of(&bad);
        assert_eq!((paths.len(), said.len()), (0, bad.len()), "{said:?}");
        assert_eq!(paths_of(&[b"..\\..\\x"]).0.len(), 0);
        assert_eq!(paths_of(&[b"/etc/passwd", b"\\\\server\\share\\x"]).0.len(), 2);
        assert_eq!(paths_of(&[b"/etc/passwd"]).0, ["etc/passwd@0"]);
        assert_eq!(paths_of(&[&[b"a/".repeat(4000), b"a".to_vec()].concat()]).0.len(), 0);
    }

    #[test]
    fn of_a_file_and_a_folder_in_one_place_the_later_one_counts() {
        assert_eq!(paths_of(&[b"a", b"a/b", b"a/c"]).0, ["a/b@1", "a/c@2"]);
        assert_eq!(paths_of(&[b"a/b", b"a/c", b"a"]).0, ["a@2"]);
        assert_eq!(paths_of(&[b"a/b", b"a", b"a/c"]).0, ["a/b@0", "a/c@2"]);
        assert_eq!(paths_of(&[b"a", b"a/b", b"a/b/c", b"a.txt"]).0, ["a/b/c@2", "a.txt@3"]);
        let (_, said) = paths_of(&[b"a", b"a/b"]);
        assert!(said[0].contains("left out a of the old index"), "{said:?}");
    }
}
