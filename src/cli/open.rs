//! Opens storages and repositories from the options of a command.
//!
//! In: groups of options. Out: a storage, or a repository that is unlocked and checked against the heads seen before.

use std::ffi::OsStr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use super::absent::absent_disk;
use super::exit::{OK, TAMPERING};
use super::filter::FilterArgs;
use super::options::{
    AddressArgs, ConnectionArgs, OpenArgs, OutputArgs, ProgressArgs, ReadArgs, SecretArgs, SshArgs, TransportArg,
};
use super::passphrase::{self, Given};
use super::terminal::Terminal;
use super::values::snapshot_and_path;
use super::{environment, escape, local_key, output, paper_key, signals, warnings};
use crate::crypto::keys::LocalKey;
use crate::error::{Error, Kind, Result};
use crate::format::record::Snapshot;
use crate::repo::{Access, Alarm, CacheUse, Repository, State};
use crate::seen::Run;
use crate::storage::{self, Dry, Location, SshOptions, Storage};

/// Number of passphrases that the user may type.
const TRIES: usize = 3;

/// Is set if a record is missing although the command continues.
fn alarm() -> &'static Alarm {
    static ALARM: OnceLock<Alarm> = OnceLock::new();
    ALARM.get_or_init(Alarm::default)
}

/// Returns the exit code of a command that ends with `code`: 15 if it succeeded, but a record is missing.
pub fn with_alarm(code: u8) -> u8 {
    if code == OK && alarm().load(Relaxed) { TAMPERING } else { code }
}

/// Opens a repository to read.
pub fn to_read(args: &ReadArgs, output: OutputArgs) -> Result<Repository> {
    to_read_with(args, output, |_| ())
}

/// Opens a repository to read one path: `what` is `SNAPSHOT[:PATH]`. Returns the snapshot that passes the filter, and the path in
/// it.
pub fn to_read_at(
    what: &OsStr,
    filter: &FilterArgs,
    args: &ReadArgs,
    output: OutputArgs,
    out: &mut output::Output,
) -> Result<(Repository, Snapshot, Vec<u8>)> {
    let (name, path) = snapshot_and_path(what)?;
    let repo = to_read(args, output)?;
    let (snapshot, path) = filter.locate(&repo, &read_state(&repo, out)?, &name, path)?;
    Ok((repo, snapshot, path))
}

/// Opens a repository to check it: reads past the disk cache.
pub fn to_check(args: &ReadArgs, output: OutputArgs) -> Result<Repository> {
    to_read(&ReadArgs { open: args.open.past_cache(), ..args.clone() }, output)
}

/// Opens a repository to read, with changed options of the storage.
pub fn to_read_with(
    args: &ReadArgs,
    output: OutputArgs,
    change: impl FnOnce(&mut storage::Options),
) -> Result<Repository> {
    to_read_as(args, output, CacheUse::Read, change)
}

/// Opens a repository to mount it, with changed options of the storage.
pub fn to_mount(args: &ReadArgs, output: OutputArgs, change: impl FnOnce(&mut storage::Options)) -> Result<Repository> {
    to_read_as(args, output, CacheUse::Mount, change)
}

fn to_read_as(
    args: &ReadArgs,
    output: OutputArgs,
    cache_use: CacheUse,
    change: impl FnOnce(&mut storage::Options),
) -> Result<Repository> {
    let open = &args.open;
    Given::of(&open.secret).check()?;
    let access = Access { accept_rollback: args.accept_rollback, cache_use, ..access(open, output)? };
    let location = Location::parse(&open.address.get()?)?;
    let mut options = storage_options(&open.connection, output.json)?;
    change(&mut options);
    unlock(Arc::from(storage::open(signals::context(), &location, options)?), &access, open, output)
}

/// Opens a repository whose present state is to be accepted, whatever was seen before.
pub fn to_accept(open: &OpenArgs, output: OutputArgs) -> Result<Repository> {
    Given::of(&open.secret).check()?;
    let access = Access { accept_rollback: true, ..access(open, output)? };
    unlock(storage(&open.address, &open.connection, output)?, &access, open, output)
}

/// Opens a repository to write. A dry run writes nothing to it.
pub fn to_write(open: &OpenArgs, output: OutputArgs, is_dry_run: bool) -> Result<Repository> {
    to_write_as(open, output, is_dry_run, false)
}

/// Opens a repository to push to it. A dry run writes nothing to it.
pub fn to_push(open: &OpenArgs, output: OutputArgs, is_dry_run: bool) -> Result<Repository> {
    to_write_as(open, output, is_dry_run, true)
}

fn to_write_as(open: &OpenArgs, output: OutputArgs, is_dry_run: bool, lists_packs: bool) -> Result<Repository> {
    Given::of(&open.secret).check()?;
    let cache_use = if is_dry_run { CacheUse::DryRun } else { CacheUse::Write };
    let access = Access { dry_run: is_dry_run, cache_use, lists_packs, ..access(open, output)? };
    let storage = storage(&open.address, &open.connection, output)?;
    let storage = if is_dry_run { Arc::new(Dry::new(storage)) as Arc<dyn Storage> } else { storage };
    unlock(storage, &access, open, output)
}

/// Opens a repository to write, on a storage that is open already.
pub fn to_write_on(storage: Arc<dyn Storage>, open: &OpenArgs, output: OutputArgs) -> Result<Repository> {
    let access = Access { cache_use: CacheUse::Write, ..access(open, output)? };
    unlock(storage, &access, open, output)
}

/// Opens a repository to push to it, on a storage that is open already.
pub fn to_push_on(storage: Arc<dyn Storage>, open: &OpenArgs, output: OutputArgs) -> Result<Repository> {
    let access = Access { cache_use: CacheUse::Write, lists_packs: true, ..access(open, output)? };
    unlock(storage, &access, open, output)
}

/// Opens a repository to add key files, which need the master key.
pub fn to_add_keys(open: &OpenArgs, output: OutputArgs) -> Result<Repository> {
    Given::of(&open.secret).check()?;
    let access = Access { forgets_master_key: false, ..access(open, output)? };
    unlock(storage(&open.address, &open.connection, output)?, &access, open, output)
}

/// Opens the storage of a repository; creates nothing.
pub fn storage(address: &AddressArgs, connection: &ConnectionArgs, output: OutputArgs) -> Result<Arc<dyn Storage>> {
    storage_at(&address.get()?, connection, output)
}

/// Opens the storage at an address; creates nothing.
pub fn storage_at(address: &str, connection: &ConnectionArgs, output: OutputArgs) -> Result<Arc<dyn Storage>> {
    Ok(Arc::from(storage::open(
        signals::context(),
        &Location::parse(address)?,
        storage_options(connection, output.json)?,
    )?))
}

fn storage_options(args: &ConnectionArgs, json: bool) -> Result<storage::Options> {
    let (ssh, default) = (ssh_options(&args.ssh)?, storage::Options::default());
    Ok(storage::Options {
        retry_for: args.retry_for.unwrap_or(default.retry_for),
        retry_first: args.retry_for.is_some(),
        limit_upload: args.limit_upload.clone(),
        limit_download: args.limit_download.clone(),
        notice: Arc::new(move |text| warnings::warn(json, text)),
        ssh: SshOptions {
            transport: match args.transport {
                TransportArg::Auto => storage::Transport::Auto,
                TransportArg::Ssh2 => storage::Transport::Ssh2,
                TransportArg::Openssh => storage::Transport::OpenSsh,
            },
            connections: ssh.connections.or(args.connections.map(usize::from)),
            ..ssh
        },
        s3: environment::object_store(),
        ..default
    })
}

/// Returns the options of a login.
pub fn ssh_options(args: &SshArgs) -> Result<SshOptions> {
    let mut options = SshOptions {
        identity: args.identity.clone(),
        port: args.port,
        accept_new_host_key: args.accept_new_host_key,
        prompt: Arc::new(Terminal),
        ..SshOptions::default()
    };
    args.option.iter().try_for_each(|option| set(&mut options, option))?;
    Ok(options)
}

/// Sets a value of `-o KEY=VALUE`.
fn set(options: &mut SshOptions, option: &str) -> Result<()> {
    match option.split_once('=') {
        Some(("sftp.command", command)) => {
            options.command = Some(storage::command_words(command).ok_or_else(|| {
                let text = "-o sftp.command: the command is empty, or a quote in it is not closed";
                Error::new(Kind::Usage, text).hint("write -o sftp.command='PROGRAM ARGUMENTS'")
            })?);
        }
        Some(("ssh.config", file)) => options.ssh_config = Some(file.into()),
        Some(("sftp.connections", n)) => {
            let channels = n.parse().ok().filter(|n| (1..=64).contains(n)).ok_or_else(|| {
                let text = format!("-o sftp.connections={}: not a number from 1 to 64", escape::text(n.as_bytes()));
                Error::new(Kind::Usage, text).hint("write -o sftp.connections=8, or -c 8")
            })?;
            options.connections = Some(channels);
        }
        _ => {
            let text = format!("unknown option -o {}", escape::text(option.as_bytes()));
            return Err(Error::new(Kind::Usage, text)
                .hint("use one of -o sftp.command=COMMAND, -o sftp.connections=N, -o ssh.config=FILE"));
        }
    }
    Ok(())
}

/// Returns the local key that the options or the environment name.
pub fn given_local_key(secret: &SecretArgs) -> Result<Option<LocalKey>> {
    secret.local_key_path().map(|path| local_key::read(&path)).transpose()
}

/// Returns what a repository is checked against.
fn access(open: &OpenArgs, output: OutputArgs) -> Result<Access> {
    let seen = open.seen.store();
    if seen.is_none() && !open.seen.is_off() {
        output::notice(
            "nfreezer: warning: there is no folder to remember the newest heads in, so a rollback is not detected: \
             set HOME or XDG_STATE_HOME",
        );
    }
    Ok(Access {
        seen,
        forgets_master_key: true,
        expect_head: open.expected_head()?,
        local_key: given_local_key(&open.secret)?,
        key_file: open.key_file.as_deref().map(paper_key::read).transpose()?,
        cache: open.cache.folder(output.json)?,
        alarm: alarm().clone(),
        ..Access::default()
    })
}

fn unlock(storage: Arc<dyn Storage>, access: &Access, open: &OpenArgs, output: OutputArgs) -> Result<Repository> {
    let repo = with_tries(&storage, access, open).map_err(|e| named_mount_point(e, &*storage))?;
    if repo.is_first_contact() && !output.quiet && !output.json {
        output::notice(
            "nfreezer: first use of this repository on this machine: from now on its newest heads are remembered, \
             and an older state is detected",
        );
    }
    Ok(repo)
}

/// Names the mount point if there is no repository because its disk is not mounted.
fn named_mount_point(e: Error, storage: &dyn Storage) -> Error {
    let absent = if e.kind() == Kind::NoRepository { absent_disk(storage) } else { None };
    absent.map_or(e, |absent| absent.hint("mount it; `nfreezer init` makes a repository on a new disk"))
}

/// Asks again where a passphrase is typed and wrong. Tries a generated passphrase as it was printed, too.
fn with_tries(storage: &Arc<dyn Storage>, access: &Access, open: &OpenArgs) -> Result<Repository> {
    let given = Given::of(&open.secret);
    let tries = if given.is_typed()? { TRIES } else { 1 };
    let prompt = format!("passphrase of {}: ", open.address.get()?);
    for left in (0..tries).rev() {
        let (mut asked, mut respelled) = (false, None);
        let opened = Repository::open_with(signals::context(), Arc::clone(storage), access, || {
            asked = true;
            let passphrase = given.read(&prompt)?;
            respelled = passphrase::respelled(&passphrase);
            Ok(passphrase)
        });
        let opened = match (opened, respelled) {
            (Err(e), Some(other)) if e.kind() == Kind::Passphrase => {
                Repository::open_with(signals::context(), Arc::clone(storage), access, || Ok(other)).map_err(|_| e)
            }
            (opened, _) => opened,
        };
        match opened {
            Err(e) if e.kind() == Kind::Passphrase && asked && left > 0 => {
                output::notice(format_args!("nfreezer: {}: try again", escape::message(&e.to_string())));
            }
            opened => return opened,
        }
    }
    Err(Error::new(Kind::Passphrase, "no passphrase was given"))
}

/// Reads the log and prints its warnings.
pub fn read_state(repo: &Repository, out: &mut output::Output) -> Result<State> {
    let state = repo.state(signals::context())?;
    state.warnings().iter().try_for_each(|text| output::warning(out, text))?;
    // With it, later policies know when each snapshot appeared. They fall back to the dates in the records.
    if let Err(e) = repo.look_at_snapshots(&state) {
        output::warning(out, &e.to_string())?;
    }
    out.flush().map(|()| state)
}

/// Remembers that a run succeeded, for `status`. A failure is a warning, since the work itself is done.
pub fn remember_run(repo: &Repository, out: &mut output::Output, run: Run) -> Result<()> {
    match repo.remember_run(run) {
        Err(e) => output::warning(out, &e.to_string()),
        Ok(()) => Ok(()),
    }
}

/// Reads the log like [`read_state`], and with `-v` prints the details of its warnings.
pub fn read_state_verbosely(repo: &Repository, out: &mut output::Output, args: ProgressArgs) -> Result<State> {
    let state = read_state(repo, out)?;
    if args.verbose > 0 {
        state.warning_details().iter().try_for_each(|text| output::warning(out, text))?;
        out.flush()?;
    }
    Ok(state)
}
