//! From the names of the old index to paths of a tree: names are relative to the folder that was backed up, with the
//! separators of the system that wrote them. Nothing of a name is believed: what could leave its folder is refused.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::index::Entry;
use crate::context::Context;
use crate::error::{Error, Result};

/// Longest part of a path, and most parts, that a tree can hold.
const PART: usize = 255;
const DEPTH: usize = 4000;

/// Turns the names of all entries into paths: relative, parts parted by `/`, in the order of the tree. Gives how many
/// entries have impossible names; each was reported.
pub(super) fn settle(ctx: &Context, mut entries: Vec<Entry>) -> (Vec<Entry>, u64) {
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

/// The old program kept the separators of its system. No name of Windows holds `/`; on other systems `\` is a letter like
/// others. A repository that both have written holds some paths in both forms.
fn written_on_windows(entries: &[Entry]) -> bool {
    let slash = |entry: &&Entry| entry.name.contains(&b'/');
    let mut backslashes = entries.iter().filter(|entry| is_windows(&entry.name)).peekable();
    if backslashes.peek().is_none() || !entries.iter().any(|entry| slash(&entry)) {
        return backslashes.peek().is_some();
    }
    let others: HashSet<&[u8]> = entries.iter().filter(slash).map(|entry| entry.name.as_slice()).collect();
    backslashes.any(|entry| others.contains(slashed(&entry.name).as_slice()))
}

/// Whether it can be a path of Windows with folders.
fn is_windows(name: &[u8]) -> bool {
    name.contains(&b'\\') && !name.contains(&b'/')
}

fn slashed(name: &[u8]) -> Vec<u8> {
    name.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect()
}

/// The path below the folder that was backed up. The program has never written absolute names; they land below it too.
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

/// Part by part: `a/z` comes before `a.b`.
fn tree_order(a: &[u8], b: &[u8]) -> Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(key).cmp(b.iter().map(key))
}

/// A path can be a file or lead to others. The old program never forgot a file that had become a folder: what was written
/// later counts.
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
        let (gone, why, left) = match inner.iter().any(|inner| inner.at > entry.at) {
            true => (vec![entry], "it became a folder later, which the old program did not notice", inner),
            false => (inner, "a file stands in the place of its folder since then", vec![entry]),
        };
        for entry in gone {
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
    struct Said(Mutex<Vec<String>>);

    impl Progress for Said {
        fn event(&self, event: Event<'_>) {
            self.0.lock().unwrap().push(match event {
                Event::Skipped { path, why } => format!("skipped {}: {why}", String::from_utf8_lossy(path)),
                Event::Warning { text } => text.to_owned(),
                other => panic!("{other:?}"),
            });
        }
    }

    /// Names in the order in which they were written; gives `path@number` and what was said.
    fn settled(names: &[&[u8]]) -> (Vec<String>, Vec<String>) {
        let entry =
            |(at, name): (u64, &&[u8])| Entry { name: name.to_vec(), contents: [1; 16], mtime: 0, hash: [0; 32], at };
        let said = Said::default();
        let (entries, impossible) = settle(&background().with_progress(&said), (0..).zip(names).map(entry).collect());
        let said = said.0.into_inner().unwrap();
        assert_eq!(said.iter().filter(|text| text.starts_with("skipped")).count() as u64, impossible);
        (entries.iter().map(|e| format!("{}@{}", String::from_utf8_lossy(&e.name), e.at)).collect(), said)
    }

    #[test]
    fn the_order_is_that_of_the_tree() {
        let (paths, said) = settled(&[b"b", b"a.b", b"a/z", b"a/b/c", b"a-"]);
        assert_eq!((paths, said.len()), (["a/b/c@3", "a/z@2", "a-@4", "a.b@1", "b@0"].map(String::from).to_vec(), 0));
    }

    #[test]
    fn names_of_windows_have_folders_and_backslashes_of_others_are_letters() {
        assert_eq!(settled(&[b"a\\b", b"c"]).0, ["a/b@0", "c@1"]);
        assert_eq!(settled(&[b"C:\\x\\y"]).0, ["C:/x/y@0"]);
        assert_eq!(settled(&[b"dev\\x2dsda.swap", b"etc/fstab"]).0, ["dev\\x2dsda.swap@0", "etc/fstab@1"]);
        // Written by both: `a/b` is there in both forms.
        let (paths, said) = settled(&[b"a/b", b"a\\b", b"new\\c", b"odd/x\\y"]);
        assert_eq!(paths, ["a/b@1", "new/c@2", "odd/x\\y@3"]);
        assert!(said[0].contains("later ones count"), "{said:?}");
    }

    #[test]
    fn a_name_that_could_leave_its_folder_is_refused_and_named() {
        let long = [b'x'; 256];
        let bad: [&[u8]; 9] = [b"", b"/", b"..", b"a/../b", b"./a", b"a//b", b"a/", b"a\0b", &long];
        let (paths, said) = settled(&bad);
        assert_eq!((paths.len(), said.len()), (0, bad.len()), "{said:?}");
        assert_eq!(settled(&[b"..\\..\\x"]).0.len(), 0);
        assert_eq!(settled(&[b"/etc/passwd", b"\\\\server\\share\\x"]).0.len(), 2);
        assert_eq!(settled(&[b"/etc/passwd"]).0, ["etc/passwd@0"]);
        assert_eq!(settled(&[&[b"a/".repeat(4000), b"a".to_vec()].concat()]).0.len(), 0);
    }

    #[test]
    fn of_a_file_and_a_folder_in_one_place_the_later_one_counts() {
        assert_eq!(settled(&[b"a", b"a/b", b"a/c"]).0, ["a/b@1", "a/c@2"]);
        assert_eq!(settled(&[b"a/b", b"a/c", b"a"]).0, ["a@2"]);
        assert_eq!(settled(&[b"a/b", b"a", b"a/c"]).0, ["a/b@0", "a/c@2"]);
        assert_eq!(settled(&[b"a", b"a/b", b"a/b/c", b"a.txt"]).0, ["a/b/c@2", "a.txt@3"]);
        let (_, said) = settled(&[b"a", b"a/b"]);
        assert!(said[0].contains("left out a of the old index"), "{said:?}");
    }
}
