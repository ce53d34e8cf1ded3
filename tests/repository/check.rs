//! `check` finds damage, names the affected files, and reports no damage where there is none.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::harness::cli::Env;
use crate::harness::faults::{Answer, Between, Call, Rule};
use crate::harness::saved::{Saved, Told, files};
use crate::harness::tree::files_below;
use nfreezer::check::{Lost, Options, Part, Report};
use nfreezer::context::{Context, background};
use nfreezer::error::Kind;
use nfreezer::format::record::{Action, Snapshot};
use nfreezer::format::reference::Ref;
use nfreezer::name::{Name, ObjectId};
use nfreezer::storage::Storage;

fn structure() -> Options {
    Options::default()
}

fn reading(part: Part) -> Options {
    Options { read: Some(part), ..Options::default() }
}

fn clean((report, told): (Report, Told)) -> Report {
    assert!(!report.is_damaged() && !report.is_rolled_back(), "{report:?}\n{told:?}");
    assert!(told.objects.is_empty() && told.paths.is_empty(), "{told:?}");
    report
}

/// Makes two folders with files of several data packs, and two snapshots that share most of them.
fn two() -> (Saved, Snapshot, Snapshot) {
    let saved = Saved::new();
    for i in 0..4 {
        saved.write(&format!("a/large{i}"), i, 5 << 20);
        saved.write(&format!("b/small{i}"), 10 + i, 5000);
    }
    let first = saved.push().snapshot;
    saved.write("b/small9", 99, 5000);
    let second = saved.push().snapshot;
    (saved, first, second)
}

#[test]
fn nothing_is_wrong_with_what_was_pushed() {
    let (saved, ..) = two();
    let report = clean(saved.check(&structure()));
    assert_eq!((report.snapshots, report.unused, report.read.0), (2, (0, 0), 0));
    assert_eq!(report.packs.0, saved.packs().len() as u64);
    assert_eq!(report.packs.1, saved.packs().iter().map(|(_, size)| size).sum::<u64>());
    assert!(report.entries > 20 && report.references > 20, "{report:?}");
    let read = clean(saved.check(&reading(Part::All)));
    assert_eq!(read.read, read.packs);
    let audit = clean(saved.check(&Options { audit: Some(2 << 20), ..structure() })).audit.unwrap();
    assert_eq!((audit.samples, audit.bad), (32, 0));
    assert!((audit.intact.unwrap() - 0.866).abs() < 0.001, "{audit:?}");
    assert!(clean(Saved::new().check(&Options { audit: Some(1), ..structure() })).snapshots == 0);
}

#[test]
fn what_snapshots_share_is_walked_once() {
    let saved = Saved::new();
    for i in 0..300 {
        saved.write(&format!("d{}/f{i}", i % 10), i, 100);
    }
    saved.push();
    let once = clean(saved.check(&structure()));
    for _ in 0..5 {
        saved.push();
    }
    let often = clean(saved.check(&structure()));
    assert_eq!((often.snapshots, often.pages, often.references), (6, once.pages, once.references));
    assert_eq!(often.files, 300);
    // The result is the same without memory for shared pages.
    clean(saved.check(&Options { memory: 0, ..structure() }));
}

#[test]
fn a_lost_pack_is_reported_with_the_files_of_all_snapshots_that_need_it() {
    let (saved, first, second) = two();
    let lost = saved.chunk_of(&first, "a/large1");
    let names = (0..4).flat_map(|i| [format!("a/large{i}"), format!("b/small{i}")]);
    let in_it = |name: &String| saved.chunks(&first, name).iter().any(|r| r.pack == lost.pack);
    let hit: BTreeSet<String> = names.filter(in_it).collect();
    assert!(hit.contains("a/large1"));
    saved.remove(&lost);
    let (report, told) = saved.check(&structure());
    assert_eq!(told.names(), [Name::Pack(lost.pack.id).path()]);
    assert_eq!(told.objects[0].1, "missing");
    for snapshot in [&first, &second] {
        let found: BTreeSet<String> = told.hit(snapshot, &saved.top()).into_iter().map(|(path, _)| path).collect();
        assert_eq!(found, hit);
        assert!(told.hit(snapshot, &saved.top()).iter().all(|(_, what)| *what == Lost::Contents));
    }
    assert_eq!((report.damaged_packs, report.hit, report.paths), (1, 2, 2 * hit.len() as u64));
    // A check of only one snapshot reports only that snapshot.
    let only = Options { snapshots: vec![first.clone()], ..structure() };
    let (report, told) = saved.check(&only);
    assert_eq!((report.snapshots, report.hit, told.hit(&second, &saved.top()).len()), (1, 1, 0));
}

#[test]
fn a_pack_of_another_size_is_damaged() {
    let (saved, first, _) = two();
    let r = saved.chunk_of(&first, "a/large0");
    let name = Name::Pack(r.pack.id);
    let mut bytes = saved.memory.get(&name).unwrap();
    bytes.push(0);
    saved.memory.overwrite(&name, bytes);
    let (report, told) = saved.check(&structure());
    assert_eq!(told.names(), [name.path()]);
    assert!(told.objects[0].1.contains("instead of"), "{told:?}");
    assert!(report.paths > 0 && report.is_damaged());
}

#[test]
fn a_flipped_bit_is_found_by_reading_and_hits_only_the_files_of_its_block() {
    let (saved, first, second) = two();
    let r = saved.chunk_of(&first, "b/small1");
    saved.flip(&r);
    clean(saved.check(&structure()));
    let (report, told) = saved.check(&reading(Part::All));
    assert_eq!(told.names(), [Name::Pack(r.pack.id).path()]);
    assert!(told.objects[0].1.contains("block"), "{told:?}");
    let hit = told.hit(&second, &saved.top());
    assert!(hit.contains(&("b/small1".into(), Lost::Contents)), "{hit:?}");
    let block = r.offset / 65536;
    let is_in_block =
        |c: &Ref| c.pack == r.pack && c.offset / 65536 <= block && block <= (c.offset + c.stored - 1) / 65536;
    let all = files(&saved.top()).into_iter().filter_map(|(name, contents)| contents.map(|_| name));
    let in_block: BTreeSet<String> = all.filter(|name| saved.chunks(&second, name).iter().any(is_in_block)).collect();
    assert_eq!(hit.into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>(), in_block);
    assert_eq!(report.damaged_packs, 1);
    // An audit of many random blocks finds the flipped bit, too.
    let (report, _) = saved.check(&Options { audit: Some(512 << 20), ..structure() });
    let audit = report.audit.unwrap();
    assert!(audit.bad > 0 && audit.intact.is_none() && report.is_damaged(), "{audit:?}");
}

#[test]
fn an_audit_counts_the_blocks_of_a_missing_pack_as_bad() {
    let (saved, first, _) = two();
    saved.remove(&saved.chunk_of(&first, "a/large0"));
    // The audit draws enough samples to hit the pack, which is several per cent of the data.
    let (report, _) = saved.check(&Options { audit: Some(64 << 20), ..structure() });
    let audit = report.audit.unwrap();
    assert!(audit.bad > 0 && audit.intact.is_none() && report.is_damaged(), "{audit:?}");
}

#[test]
fn a_damaged_header_takes_the_whole_pack() {
    let (saved, first, _) = two();
    let r = saved.chunk_of(&first, "a/large2");
    saved.flip_at(&Name::Pack(r.pack.id), 50);
    let (report, told) = saved.check(&reading(Part::All));
    assert!(told.objects[0].1.contains("commitment"), "{told:?}");
    assert_eq!(report.damaged_packs, 1);
    assert!(told.hit(&first, &saved.top()).contains(&("a/large2".into(), Lost::Contents)));
}

#[test]
fn a_lost_page_is_a_lost_folder_and_the_rest_is_named_too() {
    let saved = Saved::new();
    saved.write("a/x", 1, 100);
    let first = saved.push().snapshot;
    saved.write("b/y", 2, 100);
    let second = saved.push().snapshot;
    // The page of `a` is in the first metadata pack, which the second snapshot refers to.
    saved.remove(&saved.chunk_of(&first, "a"));
    saved.write("b/z", 3, 100);
    let (report, told) = saved.check(&structure());
    assert_eq!(told.hit(&first, &saved.top()), [("/".into(), Lost::Snapshot)]);
    assert_eq!(told.hit(&second, &saved.top()), [("a".into(), Lost::Directory)]);
    assert_eq!((report.hit, report.paths, report.damaged_packs), (2, 2, 1));
}

#[test]
fn t35_records_that_are_missing_torn_or_damaged_are_told_apart() {
    let (saved, ..) = two();
    let record = saved.push().record.unwrap();
    let [_, two, three] = saved.records()[..] else { panic!() };
    assert!(three.file().ends_with(&record.to_string()));
    // The rest of an interrupted commit is no damage.
    let torn = Name::Record { sequence: 4, id: ObjectId([0x77; 32]) };
    saved.memory.put(background(), &torn, &saved.memory.get(&three).unwrap()[..3000]).unwrap();
    let (report, told) = saved.check(&structure());
    assert_eq!((report.torn_records, report.is_damaged(), told.objects.len()), (1, false, 0), "{told:?}");
    // The last record has the right size and wrong contents.
    saved.flip_at(&three, 90);
    let (report, told) = saved.check(&structure());
    assert_eq!((report.damaged_records.len(), told.objects.len(), report.is_rolled_back()), (1, 1, false));
    assert!(told.names()[0].contains(&record.to_string()));
    saved.flip_at(&three, 90);
    // A record is missing, and another one follows it.
    let bytes = saved.memory.get(&two).unwrap();
    saved.memory.remove(background(), &two).unwrap();
    let (report, told) = saved.check(&structure());
    assert!(report.is_rolled_back() && told.names()[0].contains(&report.missing_records[0].to_string()), "{told:?}");
    assert_eq!((report.snapshots, told.paths.len()), (2, 0), "the others can be used");
    saved.memory.put(background(), &two, &bytes[..bytes.len() / 2]).unwrap();
    let (report, _) = saved.check(&structure());
    assert_eq!(report.damaged_records.len(), 1, "it was complete once: another one follows it");
}

#[test]
fn t39_a_damaged_index_is_reported_and_hits_no_files() {
    let saved = Saved::new();
    for i in 0..3000 {
        saved.write(&format!("{}/{i}", i % 30), i, 40);
    }
    saved.push();
    let [record] = saved.records()[..] else { panic!() };
    let len = saved.memory.get(&record).unwrap().len();
    saved.flip_at(&record, len - 30_000);
    let (report, told) = saved.check(&structure());
    assert_eq!((report.damaged_indexes.len(), report.hit, told.objects.len()), (1, 0, 1), "{told:?}");
    assert!(report.is_damaged());
    // A check of snapshots alone needs no index.
    let state = saved.repo.state(background()).unwrap();
    clean(saved.check(&Options { snapshots: state.snapshots(), ..structure() }));
}

#[test]
fn packs_that_nobody_names_are_counted_and_are_no_damage() {
    let (saved, ..) = two();
    let largest = saved.packs().into_iter().max_by_key(|(_, size)| *size).unwrap().0;
    let some = saved.memory.get(&Name::Pack(largest)).unwrap();
    let name = |n: u8| Name::Pack(ObjectId([n; 32]));
    saved.memory.put(background(), &name(0x11), &some).unwrap();
    saved.memory.put(background(), &name(0x22), &some[..70_000 - 1]).unwrap();
    saved.memory.put(background(), &name(0x33), b"").unwrap();
    let report = clean(saved.check(&reading(Part::All)));
    assert_eq!((report.unused, report.torsos), ((3, some.len() as u64 + 69_999), 1), "70,000 bytes may be a pack");
}

#[test]
fn parts_of_the_data() {
    let (saved, ..) = two();
    let all = clean(saved.check(&structure())).packs;
    let read = |part| clean(saved.check(&reading(part))).read;
    let slices: Vec<_> = (1..=3).map(|n| read(Part::Slice(n, 3))).collect();
    assert_eq!(slices.iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1)), all);
    assert_eq!(read(Part::Slice(1, 3)), slices[0], "the same ones each time");
    assert_eq!(read(Part::Share(1.0)), all);
    assert_eq!(read(Part::Bytes(1)).0, 1);
    let third = read(Part::Share(0.3));
    assert!(third.1 as f64 >= 0.3 * all.1 as f64, "{third:?} of {all:?}");
    assert_eq!(read(Part::Time(std::time::Duration::from_secs(3600))), all);
    assert_eq!(read(Part::Time(std::time::Duration::ZERO)).0, 0);
}

#[test]
fn a_check_that_is_asked_to_stop_does() {
    let (saved, ..) = two();
    let options = reading(Part::All);
    let stopped = Context::new(&nfreezer::progress::Silent, std::sync::Arc::new(std::sync::atomic::AtomicI32::new(2)));
    let state = saved.repo.state(background()).unwrap();
    let e = nfreezer::check::check(&stopped, &saved.repo, &state, &options, &mut |_| {}).unwrap_err();
    assert_eq!(e.kind(), Kind::Interrupted(2));
}

#[test]
fn the_binary_says_what_is_lost_and_ends_with_the_documented_codes() {
    let env = Env::new();
    env.write("src/one", vec![1; 3000]);
    env.write("src/two", crate::harness::tree::noise(1, 200_000));
    env.nfreezer(["init", "-r", "repo"]).done();
    env.nfreezer(["push", "-r", "repo", "src"]).done();
    let fine = env.nfreezer(["check", "-r", "repo", "--read-data"]).success();
    assert!(fine.stdout.contains("no damage was found") && fine.stdout.contains("100.0 % of the data"), "{fine:?}");
    let audit = env.nfreezer(["check", "-r", "repo", "--audit", "2MiB", "latest"]).success();
    assert!(audit.stdout.contains("99 % sure that at least 86.59 % of the data is intact"), "{audit:?}");
    env.nfreezer(["check", "-r", "repo", "--read-data", "--audit", "2M"]).fails(2);
    env.nfreezer(["check", "-r", "repo", "nosuch"]).fails(2);
    // The larger pack holds the contents.
    let packs = files_below(&env.path("repo/packs"));
    let data = packs.iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    std::fs::remove_file(data).unwrap();
    let hurt = env.nfreezer(["check", "-r", "repo"]).exits(4);
    assert!(hurt.stdout.contains("/src/one: contents are lost") && hurt.stdout.contains("DAMAGE"), "{hurt:?}");
    let json = env.nfreezer(["--json", "check", "-r", "repo"]).exits(4);
    let objects = json.objects();
    let errors: Vec<_> = objects.iter().filter(|o| o["type"] == "error").collect();
    assert!(errors.iter().any(|o| o["object"].as_str().is_some_and(|name| name.starts_with("packs/"))), "{objects:?}");
    assert!(
        errors.iter().any(|o| o["path"].as_str().is_some_and(|p| p.ends_with("/src/two")) && o["lost"] == "contents")
    );
    let summary = objects.last().unwrap();
    assert_eq!(
        (&summary["type"], &summary["lost_paths"], &summary["damaged"]),
        (&"summary".into(), &2.into(), &true.into())
    );
    // Removes a record that another one follows.
    env.nfreezer(["push", "-r", "repo", "src"]).done();
    let mut log = files_below(&env.path("repo/log"));
    log.sort();
    std::fs::remove_file(&log[0]).unwrap();
    let gone = env.nfreezer(["check", "-r", "repo"]).exits(15);
    assert!(gone.stdout.contains("MISSING"), "{gone:?}");
}

/// Counts the reads that are in flight at the same time. A read waits for others until none has begun for 100 ms, so that
/// the figure does not depend on the speed of the machine.
#[derive(Default)]
struct InFlight {
    reads: Mutex<InFlightReads>,
    begun: Condvar,
}

#[derive(Default)]
struct InFlightReads {
    all: usize,
    now: usize,
    most: usize,
}

/// Least number of reads that a check must send at the same time.
const TOGETHER: usize = 24;

impl Rule for InFlight {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> nfreezer::error::Result<Answer> {
        if !matches!(call, Call::Read(Name::Pack(_), ..)) {
            return call.of(ctx, storage);
        }
        let mut reads = self.reads.lock().unwrap();
        reads.all += 1;
        reads.now += 1;
        reads.most = reads.most.max(reads.now);
        self.begun.notify_all();
        loop {
            let before = reads.all;
            let is_alone = |reads: &mut InFlightReads| reads.all == before && reads.most < TOGETHER;
            let waited = self.begun.wait_timeout_while(reads, Duration::from_millis(100), is_alone).unwrap();
            reads = waited.0;
            if waited.1.timed_out() || reads.most >= TOGETHER {
                break;
            }
        }
        let answer = call.of(ctx, storage);
        reads.now -= 1;
        answer
    }
}

#[test]
fn many_small_packs_are_read_at_the_same_time() {
    let saved = Saved::new();
    let mut old = Vec::new();
    for i in 0..60 {
        saved.write(&format!("{}/file", i % 30), i, 3000 + i as usize);
        old.push((saved.push().snapshot.id, Action::Forget));
    }
    old.pop();
    for options in [structure(), reading(Part::All)] {
        let storage: Arc<Between<InFlight>> = Between::with(saved.memory.clone(), InFlight::default());
        let repo = saved.repo.behind(storage.clone());
        let state = repo.state(background()).unwrap();
        let report = nfreezer::check::check(background(), &repo, &state, &options, &mut |_| ()).unwrap();
        assert!(!report.is_damaged() && report.packs.0 >= 60, "{report:?}");
        let most = storage.reads.lock().unwrap().most;
        assert!(most >= TOGETHER, "{most} reads at the same time");
        // Without the older snapshots, the tree lies in few packs. Then only the check of contents sends many reads.
        let mut state = saved.repo.state(background()).unwrap();
        saved.repo.commit_marks(background(), &mut state, old.drain(..)).unwrap();
    }
}
