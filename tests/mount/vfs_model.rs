//! Compares the tree of the mount with random written trees, by random operations.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::harness::Dice;
use crate::harness::repository;
use crate::harness::tree::noise;
use crate::harness::writer::{Body, Item, Segment, Writer};
use nfreezer::context::background;
use nfreezer::format::node::Content;
use nfreezer::repo::{Repository, State};
use nfreezer::storage::Memory;
use nfreezer::time::Time;
use nfreezer::vfs::{Attr, Fault, Kind, Mode, Options, Seek, Vfs, inode};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn tree(dice: &mut Dice, depth: u32) -> Item {
    let entries = match dice.roll(10) {
        0 => 0,
        1 => dice.roll(100),
        _ => dice.roll(8),
    };
    let mut map = BTreeMap::new();
    for _ in 0..entries {
        let mut name = noise(dice.roll(300), 1 + dice.roll(9) as usize);
        name.iter_mut().filter(|b| [0, b'/'].contains(b)).for_each(|b| *b = b'x');
        if name == b"." || name == b".." {
            continue;
        }
        let mut item = match dice.roll(12) {
            0 | 1 if depth < 5 => tree(dice, depth + 1),
            2 | 3 => Item::other(Content::Symlink(noise(dice.roll(99), 9).iter().map(|b| b | 1).collect())),
            4 => Item::other(Content::Fifo),
            5 => Item::other(Content::Unreadable(5)),
            6 => Item::other(Content::Char(dice.roll(4096) as u32, dice.roll(1 << 20) as u32)),
            _ => Item::new(Body::File((0..dice.roll(9)).map(|_| segment(dice)).collect())),
        };
        item.mode = dice.roll(0o10000) as u16;
        item.mtime = Time::new(dice.roll(1 << 31) as i64 - (1 << 30), dice.roll(1_000_000_000) as u32);
        item.uid = dice.roll(3) as u32;
        if dice.roll(5) == 0 {
            item.xattrs = vec![(b"user.a".to_vec(), noise(dice.roll(9), dice.roll(6000) as usize))];
        }
        map.insert(name, item);
    }
    Item::new(Body::Directory(map))
}

fn segment(dice: &mut Dice) -> Segment {
    match dice.roll(4) {
        0 => Segment::Hole(1 + dice.roll(20_000)),
        1 => Segment::Bytes(vec![dice.roll(256) as u8; 1 + dice.roll(9000) as usize]),
        _ => Segment::Bytes(noise(dice.roll(50), 1 + dice.roll(9000) as usize)),
    }
}

fn contents(segments: &[Segment]) -> Vec<u8> {
    let bytes = |s: &Segment| match s {
        Segment::Bytes(bytes) => bytes.clone(),
        Segment::Hole(len) => vec![0; *len as usize],
        Segment::Noise(..) => unreachable!(),
    };
    segments.iter().flat_map(bytes).collect()
}

/// Returns the entries of a model directory that the mount shows.
fn shown(item: &Item) -> Vec<(&Vec<u8>, &Item)> {
    let Body::Directory(entries) = &item.body else { panic!("no directory") };
    entries.iter().filter(|(_, item)| !matches!(item.body, Body::Other(Content::Unreadable(_)))).collect()
}

fn same(attr: &Attr, item: &Item) {
    let (kind, size) = match &item.body {
        Body::Directory(_) => (Kind::Directory, 0),
        Body::File(segments) => (Kind::File, contents(segments).len()),
        Body::Other(Content::Symlink(target)) => (Kind::Symlink, target.len()),
        Body::Other(Content::Fifo) => (Kind::Fifo, 0),
        Body::Other(Content::Char(..)) => (Kind::Char, 0),
        _ => unreachable!(),
    };
    let found = (attr.kind, attr.size, attr.mode, attr.uid, attr.mtime);
    assert_eq!(found, (kind, size as u64, item.mode, item.uid, item.mtime));
    if let Body::Other(Content::Char(major, minor)) = item.body {
        assert_eq!(attr.device, (major, minor));
    }
}

/// Runs an operation on cached data first and fetches if necessary, as the mount does.
fn both<T>(op: impl Fn(Mode) -> Result<T, Fault>) -> T {
    match op(Mode::Cached) {
        Err(Fault::Wait) => op(Mode::Fetch(background())).unwrap(),
        other => other.unwrap(),
    }
}

fn compare(vfs: &Vfs, ino: u64, item: &Item, dice: &mut Dice) {
    let entries = shown(item);
    let mut seen = Vec::new();
    let mut offset = 0;
    loop {
        let (before, most) = (seen.len(), 1 + dice.roll(40) as usize);
        let mut part = Vec::new();
        let add = std::cell::RefCell::new(&mut part);
        both(|mode| {
            add.borrow_mut().clear();
            vfs.readdir(ino, offset, true, mode, &mut |e| {
                if add.borrow().len() == most {
                    return true;
                }
                add.borrow_mut().push((e.name.to_vec(), e.attr, e.next));
                false
            })
        });
        seen.append(&mut part);
        if seen.len() == before {
            break;
        }
        offset = seen[seen.len() - 1].2;
    }
    let names: Vec<_> = seen.iter().skip(2).map(|e| &e.0).collect();
    assert_eq!(names, entries.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for ((name, item), (_, attr, _)) in entries.into_iter().zip(seen.iter().skip(2)) {
        same(attr, item);
        if dice.roll(3) == 0 {
            assert_eq!(both(|mode| vfs.lookup(ino, name, mode)), Some(*attr));
            vfs.forget(attr.ino, 1);
        }
        assert_eq!(both(|mode| vfs.getattr(attr.ino, mode)), *attr);
        // `Unsupported` means that no node of the tree has attributes, and that programs can stop asking.
        let xattrs = both(|mode| match vfs.xattrs(attr.ino, mode) {
            Err(Fault::Unsupported) if !vfs.has_xattrs() => Ok(Arc::default()),
            other => other,
        });
        assert_eq!(*xattrs, item.xattrs);
        match &item.body {
            Body::Directory(_) => compare(vfs, attr.ino, item, dice),
            Body::Other(Content::Symlink(target)) => assert_eq!(&both(|mode| vfs.readlink(attr.ino, mode)), target),
            Body::File(segments) => read(vfs, attr, segments, dice),
            _ => {}
        }
        vfs.forget(attr.ino, 1);
    }
    assert_eq!(both(|mode| vfs.lookup(ino, b"not there", mode)), None);
}

fn read(vfs: &Vfs, attr: &Attr, segments: &[Segment], dice: &mut Dice) {
    let model = contents(segments);
    let ahead = std::cell::RefCell::new(Vec::new());
    for _ in 0..4 {
        let (from, size) = (dice.roll(model.len() as u64 + 100), 1 + dice.roll(30_000));
        let bytes = both(|mode| vfs.read(attr.ino, from, size as u32, mode, &|a| ahead.borrow_mut().push(a)));
        let from = model.len().min(from as usize);
        assert_eq!(bytes, &model[from..model.len().min(from + size as usize)]);
    }
    for advice in ahead.take() {
        vfs.plan(&advice, Mode::Fetch(background()))
            .unwrap()
            .iter()
            .for_each(|stretch| vfs.fetch_ahead(background(), stretch));
    }
    // Holes contain only zeros, and alternating seeks for data and holes reach the end of the file.
    let mut at = 0;
    while at < attr.size {
        let data = match vfs.seek(attr.ino, at, Seek::Data, Mode::Fetch(background())) {
            Err(Fault::Beyond) => attr.size,
            other => other.unwrap(),
        };
        assert!(model[at as usize..data as usize].iter().all(|b| *b == 0));
        at = if data < attr.size {
            vfs.seek(attr.ino, data, Seek::Hole, Mode::Fetch(background())).unwrap()
        } else {
            data
        };
        assert!(at > data || data == attr.size);
    }
}

fn case(repo: &Arc<Repository>, seed: u64) {
    let mut dice = Dice(seed);
    let model = tree(&mut dice, 0);
    let mut writer = Writer::new(repo);
    writer.page_rows = 2 + dice.roll(60) as usize;
    (writer.list_rows, writer.chunk) = (2 + dice.roll(20) as usize, 1 << (9 + dice.roll(6)));
    let mut state = State::default();
    let snapshot = writer.commit(&mut state, &model, |_| {});
    let options = Options { at: Some((snapshot, Vec::new())), ..Options::default() };
    let vfs = Vfs::new(background(), Arc::clone(repo), state, options).unwrap();
    let known = vfs.figures().nodes;
    compare(&vfs, inode::ROOT, &model, &mut dice);
    assert_eq!(vfs.figures().nodes, known, "all look-ups were taken back");
}

#[test]
fn what_is_shown_is_what_was_written() {
    let repo = Arc::new(repository::init(Arc::<Memory>::default()));
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    runner
        .run(&any::<u64>(), |seed| {
            case(&repo, seed);
            Ok(())
        })
        .unwrap();
}
