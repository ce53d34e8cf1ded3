//! Tiny trees: their contents, and functions that read them.

use std::collections::BTreeMap;

use crate::context::Context;
use crate::error::Result;
use crate::format::node::Node;
use crate::format::reference::Ref;
use crate::trees::Trees;

use super::dice::Dice;

/// Numbers of contents: shared by all clients, so that they refer to each other's packs, and private to one client.
const SHARED: i64 = 4;
const OWN: i64 = 8;

/// Returns the contents of a chunk: a few bytes, different for each number.
pub fn content(number: u8) -> Vec<u8> {
    let mut dice = Dice::new(number.into());
    (0..40 + dice.roll(100)).map(|_| dice.roll(256) as u8).collect()
}

/// A tree: directories with files, each file with the numbers of its chunks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model(pub BTreeMap<String, BTreeMap<String, Vec<u8>>>);

impl Model {
    /// Changes, adds and removes some files. `host` is the number of the client, which selects its private contents.
    pub fn change(&mut self, host: usize, dice: &mut Dice) {
        for _ in 0..1 + dice.roll(3) {
            let directory = self.0.entry(format!("d{}", dice.roll(3))).or_default();
            let name = format!("f{}", dice.roll(3));
            if directory.remove(&name).is_some() && dice.chance(300) {
                continue;
            }
            let chunk = |dice: &mut Dice| match dice.chance(400) {
                true => dice.roll(SHARED) as u8,
                false => (SHARED + OWN * host as i64 + dice.roll(OWN)) as u8,
            };
            directory.insert(name, (0..1 + dice.roll(2)).map(|_| chunk(dice)).collect());
        }
        self.0.retain(|_, files| !files.is_empty());
    }

    /// Returns a part of the tree, as an interrupted push stores it.
    pub fn part(&self, dice: &mut Dice) -> Model {
        let mut part = self.clone();
        part.0.retain(|_, _| dice.chance(600));
        part
    }
}

/// Returns a number in place of inode, times and size. Files with equal numbers have equal chunks.
pub fn identity(chunks: &[u8]) -> u64 {
    chunks.iter().fold(7, |sum, chunk| sum * 257 + u64::from(*chunk))
}

/// Returns the nodes of a directory.
pub fn nodes(ctx: &Context, trees: &Trees<'_>, page: Option<&Ref>) -> Result<Vec<Node>> {
    trees.entries(ctx, page).collect()
}

/// Returns the number of a chunk with these contents.
pub fn number(bytes: &[u8]) -> u8 {
    (0..=u8::MAX).find(|number| content(*number) == bytes).expect("contents that were pushed")
}

pub fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
