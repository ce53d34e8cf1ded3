//! Damage and interruption stay where they are: all other files are restored, and no partial file gets its final name.

use nfreezer::context::background;
use nfreezer::format::record::{NewSection, SectionKind};
use nfreezer::format::{index, pack};

use super::support::*;

fn flip(memory: &Memory, r: &Ref) {
    let name = Name::Pack(r.pack.id);
    let mut bytes = memory.get(&name).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    memory.overwrite(&name, bytes);
}

#[test]
fn t19_damage_is_reported_and_all_else_is_restored() {
    let Repo { repo, memory } = repo();
    let [flipped, removed, meta] = [b"flipped", b"removed", b"met@adt"].map(|b| data(&repo, b));
    let long: Vec<Vec<u8>> = (0..3).map(|i| noise(50 + i, 2 << 20)).collect();
    let mut extents: Vec<_> = long.iter().map(|c| Extent::Data(data(&repo, c))).collect();
    let Extent::Data(middle) = extents[1] else { unreachable!() };
    extents.push(Extent::Hole(10));
    let lost = directory(&repo, vec![file(&repo, "x", b"x")]);
    let Content::Directory(Some(page)) = &lost else { unreachable!() };
    let page = *page;
    let one = |name: &str, r: Ref| node(name, 0o644, Content::File(vec![Extent::Data(r)]));
    let nodes = vec![
        one("flipped", flipped),
        link(one("link1", removed), 9, 2),
        link(one("link2", removed), 9, 2),
        one("whole", meta),
        node("long", 0o644, Content::File(extents)),
        node("lost", 0o755, lost),
        file(&repo, "good", b"good"),
    ];
    let s = snapshot(&repo, nodes);
    flip(&memory, &flipped);
    flip(&memory, &middle);
    flip(&memory, &page);
    memory.remove(background(), &Name::Pack(removed.pack.id)).unwrap();
    let (_keep, out) = target();
    let (summary, seen) = plain(&repo, &s, &out);
    assert_eq!(seen.skipped(), ["/flipped", "/link1", "/link2", "/long", "/lost"]);
    assert_eq!((summary.damaged, summary.failed, summary.files), (5, 0, 2));
    let why = seen.skipped.lock().unwrap();
    assert!(why["/flipped"].contains(&flipped.pack.id.to_string()), "{}", why["/flipped"]);
    assert!(why["/link1"].contains(&removed.pack.id.to_string()), "{}", why["/link1"]);
    for absent in ["flipped", "link1", "link2", "long"] {
        assert!(!out.join(absent).exists(), "{absent}");
    }
    // The rest of a file is kept under a name that cannot be mistaken for the file.
    let rest = [long[0].as_slice(), &[0; 2 << 20], &long[2], &[0; 10]].concat();
    assert!(fs::read(out.join("long.nfreezer-partial")).unwrap() == rest);
    assert_eq!(fs::read(out.join("good")).unwrap(), b"good");
    assert_eq!(fs::read(out.join("whole")).unwrap(), b"met@adt");
}

#[test]
fn of_a_file_with_the_longest_name_and_a_lost_pack_the_rest_stays() {
    let Repo { repo, memory } = repo();
    let parts: Vec<Vec<u8>> = (0..3).map(|i| noise(60 + i, 1 << 20)).collect();
    let refs: Vec<Ref> = parts.iter().map(|part| data(&repo, part)).collect();
    let extents = || refs.iter().map(|r| Extent::Data(*r)).collect();
    let names = [[b'n'; 255].to_vec(), "\u{e9}".repeat(127).into_bytes()];
    let nodes = names.iter().map(|name| node(name, 0o600, Content::File(extents()))).collect();
    let s = snapshot(&repo, nodes);
    memory.remove(background(), &Name::Pack(refs[1].pack.id)).unwrap();
    for overwrite in [Overwrite::Never, Overwrite::IfChanged] {
        let (_keep, out) = target();
        for _ in 0..2 {
            let (summary, seen) = run(&repo, &s, &out, &Options { overwrite, ..Options::default() });
            assert_eq!((summary.damaged, summary.files, seen.skipped().len()), (2, 0, 2));
        }
        let rest = [parts[0].as_slice(), &[0; 1 << 20], &parts[2]].concat();
        let left: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        for path in left {
            let name = path.file_name().unwrap().as_bytes();
            assert!(name.ends_with(b".nfreezer-partial") && name.len() <= 255, "{path:?}");
            assert!(fs::read(&path).unwrap() == rest, "{path:?}");
        }
    }
}

#[test]
fn t16_a_chunk_that_is_not_what_its_id_says_is_never_written() {
    let Repo { repo, .. } = repo();
    let (mut wrong, other) = (data(&repo, b"what is there"), data(&repo, b"what is meant"));
    wrong.id = other.id;
    let s = snapshot(&repo, vec![node("f", 0o644, Content::File(vec![Extent::Data(wrong)]))]);
    let (_keep, out) = target();
    assert_eq!((plain(&repo, &s, &out).0.damaged, out.join("f").exists()), (1, false));
}

#[test]
fn t62_a_size_that_its_parts_do_not_have_is_damage() {
    let Repo { repo, .. } = repo();
    let list =
        chunks(&repo, ChunkKind::List, &[&List::Leaf(vec![Extent::Data(data(&repo, b"abc"))]).encode(&PackRef::SELF)]);
    for size in [1, 4, 1 << 62] {
        let s = snapshot(&repo, vec![node("f", 0o644, Content::Large { size, list: list[0] })]);
        let (_keep, out) = target();
        assert_eq!((plain(&repo, &s, &out).0.damaged, out.join("f").exists()), (1, false));
    }
}

#[test]
fn an_interrupted_restore_leaves_no_torso_and_the_next_one_completes() {
    struct StopAfter(Arc<AtomicI32>, AtomicI32);
    impl Progress for StopAfter {
        fn event(&self, event: Event<'_>) {
            if matches!(event, Event::Done { .. }) && self.1.fetch_sub(1, Ordering::SeqCst) == 1 {
                self.0.store(15, Ordering::SeqCst);
            }
        }
    }
    let Repo { repo, .. } = repo();
    let contents: Vec<_> = (0..40).map(|i| noise(i, 100_000)).collect();
    let refs = chunks(&repo, ChunkKind::Data, &contents.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let named = |i: usize| format!("f{i:02}");
    let nodes = (0..40)
        .map(|i| node(named(i), 0o644, Content::File(vec![Extent::Data(refs[i]), Extent::Data(refs[(i + 1) % 40])])));
    let s = snapshot(&repo, vec![node("d", 0o555, directory(&repo, nodes.collect()))]);
    let whole = |i: usize| [contents[i].as_slice(), &contents[(i + 1) % 40]].concat();
    for after in [1, 2, 17, 60] {
        let (keep, out) = target();
        let options = Options::default();
        let progress = StopAfter(Arc::default(), AtomicI32::new(after));
        let e = restore(&Context::new(&progress, Arc::clone(&progress.0)), &repo, &s, b"", &out, &options).unwrap_err();
        assert_eq!(e.kind(), Kind::Interrupted(15));
        assert_no_torso(&out);
        for i in 0..40 {
            if let Ok(there) = fs::read(out.join("d").join(named(i))) {
                assert!(there == whole(i), "a torso under its final name");
            }
        }
        let (summary, _) = plain(&repo, &s, &out);
        assert_eq!(summary.files + summary.existing, 40);
        assert!((0..40).all(|i| fs::read(out.join("d").join(named(i))).unwrap() == whole(i)));
        assert_eq!(fs::metadata(out.join("d")).unwrap().mode() & 0o777, 0o555);
        fs::set_permissions(out.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
        drop(keep);
    }
}

#[test]
fn a_chunk_whose_pack_was_dropped_is_found_by_the_index() {
    let Repo { repo, memory } = repo();
    let (old, new) = (data(&repo, b"moved"), data(&repo, b"moved"));
    let entry =
        |r: &Ref| pack::Entry { id: r.id, kind: ChunkKind::Data, offset: r.offset, stored: r.stored, len: r.len };
    let (bytes, fences) = index::encode(&[(0, entry(&new))]);
    let packs = index::encode_packs(&[(new.pack, ObjectType::Data)]);
    let sections = [
        NewSection { kind: SectionKind::Packs, bytes: packs, fences: Vec::new() },
        NewSection { kind: SectionKind::Index { packs: 0 }, bytes, fences },
    ];
    let head = Head { dropped: vec![old.pack.id], ..Head::default() };
    repo.commit(background(), &mut repo.state(background()).unwrap(), head, &sections).unwrap();
    memory.remove(background(), &Name::Pack(old.pack.id)).unwrap();
    let nodes = ["a", "b"].map(|name| node(name, 0o644, Content::File(vec![Extent::Data(old)])));
    let s = snapshot(&repo, nodes.to_vec());
    let (_keep, out) = target();
    assert_eq!(plain(&repo, &s, &out).0.files, 2);
    assert_eq!(fs::read(out.join("b")).unwrap(), b"moved");
}

#[test]
fn what_a_killed_restore_has_left_is_named_and_stays() {
    let Repo { repo, .. } = repo();
    let below = directory(&repo, vec![file(&repo, "x", b"x")]);
    let s = snapshot(&repo, vec![file(&repo, "a", b"a"), node("d", 0o755, below)]);
    let (_keep, out) = target();
    fs::create_dir_all(out.join("d")).unwrap();
    let torsos = [".nfreezer-partial-0123456789abcdef", "d/.nfreezer-partial-00000000000000ff"].map(|t| out.join(t));
    torsos.iter().for_each(|torso| fs::write(torso, "torso").unwrap());
    let seen = Seen::default();
    restore(&background().with_progress(&seen), &repo, &s, b"/", &out, &Options::default()).unwrap();
    let warnings = seen.warnings.lock().unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().all(|text| text.contains("1 file(s) .nfreezer-partial-*")), "{warnings:?}");
    assert!(torsos.iter().all(|torso| torso.exists()), "another restore may be at them");
}

#[test]
fn a_saved_file_with_the_name_of_a_torso_is_none() {
    let Repo { repo, .. } = repo();
    let own = file(&repo, ".nfreezer-partial-0123456789abcdef", b"x");
    let s = snapshot(&repo, vec![own.clone(), node("d", 0o755, directory(&repo, vec![own]))]);
    let (_keep, out) = target();
    let warnings = || {
        let seen = Seen::default();
        restore(&background().with_progress(&seen), &repo, &s, b"/", &out, &Options::default()).unwrap();
        seen.warnings.into_inner().unwrap()
    };
    assert_eq!([warnings(), warnings()], [Vec::<String>::new(), Vec::new()]);
    fs::write(out.join("d/.nfreezer-partial-00000000000000ff"), "y").unwrap();
    let text = format!("1 file(s) .nfreezer-partial-* in {}/d are what a killed restore has left", out.display());
    assert!(matches!(&warnings()[..], [warning] if warning.starts_with(&text)));
}
