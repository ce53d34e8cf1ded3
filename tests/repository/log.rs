//! The state of a repository is the fold of its log: concurrent records, marks, incomplete records, missing records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crate::harness::cli::PASSPHRASE;
use crate::harness::faults::{Answer, Between, Call, Rule};
use crate::harness::repository;
use nfreezer::context::{Context, background};
use nfreezer::crypto::keys::{ChunkId, ChunkKind};
use nfreezer::crypto::seal::{self, ObjectType};
use nfreezer::error::{Error, Kind, Result};
use nfreezer::format::index;
use nfreezer::format::pack::Entry;
use nfreezer::format::record::{self, Action, Head, Mark, NewSection, SectionKind, Snapshot, SnapshotId};
use nfreezer::format::reference::PackRef;
use nfreezer::name::{Folder, Name, ObjectId};
use nfreezer::push;
use nfreezer::repo::{Index, Repository, State};
use nfreezer::storage::{self, Memory, Storage};
use nfreezer::time::Time;
use sha2::{Digest, Sha256};

fn snapshot(id: u8) -> Head {
    let snapshot = Snapshot {
        id: SnapshotId([id; 16]),
        time: Time::new(id.into(), 0),
        host: "host".into(),
        user: "user".into(),
        program: "test".into(),
        ..Snapshot::default()
    };
    Head { snapshots: vec![snapshot], ..Head::default() }
}

fn mark(snapshot: u8, action: Action) -> Head {
    let mark = Mark { sequence: 0, record: None, snapshot: SnapshotId([snapshot; 16]), time: 0, action };
    Head { marks: vec![mark], ..Head::default() }
}

fn ids(repo: &Repository) -> Vec<u8> {
    repo.state(background()).unwrap().snapshots().iter().map(|s| s.id.0[0]).collect()
}

fn record(memory: &Memory, id: ObjectId) -> Name {
    let mut names = memory.list(background(), Folder::Log).unwrap().into_iter().map(|e| e.name);
    names.rfind(|name| matches!(name, Name::Record { id: found, .. } if *found == id)).unwrap()
}

#[test]
fn records_written_side_by_side_all_count() {
    let (memory, one) = repository::in_memory();
    let two = repository::open(memory.clone());
    let (mut first, mut second) = (one.state(background()).unwrap(), two.state(background()).unwrap());
    one.commit(background(), &mut first, snapshot(1), &[]).unwrap();
    two.commit(background(), &mut second, snapshot(2), &[]).unwrap();
    one.commit(background(), &mut first, snapshot(3), &[]).unwrap();
    assert_eq!((ids(&one), ids(&two)), (vec![1, 2, 3], vec![1, 2, 3]));
    assert_eq!(one.state(background()).unwrap().frontier().len(), 1, "the last record follows both");
    assert!(one.state(background()).unwrap().warnings().is_empty());
}

#[test]
fn the_later_mark_holds() {
    let (_, repo) = repository::in_memory();
    let mut state = repo.state(background()).unwrap();
    for head in [snapshot(1), snapshot(2), mark(1, Action::Forget), mark(2, Action::Forget), mark(2, Action::Undelete)]
    {
        repo.commit(background(), &mut state, head, &[]).unwrap();
    }
    repo.commit(background(), &mut state, mark(2, Action::Tag(vec!["kept".into()])), &[]).unwrap();
    assert_eq!(ids(&repo), [2]);
    let state = repo.state(background()).unwrap();
    assert_eq!(state.forgotten().len(), 1);
    assert_eq!(state.snapshots()[0].tags, ["kept"]);
    assert_eq!(state.select("latest").unwrap().id, SnapshotId([2; 16]));
    assert_eq!(state.select("0202").unwrap().id, SnapshotId([2; 16]));
    assert_eq!(state.select("latest~1").unwrap_err().kind(), Kind::Failed);
    assert_eq!(state.select("zz").unwrap_err().kind(), Kind::Usage);
}

#[test]
fn a_torso_is_reported_and_counts_for_nothing() {
    let (memory, repo) = repository::in_memory();
    let mut state = repo.state(background()).unwrap();
    repo.commit(background(), &mut state, snapshot(1), &[]).unwrap();
    let torn = record(&memory, repo.commit(background(), &mut state, snapshot(2), &[]).unwrap());
    let bytes = memory.get(&torn).unwrap();
    for len in [0, 71, 72, 100, bytes.len() - 1] {
        memory.overwrite(&torn, bytes[..len].to_vec());
        let repo = repository::open(memory.clone());
        assert_eq!(ids(&repo), [1], "cut to {len}");
        let warnings = repo.state(background()).unwrap().warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("incomplete record"), "{warnings:?}");
    }
    memory.overwrite(&torn, bytes);
    assert_eq!(ids(&repo), [1, 2]);
}

#[test]
fn a_copy_of_a_record_under_another_sequence_takes_nothing_from_it() {
    let (memory, repo) = repository::in_memory();
    let mut state = repo.state(background()).unwrap();
    repo.commit(background(), &mut state, snapshot(1), &[]).unwrap();
    repo.commit(background(), &mut state, snapshot(2), &[]).unwrap();
    let id = repo.commit(background(), &mut state, mark(1, Action::Forget), &[]).unwrap();
    let bytes = memory.get(&record(&memory, id)).unwrap();
    repo.commit(background(), &mut state, Head::default(), &[]).unwrap(); // names it
    for sequence in [1, 9] {
        memory.put(background(), &Name::Record { sequence, id }, &bytes).unwrap();
        let repo = repository::open(memory.clone());
        let state = repo.state(background()).unwrap();
        assert_eq!((ids(&repo), state.lost().len()), (vec![2], 0));
        assert!(state.warnings().iter().all(|text| text.contains("incomplete")), "{:?}", state.warnings());
    }
}

#[test]
fn a_record_that_is_gone_is_reported_unless_it_was_merged() {
    let (memory, repo) = repository::in_memory();
    let mut state = repo.state(background()).unwrap();
    let gone = repo.commit(background(), &mut state, snapshot(1), &[]).unwrap();
    repo.commit(background(), &mut state, snapshot(2), &[]).unwrap();
    memory.remove(background(), &record(&memory, gone)).unwrap();
    let warnings = repo.state(background()).unwrap().warnings();
    assert!(warnings.len() == 1 && warnings[0].contains(&gone.to_string()), "{warnings:?}");

    let mut state = repo.state(background()).unwrap();
    let ancestry = NewSection { kind: SectionKind::Ancestry, bytes: gone.0[..8].to_vec(), fences: Vec::new() };
    repo.commit(background(), &mut state, snapshot(3), &[ancestry]).unwrap();
    assert_eq!(repo.state(background()).unwrap().warnings(), [""; 0]);
}

#[test]
fn what_a_record_supersedes_is_not_read_again_and_nothing_else_is_missed() {
    let (memory, repo) = repository::in_memory();
    let mut state = repo.state(background()).unwrap();
    for round in 0..700_u32 {
        let mut head = snapshot(round as u8);
        head.snapshots[0].id = SnapshotId([0; 16].map(|_| 0_u8));
        head.snapshots[0].id.0[..4].copy_from_slice(&round.to_be_bytes());
        repo.commit(background(), &mut state, head, &[]).unwrap();
        repo.merge(background(), &mut state).unwrap();
        assert!(state.records() <= 17 + 2);
    }
    let records = memory.list(background(), Folder::Log).unwrap().len();
    assert!(records > 700, "{records}");
    let repo = repository::open(memory.clone());
    let state = repo.state(background()).unwrap();
    assert_eq!((state.snapshots().len(), state.warnings().len()), (700, 0));
    let reads = repo.cache_stats().reads;
    assert!(reads <= 60, "{reads} reads for {records} records");
    let (frontier, next) = (state.frontier(), state.next_sequence());
    assert_eq!((frontier.len(), next as usize), (1, records + 1));
}

#[test]
fn a_lost_record_is_reported_although_all_that_name_it_were_merged() {
    let (memory, repo) = repository::in_memory();
    let mut state = repo.state(background()).unwrap();
    let lost = repo.commit(background(), &mut state, snapshot(1), &[]).unwrap();
    repo.commit(background(), &mut state, snapshot(2), &[]).unwrap();
    let name = record(&memory, lost);
    let bytes = memory.get(&name).unwrap();
    memory.remove(background(), &name).unwrap();
    let mut state = repo.state(background()).unwrap();
    (3..40).for_each(|i| {
        repo.commit(background(), &mut state, snapshot(i), &[]).unwrap();
        repo.merge(background(), &mut state).unwrap();
    });
    for _ in 0..2 {
        let warnings = repo.state(background()).unwrap().warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(&lost.to_string()), "{warnings:?}");
        superseded(&memory, &repo).into_iter().for_each(|name| memory.remove(background(), &name).unwrap());
    }
    memory.overwrite(&name, bytes);
    assert_eq!(repo.state(background()).unwrap().warnings(), [""; 0]);
    assert_eq!(ids(&repo).len(), 39);
}

#[test]
fn what_cannot_be_read_or_understood_is_not_merged() {
    let (memory, repo) = repository::in_memory();
    let mut state = repo.state(background()).unwrap();
    let torn = record(&memory, repo.commit(background(), &mut state, snapshot(1), &[]).unwrap());
    let well = memory.get(&torn).unwrap();
    memory.overwrite(&torn, well[..well.len() - 1].to_vec());
    // The head of this record is intact, but a block of its index is not.
    let holed =
        repo.commit(background(), &mut repo.state(background()).unwrap(), snapshot(2), &chunks(0..9000, 1)).unwrap();
    let name = record(&memory, holed);
    let mut bytes = memory.get(&name).unwrap();
    let whole = bytes.clone();
    bytes[200_000] ^= 1;
    memory.overwrite(&name, bytes);
    let later = Head { extra: vec![(7, serde_bytes::ByteBuf::from("x"))], ..snapshot(3) };
    let repo = repository::open(memory.clone());
    let mut state = repo.state(background()).unwrap();
    let later = repo.commit(background(), &mut state, later, &[]).unwrap();
    for i in 4..40 {
        repo.commit(background(), &mut state, snapshot(i), &[]).unwrap();
        repo.merge(background(), &mut state).unwrap();
    }
    assert!(state.records() < 20);
    let gone = superseded(&memory, &repo);
    assert!(!gone.contains(&torn) && !gone.contains(&name) && !gone.contains(&record(&memory, later)));
    assert_eq!(state.warnings().len(), 1, "{:?}", state.warnings());
    memory.overwrite(&torn, well);
    memory.overwrite(&name, whole);
    let repo = repository::open(memory.clone());
    assert_eq!(ids(&repo).len(), 39);
    for i in 40..80 {
        repo.commit(background(), &mut state, snapshot(i), &[]).unwrap();
        repo.merge(background(), &mut state).unwrap();
    }
    let gone = superseded(&memory, &repo);
    assert!(gone.contains(&torn) && gone.contains(&name), "once they can be read they are");
}

/// Returns the sections of a record that lists these chunks in this pack.
fn chunks(ids: impl IntoIterator<Item = u32>, pack: u32) -> Vec<NewSection> {
    let entry = |n| Entry { id: chunk(n), kind: ChunkKind::Data, offset: n, stored: 10, len: 10 };
    let mut entries: Vec<_> = ids.into_iter().map(|n| (0, entry(n))).collect();
    entries.sort_by_key(|(_, e)| e.id);
    let packs = index::encode_packs(&[(PackRef { id: pack_id(pack), len: 1 << 20 }, ObjectType::Data)]);
    let (bytes, fences) = index::encode(&entries);
    let packs = NewSection { kind: SectionKind::Packs, bytes: packs, fences: Vec::new() };
    vec![packs, NewSection { kind: SectionKind::Index { packs: 0 }, bytes, fences }]
}

fn chunk(n: u32) -> ChunkId {
    ChunkId(*Sha256::digest(n.to_be_bytes()).first_chunk().unwrap())
}

fn pack_id(n: u32) -> ObjectId {
    ObjectId(Sha256::digest([b"pack".as_slice(), &n.to_be_bytes()].concat()).into())
}

/// Returns the heads of all records, read without the library's choice of records that count.
fn heads(memory: &Memory, repo: &Repository) -> BTreeMap<ObjectId, (Name, Head)> {
    let mut heads = BTreeMap::new();
    for entry in memory.list(background(), Folder::Log).unwrap() {
        let Name::Record { sequence, id } = entry.name else { continue };
        let Ok(plain) = seal::open(repo.keys(), ObjectType::Record, id, memory.get(&entry.name).unwrap()) else {
            continue;
        };
        let end = record::head_end(plain[..4].try_into().unwrap()).unwrap();
        heads.insert(id, (entry.name, record::decode(sequence, &plain[..end]).unwrap().head));
    }
    heads
}

/// Returns the records that prune may remove: superseded ones of which no record in force names a section.
fn superseded(memory: &Memory, repo: &Repository) -> Vec<Name> {
    let heads = heads(memory, repo);
    let gone: BTreeSet<_> = heads.values().flat_map(|(_, head)| head.superseded.iter().copied()).collect();
    let live = heads.iter().filter(|(id, _)| !gone.contains(id)).flat_map(|(_, (_, head))| &head.sections);
    let holders: BTreeSet<_> = live.filter_map(|section| section.record.map(|record| record.1)).collect();
    let free = heads.iter().filter(|(id, _)| gone.contains(id) && !holders.contains(id));
    free.map(|(_, (name, _))| *name).collect()
}

/// A client's own view of a shared storage. Its listing can be held, as if it was made before others committed.
#[derive(Default)]
struct View {
    listing: Mutex<Option<Vec<storage::Entry>>>,
    hidden: Mutex<BTreeSet<Name>>,
}
type Window = Between<View>;

impl Rule for View {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        let hidden = |name: &Name| self.hidden.lock().unwrap().contains(name);
        match call {
            Call::List(folder) => {
                let held = self.listing.lock().unwrap().clone().filter(|_| folder == Folder::Log);
                let mut listing = held.map_or_else(|| storage.list(background(), folder), Ok)?;
                listing.retain(|entry| !hidden(&entry.name));
                Ok(Answer::Entries(listing))
            }
            Call::Read(name, ..) if hidden(name) => Err(Error::new(Kind::Missing, "hidden")),
            Call::Put(name @ Name::Record { .. }, bytes) => {
                // A client sees its own records, also in a held listing.
                if let Some(held) = &mut *self.listing.lock().unwrap() {
                    held.push(storage::Entry { name: *name, size: bytes.len() as u64, mtime: 0 });
                }
                call.of(ctx, storage)
            }
            call => call.of(ctx, storage),
        }
    }
}

struct Client {
    window: Arc<Window>,
    repo: Repository,
    state: State,
}

impl Client {
    fn new(memory: &Arc<Memory>) -> Self {
        let window = Window::with(Arc::clone(memory), View::default());
        let repo = repository::open(window.clone());
        let state = repo.state(background()).unwrap();
        Client { window, repo, state }
    }

    /// Freezes the client's listings at the current state, or makes them fresh again.
    fn hold(&self, hold: bool) {
        let listing = hold.then(|| self.window.inner.list(background(), Folder::Log).unwrap());
        *self.window.listing.lock().unwrap() = listing;
    }
}

/// The combined contents of all commits; merges are not among them.
#[derive(Default)]
struct Truth {
    commits: Vec<(ObjectId, Head)>,
    places: BTreeMap<u32, BTreeSet<u32>>,
    condemned: BTreeMap<ObjectId, i64>,
    dropped: BTreeSet<ObjectId>,
}

impl Truth {
    /// Returns the tags by snapshot, and the forgotten snapshots.
    fn fold(&self) -> (BTreeMap<SnapshotId, Vec<String>>, BTreeSet<SnapshotId>) {
        let snapshots = self.commits.iter().flat_map(|(_, head)| head.snapshots.iter());
        let mut tags: BTreeMap<_, _> = snapshots.map(|s| (s.id, s.tags.clone())).collect();
        let mut marks: Vec<_> =
            self.commits.iter().flat_map(|(id, head)| head.marks.iter().map(|m| ((m.sequence, *id), m))).collect();
        marks.sort_by_key(|(order, _)| *order);
        let mut forgotten = BTreeSet::new();
        for (_, mark) in marks {
            match &mark.action {
                Action::Forget => drop(forgotten.insert(mark.snapshot)),
                Action::Undelete => drop(forgotten.remove(&mark.snapshot)),
                Action::Tag(new) => drop(tags.entry(mark.snapshot).and_modify(|old| old.clone_from(new))),
            }
        }
        forgotten.retain(|id| tags.contains_key(id));
        (tags, forgotten)
    }

    fn assert_state(&self, state: &State) {
        assert_eq!(state.warnings(), [""; 0]);
        let (tags, forgotten) = self.fold();
        let shown = state.snapshots().into_iter().chain(state.forgotten()).map(|s| (s.id, s.tags)).collect();
        assert_eq!(tags, shown);
        assert_eq!(forgotten, state.forgotten().into_iter().map(|s| s.id).collect());
        let doomed = self.condemned.keys().chain(&self.dropped).copied().collect();
        assert_eq!(state.condemned_packs().into_iter().collect::<BTreeSet<_>>(), doomed);
    }

    fn assert_index(&self, repo: &Repository, index: &Index) {
        let doomed =
            |pack: &u32| self.condemned.contains_key(&pack_id(*pack)) || self.dropped.contains(&pack_id(*pack));
        for (n, packs) in &self.places {
            let good: Vec<_> = packs.iter().filter(|pack| !doomed(pack)).map(|pack| pack_id(*pack)).collect();
            match index.find(background(), repo, &chunk(*n)).unwrap() {
                Some((_, found)) => assert!(good.contains(&found.pack.id) && found.offset == *n),
                None => assert!(good.is_empty(), "chunk {n} is in {packs:?}"),
            }
        }
        assert_eq!(index.find(background(), repo, &chunk(u32::MAX)).unwrap(), None);
    }

    /// Checks the unchanged log, and the log without the records that prune may remove.
    fn assert(&self, memory: &Memory, reader: &Client) {
        for hidden in [Vec::new(), superseded(memory, &reader.repo)] {
            *reader.window.hidden.lock().unwrap() = hidden.into_iter().collect();
            let state = reader.repo.state(background()).unwrap();
            self.assert_state(&state);
            self.assert_index(&reader.repo, &Index::new(&state));
        }
        reader.window.hidden.lock().unwrap().clear();
    }
}

/// A small generator of choices from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(sides)) as u32
    }
}

fn random_head(dice: &mut Dice, truth: &mut Truth, round: u32) -> (Head, Vec<NewSection>) {
    let known = truth.commits.len() as u32;
    let someone = |dice: &mut Dice| (dice.roll(known.max(1) + 2) % 251) as u8;
    match dice.roll(8) {
        0 => (mark(someone(dice), Action::Forget), Vec::new()),
        1 => (mark(someone(dice), Action::Undelete), Vec::new()),
        2 => (mark(someone(dice), Action::Tag(vec![format!("tag {round}")])), Vec::new()),
        3 => {
            let pack = pack_id(dice.roll(round + 1));
            let since = i64::from(dice.roll(1000));
            truth.condemned.entry(pack).and_modify(|at| *at = (*at).min(since)).or_insert(since);
            (Head { condemned: vec![(pack, since)], ..Head::default() }, Vec::new())
        }
        4 => {
            let pack = pack_id(dice.roll(round + 1));
            truth.dropped.insert(pack);
            (Head { dropped: vec![pack], ..Head::default() }, Vec::new())
        }
        _ => {
            let from = dice.roll(500);
            let count = match dice.roll(60) {
                0 => 40_000, // too large to be written again
                1..3 => 5_000,
                _ => 1 + dice.roll(30),
            };
            for n in from..from + count {
                truth.places.entry(n).or_default().insert(round);
            }
            (snapshot((round % 251) as u8), chunks(from..from + count, round))
        }
    }
}

#[test]
fn merges_lose_nothing_and_change_nothing_whoever_makes_them_when() {
    for seed in 0..3 {
        let (memory, _) = repository::in_memory();
        let mut clients: Vec<_> = (0..3).map(|_| Client::new(&memory)).collect();
        let reader = Client::new(&memory);
        let (mut dice, mut truth, mut merges) = (Dice(seed), Truth::default(), 0);
        for round in 0..150 {
            let client = &mut clients[dice.roll(3) as usize];
            client.hold(dice.roll(3) == 0);
            let (head, sections) = random_head(&mut dice, &mut truth, round);
            let id = client.repo.commit(background(), &mut client.state, head, &sections).unwrap();
            truth.commits.push((id, heads(&memory, &reader.repo).remove(&id).unwrap().1));
            if dice.roll(12) == 0 {
                // All clients see the same listing, so they merge the same records.
                clients.iter().for_each(|client| client.hold(true));
                for client in &mut clients {
                    merges += u32::from(client.repo.merge(background(), &mut client.state).unwrap());
                }
                clients.iter().for_each(|client| client.hold(false));
            }
            if dice.roll(40) == 0 {
                truth.assert(&memory, &reader);
                superseded(&memory, &reader.repo)
                    .into_iter()
                    .for_each(|name| memory.remove(background(), &name).unwrap());
            }
        }
        assert!(merges > 10, "{merges}");
        truth.assert(&memory, &reader);
        for client in &mut clients {
            client.hold(false);
            client.repo.refresh(background(), &mut client.state).unwrap();
            truth.assert_state(&client.state);
            while client.repo.merge(background(), &mut client.state).unwrap() {}
        }
        truth.assert(&memory, &reader);
        assert!(reader.repo.state(background()).unwrap().records() <= 20);
    }
}

fn write(path: &std::path::Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn recover_py_restores_from_a_merged_log_whose_old_records_are_gone() {
    let (work, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let top = work.path().join("top");
    let storage = Arc::new(storage::Local::new(place.path().join("repo")));
    let repo = repository::init(storage);
    let (host, user) = ("host".into(), "user".into());
    let options = push::Options { sources: vec![top.clone()], host, user, ..push::Options::default() };
    let contents = |i: u8| Sha256::digest([i]).repeat(1000);
    for i in 0..40 {
        write(&top.join(format!("file{}", i % 7)), &contents(i));
        push::push(background(), &repo, &options).unwrap();
        if i == 10 {
            move_data_packs(&repo);
        }
    }
    let state = repo.state(background()).unwrap();
    assert!(state.records() <= 17, "push merges");
    remove_superseded(&repo);
    let state = repo.state(background()).unwrap();
    assert_eq!((state.snapshots().len(), state.warnings()), (40, Vec::new()));
    let out = work.path().join("out");
    let mut command = std::process::Command::new("python3");
    command.args(["-B", concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/recover.py"), "restore"]);
    command
        .arg(place.path().join("repo"))
        .args(["latest".as_ref(), out.as_os_str()])
        .env("NFREEZER_PASSWORD", PASSPHRASE);
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    for i in 33..40 {
        let restored = out.join(top.strip_prefix("/").unwrap()).join(format!("file{}", i % 7));
        assert_eq!(std::fs::read(restored).unwrap(), contents(i));
    }
}

/// Moves the chunks of data packs to new packs, as prune does.
fn move_data_packs(repo: &Repository) {
    let mut state = repo.state(background()).unwrap();
    let (mut dropped, mut packs, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for folder in Folder::all() {
        for entry in repo.storage().list(background(), folder).unwrap() {
            let Name::Pack(id) = entry.name else { continue };
            let sealed = repo.storage().read(background(), &entry.name, 0, entry.size as usize).unwrap();
            let Ok(mut plain) = seal::open(repo.keys(), ObjectType::Data, id, sealed) else { continue };
            let old = PackRef { id, len: plain.len() as u32 };
            let table = repo.pack_table(background(), ObjectType::Data, &old).unwrap();
            let new = repo.put_pack(background(), ObjectType::Data, &mut plain).unwrap();
            entries.extend(table.into_iter().map(|e| (packs.len() as u32, e)));
            packs.push((new, ObjectType::Data));
            dropped.push(id);
        }
    }
    entries.sort_by_key(|(_, e)| e.id);
    let (bytes, fences) = index::encode(&entries);
    let packs = NewSection { kind: SectionKind::Packs, bytes: index::encode_packs(&packs), fences: Vec::new() };
    let sections = [packs, NewSection { kind: SectionKind::Index { packs: 0 }, bytes, fences }];
    dropped.sort();
    repo.commit(background(), &mut state, Head { dropped: dropped.clone(), ..Head::default() }, &sections).unwrap();
    dropped.into_iter().for_each(|id| repo.storage().remove(background(), &Name::Pack(id)).unwrap());
}

fn remove_superseded(repo: &Repository) {
    let memory = Memory::default();
    for entry in repo.storage().list(background(), Folder::Log).unwrap() {
        memory
            .put(
                background(),
                &entry.name,
                &repo.storage().read(background(), &entry.name, 0, entry.size as usize).unwrap(),
            )
            .unwrap();
    }
    let gone = superseded(&memory, repo);
    assert!(gone.len() > 16);
    gone.into_iter().for_each(|name| repo.storage().remove(background(), &name).unwrap());
}

#[test]
fn a_torso_of_the_first_record_is_no_tampering_and_a_record_of_another_key_is() {
    // No sector was stored, some were, or a size that no record has.
    for (torso, is_torso) in [(0, true), (4096, true), (100 << 10, true), (80, true), (1000, false), (5000, false)] {
        let (memory, _) = repository::in_memory();
        memory.put(background(), &Name::Record { sequence: 1, id: ObjectId([7; 32]) }, &vec![9; torso]).unwrap();
        let state = repository::open(memory.clone()).state(background());
        if is_torso {
            let state = state.unwrap();
            assert!(state.warnings()[0].contains("incomplete record 07070707 is ignored"), "{:?}", state.warnings());
        } else {
            assert_eq!(state.unwrap_err().kind(), Kind::Tampering, "{torso}");
        }
    }
}
