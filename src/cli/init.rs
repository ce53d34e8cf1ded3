//! `nfreezer init`: makes a repository.

use serde_json::json;
use zeroize::Zeroizing;

use super::exit::OK;
use super::open::storage;
use super::options::{AddressArgs, ConnectionArgs, OutputArgs, SecretArgs, SeenArgs};
use super::output::{self, Output};
use super::passphrase::Given;
use super::values::size;
use super::{escape, key, signals};
use crate::error::Result;
use crate::name::hex;
use crate::repo::{Access, Repository, Unlock};

/// Arguments of `init`.
#[derive(clap::Args)]
pub struct Args {
    /// Memory per guess at the passphrase: 64M to 2G
    ///
    /// Each command needs this memory, too, when it opens the repository.
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    kdf_memory: u64,
    /// Generate a passphrase and print it once
    #[arg(long)]
    generate_passphrase: bool,
    #[command(flatten)]
    address: AddressArgs,
    #[command(flatten)]
    secret: SecretArgs,
    #[command(flatten)]
    seen: SeenArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Makes a repository. The passphrase is asked for only after the place was found to be free.
pub fn run(args: &Args) -> Result<u8> {
    let cost = key::cost(args.kdf_memory)?;
    let given = Given::of(&args.secret);
    if !args.generate_passphrase {
        given.check()?;
    }
    let storage = storage(&args.address, &args.connection, args.output)?;
    Repository::check_empty(signals::context(), &*storage)?;
    let (passphrase, generated) = given.read_new(args.generate_passphrase)?;
    let mut out = Output::new(args.output.json);
    let path = args.secret.local_key_path();
    let local_key = path.map(|path| key::read_or_make_local_key(args.output, &mut out, &path)).transpose()?;
    let passphrase = passphrase.with_local_key(local_key);
    let unlock = Unlock { passphrase: &passphrase, cost, label: "init" };
    let access = Access { seen: args.seen.store(), ..Access::default() };
    let repo = Repository::init_with(signals::context(), storage, unlock, &access)?;
    print(args, &mut out, &repo, passphrase.local_key().is_some(), generated)?;
    out.flush().map(|()| OK)
}

fn print(
    args: &Args,
    out: &mut Output,
    repo: &Repository,
    local_key: bool,
    generated: Option<Zeroizing<String>>,
) -> Result<()> {
    let address = repo.storage().address();
    if !args.output.quiet {
        let id = hex(&repo.id().0[..4]);
        out.line(format_args!("made repository {id} at {}", escape::text(address.as_bytes())))?;
        out.line("keep the passphrase safe: without it the repository cannot be read, and it cannot be replaced")?;
    }
    let mut fields = output::object(json!({
        "repository_id": hex(&repo.id().0), "address": address, "kdf_memory": args.kdf_memory, "local_key": local_key,
    }));
    key::reveal(out, &mut fields, generated)?;
    out.object("summary", fields)
}
