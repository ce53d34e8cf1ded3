//! `nfreezer init`: makes a repository.

use std::path::PathBuf;

use serde_json::json;

use super::common::{Common, open_storage, size};
use super::show::{self, Output};
use super::{OK, access, key, passphrase, signals};
use crate::error::Result;
use crate::name::hex;
use crate::repo::{Repository, Unlock};

/// Arguments of `init`.
#[derive(clap::Args)]
pub struct Args {
    /// Memory that opening the repository needs, and that each guess at the passphrase costs: 64M to 2G
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    kdf_memory: u64,
    /// Make a passphrase that cannot be guessed and print it once
    #[arg(long)]
    generate_passphrase: bool,
}

/// Asks for the passphrase only when there is a place for the repository.
pub fn run(common: &Common, args: &Args) -> Result<u8> {
    let cost = key::cost(args.kdf_memory)?;
    if !args.generate_passphrase {
        passphrase::check_sources(common)?;
    }
    let storage = open_storage(common)?;
    Repository::check_empty(signals::context(), &*storage)?;
    let (passphrase, made) = passphrase::of_new_repository(common, args.generate_passphrase)?;
    let mut out = Output::new(common.json);
    let place = common.access.local_key.clone().or_else(|| std::env::var_os("NFREEZER_LOCAL_KEY").map(PathBuf::from));
    let local_key = place.map(|path| key::local_key(common, &mut out, &path)).transpose()?;
    let passphrase = passphrase.with_local_key(local_key);
    let unlock = Unlock { passphrase: &passphrase, cost, label: "init" };
    let repo = Repository::init_with(signals::context(), storage, unlock, &access::access(common)?)?;
    let address = repo.storage().address();
    if !common.quiet {
        out.line(format_args!("made repository {} at {}", hex(&repo.id().0[..4]), show::text(address.as_bytes())))?;
        out.line("without the passphrase nobody can read it, and nobody can replace the passphrase: keep it safe")?;
    }
    let mut fields = show::object(json!({
        "repository_id": hex(&repo.id().0), "address": address, "kdf_memory": args.kdf_memory,
        "local_key": passphrase.local_key().is_some(),
    }));
    key::reveal(&mut out, &mut fields, made)?;
    out.object("summary", fields)?;
    out.flush().map(|()| OK)
}
