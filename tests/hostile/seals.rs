//! H: no key and nonce are ever used for two plaintexts (T72 to T74). The storage records the sealed objects, and the test
//! derives their keys and nonces from `docs/format.md`, independently of the code that sealed them.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use hkdf::Hkdf;
use nfreezer::context::{Context, background};
use nfreezer::crypto::keys::{ChunkKind, Keys, RepoId};
use nfreezer::crypto::seal::{Hedge, ObjectType, seal, seal_in_place};
use nfreezer::crypto::secret::Secret;
use nfreezer::error::{Error, Kind, Result};
use nfreezer::format::keyfile::KeyFile;
use nfreezer::format::pack::{self, Builder};
use nfreezer::name::Name;
use nfreezer::push::{Checkpoints, Options, push};
use nfreezer::repo::Repository;
use nfreezer::storage::{Memory, Storage};
use sha2::{Digest, Sha256};

use crate::harness::Dice;
use crate::harness::faults::{Answer, Between, Call, Rule};
use crate::harness::tree::noise;
use crate::oracle::case;
use crate::world::{init, pass};

const BLOCK: usize = 65_536;

/// Every used (key, nonce) pair with its output. Equal outputs mean equal plaintexts.
struct Observer {
    object_key: [u8; 32],
    seen: Mutex<HashMap<[u8; 16], u64>>,
    seals: AtomicU64,
}

/// Derives the key of sealed objects by part 3 of the format.
fn object_key(dek: &[u8; 32], repo: &RepoId) -> [u8; 32] {
    let salt = [b"nfreezer/v1".as_slice(), &repo.0].concat();
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(Some(&salt), dek).expand(b"nfreezer/v1/key/object", &mut key).unwrap();
    key
}

impl Observer {
    fn new(dek: &[u8; 32], repo: &RepoId) -> Self {
        Observer { object_key: object_key(dek, repo), seen: Mutex::default(), seals: AtomicU64::new(0) }
    }

    /// Records the blocks of a sealed object by part 5.1 of the format. The header's commitment determines the type.
    fn sees(&self, file: &[u8]) {
        let (header, blocks) = file.split_at(72);
        assert_eq!(&header[..8], b"NFRZOBJ1");
        let count = (blocks.len()).div_ceil(BLOCK + 16).max(1);
        let length = blocks.len() - 16 * count;
        let okm = |kind: u8| {
            let info =
                [b"nfreezer/v1/object\0".as_slice(), &[kind], &header[8..40], &(length as u64).to_be_bytes()].concat();
            let mut okm = [0; 76];
            Hkdf::<Sha256>::from_prk(&self.object_key).unwrap().expand(&info, &mut okm).unwrap();
            (okm[44..] == header[40..]).then_some(okm)
        };
        let okm = (1..=3).find_map(okm).expect("the commitment of a type of this object");
        for (i, block) in blocks.chunks(BLOCK + 16).enumerate() {
            let mut nonce: [u8; 12] = okm[32..44].try_into().unwrap();
            nonce[3] ^= u8::from(i + 1 == count);
            nonce[4..].iter_mut().zip((i as u64).to_be_bytes()).for_each(|(n, b)| *n ^= b);
            let first = |bytes: &[u8]| <[u8; 16]>::try_from(&Sha256::digest(bytes)[..16]).unwrap();
            let pair = first(&[&okm[..32], &nonce].concat());
            let out = u64::from_be_bytes(first(block)[..8].try_into().unwrap());
            let before = *self.seen.lock().unwrap().entry(pair).or_insert(out);
            assert_eq!(before, out, "one key and nonce for two plaintexts");
            self.seals.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn pairs(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

#[test]
fn t72_t73_t74_a_million_seals_by_many_threads_whatever_the_random_generator_does() {
    case(|| {
        let (dek, repo) = ([5; 32], RepoId([6; 32]));
        let keys = Keys::derive(&Secret::new(dek), &repo);
        let observer = Observer::new(&dek, &repo);
        let (threads, each) = (4, 250_000);
        thread::scope(|scope| {
            for thread in 0..threads {
                let (keys, observer) = (&keys, &observer);
                let name = format!("test::seals{thread}");
                let work = move || {
                    let mut dice = Dice(thread);
                    for i in 0_u64..each {
                        // Four random generators: constant, repeating, shared by two machines, and good.
                        let random = match i % 4 {
                            0 => [0; 32],
                            1 => [(i / 4 % 7) as u8; 32],
                            2 => <[u8; 32]>::from(Sha256::digest((i % 1000).to_be_bytes())),
                            _ => nfreezer::repo::random().unwrap(),
                        };
                        let kind = [ObjectType::Record, ObjectType::Data, ObjectType::Meta][i as usize % 3];
                        // Contents have few lengths and mostly differ. Equal contents have equal objects.
                        let mut plain = [i % 50_000, thread % 2, i].map(u64::to_be_bytes).concat();
                        plain.truncate(8 + dice.roll(17) as usize);
                        observer.sees(&seal(keys, kind, &random, &plain).1);
                    }
                };
                thread::Builder::new().name(name).spawn_scoped(scope, work).unwrap();
            }
        });
        assert_eq!(observer.seals.load(Ordering::Relaxed), threads * each);
        assert!(observer.pairs() > 900_000, "{}", observer.pairs());
    });
}

/// Returns a pack of few possible chunks. A compressed chunk has one of two stored forms of equal length, as if two
/// versions of zstd had compressed the same plaintext.
fn pack_of_few(keys: &Keys, dice: &mut Dice) -> (Vec<u8>, Vec<pack::Entry>) {
    let mut builder = Builder::new(Vec::new());
    for _ in 0..dice.roll(4) {
        let chunk = vec![dice.roll(3) as u8; 40 + dice.roll(2) as usize];
        let compressed = [dice.roll(2) as u8; 20];
        let stored = if dice.roll(2) == 0 { &chunk } else { &compressed[..] };
        builder.add(keys.chunk_id(ChunkKind::Data, &chunk), ChunkKind::Data, stored, chunk.len());
    }
    builder.finish(false)
}

#[test]
fn t72_packs_whose_raw_chunks_are_not_hashed_again_use_no_pair_for_two_plaintexts() {
    case(|| {
        let (dek, repo) = ([5; 32], RepoId([6; 32]));
        let keys = Keys::derive(&Secret::new(dek), &repo);
        let observer = Observer::new(&dek, &repo);
        let (mut dice, mut ids) = (Dice(7), HashMap::new());
        for i in 0..1000 {
            let (mut plain, entries) = pack_of_few(&keys, &mut dice);
            if i % 5 == 0 {
                // The same table and another length, as with `--pad full`.
                let table = plain.split_off(plain.len() - 4 - 28 * entries.len());
                plain.resize(plain.len() + 16_384, 0);
                plain.extend(table);
            }
            let contents = plain.clone();
            let hedge = Hedge::Rest(pack::rest(&plain, &entries));
            let id = seal_in_place(&keys, ObjectType::Data, &[1; 32], hedge, &mut plain);
            observer.sees(&plain);
            assert_eq!(*ids.entry(id).or_insert_with(|| contents.clone()), contents, "one id for two plaintexts");
            // An object that is hashed as a whole never has the id of an object that is hashed in part.
            observer.sees(&seal(&keys, ObjectType::Data, &[1; 32], &contents).1);
        }
        assert!((300..990).contains(&ids.len()), "some packs are equal and most are not: {}", ids.len());
    });
}

/// A rule that records all puts. Some fail, as on a bad network: the name is reported as taken, or the object is cut.
struct Watch {
    observer: Observer,
    puts: AtomicUsize,
    fail: AtomicUsize,
}

impl Rule for Watch {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        if let Call::Put(name @ (Name::Pack(_) | Name::Record { .. }), bytes) = call {
            self.observer.sees(bytes);
            let number = self.puts.fetch_add(1, Ordering::SeqCst);
            match self.fail.load(Ordering::SeqCst) {
                0 => {}
                n if number.is_multiple_of(n) => return Err(Error::new(Kind::Exists, "taken")),
                n if number % n == n - 1 => {
                    storage.put(background(), name, &bytes[..bytes.len() / 2])?;
                    return Err(Error::new(Kind::Connection, "cut"));
                }
                _ => {}
            }
        }
        call.of(ctx, storage)
    }
}

#[test]
fn t72_pushes_with_retries_resumes_and_checkpoints_use_no_pair_twice() {
    case(|| {
        let (memory, repo) = init();
        let key = memory.list(background(), nfreezer::name::Folder::Keys).unwrap()[0].name;
        let (Name::Key(id), bytes) = (key, memory.get(&key).unwrap()) else { unreachable!() };
        let (master, _) = KeyFile::parse(&id, repo.id(), &bytes).unwrap().open(&pass()).unwrap();
        let observer = Observer::new(master.expose(), repo.id());
        let rule = Watch { observer, puts: AtomicUsize::new(0), fail: AtomicUsize::new(0) };
        let storage = Between::<Watch, Memory>::with(memory, rule);
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints { after: std::time::Duration::ZERO, ..Checkpoints::default() };
        for round in 0..12 {
            (0..20).for_each(|i| fs::write(dir.path().join(format!("{i}")), noise(round * 100 + i, 150_000)).unwrap());
            fs::write(dir.path().join("large"), noise(round, 4 << 20)).unwrap();
            storage.fail.store([0, 2, 3, 5, 7][round as usize % 5], Ordering::SeqCst);
            let sources = vec![dir.path().to_owned()];
            let options = Options {
                sources,
                host: "h".into(),
                user: "u".into(),
                memory: 104 << 20,
                checkpoints,
                ..Options::default()
            };
            let client: Repository = repo.behind(Arc::clone(&storage) as Arc<dyn Storage>);
            let pushed = push(background(), &client, &options);
            assert!(pushed.is_ok() || storage.fail.load(Ordering::SeqCst) > 0, "{:?}", pushed.err());
        }
        let (seals, pairs) = (storage.observer.seals.load(Ordering::Relaxed), storage.observer.pairs() as u64);
        assert_eq!(seals, pairs, "equal contents are sealed under new keys too, where the generator is good");
        assert!(seals > 500, "{seals}");
    });
}
