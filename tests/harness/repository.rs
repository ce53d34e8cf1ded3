//! Test repositories. All have the same passphrase, which [`super::cli::Env`] uses too.

use std::sync::Arc;

use nfreezer::context::background;
use nfreezer::crypto::kdf::KdfCost;
use nfreezer::crypto::secret::Passphrase;
use nfreezer::repo::Repository;
use nfreezer::storage::{Memory, Storage};

use super::cli::PASSPHRASE;

pub fn passphrase() -> Passphrase {
    Passphrase::new(PASSPHRASE.into()).unwrap()
}

pub fn init(storage: Arc<dyn Storage>) -> Repository {
    Repository::init(background(), storage, &passphrase(), KdfCost::DEFAULT, "test").unwrap()
}

/// Opens a repository like a new process, with empty caches.
pub fn open(storage: Arc<dyn Storage>) -> Repository {
    Repository::open(background(), storage, || Ok(passphrase())).unwrap()
}

/// Makes an in-memory repository.
pub fn in_memory() -> (Arc<Memory>, Repository) {
    let memory = Arc::<Memory>::default();
    (memory.clone(), init(memory))
}
