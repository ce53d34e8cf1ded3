//! Runs every target on the corpus, the regressions, and mutations of both, as an ordinary test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::targets::TARGETS;

/// Number of mutations of each target. `NFREEZER_MUTATIONS` sets a larger one, for machines without a nightly compiler.
const MUTATIONS: u64 = 1500;

fn folder(name: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(name).join(target)
}

fn inputs(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(folder).into_iter().flatten().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn t64_every_input_of_the_corpus_and_every_regression() {
    for (name, target) in TARGETS {
        let corpus = inputs(&folder("corpus", name));
        assert!(!corpus.is_empty(), "{name} has no corpus");
        corpus.iter().chain(&inputs(&folder("regressions", name))).for_each(|input| target(input));
    }
}

#[test]
fn t64_mutations_of_the_corpus() {
    let count = std::env::var("NFREEZER_MUTATIONS").map_or(MUTATIONS, |text| text.parse().unwrap());
    for (name, target) in TARGETS {
        let corpus: Vec<_> =
            inputs(&folder("corpus", name)).into_iter().filter(|input| input.len() < 1 << 14).collect();
        let mut dice = Dice(name.len() as u64);
        for _ in 0..count {
            let mut input = corpus[dice.roll(corpus.len())].clone();
            for _ in 0..=dice.roll(4) {
                mutate(&mut input, &corpus, &mut dice);
            }
            target(&input);
        }
    }
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % sides.max(1) as u64) as usize
    }
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], dice: &mut Dice) {
    let at = dice.roll(input.len() + 1);
    let odd = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'%', b'['];
    match dice.roll(6) {
        0 => input.truncate(at),
        1 => input.insert(at, odd[dice.roll(odd.len())]),
        2 => input.extend_from_slice(&corpus[dice.roll(corpus.len())]),
        _ if at == input.len() => {}
        3 => drop(input.remove(at)),
        4 => input[at] = odd[dice.roll(odd.len())],
        _ => input[at] ^= 1 << dice.roll(8),
    }
}

#[test]
fn every_target_is_a_program_of_cargo_fuzz() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/Cargo.toml")).unwrap();
    let names = manifest.split("[[bin]]\nname = \"").skip(1).map(|rest| rest.split('"').next().unwrap());
    assert_eq!(names.collect::<BTreeSet<_>>(), TARGETS.iter().map(|(name, _)| *name).collect());
}
