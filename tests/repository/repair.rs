//! `repair` keeps all readable data, reports the losses, and removes nothing without consent.

use std::fs;

use crate::harness::cli::Env;
use crate::harness::faults::torn;
use crate::harness::saved::Saved;
use crate::harness::tree::{noise, write};
use nfreezer::check::{Consent, Lost, Options, Part};
use nfreezer::context::background;
use nfreezer::error::Kind;
use nfreezer::format::node::{CHANGED, Content, PARTIAL};
use nfreezer::format::record::Snapshot;
use nfreezer::name::Name;
use nfreezer::storage::{Memory, Storage};
use nfreezer::trees::{LOST, Trees};

fn reading() -> Options {
    Options { read: Some(Part::All), ..Options::default() }
}

/// Makes a snapshot that has lost a pack of contents. The file is no longer on the disk, and the other folder is whole.
fn lost<S: Storage + 'static>(saved: &Saved<S>) -> Snapshot {
    saved.write("a/gone", 1, 17 << 20);
    saved.write("a/small", 2, 100);
    saved.write("b/good", 3, 100);
    let snapshot = saved.push().snapshot;
    let chunks = saved.chunks(&snapshot, "a/gone");
    let small = saved.chunk_of(&snapshot, "a/small");
    let full = chunks.iter().find(|r| r.pack != small.pack && r.pack != saved.chunk_of(&snapshot, "b/good").pack);
    saved.remove(full.unwrap());
    fs::remove_file(saved.top().join("a/gone")).unwrap();
    snapshot
}

fn node(saved: &Saved, snapshot: &Snapshot, name: &str) -> nfreezer::format::node::Node {
    Trees::new(&saved.repo).at(background(), snapshot, saved.top().join(name).display().to_string().as_bytes()).unwrap()
}

#[test]
fn without_consent_packs_are_marked_and_nothing_else_changes() {
    let saved = Saved::new();
    let snapshot = lost(&saved);
    let before = saved.records();
    let dry = saved.try_repair(&Options::default(), Consent { yes: true, dry_run: true }).unwrap().0;
    assert_eq!((dry.condemned.len(), dry.replaced.as_slice(), dry.record), (1, &[(snapshot.id, None)][..], None));
    assert_eq!(saved.records(), before, "a dry run writes nothing");
    let (repaired, told) = saved.repair(&Options::default(), false);
    assert_eq!((repaired.condemned.len(), repaired.replaced.as_slice()), (1, &[(snapshot.id, None)][..]));
    assert_eq!(told.hit(&snapshot, &saved.top()), [("a/gone".into(), Lost::Contents)]);
    let state = saved.repo.state(background()).unwrap();
    assert_eq!((state.snapshots(), state.forgotten()), (vec![snapshot.clone()], vec![]));
    assert!(state.condemned_packs().contains(&repaired.condemned[0]));
    // Now the packs are known to be lost, but the loss of the file is not.
    let (report, told) = saved.check(&Options::default());
    assert_eq!((report.damaged_packs, report.paths, told.objects.len()), (0, 1, 0));
    assert!(report.is_damaged());
    let records = saved.records();
    assert_eq!(saved.repair(&Options::default(), false).0.record, None);
    assert_eq!(saved.records(), records, "there is nothing to say twice");
}

#[test]
fn with_consent_a_snapshot_is_replaced_by_one_whose_losses_are_known() {
    let saved = Saved::new();
    let snapshot = lost(&saved);
    let (repaired, _) = saved.repair(&Options::default(), true);
    let [(old, Some(new))] = repaired.replaced[..] else { panic!("{repaired:?}") };
    assert_eq!(old, snapshot.id);
    let state = saved.repo.state(background()).unwrap();
    let [shown] = &state.snapshots()[..] else { panic!() };
    assert_eq!((shown.id, shown.time, &shown.paths), (new, snapshot.time, &snapshot.paths));
    assert_eq!(state.forgotten(), [snapshot], "forgotten, not removed");
    assert!(shown.extra.iter().any(|(key, value)| *key == 2 && value.as_slice() == old.0), "{:?}", shown.extra);
    // The file keeps its remaining contents, and no push takes it for whole.
    let gone = node(&saved, shown, "a/gone");
    assert_eq!((gone.flags, gone.ctime, gone.content.size()), (PARTIAL | CHANGED, 0, 17 << 20));
    let (report, told) = saved.check(&reading());
    assert!(!report.is_damaged() && told.paths.is_empty(), "{report:?} {told:?}");
    assert_eq!(report.known, 1);
    let (_keep, target, summary) = saved.restore(shown);
    assert_eq!((summary.damaged, summary.files), (1, 2));
    assert_eq!(fs::read(target.join("b/good")).unwrap(), noise(3, 100));
    assert_eq!(fs::read(target.join("a/small")).unwrap(), noise(2, 100));
    assert!(!target.join("a/gone").exists());
    let rest = fs::read(target.join("a/gone.nfreezer-partial")).unwrap();
    let whole = noise(1, 17 << 20);
    let same = rest.iter().zip(&whole).filter(|(a, b)| a == b).count();
    assert_eq!(rest.len(), whole.len());
    assert!(same > 0 && same < whole.len(), "what is left is there: {same}");
    assert!(rest.iter().zip(&whole).all(|(a, b)| a == b || *a == 0), "and zeros for the rest");
    assert_eq!(saved.repair(&reading(), true).0.record, None, "nothing more is to be done");
}

#[test]
fn a_lost_page_loses_its_entries_and_no_others() {
    let saved = Saved::new();
    let name = |i: u64| format!("big/{:04}{}", i, nfreezer::name::hex(&noise(i, 100)));
    for i in 0..2500 {
        write(saved.top().join(name(i)), b"x");
    }
    saved.write("other/file", 1, 10);
    let snapshot = saved.push().snapshot;
    let names = |s: &Snapshot| -> Vec<Vec<u8>> {
        let Content::Directory(page) = node(&saved, s, "big").content else { panic!() };
        Trees::new(&saved.repo).entries(background(), page.as_ref()).map(|node| node.unwrap().name).collect()
    };
    assert_eq!(names(&snapshot).len(), 2500);
    // The damaged page is not the top one and lies in a different block.
    use nfreezer::format::page::Page;
    let Page::Upper(rows) = saved.repo.page(background(), &saved.chunk_of(&snapshot, "big")).unwrap() else {
        panic!("one page")
    };
    let blocks = |r: &nfreezer::format::reference::Ref| r.offset / 65536..=(r.offset + r.stored - 1) / 65536;
    let top = saved.chunk_of(&snapshot, "big");
    let victim = &rows[0];
    assert!(!blocks(&victim.page).contains(&blocks(&top).start().to_owned()), "the test needs larger pages");
    saved.flip(&victim.page);
    let lost: Vec<_> = rows.iter().filter(|row| blocks(&row.page).contains(blocks(&victim.page).start())).collect();
    assert!(lost.len() < rows.len());
    let entries: u64 = lost.iter().map(|row| row.count).sum();
    let (report, told) = saved.check(&Options::default());
    let told = told.hit(&snapshot, &saved.top());
    assert_eq!(told, lost.iter().map(|row| ("big".to_owned(), Lost::Entries(row.count))).collect::<Vec<_>>());
    assert_eq!(report.paths, lost.len() as u64);
    let (repaired, _) = saved.repair(&reading(), true);
    assert!(repaired.record.is_some());
    let [shown] = &saved.repo.state(background()).unwrap().snapshots()[..] else { panic!() };
    let left = names(shown);
    assert_eq!(left.len() as u64, 2500 - entries + lost.len() as u64, "one stands in for each lost page");
    assert!(left.contains(&victim.first));
    let stand_in = node(&saved, shown, &format!("big/{}", String::from_utf8(victim.first.clone()).unwrap()));
    assert_eq!(stand_in.content, Content::Unreadable(LOST));
    let (report, told) = saved.check(&reading());
    assert!(!report.is_damaged(), "{report:?} {told:?}");
    // The other files are where they were, and the next push makes the snapshot whole again.
    saved.assert_restores(&saved.push().snapshot);
}

#[test]
fn a_lost_folder_stays_with_its_name() {
    let saved = Saved::new();
    saved.write("a/x", 1, 100);
    saved.write("b/y", 2, 100);
    let first = saved.push().snapshot;
    saved.write("b/z", 3, 100);
    let second = saved.push().snapshot;
    saved.remove(&saved.chunk_of(&first, "a"));
    let (repaired, _) = saved.repair(&Options::default(), true);
    // The first snapshot has lost its root.
    assert_eq!(repaired.replaced.len(), 2);
    assert_eq!(repaired.replaced.iter().find(|(old, _)| *old == first.id), Some(&(first.id, None)));
    let [shown] = &saved.repo.state(background()).unwrap().snapshots()[..] else { panic!() };
    assert_eq!(shown.time, second.time);
    assert_eq!(node(&saved, shown, "a").content, Content::Unreadable(LOST));
    let (report, told) = saved.check(&reading());
    assert!(!report.is_damaged() && report.known > 0, "{report:?} {told:?}");
    saved.assert_restores(&saved.push().snapshot);
}

#[test]
fn lost_records_are_given_up_only_when_told_to() {
    let saved = Saved::new();
    for i in 0..3 {
        saved.write("f", i, 100);
        saved.push();
    }
    let records = saved.records();
    saved.memory.remove(background(), &records[1]).unwrap();
    assert_eq!(saved.repair(&Options::default(), false).0.record, None);
    assert!(saved.check(&Options::default()).0.is_rolled_back());
    let (repaired, _) = saved.repair(&Options::default(), true);
    assert_eq!(repaired.given_up.len(), 1);
    let state = saved.repo.state(background()).unwrap();
    assert!(state.warnings().is_empty(), "{:?}", state.warnings());
    let (report, _) = saved.check(&reading());
    assert!(!report.is_rolled_back() && !report.is_damaged() && report.snapshots == 2, "{report:?}");
    // Merges do not bring the warnings back.
    for i in 0..20 {
        saved.write("f", 100 + i, 100);
        saved.push();
    }
    assert!(saved.repo.state(background()).unwrap().warnings().is_empty());
}

#[test]
fn a_damaged_index_is_made_anew() {
    let saved = Saved::new();
    for i in 0..3000 {
        saved.write(&format!("{}/{i}", i % 30), i, 40);
    }
    let first = saved.push().snapshot;
    saved.write("more", 5000, 100);
    let second = saved.push().snapshot;
    let record = saved.records()[0];
    let len = saved.memory.get(&record).unwrap().len();
    saved.flip_at(&record, len - 30_000);
    let (repaired, _) = saved.repair(&reading(), false);
    assert!(repaired.reindexed && repaired.condemned.is_empty() && repaired.replaced.is_empty(), "{repaired:?}");
    let (report, told) = saved.check(&reading());
    assert!(!report.is_damaged() && !report.is_rolled_back(), "{report:?} {told:?}");
    assert!(report.entries >= 3000, "all chunks are in it again: {report:?}");
    let state = saved.repo.state(background()).unwrap();
    assert_eq!(state.snapshots(), [first, second]);
    assert!(state.warnings().is_empty());
    // The chunks in the damaged part are known again: after a rename a push sends only pages.
    fs::rename(saved.top().join("0"), saved.top().join("moved")).unwrap();
    let options = nfreezer::push::Options { force: true, ..saved.options() };
    let summary = nfreezer::push::push(background(), &saved.repo, &options).unwrap();
    assert!(summary.added < 60_000, "{summary:?}");
    assert_eq!(saved.repair(&reading(), true).0.record, None);
}

#[test]
fn when_most_is_missing_nobody_decides_that_alone() {
    let saved = Saved::new();
    for i in 0..20 {
        saved.write(&format!("f{i}"), i, 900);
        saved.push();
    }
    for (id, _) in saved.packs().into_iter().skip(8) {
        saved.memory.remove(background(), &Name::Pack(id)).unwrap();
    }
    let records = saved.records();
    let e = saved.try_repair(&Options::default(), Consent::default()).unwrap_err();
    assert!(e.to_string().contains("most packs are missing") && e.hint_text().unwrap().contains("mounted"), "{e}");
    let e = saved.try_push().unwrap_err();
    assert_eq!(e.kind(), Kind::Missing, "{e}");
    assert_eq!(saved.records(), records, "nothing was written");
    saved.repair(&Options::default(), true);
    saved.assert_restores(&saved.push().snapshot);
}

/// Returns the snapshots that are shown, and the number of condemned packs.
fn shown<S: Storage + 'static>(saved: &Saved<S>) -> (Vec<Snapshot>, usize) {
    let state = saved.repo.state(background()).unwrap();
    (state.snapshots(), state.condemned_packs().len())
}

#[test]
fn a_repair_that_is_killed_while_it_sends_any_object_has_done_nothing() {
    for n in 0.. {
        let saved = Saved::on(torn(Memory::default()));
        lost(&saved);
        let before = shown(&saved);
        saved.memory.arm(n);
        let hit = saved.try_repair(&Options::default(), Consent { yes: true, dry_run: false });
        saved.memory.disarm();
        let Err(e) = hit else {
            assert_eq!(n, 2, "a pack of pages and one record");
            return;
        };
        assert_eq!(e.kind(), Kind::Connection, "{e}");
        assert_eq!(shown(&saved), before, "half a repair");
        assert_eq!(saved.repair(&Options::default(), true).0.replaced.len(), 1);
        assert!(!saved.check(&Options::default()).0.is_damaged());
    }
}

#[test]
fn the_binary_repairs() {
    let env = Env::new();
    let file = env.write("src/gone", noise(1, 300_000));
    env.write("src/kept", b"kept");
    env.nfreezer(["init", "-r", "repo"]).done();
    env.nfreezer(["push", "-r", "repo", "src"]).done();
    assert!(env.nfreezer(["repair", "-r", "repo"]).success().stdout.contains("nothing is to be repaired"));
    let folders = fs::read_dir(env.path("repo/packs")).unwrap().flat_map(|f| fs::read_dir(f.unwrap().path()).unwrap());
    let largest = folders.map(|f| f.unwrap().path()).max_by_key(|f| f.metadata().unwrap().len()).unwrap();
    fs::remove_file(largest).unwrap();
    fs::remove_file(file).unwrap();
    let dry = env.nfreezer(["repair", "-r", "repo", "--dry-run", "--yes"]).success();
    assert!(dry.stdout.contains("would be replaced") && dry.stdout.contains("nothing was written"), "{dry:?}");
    let marked = env.nfreezer(["repair", "-r", "repo"]).success();
    assert!(marked.stdout.contains("was left unchanged") && marked.stdout.contains("push now"), "{marked:?}");
    env.nfreezer(["check", "-r", "repo"]).fails(4);
    env.nfreezer(["push", "-r", "repo", "src"]).done();
    let json = env.nfreezer(["--json", "repair", "-r", "repo", "--yes"]).success();
    let objects = json.objects();
    let summary = objects.last().unwrap();
    assert_eq!(summary["replaced"][0]["forgotten"], true, "{summary}");
    let fine = env.nfreezer(["check", "-r", "repo", "--read-data"]).success();
    assert!(fine.stdout.contains("no damage was found"), "{fine:?}");
    let listed = env.nfreezer(["ls", "-r", "repo", "-lR", "latest~1"]).success();
    assert!(listed.stdout.contains("gone (parts of it are lost)"), "{listed:?}");
}

/// Removes all empty folders below `folder`.
fn remove_empty(folder: &std::path::Path) -> usize {
    let mut removed = 0;
    for item in fs::read_dir(folder).unwrap().flatten().filter(|item| item.path().is_dir()) {
        removed += remove_empty(&item.path());
        removed += usize::from(fs::remove_dir(item.path()).is_ok());
    }
    removed
}

#[test]
fn a_copy_without_its_empty_folders_is_whole() {
    let env = Env::with_repository();
    env.write("src/file", "contents");
    env.nfreezer(["push", "src"]).done();
    assert!(remove_empty(&env.path("repo")) > 8, "most folders of packs are empty");
    for command in [&["check"][..], &["repair"], &["key", "list"], &["push", "src"], &["ls", "latest"]] {
        remove_empty(&env.path("repo"));
        env.nfreezer(command).done();
    }
    // New packs go to missing folders.
    for round in 0..4 {
        remove_empty(&env.path("repo"));
        env.write(&format!("src/{round}"), noise(round, 1000));
        env.nfreezer(["push", "src"]).done();
    }
    let check = env.nfreezer(["check", "--read-data"]).success();
    assert!(!check.stderr.contains("missing"), "{}", check.stderr);
    // Without any key file no passphrase opens the repository.
    fs::rename(env.path("repo/keys"), env.path("keys")).unwrap();
    let refused = env.nfreezer(["push", "src"]).exits(4);
    assert!(refused.stderr.contains("has lost its key files") && refused.stderr.contains("--key-file"), "{refused:?}");
    // Packs that are gone with their folders are lost packs.
    fs::rename(env.path("keys"), env.path("repo/keys")).unwrap();
    fs::remove_dir_all(env.path("repo/packs")).unwrap();
    let refused = env.nfreezer(["push", "src"]).exits(4);
    assert!(refused.stderr.contains("packs are missing on the server"), "{}", refused.stderr);
}
