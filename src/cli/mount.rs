//! `nfreezer mount` and `nfreezer umount`. In the background the work is done by a child that is this program again: it asks
//! for the passphrase on the terminal, mounts, says so on its standard output, and leaves the terminal. No fork of threads.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::OK;
use super::common::{Common, duration, open_repository_with, read_state, size, snapshot_and_path};
use super::show::{self, Output};
use crate::error::{Error, Kind, Result};
use crate::mount::{self, Log};
use crate::storage;
use crate::vfs;

/// What the child says when the folder shows the backup.
const READY: &str = "ready";

/// Arguments of `mount`.
#[derive(clap::Args)]
pub struct Args {
    /// [SNAPSHOT[:PATH]] DIR: the folder to mount on, and what to show there instead of all snapshots
    #[arg(value_name = "[SNAPSHOT[:PATH]] DIR", num_args = 1..=2, required = true)]
    places: Vec<OsString>,
    /// Stay in the foreground; messages go to standard error
    #[arg(short, long)]
    foreground: bool,
    /// Whose the files appear to be: `me`, `keep` (as saved; what root gets without this option), or USER[:GROUP]
    #[arg(long, value_name = "OWNER")]
    owner: Option<String>,
    /// Let other users in, as far as the modes of the files allow
    #[arg(long)]
    allow_other: bool,
    /// Mount over a folder that is not empty
    #[arg(long)]
    nonempty: bool,
    /// How long a request may wait for the server before it fails with an I/O error
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    io_timeout: Duration,
    /// How often to look for new snapshots; 0 for never
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    refresh: Duration,
    /// Bytes of decrypted blocks that are kept in memory
    #[arg(long, value_name = "SIZE", default_value = "96M", value_parser = size)]
    cache_size: u64,
    /// Append messages to this file
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Do not fetch the names of the latest snapshot in the background
    #[arg(long)]
    no_prefetch: bool,
    #[arg(long, hide = true)]
    background_child: bool,
}

/// Arguments of `umount`.
#[derive(clap::Args)]
pub struct UmountArgs {
    /// Where a backup is mounted
    dir: PathBuf,
    /// Also while something uses it: it vanishes now and ends when nobody uses it any more
    #[arg(short, long)]
    lazy: bool,
}

/// Mounts; in the background unless `-f` is given.
pub fn run(common: &Common, args: &Args) -> Result<u8> {
    if args.foreground || args.background_child {
        return serve(common, args);
    }
    let code = in_background()?;
    if code == OK && !common.quiet && !common.json {
        let dir = args.places.last().map(|dir| show::text(dir.as_encoded_bytes())).unwrap_or_default();
        show::relay(&format!("mounted at {dir}; `nfreezer umount {dir}` takes it away"))?;
    }
    Ok(code)
}

/// Unmounts.
pub fn umount(common: &Common, args: &UmountArgs) -> Result<u8> {
    mount::release(&args.dir, args.lazy)?;
    let mut out = Output::new(common.json);
    out.object("summary", Default::default())?;
    out.flush().map(|()| OK)
}

/// Runs this program again with the same arguments and returns when that has mounted or failed.
fn in_background() -> Result<u8> {
    let failed = |e| Error::io("start the process that serves the mount", e);
    let mut child = Command::new(std::env::current_exe().map_err(failed)?)
        .args(std::env::args_os().skip(1))
        .arg("--background-child")
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut lines = BufReader::new(child.stdout.take().ok_or_else(|| Error::failed("no pipe to the mount"))?).lines();
    for line in lines.by_ref().map_while(|line| line.ok()) {
        match line == READY {
            true => return Ok(OK),
            false => show::relay(&line)?,
        }
    }
    let status = child.wait().map_err(failed)?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0).unwrap_or(1))
}

fn serve(common: &Common, args: &Args) -> Result<u8> {
    let (what, dir) = match args.places.as_slice() {
        [dir] => (None, Path::new(dir)),
        [what, dir, ..] => (Some(snapshot_and_path(what)?), Path::new(dir)),
        [] => return Err(Error::new(Kind::Usage, "give the folder to mount on")),
    };
    // Looked at before a passphrase is asked for.
    let dir = std::path::absolute(dir).map_err(|e| Error::io("find the folder to mount on", e))?;
    let repo = open_repository_with(common, |options| impatient(options, args.io_timeout))?;
    repo.set_cache(args.cache_size as usize);
    let mut out = Output::new(common.json);
    let state = read_state(&repo, &mut out)?;
    let at = what.map(|(snapshot, path)| Ok::<_, Error>((state.select(&snapshot)?, path))).transpose()?;
    let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let view = vfs::Options {
        owner: owner(args.owner.as_deref(), me)?,
        mounter: me,
        zone: jiff::tz::TimeZone::system(),
        at,
        cache: args.cache_size as usize,
    };
    let options = mount::Options {
        view,
        allow_other: args.allow_other,
        nonempty: args.nonempty,
        io_timeout: args.io_timeout,
        refresh: (!args.refresh.is_zero()).then_some(args.refresh),
        prefetch: !args.no_prefetch,
        log: log(args)?,
    };
    out.object("summary", Default::default())?;
    out.flush()?;
    let ready = |_: &mount::Mounted| {
        notify_service_manager();
        if args.background_child { leave_terminal() } else { Ok(()) }
    };
    mount::serve(Arc::new(repo), state, &dir, options, ready).map(|()| OK)
}

/// A connection on which nothing moves is given up while whoever waits can still be served by the next one, and a server that
/// is back is found soon.
fn impatient(options: &mut storage::Options, io_timeout: Duration) {
    options.io_timeout = options.io_timeout.min(io_timeout / 2).max(Duration::from_secs(1));
    options.longest_pause = Duration::from_secs(2);
}

/// `None`: as saved.
fn owner(text: Option<&str>, me: (u32, u32)) -> Result<Option<(u32, u32)>> {
    match text {
        None => Ok((me.0 != 0).then_some(me)),
        Some("keep") => Ok(None),
        Some("me") => Ok(Some(me)),
        Some(text) => {
            let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
            let account = number_of("/etc/passwd", user)?;
            let group = group.map(|group| number_of("/etc/group", group)).transpose()?;
            Ok(Some((account.0, group.map_or(account.1.unwrap_or(account.0), |g| g.0))))
        }
    }
}

/// The number of a user or group (and a user's own group), by number or by name in this file.
fn number_of(file: &str, name: &str) -> Result<(u32, Option<u32>)> {
    let table = std::fs::read_to_string(file).unwrap_or_default();
    let rows = table.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let row = rows.filter(|row| row.len() > 3).find(|row| row[0] == name || row[2] == name);
    let found = row.and_then(|row| Some((row[2].parse().ok()?, row[3].parse().ok())));
    let found = found.or_else(|| Some((name.parse().ok()?, None)));
    found.ok_or_else(|| Error::new(Kind::Usage, format!("{} is not in {file}", show::text(name.as_bytes()))))
}

fn log(args: &Args) -> Result<Log> {
    let file = match &args.log_file {
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Some(Mutex::new(file.map_err(|e| Error::io(format!("open the log {}", path.display()), e))?))
        }
        None => None,
    };
    Ok(Arc::new(move |line: &str| match &file {
        Some(file) => {
            let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string();
            // A log that cannot be written must not take the mount down.
            drop(writeln!(file.lock().expect("no holder panics"), "{now} {}", show::message(line)));
        }
        None => show::notice(format_args!("nfreezer: {}", show::message(line))),
    }))
}

/// Tells the parent, then has nothing to do with the terminal any more.
fn leave_terminal() -> Result<()> {
    let failed = |e: std::io::Error| Error::io("go to the background", e);
    show::relay(READY)?;
    let _ = rustix::process::setsid();
    let null = File::options().read(true).write(true).open("/dev/null").map_err(failed)?;
    rustix::stdio::dup2_stdin(&null).map_err(|e| failed(e.into()))?;
    rustix::stdio::dup2_stdout(&null).map_err(|e| failed(e.into()))?;
    rustix::stdio::dup2_stderr(&null).map_err(|e| failed(e.into()))?;
    std::env::set_current_dir("/").map_err(failed)
}

/// `READY=1` for systemd units with `Type=notify`.
fn notify_service_manager() {
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET")
        && let Ok(socket) = std::os::unix::net::UnixDatagram::unbound()
    {
        drop(socket.send_to(b"READY=1", path));
    }
}
