//! C: snapshots that are hidden, shown again or out of order (T33 to T40), for a client without seen heads. Clients with
//! seen heads are tested in `tests/repository/memory_of_heads.rs`.

use std::fs;
use std::sync::Arc;

use nfreezer::context::background;
use nfreezer::format::record::{Action, Head, Mark};
use nfreezer::name::{Folder, Name, ObjectId};
use nfreezer::push::{Options, push};
use nfreezer::repo::Repository;
use nfreezer::storage::{Memory, Storage};

use crate::harness::tree::{assert_same, in_snapshot, noise, on_disk};
use crate::liar::{Liar, liar};
use crate::oracle::case;
use crate::world::{init, look, told, world};

#[test]
fn t34_without_a_memory_the_newest_snapshot_can_be_hidden_but_nothing_can_be_altered() {
    case(|| {
        let world = world();
        let storage = liar(world.memory());
        storage.hide(&world.records()[1]);
        let seen = look(world, storage).unwrap();
        assert_eq!(seen.snapshots.into_iter().collect::<Vec<_>>(), [world.snapshots[0]]);
        assert!(seen.lost.is_empty() && seen.warnings.is_empty());
    });
}

#[test]
fn t35_an_older_record_that_is_hidden_is_named_and_the_others_are_whole() {
    case(|| {
        let world = world();
        let storage = liar(world.memory());
        storage.hide(&world.records()[0]);
        let seen = look(world, storage).unwrap();
        assert_eq!(seen.snapshots.into_iter().collect::<Vec<_>>(), [world.snapshots[1]]);
        let Name::Record { id, .. } = world.records()[0] else { unreachable!() };
        assert!(
            seen.warnings.iter().any(|w| w.contains(&id.to_string()) && w.contains("missing")),
            "{:?}",
            seen.warnings
        );
    });
}

#[test]
fn t40_a_forgotten_snapshot_stays_forgotten_unless_the_mark_is_hidden() {
    case(|| {
        let world = world();
        let memory = world.memory();
        let repo = world.repo.behind(memory.clone());
        let action = |action| Mark { sequence: 0, record: None, snapshot: world.snapshots[0], time: 1, action };
        let mut state = repo.state(background()).unwrap();
        let id = repo
            .commit(background(), &mut state, Head { marks: vec![action(Action::Forget)], ..Head::default() }, &[])
            .unwrap();
        assert_eq!(look(world, memory.clone()).unwrap().snapshots.len(), 1);
        let storage = liar(memory);
        storage.hide(&Name::Record { sequence: 3, id });
        assert_eq!(look(world, storage).unwrap().snapshots.len(), 2, "as for any newest record: see T34");
    });
}

/// Pushes through a lying server, and checks the result on an honest one.
struct Pusher {
    memory: Arc<Memory>,
    repo: Repository,
    dir: tempfile::TempDir,
}

impl Pusher {
    fn new() -> Self {
        let (memory, repo) = init();
        Pusher { memory, repo, dir: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, seed: u64) {
        fs::write(self.dir.path().join(name), noise(seed, 300_000)).unwrap();
    }

    fn records(&self) -> Vec<Name> {
        self.memory.list(background(), Folder::Log).unwrap().into_iter().map(|e| e.name).collect()
    }

    fn packs(&self) -> Vec<Name> {
        (0..16).flat_map(|x| self.memory.list(background(), Folder::PackShard(x)).unwrap()).map(|e| e.name).collect()
    }

    /// Checks that a snapshot that was reported as saved is complete on the honest storage.
    fn push(&self, storage: Arc<dyn Storage>) -> bool {
        let sources = vec![self.dir.path().to_owned()];
        let options = Options { sources, host: "h".into(), user: "u".into(), memory: 104 << 20, ..Options::default() };
        match push(background(), &self.repo.behind(storage), &options) {
            Ok(summary) => {
                let honest = self.repo.behind(self.memory.clone());
                assert_same(&on_disk(self.dir.path()), &in_snapshot(&honest, &summary.snapshot, self.dir.path()));
                true
            }
            Err(e) => {
                told(&e);
                false
            }
        }
    }

    fn liar(&self) -> Arc<Liar> {
        liar(self.memory.clone())
    }
}

#[test]
fn t37_t39_a_push_that_is_shown_old_hidden_or_broken_records_saves_all_the_same() {
    case(|| {
        let pusher = Pusher::new();
        pusher.write("f", 1);
        assert!(pusher.push(pusher.memory.clone()));
        pusher.write("g", 2);
        assert!(pusher.push(pusher.memory.clone()));
        let records = pusher.records();
        for record in &records {
            let hidden = pusher.liar();
            hidden.hide(record);
            assert!(pusher.push(hidden));
            let broken = pusher.liar();
            broken.show(record, .., |mut bytes| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                Some(bytes)
            });
            assert!(pusher.push(broken));
        }
        let all = pusher.liar();
        records.iter().for_each(|record| all.hide(record));
        assert!(pusher.push(all));
    });
}

#[test]
fn t37_a_pack_that_is_gone_or_torn_is_not_relied_upon() {
    case(|| {
        for keep in [None, Some(1000), Some(70_000)] {
            let pusher = Pusher::new();
            pusher.write("f", 1);
            assert!(pusher.push(pusher.memory.clone()));
            for pack in pusher.packs() {
                let bytes = pusher.memory.get(&pack).unwrap();
                match keep {
                    Some(len) => pusher.memory.overwrite(&pack, bytes[..len.min(bytes.len() - 1)].to_vec()),
                    None => pusher.memory.remove(background(), &pack).unwrap(),
                }
            }
            // Pushes the same contents as a new file: the index contains their chunks.
            fs::rename(pusher.dir.path().join("f"), pusher.dir.path().join("g")).unwrap();
            pusher.write("g", 1);
            assert!(pusher.push(pusher.memory.clone()), "kept {keep:?}");
        }
    });
}

#[test]
fn t11_a_record_whose_number_is_invented_changes_no_order() {
    case(|| {
        let world = world();
        let memory = world.memory();
        memory.overwrite(&Name::Record { sequence: u32::MAX, id: ObjectId([1; 32]) }, vec![0; 4184]);
        let state = world.repo.behind(memory).state(background()).unwrap();
        assert_eq!((state.next_sequence(), state.snapshots().len()), (3, 2));
    });
}
