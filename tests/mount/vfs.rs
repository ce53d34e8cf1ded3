//! The tree of the mount without a kernel, over an in-memory repository.

use std::collections::BTreeSet;

use crate::harness::shown::{Repo, listing, lookup, names, read};
use crate::harness::tree::noise;
use crate::harness::writer::{Body, Item, Segment, Writer};
use nfreezer::context::background;
use nfreezer::error::Kind as ErrorKind;
use nfreezer::format::node::Content;
use nfreezer::format::record::SnapshotId;
use nfreezer::name::{Folder, Name};
use nfreezer::storage::Storage;
use nfreezer::time::Time;
use nfreezer::vfs::{Fault, Invalidation, Kind, Mode, Options, Rights, Seek, Vfs, inode};

#[test]
fn the_folders_above_the_snapshots() {
    let mut repo = Repo::new();
    let tree = Item::dir([("home", Item::dir([("a", Item::file("one"))]))]);
    let times = [(1_000_000_000, 1), (1_000_000_000, 2), (1_000_000_060, 0), (1_000_000_120, 0)]
        .map(|(seconds, nanoseconds)| Time::new(seconds, nanoseconds));
    for (i, time) in times.into_iter().enumerate() {
        Writer::new(&repo.repo).commit(&mut repo.state, &tree, |s| {
            s.id = SnapshotId([i as u8 + 1; 16]);
            s.time = time;
            s.host = if i == 0 { "a/b".into() } else { "laptop".into() };
            s.tags = if i == 1 { vec!["..".into()] } else { Vec::new() };
            s.partial = i == 3;
        });
    }
    let vfs = repo.vfs();
    let root = ["README", "at", "deleted", "hosts", "ids", "latest", "snapshots", "tags", "versions"];
    assert_eq!(names(&vfs, inode::ROOT), root);
    let below = |path: &str| names(&vfs, lookup(&vfs, path).unwrap().ino);
    let same = ["2001-09-09_01-46-40-01010101", "2001-09-09_01-46-40-02020202"];
    let others = ["2001-09-09_01-47-40", "2001-09-09_01-48-40-partial"];
    assert_eq!(below("snapshots"), [same, others].concat(), "snapshots of one second are named alike");
    let second = lookup(&vfs, "snapshots/2001-09-09_01-46-40").unwrap();
    assert_eq!(second.mtime, times[1], "the time alone is the newest of its second");
    assert!(
        ["snapshots/2001-09-09_01-46-4", "snapshots/2001-09-09_01-46-40-0"].iter().all(|p| lookup(&vfs, p).is_err())
    );
    assert_eq!(below("hosts"), ["a%2Fb", "laptop"]);
    assert_eq!(below("hosts/a%2Fb"), ["2001-09-09_01-46-40", "latest"]);
    assert_eq!(below("tags"), ["%2E."]);
    assert_eq!(below("ids"), ["01010101", "02020202", "03030303", "04040404"]);
    let latest = lookup(&vfs, "latest").unwrap();
    assert_eq!(
        (latest.kind, latest.mtime, latest.nlink),
        (Kind::Directory, times[2], 1),
        "a partial one is never the latest"
    );
    let folders = ["latest", "snapshots/2001-09-09_01-47-40", "hosts/laptop/latest", "ids/03030303"];
    let inos: BTreeSet<u64> = folders.iter().map(|f| lookup(&vfs, &format!("{f}/home")).unwrap().ino).collect();
    assert_eq!(inos.len(), 4, "each path of a directory has its own number");
    let files: BTreeSet<u64> = folders.iter().map(|f| lookup(&vfs, &format!("{f}/home/a")).unwrap().ino).collect();
    assert_eq!(files.len(), 1, "the file has one");
    assert!(lookup(&vfs, "latest/nothing").is_err() && lookup(&vfs, "nothing").is_err());
    assert_eq!(vfs.path(lookup(&vfs, "hosts/laptop/latest/home/a").unwrap().ino), b"/latest/home/a", "as first seen");
}

#[test]
fn a_file_in_the_root_explains_the_folders() {
    let mut repo = Repo::new();
    let tree = Item::dir([("README", Item::file("mine"))]);
    repo.push_as(&tree, |s| {
        s.host = "README".into();
        s.tags = vec!["README".into()];
    });
    let vfs = repo.vfs();
    let readme = lookup(&vfs, "README").unwrap();
    let text = String::from_utf8(read(&vfs, readme.ino, 0, 1 << 20).unwrap()).unwrap();
    assert_eq!((readme.kind, readme.mode, readme.size), (Kind::File, 0o444, text.len() as u64));
    for name in names(&vfs, inode::ROOT) {
        assert!(name == "README" || text.contains(&format!("{name}/")), "it explains {name}");
    }
    let fetch = Mode::Fetch(background());
    assert_eq!(vfs.getattr(readme.ino, fetch).unwrap(), readme);
    assert_eq!(read(&vfs, readme.ino, readme.size - 2, 99).unwrap(), b".\n");
    assert_eq!(vfs.seek(readme.ino, 3, Seek::Hole, fetch).unwrap(), readme.size);
    assert!(vfs.keep(readme.ino).is_some_and(|time| time.as_secs() > 0), "its time follows new snapshots");
    assert_eq!(vfs.getattr(inode::ROOT, fetch).unwrap().nlink, 2 + 7 + 1);
    for other in ["latest/README", "hosts/README/latest/README", "tags/README/latest/README"] {
        assert_eq!(read(&vfs, lookup(&vfs, other).unwrap().ino, 0, 9).unwrap(), b"mine", "{other}");
    }
    let snapshot = repo.state.select("latest").unwrap();
    let one = Options { at: Some((snapshot, Vec::new())), ..Options::default() };
    let vfs = Vfs::new(background(), repo.cold(), repo.state.clone(), one).unwrap();
    assert_eq!(read(&vfs, lookup(&vfs, "README").unwrap().ino, 0, 9).unwrap(), b"mine");
}

#[test]
fn numbers_are_the_same_in_the_next_mount() {
    let mut repo = Repo::new();
    let link = |mtime| Item { nlink: 2, inode: 77, mtime: Time::new(mtime, 0), ..Item::file("linked") };
    let dated = |mtime| Item { mtime: Time::new(mtime, 0), ..Item::file("same") };
    repo.push(&Item::dir([
        ("a", dated(1)),
        ("b", dated(1)),
        ("c", dated(2)),
        ("l1", link(1)),
        ("l2", link(1)),
        ("other", Item { inode: 78, ..link(1) }),
        ("d", Item::dir([("x", Item::other(Content::Fifo))])),
    ]));
    let inos_with = |shared_inodes| {
        let options = Options { shared_inodes, ..Options::default() };
        let vfs = Vfs::new(background(), repo.cold(), repo.state.clone(), options).unwrap();
        ["a", "b", "c", "l1", "l2", "other", "d", "d/x"].map(|p| lookup(&vfs, &format!("latest/{p}")).unwrap().ino)
    };
    for shared in [false, true] {
        let [a, b, c, l1, l2, other, ..] = inos_with(shared);
        assert_eq!(inos_with(shared), inos_with(shared));
        assert_eq!(l1, l2, "links of one file share a number");
        assert_eq!(a == b, shared, "equal files share a number only where that is wanted");
        assert_eq!(BTreeSet::from([a, c, l1, other]).len(), 4);
        assert!(inos_with(shared).iter().all(|ino| *ino > 1));
    }
}

#[test]
fn a_snapshot_from_the_future_is_latest_only_if_there_is_no_other() {
    let mut repo = Repo::new();
    let now = nfreezer::repo::now();
    let push = |repo: &mut Repo, text, time| {
        repo.push_as(&Item::dir([("f", Item::file(text))]), |s| s.time = Time::new(time, 0));
    };
    push(&mut repo, "future", now.seconds + 100_000);
    let latest = |vfs: &Vfs, at: &str| read(vfs, lookup(vfs, &format!("{at}/f")).unwrap().ino, 0, 99).unwrap();
    let vfs = repo.vfs();
    assert_eq!(latest(&vfs, "latest"), b"future");
    push(&mut repo, "right", now.seconds - 5);
    assert!(!vfs.refresh(repo.state.clone()).is_empty());
    for at in ["latest", "hosts/host/latest"] {
        assert_eq!(latest(&vfs, at), b"right");
    }
    push(&mut repo, "clocks differ a little", now.seconds + 60);
    vfs.refresh(repo.state.clone());
    assert_eq!(latest(&vfs, "latest"), b"clocks differ a little");
    assert_eq!(names(&vfs, lookup(&vfs, "snapshots").unwrap().ino).len(), 3, "all are listed");
}

#[test]
fn a_listing_goes_on_at_any_offset_over_many_pages() {
    let mut repo = Repo::new();
    let entry = |i: u32| {
        let body = if i % 10 == 3 { Body::Other(Content::Unreadable(13)) } else { Body::File(Vec::new()) };
        (format!("file {i:06}"), Item { mtime: Time::new(i.into(), 0), ..Item::new(body) })
    };
    let tree = Item::dir((0..5000).map(entry));
    let mut writer = Writer::new(&repo.repo);
    writer.page_rows = 7;
    writer.commit(&mut repo.state, &tree, |_| {});
    let vfs = repo.vfs();
    let root = lookup(&vfs, "latest").unwrap().ino;
    let all = listing(&vfs, root, 0, usize::MAX);
    assert_eq!(all.len(), 4502);
    assert!(all.iter().skip(2).all(|e| !e.0.ends_with('3')), "what could not be read is hidden");
    for at in [0, 1, 2, 3, 100, 2000, 4501] {
        let offset = if at == 0 { 0 } else { all[at - 1].2 };
        assert_eq!(listing(&vfs, root, offset, 50), all[at..all.len().min(at + 50)], "at {at}");
    }
    assert!(listing(&vfs, root, all[4501].2, 9).is_empty() && listing(&vfs, root, 1 << 40, 9).is_empty());
    for i in [0, 1, 6, 7, 8, 2048, 4999] {
        assert_eq!(lookup(&vfs, &format!("latest/file {i:06}")).unwrap().mtime.seconds, i64::from(i));
    }
    assert!(lookup(&vfs, "latest/file 000003").is_err());
    assert!(lookup(&vfs, "latest/file 000000x").is_err() && lookup(&vfs, "latest/a").is_err());
    let ino = lookup(&vfs, "latest/file 004000").unwrap().ino;
    assert_eq!(vfs.getattr(ino, Mode::Fetch(background())).unwrap().mtime.seconds, 4000, "found again by its number");
}

#[test]
fn what_was_looked_up_is_dropped_when_it_is_forgotten() {
    let mut repo = Repo::new();
    repo.push(&Item::dir([(
        "d",
        Item::dir((100..200u8).map(|i| (vec![b'f', i], Item { mtime: Time::new(i.into(), 0), ..Item::file([]) }))),
    )]));
    let vfs = repo.vfs();
    let before = vfs.figures().nodes;
    let dirs = [lookup(&vfs, "latest").unwrap().ino, lookup(&vfs, "latest/d").unwrap().ino];
    let mut held = Vec::new();
    vfs.readdir(dirs[1], 0, true, Mode::Fetch(background()), &mut |e| {
        held.push(e.attr.ino);
        held.len() > 60
    })
    .unwrap();
    held.pop();
    assert_eq!(
        vfs.figures().nodes,
        before + 2 + 58,
        "those that were added, without the dots and the one that did not fit"
    );
    assert!(matches!(vfs.readlink(held[9], Mode::Fetch(background())), Err(Fault::Invalid)));
    vfs.forget(dirs[0], 2);
    vfs.forget(dirs[1], 1);
    held[2..].iter().for_each(|ino| vfs.forget(*ino, 1));
    assert_eq!(vfs.figures().nodes, before);
    assert!(matches!(vfs.getattr(dirs[1], Mode::Fetch(background())), Err(Fault::Stale)));
}

#[test]
fn holes_lists_of_many_levels_and_the_end_of_the_file() {
    let mut repo = Repo::new();
    let mut model = Vec::new();
    let mut segments = Vec::new();
    for i in 0..60u64 {
        let bytes = if i % 3 == 0 { noise(i, 700 + i as usize) } else { vec![b'a' + (i % 26) as u8; 3000] };
        model.extend_from_slice(&bytes);
        segments.push(Segment::Bytes(bytes));
        if i % 4 == 0 {
            model.resize(model.len() + 5000, 0);
            segments.push(Segment::Hole(5000));
        }
    }
    let sparse = Body::File(vec![Segment::Hole(1 << 40), Segment::Bytes(b"end".into())]);
    let mut writer = Writer::new(&repo.repo);
    (writer.chunk, writer.list_rows) = (512, 4);
    let tree = Item::dir([("f", Item::new(Body::File(segments))), ("s", Item::new(sparse)), ("e", Item::file([]))]);
    writer.commit(&mut repo.state, &tree, |_| {});
    let vfs = repo.vfs();
    let f = lookup(&vfs, "latest/f").unwrap();
    assert_eq!((f.size, f.blocks), (model.len() as u64, f.size / 512 - 1));
    for (offset, size) in
        [(0, 1 << 20), (1, 1), (699, 3), (5699, 700), (model.len() as u64 - 1, 4096), (40_000, 30_000)]
    {
        let end = (offset as usize + size as usize).min(model.len());
        assert_eq!(read(&vfs, f.ino, offset, size).unwrap(), &model[offset as usize..end], "{offset} {size}");
    }
    assert!(read(&vfs, f.ino, f.size, 10).unwrap().is_empty() && read(&vfs, f.ino, u64::MAX, 10).unwrap().is_empty());
    let seek = |at, what| vfs.seek(f.ino, at, what, Mode::Fetch(background())).map_err(|e| matches!(e, Fault::Beyond));
    assert_eq!([seek(0, Seek::Data), seek(0, Seek::Hole), seek(700, Seek::Data)], [Ok(0), Ok(700), Ok(5700)]);
    assert_eq!(
        [seek(701, Seek::Hole), seek(5699, Seek::Data), seek(f.size, Seek::Data)],
        [Ok(701), Ok(5700), Err(true)]
    );
    assert_eq!([seek(f.size - 1, Seek::Hole), seek(f.size - 1, Seek::Data)], [Ok(f.size), Ok(f.size - 1)]);
    let s = lookup(&vfs, "latest/s").unwrap();
    assert_eq!((s.size, s.blocks), ((1 << 40) + 3, 1));
    assert_eq!(read(&vfs, s.ino, (1 << 40) - 2, 9).unwrap(), b"\0\0end");
    assert_eq!(vfs.seek(s.ino, 5, Seek::Data, Mode::Fetch(background())).unwrap(), 1 << 40);
    let e = lookup(&vfs, "latest/e").unwrap();
    assert_eq!((e.size, e.blocks, read(&vfs, e.ino, 0, 10).unwrap().len()), (0, 0, 0));
    assert!(matches!(read(&vfs, lookup(&vfs, "latest").unwrap().ino, 0, 10), Err(Fault::Invalid)));
}

/// Flips a bit in the sealed block that holds this plaintext byte of the largest pack, which is the data pack.
fn damage(repo: &Repo, at: usize) {
    let packs = (0..16).flat_map(|x| repo.memory.list(background(), Folder::PackShard(x)).unwrap());
    let pack = packs.max_by_key(|e| e.size).unwrap().name;
    let mut bytes = repo.memory.get(&pack).unwrap();
    bytes[72 + at / 65536 * 65552 + at % 65536] ^= 1;
    repo.memory.overwrite(&pack, bytes);
}

#[test]
fn damage_is_an_error_where_it_is_and_nowhere_else() {
    let mut repo = Repo::new();
    let body = noise(1, 1 << 20);
    repo.push(&Item::dir([("f", Item::file(&body)), ("g", Item::file(noise(2, 300_000)))]));
    damage(&repo, 5 * 65536 + 9);
    let vfs = repo.vfs();
    let f = lookup(&vfs, "latest/f").unwrap().ino;
    for _ in 0..2 {
        let error = read(&vfs, f, 0, 1 << 20).unwrap_err();
        assert!(matches!(&error, Fault::Broken(e) if e.kind() == ErrorKind::Damaged), "{error:?}");
        assert!(error.to_string().contains("is damaged in block 5"), "{error}");
    }
    for page in 0..256u64 {
        let bytes = read(&vfs, f, page * 4096, 4096);
        assert_eq!(bytes.is_err(), page / 16 == 5, "page {page}");
        assert!(bytes.is_err() || bytes.unwrap() == body[page as usize * 4096..][..4096]);
    }
    let g = lookup(&vfs, "latest/g").unwrap().ino;
    assert_eq!(read(&vfs, g, 0, 1 << 20).unwrap(), noise(2, 300_000));
}

#[test]
fn a_damaged_block_holds_up_no_other_block_of_the_same_read() {
    let mut repo = Repo::new();
    let body = noise(1, 1 << 20);
    repo.push(&Item::dir([("f", Item::file(&body))]));
    damage(&repo, 5 * 65536 + 9);
    let cold = repo.cold();
    let vfs = Vfs::new(background(), cold.clone(), repo.state.clone(), Options::default()).unwrap();
    let f = lookup(&vfs, "latest/f").unwrap().ino;
    cold.set_cache(0); // otherwise the failed read caches the other blocks
    read(&vfs, f, 0, 1 << 20).unwrap_err();
    for block in 0..16u64 {
        let bytes = read(&vfs, f, block * 65536 + 20_000, 4096);
        assert_eq!(bytes.is_err(), block == 5, "block {block}");
    }
}

#[test]
fn latest_follows_and_nothing_stale_is_shown() {
    let mut repo = Repo::new();
    let same = || ("same", Item::file("kept"));
    repo.push(&Item::dir([("d", Item::dir([same(), ("x", Item::file("old"))]))]));
    let vfs = repo.vfs();
    let old = ["", "/d", "/d/same", "/d/x"].map(|p| lookup(&vfs, &format!("latest{p}")).unwrap().ino);
    assert_eq!(vfs.refresh(repo.state.clone()), [], "nothing is new");
    repo.push_as(&Item::dir([("d", Item::dir([same(), ("x", Item::file("newer"))]))]), |s| {
        s.time.seconds += 60;
        s.host = "second".into();
        s.id = SnapshotId([0xab; 16]);
    });
    let changes: BTreeSet<_> = vfs.refresh(repo.state.clone()).into_iter().collect();
    let ino = |p: &str| lookup(&vfs, p).unwrap().ino;
    let entry = |p: &str, name: &str| Invalidation::Entry(ino(p), name.into());
    let wanted = [
        entry("", "latest"),
        entry("snapshots", "2025-11-24_16-01-00"),
        entry("hosts", "second"),
        entry("ids", "abababab"),
        Invalidation::Listing(ino("")),
        Invalidation::Listing(ino("snapshots")),
        Invalidation::Listing(ino("hosts")),
        Invalidation::Listing(ino("ids")),
        Invalidation::Listing(ino("versions")),
        Invalidation::Listing(ino("deleted")),
    ];
    assert_eq!(changes, BTreeSet::from(wanted));
    let new = ["", "/d", "/d/same", "/d/x"].map(|p| ino(&format!("latest{p}")));
    assert_eq!([0, 1, 2, 3].map(|i| old[i] == new[i]), [false, false, true, false]);
    assert_eq!(read(&vfs, new[3], 0, 99).unwrap(), b"newer");
    assert_eq!(read(&vfs, old[3], 0, 99).unwrap(), b"old", "who is still in the old one sees the old one");
}

#[test]
fn one_directory_as_the_root() {
    let mut repo = Repo::new();
    repo.push(&Item::dir([("home", Item { mode: 0o700, ..Item::dir([("jo", Item::dir([("f", Item::file("x"))]))]) })]));
    let snapshot = repo.state.select("latest").unwrap();
    let at = |path: &[u8]| {
        let options = Options { at: Some((snapshot.clone(), path.to_vec())), ..Options::default() };
        Vfs::new(background(), repo.cold(), repo.state.clone(), options)
    };
    let vfs = at(b"/home/").unwrap();
    assert_eq!(names(&vfs, inode::ROOT), ["jo"]);
    let root = vfs.getattr(inode::ROOT, Mode::Cached).unwrap();
    assert_eq!((root.mode, root.ino, root.nlink), (0o700, 1, 3));
    vfs.forget(inode::ROOT, 1000);
    assert_eq!(lookup(&vfs, "jo/f").unwrap().size, 1);
    assert_eq!(names(&at(b"").unwrap(), inode::ROOT), ["home"]);
    assert!(at(b"home/jo/f").is_err_and(|e| e.to_string().contains("not a directory")));
    assert!(at(b"nowhere").is_err());
}

#[test]
fn attributes_of_every_kind_of_node() {
    let mut repo = Repo::new();
    let big = (b"user.big".to_vec(), noise(3, 9000));
    let small = (b"user.small".to_vec(), b"v".to_vec());
    let own = (b"nfreezer.flags".to_vec(), b"\x50".to_vec());
    let with = |xattrs, item| Item { xattrs, ..item };
    repo.push(&Item::dir([
        ("block", Item::other(Content::Block(8, 17))),
        ("char", Item::other(Content::Char(300, 70_000))),
        (
            "fifo",
            Item { mode: 0o4755, uid: 7, gid: 8, mtime: Time::new(-5, 999_999_999), ..Item::other(Content::Fifo) },
        ),
        ("link", Item::other(Content::Symlink(b"../\xff".to_vec()))),
        ("many", with(vec![own.clone(), big.clone(), small.clone()], Item::file("x"))),
        ("one", with(vec![own.clone(), small.clone()], Item::dir::<&str>([]))),
        ("only own", with(vec![own], Item::file("x"))),
        ("socket", Item::other(Content::Socket)),
    ]));
    let vfs = repo.vfs();
    assert!(vfs.has_xattrs());
    let get = |p: &str| lookup(&vfs, &format!("latest/{p}")).unwrap();
    assert_eq!((get("block").kind, get("block").device, get("char").device), (Kind::Block, (8, 17), (300, 70_000)));
    let fifo = get("fifo");
    assert_eq!(
        (fifo.kind, fifo.mode, fifo.uid, fifo.gid, fifo.mtime),
        (Kind::Fifo, 0o4755, 7, 8, Time::new(-5, 999_999_999))
    );
    assert_eq!(
        (get("link").size, vfs.readlink(get("link").ino, Mode::Fetch(background())).unwrap()),
        (4, b"../\xff".to_vec())
    );
    assert_eq!(*vfs.xattrs(get("many").ino, Mode::Fetch(background())).unwrap(), [big.clone(), small.clone()]);
    assert_eq!(*vfs.xattrs(get("one").ino, Mode::Fetch(background())).unwrap(), [small]);
    assert_eq!(*vfs.xattrs(get("only own").ino, Mode::Cached).unwrap(), []);
    assert_eq!(vfs.getxattr(get("many").ino, b"user.big", Mode::Cached).unwrap(), big.1);
    assert!(matches!(vfs.getxattr(get("fifo").ino, b"user.big", Mode::Fetch(background())), Err(Fault::NoAttribute)));
    for name in ["many", "one"] {
        for own in [&b"nfreezer.acl-names"[..], b"nfreezer.flags"] {
            let value = vfs.getxattr(get(name).ino, own, Mode::Fetch(background()));
            assert!(matches!(value, Err(Fault::NoAttribute)), "hidden: {name}");
        }
    }
    let rights = Rights { owner: Some((1000, 100)), ..Rights::default() };
    let options = Options { rights, ..Options::default() };
    let mine = Vfs::new(background(), repo.cold(), repo.state.clone(), options).unwrap();
    assert_eq!((lookup(&mine, "latest/fifo").unwrap().uid, lookup(&mine, "latest/fifo").unwrap().gid), (1000, 100));
}

#[test]
fn where_the_mode_alone_decides_it_grants_no_more_than_the_acl() {
    // User 1000 may read and write, and the group has no rights. The mode shows the mask as the group's rights.
    let entries = [(0x01, 6, u32::MAX), (0x02, 6, 1000), (0x04, 0, u32::MAX), (0x10, 6, u32::MAX), (0x20, 4, u32::MAX)];
    let mut acl = vec![2, 0, 0, 0];
    entries.iter().for_each(|(tag, bits, id)| {
        acl.extend([&[*tag, 0, *bits, 0], &(if *id == 1000 { [0xe8, 3, 0, 0] } else { [0xff; 4] })[..]].concat())
    });
    let acl = (nfreezer::acl::ACCESS.to_vec(), acl);
    let big = (b"user.big".to_vec(), noise(6, 30_000));
    let item = |xattrs| Item { mode: 0o664, xattrs, ..Item::file("x") };
    let mut repo = Repo::new();
    repo.push(&Item::dir([
        ("few", item(vec![acl.clone()])),
        ("many", item(vec![acl, big])),
        ("none", item(Vec::new())),
    ]));
    for (by_mode, [few, many, none]) in [(false, [0o664; 3]), (true, [0o604, 0o600, 0o664])] {
        let options = Options { rights: Rights { owner: None, by_mode }, ..Options::default() };
        let vfs = Vfs::new(background(), repo.cold(), repo.state.clone(), options).unwrap();
        let mode = |name: &str| lookup(&vfs, &format!("latest/{name}")).unwrap().mode;
        assert_eq!([mode("few"), mode("many"), mode("none")], [few, many, none], "{by_mode}");
    }
}

#[test]
fn a_dropped_pack_is_found_by_the_index_or_reported() {
    let mut repo = Repo::new();
    let tree = Item::dir([("f", Item::file(noise(5, 200_000)))]);
    repo.push(&tree);
    let first: Vec<Name> =
        (0..16).flat_map(|x| repo.memory.list(background(), Folder::PackShard(x)).unwrap()).map(|e| e.name).collect();
    let vfs = repo.vfs();
    let f = lookup(&vfs, "latest/f").unwrap().ino;
    let data = first.iter().max_by_key(|n| repo.memory.size(background(), n).unwrap()).unwrap();
    repo.memory.remove(background(), data).unwrap();
    let error = read(&vfs, f, 0, 10).unwrap_err();
    assert!(matches!(&error, Fault::Broken(e) if e.kind() == ErrorKind::Missing), "{error:?}");
    // Commits a record that drops the pack, and stores the same chunk in another pack.
    let mut state = repo.state.clone();
    let Name::Pack(id) = data else { unreachable!() };
    let head = nfreezer::format::record::Head { dropped: vec![*id], ..Default::default() };
    repo.repo.commit(background(), &mut state, head, &[]).unwrap();
    Writer::new(&repo.repo).commit(&mut state, &tree, |s| s.time.seconds -= 60);
    let vfs = Vfs::new(background(), repo.cold(), repo.state.clone(), Options::default()).unwrap();
    let f = lookup(&vfs, "latest/f").unwrap().ino;
    assert_eq!(read(&vfs, f, 0, 1 << 20).unwrap(), noise(5, 200_000), "the log is read again once");
}

#[test]
fn pages_and_lists_that_do_not_hold_what_is_said_above_them_are_refused() {
    let mut repo = Repo::new();
    let mut writer = Writer::new(&repo.repo);
    (writer.page_rows, writer.list_rows, writer.chunk, writer.lie) = (10, 5, 512, 1);
    let files = Item::dir((0..30).map(|i| (format!("{i:02}"), Item::file([i]))));
    writer.commit(&mut repo.state, &Item::dir([("big", Item::file(noise(1, 10_000))), ("dir", files)]), |_| {});
    let vfs = repo.vfs();
    let (big, dir) = (lookup(&vfs, "latest/big").unwrap().ino, lookup(&vfs, "latest/dir").unwrap().ino);
    let damaged = |fault: Fault| assert!(matches!(fault, Fault::Broken(e) if e.kind() == ErrorKind::Damaged));
    damaged(read(&vfs, big, 0, 10).unwrap_err());
    damaged(vfs.seek(big, 0, Seek::Hole, Mode::Fetch(background())).unwrap_err());
    damaged(vfs.lookup(dir, b"05", Mode::Fetch(background())).unwrap_err());
    damaged(vfs.readdir(dir, 0, false, Mode::Fetch(background()), &mut |_| panic!("an entry")).unwrap_err());
}

#[test]
fn from_memory_or_not_at_all() {
    let mut repo = Repo::new();
    repo.push(&Item::dir([("d", Item::dir([("f", Item::file(noise(1, 100_000)))]))]));
    let vfs = repo.vfs();
    let latest = vfs.lookup(1, b"latest", Mode::Cached).unwrap().unwrap().ino;
    assert!(matches!(vfs.lookup(latest, b"d", Mode::Cached), Err(Fault::Wait)));
    assert!(matches!(vfs.readdir(latest, 0, false, Mode::Cached, &mut |_| panic!("added")), Err(Fault::Wait)));
    let f = lookup(&vfs, "latest/d/f").unwrap().ino;
    assert_eq!(vfs.lookup(latest, b"nothing", Mode::Cached).unwrap(), None);
    assert!(matches!(vfs.read(f, 0, 10, Mode::Cached, &|_| ()), Err(Fault::Wait)));
    read(&vfs, f, 0, 1 << 20).unwrap();
    assert_eq!(vfs.read(f, 99_990, 100, Mode::Cached, &|_| ()).unwrap().len(), 10);
}
