//! Targets for the index of an old repository: the encrypted file, and one decrypted entry.

#[allow(dead_code)]
#[path = "../../src/import/crypt.rs"]
mod crypt;
#[allow(dead_code)]
#[path = "../../src/import/index.rs"]
mod index;

use std::collections::HashMap;
use std::sync::OnceLock;

use nfreezer::context::background;
use nfreezer::crypto::secret::Passphrase;
use nfreezer::name::Name;
use nfreezer::storage::Memory;

/// Decodes one decrypted entry.
pub fn entry(data: &[u8]) {
    let mut files = HashMap::new();
    if index::enter(&mut files, data, 0).is_ok() {
        assert!(files.len() <= 1);
    }
}

/// Decodes the whole file. All salts are made equal, so that one key derivation suffices for all blocks.
pub fn whole(data: &[u8]) {
    static KEYS: OnceLock<crypt::Keys> = OnceLock::new();
    let keys =
        KEYS.get_or_init(|| crypt::Keys::new(&Passphrase::new("old".into()).expect("not empty")).expect("Latin-1"));
    let mut bytes = data.to_vec();
    let mut at = 0;
    while let Some(block) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..20)) {
        block[4..20].fill(7);
        let len = block[..4].iter().rev().fold(0, |n, b| n << 8 | usize::from(*b));
        at = at.saturating_add(4).saturating_add(len);
    }
    let storage = Memory::default();
    storage.overwrite(&Name::OldIndex, bytes);
    // The search for the next block derives a key for each salt that it finds. A few of them are enough.
    let deadline = std::time::Instant::now() + std::time::Duration::from_millis(200);
    let _ = index::read(&background().with_deadline(deadline), &storage, keys);
}
