//! `nfreezer schedule`: lets systemd or cron run a profile.
//!
//! In: a profile and times. Out: units of systemd, or a line of the crontab. `when` has the times, `units` systemd, `cron`
//! the crontab, `program` calls both.

mod cron;
mod program;
mod units;
mod when;

use std::path::Path;

use clap::Command;
use serde_json::json;

use super::exit::OK;
use super::options::JsonArgs;
use super::output::{self, Output};
use super::table::{self, Columns};
use super::{escape, profile};
use crate::error::{Error, Kind, Result};
use units::Manager;
use when::When;

/// Arguments of `schedule`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Run a profile at certain times
    Install(InstallArgs),
    /// List the scheduled profiles
    List(JsonArgs),
    /// Remove the schedule of a profile
    Remove(RemoveArgs),
}

#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("when").required(true),
    override_usage = "nfreezer schedule install PROFILE --daily TIME|--weekly TIME|--hourly"
)]
struct InstallArgs {
    /// The name of a profile, or the path of its file
    profile: String,
    /// At the beginning of each hour
    #[arg(long, group = "when")]
    hourly: bool,
    /// Each day at this time: 03:00
    #[arg(long, group = "when", value_name = "TIME", value_parser = when::daily)]
    daily: Option<When>,
    /// Each week at this time: `sun 03:00`
    #[arg(long, group = "when", value_name = "TIME", value_parser = when::weekly)]
    weekly: Option<When>,
    /// Not while the machine runs on battery
    #[arg(long, conflicts_with = "cron")]
    on_ac_power: bool,
    /// Write a line of the crontab even if systemd runs
    #[arg(long)]
    cron: bool,
    /// Install a timer of this user, not of the system, also as root
    #[arg(long, conflicts_with = "cron")]
    user: bool,
    /// Print what would be written, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    output: JsonArgs,
}

#[derive(clap::Args)]
struct RemoveArgs {
    /// The name of a profile
    profile: String,
    #[command(flatten)]
    output: JsonArgs,
}

/// A profile that is to run by itself.
pub struct Job<'j> {
    name: &'j str,
    /// The file of the profile. Absolute.
    profile: &'j Path,
    /// This program. Absolute.
    program: &'j Path,
    when: When,
    on_ac_power: bool,
}

/// A job that was found.
pub struct Listed {
    name: String,
    profile: String,
    when: String,
    next: Option<String>,
    by: &'static str,
}

impl Args {
    /// Reports whether the output is JSON.
    pub fn is_json(&self) -> bool {
        match &self.action {
            Action::Install(args) => args.output.json,
            Action::List(output) => output.json,
            Action::Remove(args) => args.output.json,
        }
    }
}

/// Runs a subcommand. `cli` is the parser of the command line.
pub fn run(args: &Args, cli: &Command) -> Result<u8> {
    match &args.action {
        Action::Install(args) => install(args, cli),
        Action::List(output) => list(*output),
        Action::Remove(args) => remove(args),
    }
}

/// Returns the manager that a user means by default.
fn own_manager() -> Manager {
    if rustix::process::geteuid().is_root() { Manager::System } else { Manager::User }
}

fn install(args: &InstallArgs, cli: &Command) -> Result<u8> {
    let loaded = profile::load(&args.profile, cli)?;
    let program = std::env::current_exe().map_err(|e| Error::io("find this program", e))?;
    let when = args.daily.or(args.weekly).unwrap_or(When::Hourly);
    let job = Job { name: &loaded.name, profile: &loaded.path, program: &program, when, on_ac_power: args.on_ac_power };
    let manager = if args.user { Manager::User } else { own_manager() };
    let mut out = Output::new(args.output.json);
    let by_systemd = uses_systemd(args, manager, &mut out)?;
    if args.dry_run {
        show(&mut out, &job, by_systemd.then_some(manager))?;
    } else if by_systemd {
        units::install(&job, manager)?;
    } else {
        cron::install(&job)?;
    }
    if !args.dry_run {
        let by = if by_systemd { "a timer of systemd" } else { "a line of the crontab" };
        out.line(format_args!("profile {} runs by {by}: {}", job.name, job.when.calendar()))?;
        hints(&mut out, &job, by_systemd, manager)?;
    }
    let by = if by_systemd { "systemd" } else { "cron" };
    let fields = json!({ "profile": job.name, "by": by, "when": job.when.calendar(), "dry_run": args.dry_run });
    out.object("summary", output::object(fields))?;
    out.flush().map(|()| OK)
}

/// Decides between systemd and cron. A dry run also works where neither can be used.
fn uses_systemd(args: &InstallArgs, manager: Manager, out: &mut Output) -> Result<bool> {
    if !args.cron && manager.is_there() {
        return Ok(true);
    }
    match refusal(args) {
        Some(e) if args.dry_run => {
            output::warning(out, &format!("{e}: without --dry-run this command fails"))?;
            Ok(args.on_ac_power || args.user)
        }
        Some(e) => Err(e),
        None => Ok(false),
    }
}

/// Returns why no line of the crontab can be written.
fn refusal(args: &InstallArgs) -> Option<Error> {
    if args.on_ac_power || args.user {
        let text = "systemd does not run here or does not answer, and cron knows neither --on-ac-power nor --user";
        return Some(Error::new(Kind::Failed, text).hint("leave these options out"));
    }
    if cron::is_there() {
        return None;
    }
    let text = "neither systemd answers `systemctl` nor is there a program `crontab`";
    Some(Error::failed(text).hint(format!("let another scheduler run `nfreezer run {}`", args.profile)))
}

/// Prints what would be written.
fn show(out: &mut Output, job: &Job<'_>, manager: Option<Manager>) -> Result<()> {
    let Some(manager) = manager else {
        return out.line(format_args!("crontab:\n{}", escape::message(&cron::line(job))));
    };
    let folder = manager.folder()?;
    units::texts(job, manager).iter().try_for_each(|(name, text)| {
        out.line(format_args!("{}:", escape::path(&folder.join(name))))?;
        text.lines().try_for_each(|line| out.line(format_args!("    {}", escape::message(line)).to_string().trim_end()))
    })
}

fn hints(out: &mut Output, job: &Job<'_>, by_systemd: bool, manager: Manager) -> Result<()> {
    if !by_systemd {
        return out.line("hint: cron does not make up for runs that are missed while the machine is off");
    }
    let user = if manager == Manager::User { "--user " } else { "" };
    if manager == Manager::User && !units::lingers() {
        out.line("hint: the timer runs only while you are logged in; `loginctl enable-linger` changes that")?;
    }
    out.line(format_args!("hint: `systemctl {user}start nfreezer-{}.service` runs it now", job.name))?;
    out.line(format_args!("hint: `journalctl {user}-u nfreezer-{}.service` shows its messages", job.name))
}

fn list(output: JsonArgs) -> Result<u8> {
    let mut out = Output::new(output.json);
    let mut found = units::list(Manager::System)?;
    // Without a home folder there are no units of a user.
    found.extend(units::list(Manager::User).unwrap_or_default());
    if cron::is_there() {
        found.extend(cron::list()?);
    }
    let mut rows: Vec<[String; 5]> = Vec::new();
    for Listed { name, profile, when, next, by } in found {
        let fields = json!({ "profile": name, "file": profile, "when": when, "next": next, "by": by });
        out.object("schedule", output::object(fields))?;
        let cells = [name, when, next.unwrap_or_default(), by.to_owned(), profile];
        rows.push(cells.map(|cell| escape::text(cell.as_bytes())));
    }
    if rows.is_empty() {
        out.line("no profile is scheduled: `nfreezer schedule install PROFILE --daily 03:00` schedules one")?;
    } else {
        let head = ["Profile", "When", "Next", "By", "File"];
        table::print(&mut out, &Columns { head, left: 5, shortened: &[4, 2], optional: &[2] }, &rows)?;
    }
    out.object("summary", output::object(json!({ "schedules": rows.len() })))?;
    out.flush().map(|()| OK)
}

fn remove(args: &RemoveArgs) -> Result<u8> {
    let name = profile::name_of(&args.profile)?;
    let mut removed = Vec::new();
    let managers =
        if own_manager() == Manager::System { &[Manager::System, Manager::User][..] } else { &[Manager::User] };
    for manager in managers {
        if units::remove(&name, *manager)? {
            removed.push("systemd");
        }
    }
    if cron::is_there() && cron::remove(&name)? {
        removed.push("cron");
    }
    if removed.is_empty() {
        return Err(Error::failed(format!("profile {name} is not scheduled: nothing was changed"))
            .hint("`nfreezer schedule list` lists the scheduled profiles"));
    }
    let mut out = Output::new(args.output.json);
    out.line(format_args!("profile {name} does not run by itself any more; the profile is still there"))?;
    out.object("summary", output::object(json!({ "profile": name, "removed": removed })))?;
    out.flush().map(|()| OK)
}
