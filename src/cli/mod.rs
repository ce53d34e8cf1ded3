//! The command line: arguments, output, progress, passphrase, exit codes. The only code that prints. One file a command;
//! what each does is in `docs/cli.md`.

use std::ffi::OsString;
use std::panic;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::error::{Error, Kind, Result};

mod access;
mod aside;
mod check;
mod common;
mod import_v0;
mod init;
mod key;
mod ls;
mod mount;
mod mount_helper;
mod paper_key;
pub mod passphrase;
pub mod progress;
mod push;
mod repair;
mod restore;
pub mod server_setup;
mod service;
pub mod show;
pub mod signals;
mod snapshots;

pub use common::{Common, duration, open_repository, open_storage, open_to_write, read_state, size, snapshot_and_path};

/// Everything went well.
pub const OK: u8 = 0;
/// A snapshot was saved, but some sources could not be read.
pub const INCOMPLETE: u8 = 3;
/// Damage was found.
pub const DAMAGED: u8 = 4;
/// The server shows another or an older state than it must.
pub const TAMPERING: u8 = 15;

/// Encrypted backups on a server you do not trust, over SFTP, mounted as a folder.
#[derive(Parser)]
#[command(
    name = "nfreezer",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a repository in a new or empty folder
    #[command(alias = "create")]
    Init(init::Args),
    /// Take a snapshot of files and folders
    #[command(visible_alias = "backup")]
    Push(Box<push::Args>),
    /// Take a snapshot of a repository of the Python nFreezer
    ImportV0(import_v0::Args),
    /// List the snapshots
    #[command(aliases = ["list", "log"])]
    Snapshots(snapshots::Args),
    /// List what a snapshot holds
    Ls(ls::Args),
    /// Write what a snapshot holds into a folder
    #[command(aliases = ["extract", "pull"])]
    Restore(restore::Args),
    /// Verify that all that the snapshots need is there and right
    Check(check::Args),
    /// Mark what is lost, so that the next push sends it again
    Repair(repair::Args),
    /// Show the backup as a folder
    Mount(mount::Args),
    /// Take a mounted backup away
    #[command(alias = "unmount")]
    Umount(mount::UmountArgs),
    /// Set up a server so that a client can add and read, but change nothing
    ServerSetup(server_setup::Args),
    /// The keys: list, add, remove, change the passphrase, print, bring back
    Key(key::Args),
    /// Show the version
    Version,
    /// nfreezer has no locks
    #[command(hide = true)]
    Unlock,
}

/// Runs the program with the arguments of this process.
pub fn run() -> ExitCode {
    prepare();
    panic::set_hook(Box::new(|info| show::notice(format_args!("nfreezer: error: {}", panic_text(info)))));
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let run = || match mount_helper::Call::recognise(&arguments) {
        Some(call) => call.run(&mut Cli::command(), parse_and_run),
        None => parse_and_run(&arguments),
    };
    ExitCode::from(panic::catch_unwind(run).unwrap_or(1))
}

/// One line about a panic, safe for a terminal.
fn panic_text(info: &panic::PanicHookInfo<'_>) -> String {
    let place = info.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
    let payload = info.payload();
    let why = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    format!("internal error{place}: {}", show::message(why.unwrap_or("unknown")))
}

fn parse_and_run(arguments: &[OsString]) -> u8 {
    match Cli::try_parse_from(arguments) {
        Ok(cli) => {
            let json = cli.common.json;
            dispatch(cli, arguments).map(access::exit_code).unwrap_or_else(|e| {
                let code = exit_code(e.kind());
                show::error(json, &e, code);
                code
            })
        }
        Err(e) if e.exit_code() == 0 => {
            let _ = e.print();
            OK
        }
        Err(e) => {
            if arguments.iter().any(|a| a == "--json") {
                let text = e.to_string();
                let line = text.lines().next().unwrap_or_default();
                let error = Error::new(Kind::Usage, line.strip_prefix("error: ").unwrap_or(line));
                show::error(true, &error.hint("`nfreezer --help` shows the commands"), 2);
            } else {
                let _ = e.print();
            }
            2
        }
    }
}

fn dispatch(cli: Cli, arguments: &[OsString]) -> Result<u8> {
    let Cli { common, command } = cli;
    match command {
        Command::Init(args) => init::run(&common, &args),
        Command::Push(args) => push::run(&common, &args),
        Command::ImportV0(args) => import_v0::run(&common, &args),
        Command::Snapshots(args) => snapshots::run(&common, &args),
        Command::Ls(args) => ls::run(&common, &args),
        Command::Restore(args) => restore::run(&common, &args),
        Command::Check(args) => check::run(&common, &args),
        Command::Repair(args) => repair::run(&common, &args),
        Command::Mount(args) => mount::run(&common, &args, &arguments[1..]),
        Command::Umount(args) => mount::umount(&common, &args),
        Command::ServerSetup(args) => server_setup::run(&common, &args),
        Command::Key(args) => key::run(&common, &args),
        Command::Version => version(&common),
        Command::Unlock => {
            let mut out = show::Output::new(common.json);
            out.line("nfreezer has no locks: nothing ever needs to be unlocked")?;
            out.object("summary", Default::default())?;
            out.flush().map(|()| OK)
        }
    }
}

fn version(common: &Common) -> Result<u8> {
    let mut out = show::Output::new(common.json);
    let version = Cli::command().get_version().unwrap_or_default().to_owned();
    out.line(format_args!("nfreezer {version}"))?;
    out.object("summary", show::object(serde_json::json!({ "program": "nfreezer", "version": version, "format": 1 })))?;
    out.flush().map(|()| OK)
}

/// The exit codes of `docs/cli.md`.
pub fn exit_code(kind: Kind) -> u8 {
    match kind {
        Kind::Failed | Kind::Exists | Kind::Exhausted | Kind::Cancelled => 1,
        Kind::Usage => 2,
        Kind::Damaged | Kind::Missing => DAMAGED,
        Kind::NoRepository => 10,
        Kind::Passphrase => 12,
        Kind::Connection => 13,
        Kind::NoSpace => 14,
        Kind::Tampering => TAMPERING,
        Kind::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(1),
    }
}

/// No core dump and no debugger of the same user sees the keys; as many open files as this user may have, since a restore
/// holds directories open. Best effort.
fn prepare() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let files = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_well_defined() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exit_codes_are_those_that_the_manual_names() {
        let kinds = [Kind::Failed, Kind::Usage, Kind::Damaged, Kind::Missing, Kind::Exists, Kind::NoRepository];
        assert_eq!(kinds.map(exit_code), [1, 2, 4, 4, 1, 10]);
        let kinds = [Kind::Passphrase, Kind::Connection, Kind::NoSpace, Kind::Tampering, Kind::Interrupted(15)];
        assert_eq!(kinds.map(exit_code), [12, 13, 14, 15, 143]);
    }
}
