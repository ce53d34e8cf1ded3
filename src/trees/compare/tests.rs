//! Tests a comparison against a naive one, and that it does not read common pages.

use std::collections::{BTreeMap, BTreeSet};

use super::super::sample_trees_for_tests::{Dice, Item, Tree, What, dir, file, repository, write};
use super::*;
use crate::context::background;
use crate::name::Name;
use crate::repo::Repository;
use crate::storage::Storage;

/// Inode number, mtime and content by path.
type Flat = BTreeMap<String, (u64, i64, Option<u64>)>;

fn differences(repo: &Repository, old: Option<Ref>, new: Option<Ref>) -> Vec<Difference> {
    let mut found = Vec::new();
    let each = &mut |difference| {
        found.push(difference);
        Ok(())
    };
    let trees = Trees::new(repo);
    compare(background(), &trees, old.as_ref(), new.as_ref(), false, each, &mut |_, e| panic!("{e}")).unwrap();
    found
}

fn shown(found: &[Difference]) -> Vec<(String, Change)> {
    let text = |path: &[u8]| String::from_utf8(path.to_vec()).unwrap();
    found.iter().map(|d| (text(d.path()), d.change)).collect()
}

fn flatten(tree: &Tree, above: &str, all: &mut Flat) {
    for (name, item) in tree {
        let path = format!("{above}/{name}");
        let content = if let What::File(content) = &item.what { Some(*content) } else { None };
        all.insert(path.clone(), (item.inode, item.mtime, content));
        if let What::Dir(below) = &item.what {
            flatten(below, &path, all);
        }
    }
}

fn flat(tree: &Tree) -> Flat {
    let mut all = Flat::new();
    flatten(tree, "", &mut all);
    all
}

/// Returns the differences by path, without the entries below an added or removed directory.
fn naive(old: &Tree, new: &Tree) -> BTreeSet<(String, String)> {
    let (a, b) = (flat(old), flat(new));
    let above_is_directory = |all: &Flat, path: &str| {
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        above.is_empty() || all.get(above).is_some_and(|entry| entry.2.is_none())
    };
    let mut found = BTreeSet::new();
    for (path, entry) in &a {
        match b.get(path) {
            None if above_is_directory(&b, path) => drop(found.insert((path.clone(), "removed".into()))),
            Some(other) if (entry.1, entry.2) != (other.1, other.2) => {
                let change = format!("content {} attributes {}", entry.2 != other.2, entry.1 != other.1);
                found.insert((path.clone(), change));
            }
            _ => {}
        }
    }
    let added = b.keys().filter(|path| !a.contains_key(*path) && above_is_directory(&a, path));
    found.extend(added.map(|path| (path.clone(), "added".into())));
    found
}

fn named(found: &[Difference]) -> BTreeSet<(String, String)> {
    let name = |change| match change {
        Change::Added => "added".into(),
        Change::Removed => "removed".into(),
        Change::Changed { content, attributes } => format!("content {content} attributes {attributes}"),
        Change::Renamed => "renamed".into(),
    };
    shown(found).into_iter().map(|(path, change)| (path, name(change))).collect()
}

fn random_tree(dice: &mut Dice, inode: &mut u64, depth: u64) -> Tree {
    let entries = if dice.roll(4) == 0 { dice.roll(3000) } else { dice.roll(20) };
    let mut tree = Tree::new();
    for _ in 0..entries {
        *inode += 1;
        let item = if depth > 0 && dice.roll(10 + entries / 4) == 0 {
            dir(*inode, random_tree(dice, inode, depth - 1))
        } else {
            file(*inode, dice.roll(1000))
        };
        tree.insert(format!("{:06}", dice.roll(1 << 18)), item);
    }
    tree
}

fn mutate(dice: &mut Dice, inode: &mut u64, tree: &mut Tree, chance: u64) {
    for name in tree.keys().cloned().collect::<Vec<_>>() {
        if dice.roll(chance) > 0 {
            if let Some(Item { what: What::Dir(below), .. }) = tree.get_mut(&name) {
                mutate(dice, inode, below, chance);
            }
            continue;
        }
        *inode += 1;
        match dice.roll(4) {
            0 => drop(tree.remove(&name)),
            1 => drop(tree.insert(format!("{name}+"), file(*inode, 5))),
            2 => drop(tree.insert(name, dir(*inode, random_tree(dice, inode, 0)))),
            _ => tree.get_mut(&name).unwrap().mtime += 1,
        }
    }
}

#[test]
fn a_comparison_finds_what_a_naive_one_finds() {
    let (_, repo) = repository();
    for seed in 0..30 {
        let (mut dice, mut inode) = (Dice(seed), 0);
        let old = random_tree(&mut dice, &mut inode, 2);
        let mut new = old.clone();
        let chance = [1000, 50, 3][dice.roll(3) as usize];
        mutate(&mut dice, &mut inode, &mut new, chance);
        let [a, b] = write(&repo, [&old, &new]);
        assert_eq!(named(&differences(&repo, a, b)), naive(&old, &new), "seed {seed}");
        assert!(differences(&repo, b, b).is_empty());
        let all = differences(&repo, None, b);
        assert!(all.len() == new.len() && all.iter().all(|d| d.change == Change::Added));
    }
}

fn tree(items: &[(&str, Item)]) -> Tree {
    items.iter().map(|(name, item)| ((*name).into(), item.clone())).collect()
}

#[test]
fn what_was_renamed_is_recognised_also_below_a_renamed_directory() {
    let (_, repo) = repository();
    let below = tree(&[("x", file(4, 44)), ("y", file(5, 55))]);
    let old = tree(&[("a", file(1, 11)), ("b", file(2, 22)), ("d", dir(3, below))]);
    let below = tree(&[("x", file(4, 45)), ("y", file(5, 55))]);
    let new = tree(&[("b", file(2, 22)), ("e", dir(3, below)), ("f", file(2, 23)), ("z", file(1, 11))]);
    let [a, b] = write(&repo, [&old, &new]);
    let found = differences(&repo, a, b);
    let changed = Change::Changed { content: true, attributes: false };
    let wanted = [("/e", Change::Renamed), ("/f", Change::Added), ("/z", Change::Renamed), ("/e/x", changed)];
    assert_eq!(shown(&found), wanted.map(|(path, change)| (path.to_owned(), change)));
    assert_eq!(found[2].old.as_ref().unwrap().0, b"/a");
    assert_eq!(found[3].old.as_ref().unwrap().0, b"/d/x");
}

#[test]
fn what_two_trees_have_in_common_is_not_read() {
    let (memory, repo) = repository();
    let common: Tree = (0..5000).map(|i| (format!("{i:05}"), file(i, i))).collect();
    let mut old = common.clone();
    old.insert("sub".into(), dir(9000, common.clone()));
    let mut new = old.clone();
    new.insert("02500+".into(), file(9001, 1));
    let [shared, a, b] = write(&repo, [&common, &old, &new]);
    repo.forget_blocks();
    memory.remove(background(), &Name::Pack(shared.unwrap().pack.id)).unwrap();
    let trees = Trees::new(&repo);
    assert!(trees.entries(background(), shared.as_ref()).next().unwrap().is_err(), "its pages are gone");
    let (mut lost, mut found) = (0, Vec::new());
    let each = &mut |difference| {
        found.push(difference);
        Ok(())
    };
    compare(background(), &trees, a.as_ref(), b.as_ref(), false, each, &mut |_, _| lost += 1).unwrap();
    assert_eq!(lost, 1, "the one old page that differs was in that pack");
}

#[test]
fn other_names_in_acls_are_no_change_and_other_flags_are() {
    let pair = |name: &[u8], value: &[u8]| (name.to_vec(), value.to_vec());
    let node = |pairs: &[(Vec<u8>, Vec<u8>)]| Node { xattrs: Xattrs::Inline(pairs.to_vec()), ..sample() };
    let acl = pair(b"system.posix_acl_access", b"1");
    let old = node(&[pair(own::ACL_NAMES, b"a"), acl.clone()]);
    assert!(same_attributes(&old, &node(&[pair(own::ACL_NAMES, b"b"), acl.clone()])));
    assert!(same_attributes(&old, &node(std::slice::from_ref(&acl))));
    assert!(!same_attributes(&old, &node(&[pair(own::ACL_NAMES, b"a")])));
    assert!(!same_attributes(&old, &node(&[pair(own::FLAGS, b"1"), acl])));
}

fn sample() -> Node {
    let snapshot = crate::format::record::Snapshot::default();
    crate::trees::root(&snapshot)
}
