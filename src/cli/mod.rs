//! The command line: arguments, output, progress, passphrase, exit codes. The only code that prints. One file for each
//! command; `docs/cli.md` describes the commands.

use std::ffi::OsString;
use std::panic;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::error::{Kind, Result};
use exit::{OK, exit_code};
use options::JsonArgs;
use output::Output;

mod absent;
mod accept;
mod arguments;
mod base32;
mod bucket_setup;
mod calendar;
mod check;
mod completion;
mod copy;
mod diff;
mod doctor;
mod du;
mod dump;
mod environment;
mod escape;
mod exit;
mod figures;

mod filter;
mod find;
mod findings;
mod forget;
mod forgotten;
mod generate;
mod generated;
#[cfg(test)]
mod hints;
mod human;
mod import_v0;
mod init;
mod journal;
mod key;
mod lists;
mod local_key;
mod ls;
mod mount;
mod mount_helper;
mod ncdu;
mod node;
mod open;
mod options;
mod other_tools;
mod output;
mod panics;
mod paper_key;
mod passphrase;
mod patterns;
mod priority;
mod private_files;
mod profile;
mod progress;
mod prune;
mod push;
mod repair;
mod repeated;
mod restore;
mod rewrite;
mod run;
mod schedule;
pub mod server_setup;
mod signals;
mod snapshot;
mod snapshots;
mod standard;
mod stats;
mod status;
mod systemd;
mod table;
mod tag;
mod target;
mod terminal;
mod undelete;
mod values;
mod warnings;

/// Encrypted backups on a server you do not trust, over SFTP, mounted as a folder.
#[derive(Parser)]
#[command(
    name = "nfreezer",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    help_template = "{about-with-newline}Usage: nfreezer COMMAND [OPTIONS]\n\n{subcommands}{after-help}",
    after_help = "Also: accept, copy, doctor, du, import-v0, profile, rewrite, run, schedule,\nstatus, tag, undelete. `nfreezer --help` lists all.",
    after_long_help = "`nfreezer COMMAND -h` shows the usual options of a command, `nfreezer COMMAND --help` all of them."
)]
struct Cli {
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
    #[command(hide = true)]
    ImportV0(Box<import_v0::Args>),
    /// List the snapshots
    #[command(aliases = ["list", "log"])]
    Snapshots(snapshots::Args),
    /// List the contents of a snapshot
    Ls(ls::Args),
    /// Search all snapshots for files by name, size, time or owner
    Find(Box<find::Args>),
    /// Compare two snapshots, or a snapshot with a folder
    Diff(Box<diff::Args>),
    /// Show the size of snapshots or of the repository
    Stats(stats::Args),
    /// Show the size of the folders of a snapshot
    #[command(hide = true)]
    Du(du::Args),
    /// Forget snapshots by ids or by a policy
    Forget(Box<forget::Args>),
    /// Change tags, or pin snapshots so that they are never forgotten
    #[command(hide = true)]
    Tag(tag::Args),
    /// Replace snapshots by ones that lack some files
    #[command(hide = true)]
    Rewrite(Box<rewrite::Args>),
    /// Copy snapshots into another repository
    #[command(hide = true)]
    Copy(Box<copy::Args>),
    /// Show forgotten snapshots again
    #[command(alias = "undo", hide = true)]
    Undelete(undelete::Args),
    /// Write the contents of a snapshot into a folder
    #[command(aliases = ["extract", "pull"])]
    Restore(restore::Args),
    /// Write a file, or a folder as an archive, to standard output
    Dump(Box<dump::Args>),
    /// Verify that everything the snapshots need exists and is intact
    Check(check::Args),
    /// Mark lost data, so that the next push uploads it again
    Repair(repair::Args),
    /// Delete data that no snapshot needs
    Prune(Box<prune::Args>),
    /// Accept the present state after an intended rollback
    #[command(hide = true)]
    Accept(accept::Args),
    /// Show the backup as a folder; `nfreezer umount` unmounts it
    Mount(Box<mount::Args>),
    /// Unmount a backup
    #[command(alias = "unmount", hide = true)]
    Umount(mount::UmountArgs),
    /// Set up a server so that a client can only add and read
    ServerSetup(server_setup::Args),
    /// List, add, remove, export and import keys; change the passphrase
    Key(key::Args),
    /// Run a profile: push, copy, forget, and prune and check when due
    #[command(hide = true)]
    Run(run::Args),
    /// Let systemd or cron run a profile
    #[command(hide = true)]
    Schedule(schedule::Args),
    /// List, show and check profiles
    #[command(hide = true, alias = "profiles")]
    Profile(profile::Args),
    /// Write shell completions and man pages
    #[command(hide = true)]
    Generate(generate::Args),
    /// Test a server and give advice
    #[command(hide = true)]
    Doctor(doctor::Args),
    /// Show how old the newest snapshots are, for monitors
    #[command(hide = true)]
    Status(Box<status::Args>),
    /// Print values for the completions of shells
    #[command(hide = true)]
    Complete(completion::Args),
    /// Show the version
    #[command(hide = true)]
    Version(JsonArgs),
    /// nfreezer has no locks
    #[command(hide = true)]
    Unlock(JsonArgs),
}

impl Command {
    /// Reports whether the output is JSON.
    fn json(&self) -> bool {
        match self {
            Command::Init(args) => args.output.json,
            Command::Push(args) => args.progress.output.json,
            Command::ImportV0(args) => args.progress.output.json,
            Command::Snapshots(args) => args.output.json,
            Command::Forget(args) => args.output.json,
            Command::Tag(args) => args.output.json,
            Command::Rewrite(args) => args.output.json,
            Command::Copy(args) => args.progress.output.json,
            Command::Undelete(args) => args.output.json,
            Command::Ls(args) => args.output.json,
            Command::Diff(args) => args.output.json,
            Command::Find(args) => args.output.json,
            Command::Stats(args) => args.output.json,
            Command::Du(args) => args.output.json,
            Command::Dump(_) | Command::Complete(_) => false,
            Command::Restore(args) => args.progress.output.json,
            Command::Check(args) => args.progress.output.json,
            Command::Repair(args) => args.progress.output.json,
            Command::Prune(args) => args.progress.output.json,
            Command::Accept(args) => args.output.json,
            Command::Mount(args) => args.output.json,
            Command::Umount(args) => args.output.json,
            Command::ServerSetup(args) => args.output.json,
            Command::Key(args) => args.output().json,
            Command::Run(args) => args.progress.output.json,
            Command::Schedule(args) => args.is_json(),
            Command::Profile(args) => args.is_json(),
            Command::Generate(args) => args.output.json,
            Command::Doctor(args) => args.output.json,
            Command::Status(args) => args.output.json,
            Command::Version(args) | Command::Unlock(args) => args.json,
        }
    }
}

/// Commands that only `nfreezer --help` lists, so that `nfreezer -h` fits one screen.
const FURTHER: [&str; 12] = [
    "accept",
    "copy",
    "doctor",
    "du",
    "import-v0",
    "profile",
    "rewrite",
    "run",
    "schedule",
    "status",
    "tag",
    "undelete",
];

/// Returns the parser of these arguments.
fn parser(arguments: &[OsString]) -> clap::Command {
    let cli = arguments::without_empty_variables(Cli::command());
    if arguments.get(1).is_some_and(|first| first == "--help" || first == "help") {
        return FURTHER.iter().fold(cli, |cli, name| cli.mut_subcommand(name, |command| command.hide(false)));
    }
    cli
}

/// Runs the program with the arguments of this process.
pub fn run() -> ExitCode {
    prepare();
    panic::set_hook(Box::new(panics::print));
    let code = signals::run(|| panic::catch_unwind(command).unwrap_or_else(|_| panics::code(wants_json())));
    let code = code.unwrap_or_else(|e| {
        let code = exit_code(e.kind());
        output::error(wants_json(), &e, code);
        code
    });
    ExitCode::from(code)
}

fn wants_json() -> bool {
    std::env::args_os().any(|argument| argument == "--json")
}

fn command() -> u8 {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match mount_helper::Call::recognise(&arguments) {
        Some(call) => call.run(&mut Cli::command(), parse_and_run),
        None => parse_and_run(&arguments),
    }
}

fn parse_and_run(arguments: &[OsString]) -> u8 {
    let arguments = arguments::options_behind_command(arguments, &Cli::command());
    let parsed = parser(&arguments).try_get_matches_from_mut(&arguments);
    match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => {
            let json = cli.command.json();
            dispatch(cli.command, &arguments).map(open::with_alarm).unwrap_or_else(|e| {
                let code = exit_code(e.kind());
                output::error(json, &e, code);
                code
            })
        }
        Err(e) if e.exit_code() == 0 || e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let code = u8::try_from(e.exit_code()).unwrap_or(exit_code(Kind::Usage));
            output::print_help(&e).map(|()| code).unwrap_or_else(|e| {
                output::error(false, &e, exit_code(e.kind()));
                exit_code(e.kind())
            })
        }
        Err(e) => {
            let code = exit_code(Kind::Usage);
            output::error(wants_json(), &arguments::explain(&e, &Cli::command()), code);
            code
        }
    }
}

/// Checks values that the parser has accepted: ones that are wrong in themselves or contradict each other. No file is read.
fn check_values(matches: &clap::ArgMatches) -> Result<()> {
    match Cli::from_arg_matches(matches).map(|cli| cli.command) {
        Ok(Command::Push(args)) => push::check_values(&args),
        Ok(Command::Copy(args)) => copy::check_values(&args),
        _ => Ok(()),
    }
}

/// `arguments` are the arguments of this process, from which `mount` starts its background process.
fn dispatch(command: Command, arguments: &[OsString]) -> Result<u8> {
    match command {
        Command::Init(args) => init::run(&args),
        Command::Push(args) => push::run(&args),
        Command::ImportV0(args) => import_v0::run(&args),
        Command::Snapshots(args) => snapshots::run(&args),
        Command::Forget(args) => forget::run(&args),
        Command::Tag(args) => tag::run(&args),
        Command::Rewrite(args) => rewrite::run(&args),
        Command::Copy(args) => copy::run(&args),
        Command::Undelete(args) => undelete::run(&args),
        Command::Ls(args) => ls::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Find(args) => find::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Du(args) => du::run(&args),
        Command::Dump(args) => dump::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Repair(args) => repair::run(&args),
        Command::Prune(args) => prune::run(&args),
        Command::Accept(args) => accept::run(&args),
        Command::Mount(args) => mount::run(&args, &arguments[1..]),
        Command::Umount(args) => mount::umount(&args),
        Command::ServerSetup(args) => server_setup::run(&args),
        Command::Key(args) => key::run(&args),
        Command::Run(args) => run::run(&args, &Cli::command()),
        Command::Schedule(args) => schedule::run(&args, &Cli::command()),
        Command::Profile(args) => profile::run(&args, &Cli::command()),
        Command::Generate(args) => generate::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Complete(args) => completion::run(&args),
        Command::Version(args) => version(args),
        Command::Unlock(args) => unlock(args),
    }
}

fn version(args: JsonArgs) -> Result<u8> {
    let mut out = Output::new(args.json);
    let version = Cli::command().get_version().unwrap_or_default().to_owned();
    out.line(format_args!("nfreezer {version}"))?;
    let fields = serde_json::json!({ "program": "nfreezer", "version": version, "format": 1 });
    out.object("summary", output::object(fields))?;
    out.flush().map(|()| OK)
}

fn unlock(args: JsonArgs) -> Result<u8> {
    let mut out = Output::new(args.json);
    out.line("nfreezer has no locks: nothing ever needs to be unlocked")?;
    out.object("summary", Default::default())?;
    out.flush().map(|()| OK)
}

/// Hides the keys from core dumps and from debuggers of the same user. Raises the limit of open files, since a restore keeps
/// directories open. Best effort.
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

    /// Lines that `-h` may have, at 80 columns.
    const SCREEN: usize = 24;

    /// All commands with their names, `key list` among them.
    fn commands(name: &str, command: &clap::Command, found: &mut Vec<(String, clap::Command)>) {
        found.push((name.to_owned(), command.clone()));
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            commands(format!("{name} {}", sub.get_name()).trim(), sub, found);
        }
    }

    #[test]
    fn the_short_help_of_every_command_fits_one_screen() {
        let mut cli = Cli::command();
        cli.build();
        let mut all = Vec::new();
        commands("", &cli, &mut all);
        assert!(all.len() >= 20, "{}", all.len());
        let mut long = Vec::new();
        for (name, command) in all {
            let short = command.clone().term_width(80).render_help().to_string();
            let lines = short.lines().count();
            println!("{lines:3} {name}");
            if lines > SCREEN || short.lines().any(|line| line.chars().count() > 80) {
                long.push(format!("{name}: {lines} lines\n{short}"));
            }
        }
        assert!(long.is_empty(), "{}", long.join("\n"));
    }

    #[test]
    fn the_long_help_lists_every_command_that_the_short_one_names() {
        let help = |word: &str| parser(&["nfreezer".into(), word.into()]).render_help().to_string();
        for name in FURTHER {
            let line = format!("  {name} ");
            assert!(help("--help").contains(&line) && !help("-h").contains(&line), "{name}");
            assert!(help("-h").lines().rev().take(3).any(|line| line.contains(name)), "{name}");
        }
    }

    #[test]
    fn the_help_names_the_least_memory_of_a_push() {
        let cli = Cli::command();
        let memory = cli.find_subcommand("push").unwrap().get_arguments().find(|arg| arg.get_id() == "memory").unwrap();
        let least = format!("at least {}M", crate::push::LEAST >> 20);
        assert!(memory.get_help().unwrap().to_string().ends_with(&least), "{least}");
    }

    #[test]
    fn options_exist_only_where_they_have_an_effect() {
        let cli = Cli::command();
        let has = |command: &str, option: &str| {
            let command = cli.find_subcommand(command).unwrap();
            command.get_arguments().any(|argument| argument.get_long() == Some(option))
        };
        for (command, option) in [
            ("init", "expect-head"),
            ("init", "accept-rollback"),
            ("init", "key-file"),
            ("push", "accept-rollback"),
            ("repair", "accept-rollback"),
            ("umount", "limit-upload"),
            ("umount", "repo"),
            ("version", "repo"),
            ("server-setup", "limit-upload"),
            ("server-setup", "password-file"),
            ("ls", "verbose"),
        ] {
            assert!(!has(command, option), "{command} --{option}");
        }
        for (command, option) in [("push", "expect-head"), ("ls", "accept-rollback"), ("mount", "retry-for")] {
            assert!(has(command, option), "{command} --{option}");
        }
    }

    #[test]
    fn options_before_a_command_belong_to_it() {
        let moved = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let moved = arguments::options_behind_command(&words, &Cli::command());
            moved.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(moved("nfreezer -r repo -qv push source -n"), "nfreezer push -r repo -qv source -n");
        assert_eq!(moved("nfreezer --json key -rrepo list --no-memory"), "nfreezer key list --json -rrepo --no-memory");
        assert_eq!(moved("nfreezer --json -r x --port=1 umount dir"), "nfreezer umount --json dir");
        assert_eq!(moved("nfreezer --repo=a -vr b list"), "nfreezer list --repo=a -vr b");
        for same in
            ["nfreezer", "nfreezer --help", "nfreezer -r", "nfreezer --bad push", "nfreezer push -r x", "nfreezer -q"]
        {
            assert_eq!(moved(same), same);
        }
    }

    #[test]
    fn commands_of_other_tools_get_an_answer() {
        let explain = |line: &str| {
            let refused = Cli::try_parse_from(line.split(' ')).err().unwrap();
            let error = arguments::explain(&refused, &Cli::command());
            (error.to_string(), error.hint_text().unwrap_or_default().to_owned())
        };
        for command in ["rm", "gc", "locate", "info", "sync", "describe", "recreate", "cache", "serve"] {
            let (text, hint) = explain(&format!("nfreezer {command}"));
            assert!(!text.contains("unrecognized") && hint.contains("nfreezer "), "{command}: {text} / {hint}");
        }
        let (text, hint) = explain("nfreezer init --expect-head 0123456789abcdef");
        assert!(text.contains("unexpected argument '--expect-head'") && hint.contains("`push`"), "{text} / {hint}");
        let (text, hint) = explain("nfreezer pusch");
        assert!(text.contains("'pusch'") && hint.contains("'push'"), "{text} / {hint}");
        let (text, hint) = explain("nfreezer restore latest");
        assert!(text.contains("--target <DIR>") && hint.contains("nfreezer restore"), "{text} / {hint}");
    }
}
