//! `nfreezer init`: makes a repository.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::absent::absent_disk;
use super::exit::OK;
use super::open::{storage, to_push_on};
use super::options::{AddressArgs, ConnectionArgs, OpenArgs, OutputArgs, SecretArgs, SeenArgs};
use super::output::{self, Output};
use super::passphrase::Given;
use super::values::size;
use super::{escape, key, signals};
use crate::crypto::kdf::KdfCost;
use crate::error::Result;
use crate::name::hex;
use crate::repo::{Access, Repository, Unlock};
use crate::storage::Storage;

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
    /// Make one where another was before, or where a disk seems not to be mounted
    #[arg(short, long)]
    yes: bool,
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

/// The properties of a new repository, from the options of `init` or of `push --init`.
struct Plan<'a> {
    secret: &'a SecretArgs,
    seen: &'a SeenArgs,
    output: OutputArgs,
    cost: KdfCost,
    generates: bool,
    /// Made although another repository was at the address before, or its disk seems to be absent.
    is_forced: bool,
}

/// A new repository.
struct Made {
    repo: Repository,
    has_local_key: bool,
    generated: Option<Zeroizing<String>>,
}

/// Makes a repository. The passphrase is asked for only after the place was found to be free.
pub fn run(args: &Args) -> Result<u8> {
    let cost = key::cost(args.kdf_memory)?;
    let plan = Plan {
        secret: &args.secret,
        seen: &args.seen,
        output: args.output,
        cost,
        generates: args.generate_passphrase,
        is_forced: args.yes,
    };
    if !args.generate_passphrase {
        Given::of(&args.secret).check()?;
    }
    let storage = storage(&args.address, &args.connection, args.output)?;
    let mut out = Output::new(args.output.json);
    let made = make(&plan, storage, &mut out)?;
    let mut fields = print(&plan, &mut out, &made)?;
    fields.insert("kdf_memory".into(), args.kdf_memory.into());
    fields.extend(key::revealed(made.generated.as_ref()));
    out.object("summary", fields)?;
    out.flush().map(|()| OK)
}

/// Opens a repository to write. Makes it if there is none, for `push --init`.
pub fn open_or_make(open: &OpenArgs, output: OutputArgs) -> Result<Repository> {
    Given::of(&open.secret).check()?;
    let storage = storage(&open.address, &open.connection, output)?;
    if Repository::exists(signals::context(), &*storage)? {
        return to_push_on(storage, open, output);
    }
    let cost = KdfCost::DEFAULT;
    let plan = Plan { secret: &open.secret, seen: &open.seen, output, cost, generates: false, is_forced: false };
    let mut out = Output::new(output.json);
    let made = make(&plan, storage, &mut out)?;
    let fields = print(&plan, &mut out, &made)?;
    out.object("made", fields)?;
    out.flush().map(|()| made.repo)
}

fn make(plan: &Plan<'_>, storage: Arc<dyn Storage>, out: &mut Output) -> Result<Made> {
    Repository::check_empty(signals::context(), &*storage)?;
    if !plan.is_forced {
        check_place(&*storage, plan.seen)?;
    }
    let (passphrase, generated) = Given::of(plan.secret).read_new(plan.generates)?;
    let path = plan.secret.local_key_path();
    let local_key = path.map(|path| key::read_or_make_local_key(plan.output, out, &path)).transpose()?;
    let passphrase = passphrase.with_local_key(local_key);
    key::reveal(out, generated.as_ref())?;
    let unlock = Unlock { passphrase: &passphrase, cost: plan.cost, label: "init" };
    let access = Access { seen: plan.seen.store(), ..Access::default() };
    let repo = Repository::init_with(signals::context(), storage, unlock, &access)?;
    Ok(Made { repo, has_local_key: passphrase.local_key().is_some(), generated })
}

/// Fails if the disk of the repository seems not to be mounted: a repository was at this address before, or the folder is
/// below a mount point at which nothing is mounted.
fn check_place(storage: &dyn Storage, seen: &SeenArgs) -> Result<()> {
    if let Some(store) = seen.store() {
        Repository::check_never_seen(&store, &storage.address())?;
    }
    match absent_disk(storage) {
        None => Ok(()),
        Some(e) => Err(e.hint("mount it; `nfreezer init --yes` makes a repository in the folder as it is")),
    }
}

fn print(plan: &Plan<'_>, out: &mut Output, made: &Made) -> Result<Map<String, Value>> {
    let (id, address) = (hex(&made.repo.id().0), made.repo.storage().address());
    if !plan.output.quiet {
        out.line(format_args!("made repository {} at {}", &id[..8], escape::text(address.as_bytes())))?;
        out.line("keep the passphrase safe: without it the repository cannot be read, and it cannot be replaced")?;
    }
    Ok(output::object(json!({ "repository_id": id, "address": address, "local_key": made.has_local_key })))
}
