//! `nfreezer init`: makes a repository.

use serde_json::json;

use super::common::{Common, open_storage, size};
use super::show::{self, Output};
use super::{OK, access, passphrase};
use crate::crypto::kdf::KdfCost;
use crate::error::{Error, Kind, Result};
use crate::name::hex;
use crate::repo::{Repository, Unlock};

/// Arguments of `init`.
#[derive(clap::Args)]
pub struct Args {
    /// Memory that opening the repository needs, and that each guess at the passphrase costs: 64M to 2G
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    kdf_memory: u64,
}

/// Asks for the passphrase only when there is a place for the repository.
pub fn run(common: &Common, args: &Args) -> Result<u8> {
    let cost = cost(args.kdf_memory)?;
    passphrase::check_sources(common)?;
    let storage = open_storage(common)?;
    Repository::check_empty(&*storage)?;
    let passphrase = passphrase::of_new_repository(common)?;
    let unlock = Unlock { passphrase: &passphrase, local_key: None, cost, label: "init" };
    let repo = Repository::init_with(storage, unlock, &access::access(common)?)?;
    let mut out = Output::new(common.json);
    let address = repo.storage().address();
    if !common.quiet {
        out.line(format_args!("made repository {} at {}", hex(&repo.id().0[..4]), show::text(address.as_bytes())))?;
        out.line("without the passphrase nobody can read it, and nobody can replace the passphrase: keep it safe")?;
    }
    let fields = json!({ "repository_id": hex(&repo.id().0), "address": address, "kdf_memory": args.kdf_memory });
    out.object("summary", show::object(fields))?;
    out.flush().map(|()| OK)
}

fn cost(memory: u64) -> Result<KdfCost> {
    let wrong = || Error::new(Kind::Usage, "--kdf-memory must be 64M to 2G");
    let memory_kib = u32::try_from(memory >> 10).map_err(|_| wrong())?;
    let cost = KdfCost { memory_kib, ..KdfCost::DEFAULT };
    cost.check().map(|()| cost).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_stays_within_what_a_key_file_may_ask_for() {
        assert_eq!(cost(64 << 20).unwrap(), KdfCost::DEFAULT);
        assert_eq!(cost(2 << 30).unwrap().memory_kib, 2 << 20);
        for bad in [0, (64 << 20) - 1, (2 << 30) + 1024, u64::MAX] {
            assert_eq!(cost(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }
}
