//! Views of the mount over time: `versions/`, `deleted/`, `at/`, shadow copies and new snapshots. Also tests the
//! synthetic attributes. Uses an in-memory repository.

use std::collections::BTreeSet;

use crate::harness::shown::{Repo, listing, lookup, names, read};
use crate::harness::tree::noise;
use crate::harness::writer::{Item, Writer};
use nfreezer::context::background;
use nfreezer::error::Kind as ErrorKind;
use nfreezer::format::node::Content;
use nfreezer::format::record::{Head, Snapshot, SnapshotId};
use nfreezer::name::{Folder, Name};
use nfreezer::repo::now;
use nfreezer::storage::Storage;
use nfreezer::time::Time;
use nfreezer::vfs::{Attr, Fault, Invalidation, Kind, Mode, Options, Vfs, inode};

/// Returns 2001-09-09 01:46:40 plus a number of days.
fn day(n: i64) -> Time {
    Time::new(1_000_000_000 + 86400 * n, 0)
}

impl Repo {
    fn on(&mut self, n: i64, tree: &Item) {
        self.push_as(tree, |s| {
            s.time = day(n);
            s.id = SnapshotId([n as u8 + 1; 16]);
        });
    }
}

fn below(vfs: &Vfs, path: &str) -> Vec<String> {
    names(vfs, lookup(vfs, path).unwrap().ino)
}

fn text(vfs: &Vfs, path: &str) -> String {
    String::from_utf8(read(vfs, lookup(vfs, path).unwrap().ino, 0, 1 << 20).unwrap()).unwrap()
}

fn file(text: &str, mtime: i64) -> Item {
    Item { mtime: Time::new(mtime, 0), ..Item::file(text) }
}

fn home(entries: Vec<(&str, Item)>) -> Item {
    Item::dir([("home", Item::dir([("me", Item::dir(entries))]))])
}

#[test]
fn every_version_of_a_file_and_all_that_ever_was_in_a_folder() {
    let mut repo = Repo::new();
    let other = || ("other.tar.gz", file("same", 5));
    repo.on(0, &home(vec![("letter.txt", file("one", 1)), other()]));
    repo.on(1, &home(vec![("letter.txt", file("one", 1)), other(), ("new", file("n", 2))]));
    repo.on(2, &home(vec![("letter.txt", file("two", 2)), other()]));
    repo.on(3, &home(vec![("letter.txt", file("two", 9)), other()]));
    repo.on(4, &home(vec![other()]));
    repo.on(5, &home(vec![("letter.txt", file("one", 1)), other(), ("gone", Item::other(Content::Unreadable(13)))]));
    let vfs = repo.warm();
    assert_eq!(below(&vfs, "versions"), ["home"]);
    assert_eq!(below(&vfs, "versions/home/me"), ["letter.txt", "new", "other.tar.gz"]);
    let letter = "versions/home/me/letter.txt";
    let versions = ["2001-09-09_01-46-40.txt", "2001-09-11_01-46-40.txt", "2001-09-14_01-46-40.txt"];
    assert_eq!(below(&vfs, letter), versions, "one that came back is told again, a new time alone is no version");
    let texts = versions.map(|v| text(&vfs, &format!("{letter}/{v}")));
    assert_eq!(texts, ["one", "two", "one"]);
    let second = lookup(&vfs, &format!("{letter}/{}", versions[1])).unwrap();
    assert_eq!((second.kind, second.size, second.mtime), (Kind::File, 3, Time::new(9, 0)), "as it was last");
    assert_eq!(lookup(&vfs, letter).unwrap().mtime, Time::new(1, 0), "of the newest version");
    assert_eq!(below(&vfs, "versions/home/me/other.tar.gz"), ["2001-09-09_01-46-40.tar.gz"]);
    let of = |path: &str| lookup(&vfs, path).unwrap().ino;
    assert_eq!(of(&format!("{letter}/{}", versions[2])), of("latest/home/me/letter.txt"), "one page cache");
    assert_eq!(vfs.path(of(&format!("{letter}/{}", versions[1]))), b"/versions/home/me/letter.txt/letter.txt");
    for wrong in ["versions/nothing", "versions/home/me/gone", "versions/home/me/letter.txt/2001-09-10_01-46-40.txt"] {
        assert!(lookup(&vfs, wrong).unwrap_err().starts_with("no "), "{wrong}");
    }
    // A lookup by name finds the listed entries, also without a listing before it.
    let cold = repo.warm();
    for path in ["versions/home", "versions/home/me", letter, &format!("{letter}/{}", versions[0])] {
        assert_eq!(lookup(&cold, path).unwrap(), lookup(&vfs, path).unwrap(), "{path}");
    }
}

#[test]
fn what_was_a_file_and_a_folder_by_turns() {
    let mut repo = Repo::new();
    let folder = |n| Item::dir([("in", file(n, 1))]);
    repo.on(0, &Item::dir([("x", file("file", 1)), ("y", folder("1")), ("z", file("z", 1))]));
    repo.on(1, &Item::dir([("x", folder("a")), ("y", file("file", 3)), ("z", folder("a"))]));
    repo.on(2, &Item::dir([("x", folder("b")), ("y", file("file", 3)), ("z", folder("a"))]));
    let vfs = repo.warm();
    assert_eq!(below(&vfs, "versions/x"), ["2001-09-09_01-46-40", "in"]);
    assert_eq!(below(&vfs, "versions/x/in"), ["2001-09-10_01-46-40", "2001-09-11_01-46-40"]);
    assert_eq!(below(&vfs, "deleted"), ["x", "x (file)", "y", "z"]);
    assert_eq!(text(&vfs, "deleted/x (file)"), "file");
    assert_eq!(lookup(&vfs, "deleted/x").unwrap().kind, Kind::Directory);
    assert!(below(&vfs, "deleted/x").is_empty(), "it changed, but all its names are there");
    assert_eq!(text(&vfs, "deleted/y/in"), "1", "the folder is gone, the file is there");
    assert_eq!(text(&vfs, "deleted/z"), "z", "nothing is gone below the folder");
    let cold = repo.warm();
    assert_eq!(text(&cold, "deleted/x (file)"), "file");
    assert_eq!(lookup(&cold, "deleted/x").unwrap().kind, Kind::Directory);
    assert!(lookup(&cold, "deleted/y (file)").is_err() && lookup(&cold, "deleted/ (file)").is_err());
}

#[test]
fn what_is_gone_in_its_newest_version() {
    let mut repo = Repo::new();
    let sub = |n: &str| ("sub", Item::dir([("a", file(n, 1)), ("b", file("stays", 1))]));
    let still = || ("still", Item::dir([("same", file("x", 1))]));
    repo.on(0, &home(vec![("old", file("first", 1)), sub("1"), ("kept", file("k", 1)), still()]));
    repo.on(1, &home(vec![("old", file("second", 2)), sub("2"), ("kept", file("changed", 2)), still()]));
    repo.on(2, &home(vec![("sub", Item::dir([("b", file("stays", 1))])), ("kept", file("again", 3)), still()]));
    let vfs = repo.warm();
    assert_eq!(below(&vfs, "deleted/home/me"), ["old", "sub"], "what is there in any form, or as ever, is not shown");
    assert_eq!(text(&vfs, "deleted/home/me/old"), "second");
    assert_eq!(
        (below(&vfs, "deleted/home/me/sub"), text(&vfs, "deleted/home/me/sub/a")),
        (vec!["a".into()], "2".into())
    );
    assert!(lookup(&vfs, "deleted/home/me/kept").is_err() && lookup(&vfs, "deleted/home/me/sub/b").is_err());
    // A whole folder is deleted: `deleted/` shows every entry that was ever in it.
    repo.on(3, &Item::dir([("home", Item::dir::<&str>([]))]));
    let vfs = repo.warm();
    assert_eq!(below(&vfs, "deleted/home/me"), ["kept", "old", "still", "sub"]);
    assert_eq!(below(&vfs, "deleted/home/me/sub"), ["a", "b"]);
    assert_eq!(text(&vfs, "deleted/home/me/kept"), "again");
    assert_eq!(text(&repo.warm(), "deleted/home/me/still/same"), "x");
    // Entries that a partial snapshot lacks do not count as deleted, and an incomplete file is no version.
    repo.push_as(&home(vec![("kept", file("partial", 9))]), |s| (s.partial, s.time) = (true, day(4)));
    let vfs = repo.warm();
    assert_eq!(below(&vfs, "deleted/home/me"), ["kept", "old", "still", "sub"]);
    assert_eq!(text(&vfs, "deleted/home/me/kept"), "partial", "but what it has was there");
}

#[test]
fn what_other_hosts_and_other_sources_have_is_not_gone() {
    let mut repo = Repo::new();
    let as_of = |n: i64, host: &'static str, path: &'static str| {
        move |s: &mut Snapshot| {
            (s.time, s.host, s.group) = (day(n), host.into(), path.len() as u64);
            s.paths = vec![serde_bytes::ByteBuf::from(path.as_bytes())];
        }
    };
    let etc = |name: &str| Item::dir([("etc", Item::dir([(name, file(name, 1))]))]);
    repo.push_as(&etc("here"), as_of(0, "one", "/etc"));
    repo.push_as(&etc("there"), as_of(1, "two", "/etc"));
    repo.push_as(&home(vec![("x", file("x", 1))]), as_of(2, "one", "/home"));
    let vfs = repo.warm();
    assert_eq!(below(&vfs, "latest"), ["home"]);
    assert_eq!(below(&vfs, "versions/etc"), ["here", "there"]);
    assert_eq!(below(&vfs, "deleted"), [""; 0]);
    repo.push_as(&etc("new"), as_of(3, "one", "/etc"));
    assert_eq!(below(&repo.warm(), "deleted/etc"), ["here"]);
    assert_eq!(below(&repo.warm(), "deleted"), ["etc"], "home leads to nothing");
    // The new source of host one contains its older sources, so their snapshots are no longer its current state.
    repo.push_as(&Item::dir([("etc", Item::dir([("last", file("l", 1))]))]), as_of(4, "one", "/"));
    assert_eq!(below(&repo.warm(), "deleted/etc"), ["here", "new"]);
    assert_eq!(below(&repo.warm(), "deleted"), ["etc", "home"]);
}

#[test]
fn two_hosts_with_their_own_contents_are_not_versions_by_turns() {
    let mut repo = Repo::new();
    for n in 0..6 {
        let (host, text) = if n % 2 == 0 { ("a", "of a") } else { ("b", "of b") };
        repo.push_as(&Item::dir([("f", file(text, 1))]), |s| (s.time, s.host) = (day(n), host.into()));
    }
    assert_eq!(below(&repo.warm(), "versions/f"), ["2001-09-09_01-46-40", "2001-09-10_01-46-40"]);
}

#[test]
fn versions_of_the_same_second_of_links_and_of_long_files() {
    let mut repo = Repo::new();
    let long = |seed| Item { mtime: Time::new(seed as i64, 0), ..Item::file(noise(seed, 100_000)) };
    for (n, time) in [(1u8, 0), (2, 5), (3, 0)] {
        let mut writer = Writer::new(&repo.repo);
        writer.chunk = 4096;
        let link = Item { nlink: 2, inode: n.into(), ..file(&n.to_string(), n.into()) };
        let tree = Item::dir([
            ("link", link),
            ("long.bin", long(n.into())),
            ("s", Item::other(Content::Symlink(vec![b'0' + n]))),
        ]);
        writer.commit(&mut repo.state, &tree, |s| {
            (s.time, s.id) = (Time::new(day(0).seconds, time), SnapshotId([n; 16]))
        });
    }
    let vfs = repo.warm();
    let two = below(&vfs, "versions/long.bin");
    assert_eq!(two.len(), 3, "{two:?}");
    assert!(two[0].starts_with("2001-09-09_01-46-40") && two.iter().all(|name| name.ends_with(".bin")));
    let sizes: BTreeSet<Vec<u8>> = two
        .iter()
        .map(|v| read(&vfs, lookup(&vfs, &format!("versions/long.bin/{v}")).unwrap().ino, 0, 1 << 20).unwrap())
        .collect();
    assert_eq!(sizes, (1..4).map(|n| noise(n, 100_000)).collect());
    let targets: BTreeSet<Vec<u8>> = below(&vfs, "versions/s")
        .iter()
        .map(|v| {
            vfs.readlink(lookup(&vfs, &format!("versions/s/{v}")).unwrap().ino, Mode::Fetch(background())).unwrap()
        })
        .collect();
    assert_eq!(targets, BTreeSet::from([b"1".to_vec(), b"2".to_vec(), b"3".to_vec()]));
    let link = below(&vfs, "versions/link");
    assert_eq!(lookup(&vfs, &format!("versions/link/{}", link[0])).unwrap().nlink, 2);
}

#[test]
fn a_folder_that_was_ever_private_is_private_in_the_union() {
    let mut repo = Repo::new();
    let dir =
        |mode, uid| Item::dir([("d", Item { mode, uid, ..Item::dir([("f", Item { mode: 0o640, ..file("x", 1) })]) })]);
    repo.on(0, &dir(0o700, 7));
    repo.on(1, &dir(0o755, 7));
    let vfs = repo.warm();
    let attr = |vfs: &Vfs, path: &str| lookup(vfs, path).map(|a| (a.mode, a.uid)).unwrap();
    assert_eq!(attr(&vfs, "versions/d"), (0o700, 7));
    assert_eq!(attr(&vfs, "versions/d/f"), (0o550, 0), "of a file: who may read it may look at its versions");
    repo.on(2, &dir(0o755, 8));
    let options = Options { mounter: (99, 99), ..Options::default() };
    let vfs = Vfs::new(background(), repo.repo.clone(), repo.state.clone(), options).unwrap();
    assert_eq!(attr(&vfs, "versions/d"), (0o700, 99), "of two owners none");
    assert_eq!(below(&vfs, "versions"), ["d"]);
    assert_eq!(attr(&vfs, "versions/d"), (0o700, 99), "by the listing too");
}

/// Commits snapshots an hour apart. Each tree in order has an equal part of them, after one snapshot that stores the
/// tree.
fn many(repo: &mut Repo, trees: &[Item], snapshots: usize) {
    let part = (snapshots / trees.len()) as i64;
    let mut head = Vec::new();
    for (tree, n) in trees.iter().zip(0..) {
        let time = |i: i64| Time::from_seconds(1_500_000_000 + 3600 * (n * part + i));
        let mut made = None;
        repo.push_as(tree, |s| {
            s.time = Time::from_seconds(time(0).seconds - 1);
            made = Some(s.clone());
        });
        let made = made.unwrap();
        head.extend((0..part).map(|i| Snapshot {
            id: SnapshotId(nfreezer::repo::random().unwrap()),
            time: time(i),
            ..made.clone()
        }));
    }
    head.sort_by_key(|s| s.id);
    repo.repo.commit(background(), &mut repo.state, Head { snapshots: head, ..Head::default() }, &[]).unwrap();
}

#[test]
fn a_thousand_snapshots_cost_as_many_reads_as_there_are_different_pages() {
    let mut repo = Repo::new();
    let photos = || ("photos", Item::dir((0..500).map(|i| (format!("{i:04}.jpg"), file("p", i)))));
    let tree = |n: usize| home(vec![("letter.txt", file(&"x".repeat(n), 1)), photos()]);
    many(&mut repo, &[tree(1), tree(2), tree(3), tree(4), tree(5)], 1000);
    let cold = repo.cold();
    let vfs = Vfs::new(background(), cold.clone(), repo.state.clone(), Options::default()).unwrap();
    let reads = |f: &dyn Fn()| {
        let before = cold.cache_stats().reads;
        f();
        cold.cache_stats().reads - before
    };
    assert_eq!(reads(&|| drop(names(&vfs, inode::ROOT))), 0, "nothing is loaded up front");
    assert_eq!(names(&vfs, lookup(&vfs, "snapshots").unwrap().ino).len(), 1005);
    // Five states, each in one pack.
    let versions = reads(&|| assert_eq!(below(&vfs, "versions/home/me/letter.txt").len(), 5));
    assert!((1..=15).contains(&versions), "{versions}");
    let union = reads(&|| assert_eq!(below(&vfs, "versions/home/me/photos").len(), 500));
    assert!(union <= 5, "{union}");
    assert_eq!(reads(&|| assert_eq!(below(&vfs, "versions/home/me/photos/0007.jpg").len(), 1)), 0);
    assert_eq!(reads(&|| assert_eq!(below(&vfs, "deleted/home/me").len(), 0)), 0);
    assert!(vfs.figures().pages < 8 << 20, "{:?}", vfs.figures());
}

#[test]
fn the_newest_snapshot_of_a_moment() {
    let mut repo = Repo::new();
    let ago = |days: i64, text: &str| (now().seconds - days * 86400 - 3600, text.to_owned());
    for (time, text) in [ago(400, "old"), ago(5, "five"), ago(2, "two"), ago(0, "hour")] {
        repo.push_as(&Item::dir([("f", file(&text, 1))]), |s| s.time = Time::new(time, 500_000_000));
    }
    repo.push_as(&Item::dir([("f", file("partial", 1))]), |s| {
        (s.time, s.partial) = (Time::from_seconds(now().seconds - 60), true)
    });
    repo.push_as(&Item::dir([("f", file("future", 1))]), |s| s.time = Time::from_seconds(now().seconds + 7 * 86400));
    let vfs = repo.warm();
    assert_eq!(below(&vfs, "at"), [""; 0], "any expression works, none is listed");
    let f = |moment: &str| lookup(&vfs, &format!("at/{moment}/f")).map(|a| read(&vfs, a.ino, 0, 9).unwrap());
    for (moment, wanted) in [
        ("now", "hour"),
        ("1 minute ago", "hour"),
        ("2 hours ago", "two"),
        ("2_days_ago", "two"),
        ("3 days ago", "five"),
        ("1 week ago", "old"),
        ("1 month ago", "old"),
    ] {
        assert_eq!(f(moment).as_deref(), Ok(wanted.as_bytes()), "{moment}");
    }
    let name = names(&vfs, lookup(&vfs, "snapshots").unwrap().ino).into_iter().nth(1).unwrap();
    assert_eq!(f(&name).as_deref(), Ok(b"five".as_slice()), "a name of snapshots/ is that one");
    assert_eq!(f(&name[..10]).as_deref(), Ok(b"five".as_slice()), "a day is meant to its end");
    for wrong in ["2 years ago", "1970-01-01", "someday", "letter.txt", "\u{1}"] {
        assert!(f(wrong).unwrap_err().starts_with("no "), "{wrong}");
    }
    let ino = |p: &str| lookup(&vfs, p).unwrap().ino;
    assert_ne!(ino("at/now"), ino("at/1 minute ago"), "a folder has one name");
    assert_eq!(ino("at/now/f"), ino("at/1 minute ago/f"));
    assert_eq!(ino("at/3 days ago"), lookup(&repo.warm(), "at/3 days ago").unwrap().ino, "in each mount");
    assert!(vfs.keep(ino("at")).unwrap().as_secs() < 5 && vfs.keep(ino("versions")).unwrap().as_secs() < 5);
    assert_eq!((vfs.keep(ino("at/now")), vfs.keep(ino("at/now/f"))), (None, None));
}

#[test]
fn names_of_shadow_copies() {
    let mut repo = Repo::new();
    repo.on(0, &Item::dir([("f", file("0", 1))]));
    repo.push_as(&Item::dir([("f", file("1", 1))]), |s| (s.time, s.host) = (day(1), "other".into()));
    let vfs = repo.warm();
    for path in
        ["@GMT-2001.09.09-01.46.40", "snapshots/@GMT-2001.09.09-01.46.40", "hosts/host/@GMT-2001.09.09-01.46.40"]
    {
        assert_eq!(text(&vfs, &format!("{path}/f")), "0", "{path}");
    }
    assert_eq!(text(&vfs, "@GMT-2001.09.10-01.46.40/f"), "1");
    for none in ["@GMT-2001.09.09-01.46.41", "hosts/host/@GMT-2001.09.10-01.46.40", "tags/@GMT-2001.09.09-01.46.40"] {
        assert!(lookup(&vfs, none).is_err(), "{none}");
    }
    assert!(names(&vfs, inode::ROOT).iter().all(|name| !name.contains("GMT")));
}

#[test]
fn new_snapshots_show_in_all_folders() {
    let mut repo = Repo::new();
    repo.on(0, &Item::dir([("f", file("0", 1)), ("g", file("g", 1))]));
    let vfs = repo.warm();
    assert_eq!((below(&vfs, "versions/f").len(), below(&vfs, "deleted").len()), (1, 0));
    assert!(lookup(&vfs, "versions/h").is_err() && lookup(&vfs, "deleted/g").is_err());
    let known = ["versions", "versions/f", "deleted"].map(|p| lookup(&vfs, p).unwrap().ino);
    repo.on(1, &Item::dir([("f", file("1", 1)), ("h", file("h", 1))]));
    let changes = vfs.refresh(repo.state.clone());
    for ino in known {
        assert!(changes.contains(&Invalidation::Listing(ino)), "{changes:?}");
    }
    assert_eq!(below(&vfs, "versions/f"), ["2001-09-09_01-46-40", "2001-09-10_01-46-40"]);
    assert_eq!(
        (below(&vfs, "versions"), below(&vfs, "deleted")),
        (vec!["f".into(), "g".into(), "h".into()], vec!["g".to_owned()])
    );
    assert_eq!((text(&vfs, "at/now/f"), text(&vfs, "deleted/g")), ("1".into(), "g".into()));
    assert_eq!(vfs.refresh(repo.state.clone()), [], "nothing is new");
}

#[test]
fn what_was_looked_up_there_is_dropped_when_it_is_forgotten_and_numbers_stay() {
    let mut repo = Repo::new();
    repo.on(0, &home(vec![("a", file("0", 1)), ("b", file("b", 1))]));
    repo.on(1, &home(vec![("a", file("1", 2))]));
    let walk = |vfs: &Vfs| {
        let (mut found, mut folders) =
            (Vec::new(), vec![lookup(vfs, "versions").unwrap(), lookup(vfs, "deleted").unwrap()]);
        while let Some(folder) = folders.pop() {
            vfs.readdir(folder.ino, 0, true, Mode::Fetch(background()), &mut |e| {
                if ![b".".as_slice(), b".."].contains(&e.name) {
                    found.push((String::from_utf8(e.name.to_vec()).unwrap(), e.attr));
                    folders.extend((e.attr.kind == Kind::Directory).then_some(e.attr));
                }
                false
            })
            .unwrap();
        }
        found
    };
    let vfs = repo.warm();
    let before = vfs.figures();
    let found = walk(&vfs);
    assert_eq!(found.len(), 10, "{found:?}");
    assert_eq!(found, walk(&repo.warm()), "numbers are those of every mount");
    let directories = |a: &&Attr| a.kind == Kind::Directory;
    let numbers: BTreeSet<u64> = found.iter().map(|(_, a)| a).filter(directories).map(|a| a.ino).collect();
    assert_eq!(numbers.len(), 6, "each folder has its own");
    for (_, attr) in &found {
        assert_eq!(vfs.getattr(attr.ino, Mode::Fetch(background())).unwrap(), *attr);
        vfs.forget(attr.ino, 1);
    }
    let after = vfs.figures();
    assert_eq!((before.nodes, before.directories), (after.nodes, after.directories));
}

#[test]
fn from_memory_or_not_at_all() {
    let mut repo = Repo::new();
    repo.on(0, &home(vec![("a", file("0", 1))]));
    let vfs = repo.warm();
    let versions = vfs.lookup(inode::ROOT, b"versions", Mode::Cached).unwrap().unwrap().ino;
    assert!(matches!(vfs.lookup(versions, b"home", Mode::Cached), Err(Fault::Wait)));
    assert!(matches!(vfs.readdir(versions, 0, false, Mode::Cached, &mut |_| panic!("added")), Err(Fault::Wait)));
    let a = lookup(&vfs, "versions/home/me/a").unwrap().ino;
    assert!(vfs.getattr(a, Mode::Cached).is_ok());
    let listed = listing(&vfs, a, 0, usize::MAX);
    assert_eq!(listed.len(), 3);
    vfs.readdir(a, listed[1].2, false, Mode::Cached, &mut |e| {
        assert_eq!(e.name, b"2001-09-09_01-46-40");
        false
    })
    .unwrap();
}

#[test]
fn a_damaged_page_of_one_snapshot_hides_only_what_is_in_it() {
    let mut repo = Repo::new();
    let list = |repo: &Repo| -> BTreeSet<Name> {
        (0..16).flat_map(|x| repo.memory.list(background(), Folder::PackShard(x)).unwrap()).map(|e| e.name).collect()
    };
    repo.on(0, &home(vec![("a", file("0", 1))]));
    let before = list(&repo);
    repo.on(1, &home(vec![("a", file("1", 1)), ("lost", file("0", 1))]));
    let added: Vec<Name> = list(&repo).difference(&before).cloned().collect();
    repo.on(2, &home(vec![("a", file("2", 1))]));
    // Damages the packs that the second push added.
    for name in added {
        let mut bytes = repo.memory.get(&name).unwrap();
        let at = bytes.len() - 40;
        bytes[at] ^= 1;
        repo.memory.overwrite(&name, bytes);
    }
    let vfs = repo.vfs();
    assert_eq!(text(&vfs, "versions/home/me/a/2001-09-09_01-46-40"), "0");
    assert_eq!(text(&vfs, "versions/home/me/a/2001-09-11_01-46-40"), "2");
    let me = lookup(&vfs, "versions/home/me").unwrap().ino;
    let damaged = |fault: Fault| assert!(matches!(fault, Fault::Broken(e) if e.kind() == ErrorKind::Damaged));
    let mut seen = Vec::new();
    let result = vfs.readdir(me, 0, false, Mode::Fetch(background()), &mut |e| {
        seen.push(e.name.to_vec());
        false
    });
    assert_eq!(
        (result.is_ok(), seen.last().unwrap().as_slice()),
        (true, b"a".as_slice()),
        "what can be read is listed"
    );
    damaged(vfs.readdir(me, 3, false, Mode::Fetch(background()), &mut |_| panic!("an entry")).unwrap_err());
    damaged(vfs.lookup(me, b"lost", Mode::Fetch(background())).unwrap_err());
    assert!(lookup(&vfs, "latest/home/me/a").is_ok());
}

#[test]
fn attributes_that_are_made_up() {
    let mut repo = Repo::new();
    let mine = (b"user.nfreezer.id".to_vec(), b"copied".to_vec());
    let tree = |xattrs: Vec<_>| {
        Item::dir([
            ("empty", Item::file("")),
            ("file", Item { xattrs, ..Item::file("x".repeat(1000)) }),
            ("link", Item::other(Content::Symlink(b"file".to_vec()))),
            ("noise", Item::file(noise(1, 3 << 20))),
        ])
    };
    repo.on(0, &tree(Vec::new()));
    let vfs = repo.warm();
    let get = |vfs: &Vfs, path: &str, name: &str| {
        let value = vfs.getxattr(lookup(vfs, path).unwrap().ino, name.as_bytes(), Mode::Fetch(background()));
        value.map(|v| String::from_utf8(v).unwrap())
    };
    let own = |path: &str, name: &str| get(&vfs, path, &format!("user.nfreezer.{name}")).ok();
    assert_eq!(own("latest/file", "snapshot"), Some("01".repeat(16)));
    assert_eq!((own("latest", "snapshot"), own("at/now", "snapshot")), (Some("01".repeat(16)), Some("01".repeat(16))));
    assert_eq!((own("", "snapshot"), own("versions/file", "snapshot")), (None, None));
    assert_eq!(own("versions/file/2001-09-09_01-46-40", "snapshot"), Some("01".repeat(16)));
    let id = own("latest/file", "id").unwrap();
    assert_eq!((id.len(), own("ids/01010101/file", "id")), (32, Some(id)));
    assert_eq!(own("latest/noise", "id").unwrap().split('+').count(), 3, "a chunk each");
    assert!(own("latest", "id").unwrap().starts_with("page:"));
    assert_eq!((own("latest/empty", "id"), own("latest/link", "id")), (Some(String::new()), None));
    let size = |path: &str| own(path, "stored-size").map(|s| s.parse::<u64>().unwrap());
    assert_eq!((size("latest/noise"), size("latest/empty"), size("latest")), (Some(3 << 20), Some(0), None));
    assert!((1..200).contains(&size("latest/file").unwrap()), "what it takes compressed");
    // No listing contains them. If a snapshot has no other attributes, programs learn that they can stop asking.
    let file = lookup(&vfs, "latest/file").unwrap().ino;
    assert!(matches!(vfs.xattrs(file, Mode::Fetch(background())), Err(Fault::Unsupported)));
    assert!(matches!(get(&vfs, "latest/file", "user.x"), Err(Fault::Unsupported)));
    assert!(vfs.may_have_xattrs() && !vfs.has_xattrs(), "a later snapshot may have some");
    repo.on(1, &tree(vec![mine.clone()]));
    vfs.refresh(repo.state.clone());
    let file = lookup(&vfs, "latest/file").unwrap().ino;
    assert_eq!(*vfs.xattrs(file, Mode::Fetch(background())).unwrap(), [mine]);
    assert_eq!(get(&vfs, "latest/file", "user.nfreezer.id").unwrap(), "copied", "what was saved comes first");
    let old = lookup(&vfs, "ids/01010101/file").unwrap().ino;
    assert_eq!(*vfs.xattrs(old, Mode::Cached).unwrap(), [], "of a snapshot without any, nothing is fetched");
    assert!(matches!(get(&vfs, "latest/noise", "user.x"), Err(Fault::NoAttribute)));
    let snapshot = repo.state.select("01010101").unwrap();
    let one = Options { at: Some((snapshot, Vec::new())), ..Options::default() };
    let one = Vfs::new(background(), repo.repo.clone(), repo.state.clone(), one).unwrap();
    assert!(!one.may_have_xattrs(), "of one snapshot it is known");
    assert_eq!(get(&one, "file", "user.nfreezer.snapshot").unwrap(), "01".repeat(16));
}

#[test]
fn the_size_of_a_long_file_is_that_of_its_list() {
    let mut repo = Repo::new();
    let mut writer = Writer::new(&repo.repo);
    (writer.chunk, writer.list_rows) = (1000, 4);
    writer.commit(&mut repo.state, &Item::dir([("f", Item::file(noise(3, 100_000)))]), |_| {});
    let vfs = repo.warm();
    let f = lookup(&vfs, "latest/f").unwrap().ino;
    let get =
        |name: &str| String::from_utf8(vfs.getxattr(f, name.as_bytes(), Mode::Fetch(background())).unwrap()).unwrap();
    assert_eq!(get("user.nfreezer.stored-size"), "100000");
    assert!(get("user.nfreezer.id").starts_with("list:"));
}
