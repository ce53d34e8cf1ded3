//! Forgotten snapshots: hidden, readable by their ids, and shown again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use nfreezer::context::background;
use nfreezer::error::Kind;
use nfreezer::forget::{self, GroupBy, Plan, Policy};
use nfreezer::format::record::{Action, Head, Snapshot, SnapshotId};
use nfreezer::name::Name;
use nfreezer::repo::{Access, Clock, Repository};
use nfreezer::seen::SeenStore;
use nfreezer::storage::Storage;
use nfreezer::time::Time;

use crate::harness::cli::Env;
use crate::harness::saved::Saved;

fn forget_one(saved: &Saved, snapshot: &Snapshot) {
    let mut state = saved.repo.state(background()).unwrap();
    saved.repo.commit_marks(background(), &mut state, [(snapshot.id, Action::Forget)]).unwrap();
}

#[test]
fn a_forgotten_snapshot_is_read_by_its_id_only_and_shown_again_by_undelete() {
    let saved = Saved::new();
    saved.write("file", 1, 1000);
    let snapshot = saved.push().snapshot;
    forget_one(&saved, &snapshot);
    let mut state = saved.repo.state(background()).unwrap();
    assert_eq!((state.snapshots(), state.forgotten()), (vec![], vec![snapshot.clone()]));
    let id = snapshot.id.short();
    assert_eq!(state.select("latest").unwrap_err().kind(), Kind::Failed);
    assert_eq!(state.select(&id).unwrap_err().kind(), Kind::Failed, "no push takes it for a parent");
    assert_eq!(state.select_to_read("latest", |_| true).unwrap_err().kind(), Kind::Failed);
    assert_eq!(state.select_to_read(&id, |_| true).unwrap(), snapshot);
    saved.assert_restores(&snapshot);
    let records = saved.records().len();
    forget::undelete(background(), &saved.repo, &mut state, std::slice::from_ref(&snapshot)).unwrap();
    assert_eq!(saved.records().len(), records + 1);
    assert_eq!(saved.repo.state(background()).unwrap().select("latest").unwrap(), snapshot);
    assert!(state.select_forgotten(&id).unwrap_err().to_string().contains("is not forgotten"));
}

#[test]
fn a_snapshot_whose_data_is_gone_is_not_shown_again() {
    let saved = Saved::new();
    saved.write("file", 1, 1000);
    let snapshot = saved.push().snapshot;
    forget_one(&saved, &snapshot);
    saved.memory.remove(background(), &Name::Pack(snapshot.root.unwrap().pack.id)).unwrap();
    saved.repo.forget_blocks();
    let mut state = saved.repo.state(background()).unwrap();
    let records = saved.records();
    let refused = forget::undelete(background(), &saved.repo, &mut state, std::slice::from_ref(&snapshot)).unwrap_err();
    assert!(refused.kind().is_damage() && refused.to_string().contains("its data is gone"), "{refused}");
    assert_eq!(saved.records(), records);
}

fn packs(repo: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(repo.join("packs")).unwrap().flat_map(|f| fs::read_dir(f.unwrap().path()).unwrap());
    let mut packs: Vec<PathBuf> = folders.map(|f| f.unwrap().path()).collect();
    packs.sort_by_key(|pack| pack.metadata().unwrap().len());
    packs
}

/// A server that hides a pack during `repair --yes` must not remove a snapshot for good.
#[test]
fn what_repair_forgets_is_shown_again_by_the_command_that_it_prints() {
    let env = Env::with_repository();
    env.write("src/file", "x".repeat(100_000));
    env.nfreezer(["push", "src"]).done();
    for pack in packs(&env.path("repo")) {
        fs::rename(&pack, env.path(pack.file_name().unwrap())).unwrap();
    }
    let repaired = env.nfreezer(["repair", "--yes"]).success();
    let undo = repaired.stdout.lines().find_map(|line| line.split_once("to undo this: `nfreezer ")).unwrap().1;
    assert!(env.nfreezer(["snapshots"]).success().stdout.contains("0 snapshots"));
    let undo: Vec<&str> = undo.trim_end_matches('`').split(' ').collect();
    env.nfreezer(&undo).fails(4);
    for entry in fs::read_dir(env.path("")).unwrap().map(Result::unwrap).filter(|e| e.file_name().len() == 64) {
        let name = entry.file_name().into_string().unwrap();
        fs::rename(entry.path(), env.path(format!("repo/packs/{}/{name}", &name[..1]))).unwrap();
    }
    let forgotten = env.nfreezer(["snapshots", "--forgotten"]).success();
    assert!(forgotten.stdout.contains("Undelete until") && forgotten.stdout.contains(undo[1]), "{forgotten:?}");
    let listed = env.nfreezer(["ls", "-R", undo[1]]).success();
    assert!(listed.stdout.contains("src/file"), "{listed:?}");
    env.nfreezer(["restore", undo[1], "--target", "out"]).done();
    let shown = env.nfreezer(&undo).success();
    assert!(shown.stdout.contains("is shown again"), "{shown:?}");
    assert!(env.nfreezer(["snapshots"]).success().stdout.contains("1 snapshot;"));
    assert!(env.nfreezer(["snapshots", "--forgotten"]).success().stdout.contains("0 snapshots forgotten"));
    env.nfreezer(["check", "--read-data"]).done();
    let again = env.nfreezer(&undo).exits(1);
    assert!(again.stderr.contains("is not forgotten"), "{again:?}");
}

#[test]
fn forgotten_snapshots_are_listed_with_the_time_until_which_they_are_kept() {
    let env = Env::with_repository();
    env.write("src/file", b"x");
    env.nfreezer(["push", "src"]).done();
    for pack in packs(&env.path("repo")) {
        fs::remove_file(pack).unwrap();
    }
    env.nfreezer(["repair", "--yes"]).done();
    let listed = env.nfreezer(["--json", "snapshots", "--forgotten"]).success().objects();
    let time = |key: &str| listed[0][key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let kept = time("undelete_until").as_second() - time("forgotten").as_second();
    assert_eq!((listed.len(), kept), (2, 14 * 24 * 3600));
    assert!(jiff::Timestamp::now().as_second() - time("forgotten").as_second() < 600);
}

/// A wall clock that the test sets.
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn wall(&self) -> Time {
        Time::from_seconds(self.0.load(SeqCst))
    }

    fn boot(&self) -> Duration {
        Duration::from_secs(self.0.load(SeqCst).unsigned_abs())
    }
}

const DAY: i64 = 24 * 3600;
/// 2026-06-30 12:00 UTC.
const NOW: i64 = 1_782_820_800;

/// Returns a client with a memory, and its clock, which shows `NOW`.
fn client(saved: &Saved, folder: &tempfile::TempDir) -> (Repository, Arc<SetClock>) {
    let clock = Arc::new(SetClock(AtomicI64::new(NOW)));
    let access = Access { seen: Some(SeenStore::at(folder.path())), ..Access::default() };
    let repo = saved.repo.behind_with(Arc::clone(&saved.memory) as _, &access).with_clock(Arc::clone(&clock) as _);
    (repo, clock)
}

fn add(repo: &Repository, id: u8, seconds: i64) {
    let time = Time::from_seconds(seconds);
    let snapshot = Snapshot { id: SnapshotId([id; 16]), host: "host".into(), time, ..Snapshot::default() };
    let head = Head { snapshots: vec![snapshot], ..Head::default() };
    repo.commit(background(), &mut repo.state(background()).unwrap(), head, &[]).unwrap();
}

/// Returns the ids that a policy keeps.
fn kept(repo: &Repository, policy: &Policy) -> Vec<u8> {
    let state = repo.state(background()).unwrap();
    let candidates = forget::candidates(repo, &state, state.snapshots()).unwrap();
    let plan = Plan::by_policy(policy, candidates, GroupBy::default(), &jiff::tz::TimeZone::UTC);
    let all = plan.groups.into_iter().flat_map(|group| group.snapshots);
    all.filter(|judged| !judged.reasons.is_empty()).map(|judged| judged.candidate.snapshot.id.0[0]).collect()
}

/// A thief with the passphrase writes snapshots with chosen dates and in any number. The older snapshots stay.
#[test]
fn dates_in_records_and_a_flood_push_no_old_snapshots_out() {
    let (saved, folder) = (Saved::new(), tempfile::tempdir().unwrap());
    let (repo, clock) = client(&saved, &folder);
    (0..10).for_each(|i| add(&saved.repo, i, NOW - DAY * (10 - i64::from(i))));
    let daily = Policy { counts: [0, 0, 5, 0, 0, 0], ..Policy::default() };
    let last = Policy { counts: [5, 0, 0, 0, 0, 0], ..Policy::default() };
    assert_eq!(kept(&repo, &daily), [5, 6, 7, 8, 9], "own dates count on the first look");
    // Before the next look, a day later, snapshots appear that are dated 10 to 59 days after the first look.
    clock.0.store(NOW + DAY, SeqCst);
    (100..150).for_each(|i| add(&saved.repo, i, NOW + DAY * i64::from(i - 90)));
    let old = |kept: Vec<u8>| kept.into_iter().filter(|id| *id < 100).collect::<Vec<_>>();
    assert_eq!(old(kept(&repo, &daily)), [6, 7, 8, 9], "the new ones are of one day");
    assert!(old(kept(&repo, &last)).len() >= 4, "{:?}", kept(&repo, &last));
    // Dates before the last look do not fill older days either.
    (150..200).for_each(|i| add(&saved.repo, i, NOW - DAY * i64::from(i - 148)));
    clock.0.store(NOW + 2 * DAY, SeqCst);
    assert_eq!(old(kept(&repo, &daily)), [6, 7, 8, 9]);
}

#[test]
fn forget_shows_a_plan_asks_for_yes_and_can_be_undone() {
    let env = Env::with_repository();
    for (day, tag) in [(1, "a"), (2, "a"), (3, "keep"), (4, "a"), (5, "a")] {
        env.write("src/file", format!("{day}"));
        let time = format!("2026-06-0{day} 10:00:00");
        env.nfreezer(["push", "src", "--time", &time, "--tag", tag, "--host", "atlas"]).done();
    }
    let none = env.nfreezer(["forget"]).exits(2);
    assert!(none.stderr.contains("neither snapshots nor a policy"), "{none:?}");
    let dry = env.nfreezer(["forget", "-n", "--keep-last", "2", "--keep-tag", "keep"]).success();
    assert!(dry.stdout.contains("3 kept, 2 forgotten") && dry.stdout.contains("  2026-06 Mon 01 10:00  "), "{dry:?}");
    assert!(dry.stdout.contains("keep    tag") && dry.stdout.contains("dry run: 2 snapshots would be"), "{dry:?}");
    assert!(env.nfreezer(["snapshots"]).success().stdout.contains("5 snapshots"));
    let much = env.nfreezer(["forget", "--keep-last", "1"]).exits(1);
    assert!(much.stderr.contains("more than half") && much.stderr.contains("--yes"), "{much:?}");
    let json = env.nfreezer(["--json", "forget", "--keep-last", "2", "--keep-tag", "keep"]).success().objects();
    assert_eq!(json.iter().filter(|o| o["keep"] == true).count(), 3);
    let summary = json.last().unwrap();
    let ids: Vec<&str> = summary["forgotten"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(ids.len(), 2);
    assert!(env.nfreezer(["snapshots"]).success().stdout.contains("3 snapshots"));
    env.nfreezer(["undelete", ids[0], ids[1]]).done();
    let by_id = env.nfreezer(["forget", ids[0]]).success();
    assert!(by_id.stdout.contains("1 snapshot forgotten"), "{by_id:?}");
    let left = env.nfreezer(["forget", "--keep-tag", "no-such-tag"]).exits(1);
    assert!(left.stderr.contains("no snapshot of host atlas"), "{left:?}");
    env.nfreezer(["forget", "--keep-tag", "no-such-tag", "--yes"]).done();
    assert!(env.nfreezer(["snapshots"]).success().stdout.contains("0 snapshots"));
}

#[test]
fn tags_are_added_removed_and_set_and_a_pin_keeps_a_snapshot() {
    let env = Env::with_repository();
    for day in 1..=3 {
        env.write("src/file", format!("{day}"));
        env.nfreezer(["push", "src", "--time", &format!("2026-06-0{day} 10:00:00"), "--host", "atlas"]).done();
    }
    let list = |env: &Env| env.nfreezer(["--json", "snapshots"]).success().objects();
    let id = |n: usize| list(&env)[n]["short_id"].as_str().unwrap().to_owned();
    let tags = |n: usize| {
        list(&env)[n]["tags"].as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    env.nfreezer(["tag", "--add", "b,a", "latest"]).done();
    assert_eq!(tags(2), ["a", "b"]);
    env.nfreezer(["tag", "add", "c", &id(0), &id(1)]).done();
    env.nfreezer(["tag", "--remove", "a", "--add", "d", &id(2)]).done();
    assert_eq!((tags(0), tags(2)), (vec!["c".to_owned()], vec!["b".to_owned(), "d".to_owned()]));
    env.nfreezer(["tag", "--pin", &id(0)]).done();
    env.nfreezer(["tag", "--set", "x", "--host", "atlas"]).done();
    assert_eq!((tags(0), tags(1)), (vec!["pinned".to_owned(), "x".to_owned()], vec!["x".to_owned()]));
    let records = fs::read_dir(env.path("repo/log")).unwrap().count();
    let same = env.nfreezer(["tag", "--add", "x", &id(1)]).success();
    assert!(same.stdout.contains("nothing was changed"), "{same:?}");
    assert_eq!(fs::read_dir(env.path("repo/log")).unwrap().count(), records);
    let pinned = env.nfreezer(["forget", &id(0)]).exits(1);
    assert!(pinned.stderr.contains("is pinned") && pinned.stderr.contains("tag --unpin"), "{pinned:?}");
    let planned = env.nfreezer(["forget", "--keep-last", "1"]).success();
    assert!(planned.stdout.contains("keep    pinned") && planned.stdout.contains("1 forgotten"), "{planned:?}");
    env.nfreezer(["tag", "unpin", &id(0)]).done();
    env.nfreezer(["forget", &id(0)]).done();
    env.nfreezer(["tag", "latest"]).fails(2);
    env.nfreezer(["tag", "--add", "", "latest"]).fails(2);
}

#[test]
fn a_snapshot_of_which_a_pack_was_dropped_is_not_shown_again_although_the_pack_is_still_there() {
    let saved = Saved::new();
    saved.write("file", 1, 1000);
    let snapshot = saved.push().snapshot;
    forget_one(&saved, &snapshot);
    let mut state = saved.repo.state(background()).unwrap();
    let pack = saved.chunk_of(&snapshot, "file").pack.id;
    saved.repo.commit(background(), &mut state, Head { dropped: vec![pack], ..Head::default() }, &[]).unwrap();
    let refused = forget::undelete(background(), &saved.repo, &mut state, std::slice::from_ref(&snapshot)).unwrap_err();
    assert!(refused.kind().is_damage() && refused.to_string().contains("its data is gone"), "{refused}");
    assert!(saved.repo.state(background()).unwrap().snapshots().is_empty());
}

#[test]
fn forget_can_prune_and_says_what_both_did() {
    let env = Env::with_repository();
    for text in ["one", "two", "three"] {
        env.write("s/file", text);
        env.nfreezer(["push", "s"]).done();
    }
    let dry = env.nfreezer(["forget", "-n", "--keep-last", "2", "--prune"]).success();
    assert!(dry.stdout.contains("1 snapshot would be forgotten") && dry.stdout.contains("total "), "{dry:?}");
    let both = env.nfreezer(["--json", "forget", "--keep-last", "2", "--prune"]).success().objects();
    let summaries: Vec<_> = both.iter().filter(|object| object["type"] == "summary").collect();
    assert_eq!(summaries.len(), 2, "{both:?}");
    assert!(summaries[0]["forgotten"].is_array() && summaries[1]["condemned"].is_object(), "{both:?}");
}

#[test]
fn a_list_of_tags_restricts_forget_and_tag_as_it_restricts_snapshots() {
    let env = Env::with_repository();
    env.write("s/file", "x");
    env.nfreezer(["push", "-q", "s", "--tag", "a,b"]).done();
    env.nfreezer(["push", "-q", "s", "--tag", "a"]).done();
    let plan = env.nfreezer(["forget", "-n", "--keep-last", "1", "--tag", "a,b"]).success();
    assert!(plan.stdout.contains("1 kept, 0 forgotten"), "{}", plan.stdout);
    let tagged = env.nfreezer(["tag", "--add", "c", "--tag", "a,b"]).success();
    assert!(tagged.stdout.contains("the tags of 1 snapshot were changed"), "{}", tagged.stdout);
}
