//! `nfreezer mount` and `nfreezer umount`. In the background the work is done by a child that is this program again: it asks
//! for the passphrase on the terminal, mounts, reports that on its standard output, and leaves the terminal. No thread is forked.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::environment::host;
use super::exit::OK;
use super::filter::FilterArgs;
use super::journal::Journal;
use super::open::{read_state, to_mount};
use super::options::{AddressArgs, JsonArgs, OutputArgs, ReadArgs};
use super::output::{self, Output};
use super::systemd::Manager;
use super::values::{duration, size, snapshot_and_path};
use super::{escape, signals, warnings};
use crate::accounts::{self, Account};
use crate::error::{Error, Kind, Result};
use crate::mount::{self, Phase};
use crate::repo::State;
use crate::storage::{self, Location};
use crate::vfs;

/// The line by which the child reports that the folder shows the backup.
const READY: &str = "ready";

/// Variable of the C library: the number of its heaps. Threads that hand blocks to each other fragment a heap each, with 90
/// MiB more at the peak (docs/measurements.md).
const ARENAS: &str = "MALLOC_ARENA_MAX";

/// Arguments of `mount`.
#[derive(clap::Args)]
pub struct Args {
    /// The folder to mount on, and what to show there
    ///
    /// Without SNAPSHOT the mount shows all snapshots.
    #[arg(value_name = "[SNAPSHOT[:PATH]] DIR", num_args = 1..=2, required = true)]
    places: Vec<OsString>,
    /// Stay in the foreground
    ///
    /// Messages go to standard error.
    #[arg(short, long)]
    foreground: bool,
    /// Owner of all files: me, keep, or USER[:GROUP]
    ///
    /// `keep` shows the owners as saved. The default is `me`; for root it is `keep`.
    #[arg(long, value_name = "OWNER")]
    owner: Option<String>,
    /// Let other users read
    ///
    /// The modes of the files decide what they can read.
    #[arg(long)]
    allow_other: bool,
    /// Mount over a folder that is not empty, or that was backed up
    #[arg(long, hide_short_help = true)]
    nonempty: bool,
    /// Forbid the execution of programs
    #[arg(long, hide_short_help = true)]
    noexec: bool,
    /// A request that waits longer for the server fails with an I/O error
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration, hide_short_help = true)]
    io_timeout: Duration,
    /// Interval between checks for new snapshots; 0 disables them
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration, hide_short_help = true)]
    refresh: Duration,
    /// Memory for decrypted blocks
    #[arg(long, value_name = "SIZE", default_value = "96M", value_parser = size, hide_short_help = true)]
    memory_cache: u64,
    /// Unmount after this time without use: 15m, 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    idle_unmount: Option<Duration>,
    /// Append messages with their times to FILE
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Equal files share one inode number and one copy in the page cache; busybox cp makes them hard links
    #[arg(long, hide_short_help = true)]
    shared_inodes: bool,
    /// Do not fetch the names of the latest snapshot in the background
    #[arg(long, hide_short_help = true)]
    no_prefetch: bool,
    /// The source in the mount table
    #[arg(long, hide = true)]
    fsname: Option<String>,
    #[arg(long, hide = true)]
    background_child: bool,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    repository: ReadArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Arguments of `umount`.
#[derive(clap::Args)]
pub struct UmountArgs {
    /// The folder on which a backup is mounted
    dir: PathBuf,
    /// Unmount a folder that is in use
    ///
    /// The mount disappears at once, and ends when no program uses it any more.
    #[arg(short, long)]
    lazy: bool,
    #[command(flatten)]
    pub output: JsonArgs,
}

/// Mounts; in the background unless `-f` is given. `arguments` are the arguments of this call, without the program's name.
pub fn run(args: &Args, arguments: &[OsString]) -> Result<u8> {
    if args.foreground && std::env::var_os(ARENAS).is_none() {
        // Returns only if this program cannot be run again; then the mount takes more memory.
        drop(this_program().map(|mut program| program.args(arguments).exec()));
    }
    if args.foreground || args.background_child {
        return serve(args);
    }
    let code = in_background(arguments)?;
    if code == OK && !args.output.quiet && !args.output.json {
        let dir = args.places.last().map(|dir| escape::text(dir.as_encoded_bytes())).unwrap_or_default();
        output::relay(&format!("mounted at {dir}; `nfreezer umount {dir}` unmounts it"))?;
    }
    Ok(code)
}

/// Unmounts.
pub fn umount(args: &UmountArgs) -> Result<u8> {
    mount::release(&args.dir, args.lazy)?;
    let mut out = Output::new(args.output.json);
    out.object("summary", Default::default())?;
    out.flush().map(|()| OK)
}

/// Runs this program again with the same arguments and returns when that has mounted or failed.
fn in_background(arguments: &[OsString]) -> Result<u8> {
    let (options, rest) = arguments.split_at(arguments.iter().position(|a| a == "--").unwrap_or(arguments.len()));
    let mut child = this_program()?
        .args(options)
        .arg("--background-child")
        .args(rest)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut lines = BufReader::new(child.stdout.take().ok_or_else(|| Error::failed("no pipe to the mount"))?).lines();
    for line in lines.by_ref().map_while(|line| line.ok()) {
        match line == READY {
            true => return Ok(OK),
            false => output::relay(&line)?,
        }
    }
    let status = child.wait().map_err(failed)?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0).unwrap_or(1))
}

/// Returns a call of this program for a process that serves a mount.
fn this_program() -> Result<Command> {
    let mut program = Command::new(std::env::current_exe().map_err(failed)?);
    // The file may bear another name, see [`super::mount_helper`].
    program.arg0("nfreezer");
    if std::env::var_os(ARENAS).is_none() {
        program.env(ARENAS, "1");
    }
    Ok(program)
}

fn failed(e: std::io::Error) -> Error {
    Error::io("start the process that serves the mount", e)
}

/// Mounts, and creates the folder for it. After a failure a folder that was created here is removed.
fn serve(args: &Args) -> Result<u8> {
    let folder = args.places.last().map(Path::new);
    let made = folder.filter(|folder| std::fs::create_dir(folder).is_ok());
    let result = serve_on_folder(args);
    if let (Some(folder), Err(_)) = (made, &result) {
        let _ = std::fs::remove_dir(folder);
    }
    result
}

fn serve_on_folder(args: &Args) -> Result<u8> {
    let (what, dir) = match args.places.as_slice() {
        [dir] => (None, Path::new(dir)),
        [what, dir, ..] => (Some(snapshot_and_path(what)?), Path::new(dir)),
        [] => return Err(Error::new(Kind::Usage, "give the folder to mount on")),
    };
    if args.idle_unmount.is_some_and(|time| time.is_zero()) {
        return Err(Error::new(Kind::Usage, "--idle-unmount needs a time above 0"));
    }
    let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let owner = owner(args.owner.as_deref(), me)?;
    let (manager, journal) =
        (Arc::new(Manager::from_environment()), Arc::new(Journal::open(args.log_file.as_deref())?));
    let log: mount::Log = Arc::new({
        let journal = Arc::clone(&journal);
        move |line: &str| journal.line(line)
    });
    // Looked at before a passphrase is asked for.
    let location = Location::parse(&args.repository.open.address.get()?)?;
    let keep = mount::Keep { nonempty: args.nonempty, repository: location.local_path(), sources: &[] };
    let dir = mount::prepare(dir, keep, &|line| log(line))?;
    let _diverted = divert(&log, &manager);
    let repo = to_mount(&args.repository, args.output, |options| impatient(options, args.io_timeout))?;
    repo.set_cache(args.memory_cache as usize);
    repo.bound_reads();
    let mut out = Output::new(args.output.json);
    let state = read_state(&repo, &mut out)?;
    let at = what.map(|(snapshot, path)| args.filter.locate(&repo, &state, &snapshot, path)).transpose()?;
    let view = vfs::Options {
        rights: vfs::Rights { owner, by_mode: args.allow_other },
        mounter: me,
        zone: jiff::tz::TimeZone::system(),
        at,
        shared_inodes: args.shared_inodes,
        cache: args.memory_cache as usize,
        round_trip: None,
    };
    let options = mount_options(args, view, &state, log);
    out.object("summary", Default::default())?;
    out.flush()?;
    let tell = |phase: Phase<'_>| announce(phase, args, &manager, &journal);
    signals::leave_to_others();
    mount::serve(signals::context(), Arc::new(repo), state, &dir, options, tell).map(|()| OK)
}

fn mount_options(args: &Args, view: vfs::Options, state: &State, log: mount::Log) -> mount::Options {
    mount::Options {
        view,
        allow_other: args.allow_other,
        nonempty: args.nonempty,
        noexec: args.noexec,
        source: args.fsname.clone(),
        sources: sources(state),
        io_timeout: args.io_timeout,
        refresh: (!args.refresh.is_zero()).then_some(args.refresh),
        prefetch: !args.no_prefetch,
        idle: args.idle_unmount,
        log,
    }
}

/// Reports a phase of the mount to the service manager, and ends the part in the foreground.
fn announce(phase: Phase<'_>, args: &Args, manager: &Manager, journal: &Journal) -> Result<()> {
    match phase {
        Phase::Ready(mounted) => {
            let address = repo_address(&args.repository.open.address);
            let dir = escape::text(mounted.dir().as_os_str().as_bytes());
            // The process that was started has ended, or will; this one is the service.
            let main = format!("MAINPID={}", std::process::id());
            manager.tell(&format!("READY=1\n{main}\nSTATUS={address} is mounted at {dir}"));
            if args.background_child { leave_terminal(journal) } else { Ok(()) }
        }
        Phase::Stopping => {
            manager.tell("STOPPING=1\nSTATUS=unmounting");
            Ok(())
        }
    }
}

fn repo_address(address: &AddressArgs) -> String {
    address.get().map(|address| escape::message(&address)).unwrap_or_default()
}

/// News of the line and failures of our own go to the log of the mount.
fn divert(log: &mount::Log, manager: &Arc<Manager>) -> warnings::Diverted {
    let panics = Arc::clone(log);
    std::panic::set_hook(Box::new(move |info| panics(&super::panics::error(info).to_string())));
    let (log, manager) = (Arc::clone(log), Arc::clone(manager));
    warnings::divert(Arc::new(move |text| {
        log(text);
        manager.status(text);
    }))
}

/// Returns the sources of the newest complete snapshot of this machine.
fn sources(state: &State) -> Vec<PathBuf> {
    let host = host();
    let snapshots = state.snapshots();
    let newest = snapshots.iter().filter(|s| !s.partial && s.host == host).max_by_key(|s| s.time);
    newest.iter().flat_map(|s| &s.paths).map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path))).collect()
}

/// Shortens the time-outs: a stalled connection is replaced while a waiting reader can still be served by the next one, and
/// a server that is back is found soon.
fn impatient(options: &mut storage::Options, io_timeout: Duration) {
    options.ssh.io_timeout = options.ssh.io_timeout.min(io_timeout / 2).max(Duration::from_secs(1));
    options.longest_pause = Duration::from_secs(2);
}

/// `None`: as saved.
fn owner(text: Option<&str>, me: (u32, u32)) -> Result<Option<(u32, u32)>> {
    match text {
        None => Ok((me.0 != 0).then_some(me)),
        Some("keep") => Ok(None),
        Some("me") => Ok(Some(me)),
        Some(text) => {
            let (user_text, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
            let account = user(user_text)?;
            let gid = group.map(group_number).transpose()?.unwrap_or(account.gid);
            Ok(Some((account.uid, gid)))
        }
    }
}

/// Returns a user by name or number. A number without a user is also the number of the group.
fn user(text: &str) -> Result<Account> {
    let number = || text.parse().ok().map(|uid| accounts::user_of_number(uid).unwrap_or(Account { uid, gid: uid }));
    accounts::user(text.as_bytes()).or_else(number).ok_or_else(|| unknown("user", text))
}

fn group_number(text: &str) -> Result<u32> {
    accounts::group(text.as_bytes()).or_else(|| text.parse().ok()).ok_or_else(|| unknown("group", text))
}

fn unknown(kind: &str, name: &str) -> Error {
    let text = format!("--owner: there is no {kind} {} on this machine", escape::text(name.as_bytes()));
    Error::new(Kind::Usage, text).hint("give `me`, `keep`, or USER[:GROUP] by name or number")
}

/// Reports to the parent process, then detaches from the terminal.
fn leave_terminal(journal: &Journal) -> Result<()> {
    let failed = |e: std::io::Error| Error::io("go to the background", e);
    output::relay(READY)?;
    journal.leave_terminal();
    let _ = rustix::process::setsid();
    let null = File::options().read(true).write(true).open("/dev/null").map_err(failed)?;
    rustix::stdio::dup2_stdin(&null).map_err(|e| failed(e.into()))?;
    rustix::stdio::dup2_stdout(&null).map_err(|e| failed(e.into()))?;
    rustix::stdio::dup2_stderr(&null).map_err(|e| failed(e.into()))?;
    std::env::set_current_dir("/").map_err(failed)
}
