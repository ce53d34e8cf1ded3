//! Timers of systemd: the texts of the units, and the calls of `systemctl`.

use std::fs;
use std::path::{Path, PathBuf};

use super::program::{self, Outcome};
use super::{Job, Listed};
use crate::cli::environment::{config_folder, user};
use crate::cli::escape;
use crate::error::{Error, Result};

const SYSTEM: &str = "/etc/systemd/system";
const MARK: &str = "# Written by `nfreezer schedule install`.";
const PROFILE: &str = "# Profile: ";

/// A manager of units, of the system or of a user.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    System,
    User,
}

impl Manager {
    /// Returns the folder with the units of an administrator, or of the user.
    pub fn folder(self) -> Result<PathBuf> {
        match self {
            Manager::System => Ok(SYSTEM.into()),
            Manager::User => config_folder()
                .and_then(|folder| Some(folder.parent()?.join("systemd/user")))
                .ok_or_else(|| Error::failed("there is no home folder for the units").hint("set HOME")),
        }
    }

    fn systemctl(self, arguments: &[&str]) -> Result<Outcome> {
        let user: &[&str] = if self == Manager::User { &["--user"] } else { &[] };
        program::run("systemctl", &[user, arguments].concat(), "")
    }

    /// Runs `systemctl`, which must succeed.
    fn command(self, arguments: &[&str]) -> Result<()> {
        let outcome = self.systemctl(arguments)?;
        if outcome.is_success {
            return Ok(());
        }
        Err(Error::failed(format!("`systemctl {}` failed: {}", arguments.join(" "), outcome.errors)))
    }

    /// Reports whether this manager runs and answers.
    pub fn is_there(self) -> bool {
        self.systemctl(&["show", "--property=Version"]).is_ok_and(|outcome| outcome.is_success)
    }
}

fn unit(name: &str, kind: &str) -> String {
    format!("nfreezer-{name}.{kind}")
}

/// Returns the names and texts of the units of a job.
pub fn texts(job: &Job<'_>, manager: Manager) -> [(String, String); 2] {
    [(unit(job.name, "service"), service(job, manager)), (unit(job.name, "timer"), timer(job))]
}

fn head(job: &Job<'_>) -> String {
    let (name, profile) = (job.name, job.profile.display());
    format!("{MARK}\n# `nfreezer schedule remove {name}` removes it.\n{PROFILE}{profile}\n\n[Unit]\n")
}

fn service(job: &Job<'_>, manager: Manager) -> String {
    let mut text = head(job) + &format!("Description=Backup by the nfreezer profile {}\n", job.name);
    if manager == Manager::System {
        text += "Wants=network-online.target\nAfter=network-online.target\n";
    }
    if job.on_ac_power {
        text += "ConditionACPower=true\n";
    }
    let (program, profile) = (quoted(job.program), quoted(job.profile));
    text += "\n[Service]\nType=oneshot\n";
    text += &format!("ExecStart={program} run {profile}\n");
    text += "# The snapshot is saved, but some files could not be read. They are named in the journal.\n";
    text += "SuccessExitStatus=3\n";
    text += "Nice=19\nCPUSchedulingPolicy=idle\nIOSchedulingClass=idle\n";
    text += "# The run stops its present step and still executes its hooks.\n";
    text + "KillMode=mixed\nTimeoutStopSec=3min\n"
}

fn timer(job: &Job<'_>) -> String {
    head(job)
        + &format!("Description=Timer of the nfreezer profile {}\n", job.name)
        + &format!("\n[Timer]\nOnCalendar={}\nRandomizedDelaySec={}\n", job.when.calendar(), job.when.delay())
        + "# A run that was missed, for example because the machine was off, is made up for.\nPersistent=true\n"
        + "\n[Install]\nWantedBy=timers.target\n"
}

/// Quotes a path for `ExecStart`.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    format!("\"{text}\"")
}

/// Writes the units, and enables and starts the timer.
pub fn install(job: &Job<'_>, manager: Manager) -> Result<()> {
    let folder = manager.folder()?;
    fs::create_dir_all(&folder).map_err(|e| Error::io(format!("create {}", escape::path(&folder)), e))?;
    for (name, text) in texts(job, manager) {
        let path = folder.join(&name);
        if path.exists() && !is_ours(&path) {
            let text = format!("{} exists, and `nfreezer schedule install` did not write it", escape::path(&path));
            return Err(Error::failed(text).hint("nothing was changed; rename the profile or remove that unit"));
        }
        fs::write(&path, text).map_err(|e| Error::io(format!("write {}", escape::path(&path)), e))?;
    }
    manager.command(&["daemon-reload"])?;
    manager.command(&["enable", &unit(job.name, "timer")])?;
    manager.command(&["restart", &unit(job.name, "timer")])
}

/// Disables a timer and removes its units. Reports whether there was one.
pub fn remove(name: &str, manager: Manager) -> Result<bool> {
    let folder = manager.folder()?;
    let timer = folder.join(unit(name, "timer"));
    if !is_ours(&timer) {
        return Ok(false);
    }
    manager.command(&["disable", "--now", &unit(name, "timer")])?;
    for path in [timer, folder.join(unit(name, "service"))] {
        fs::remove_file(&path).map_err(|e| Error::io(format!("remove {}", escape::path(&path)), e))?;
    }
    manager.command(&["daemon-reload"])?;
    Ok(true)
}

fn is_ours(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.starts_with(MARK))
}

/// Returns the timers of a manager.
pub fn list(manager: Manager) -> Result<Vec<Listed>> {
    let Ok(entries) = manager.folder()?.read_dir() else { return Ok(Vec::new()) };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths.iter().filter(|path| is_ours(path)).filter_map(|path| listed(path, manager)).collect())
}

fn listed(path: &Path, manager: Manager) -> Option<Listed> {
    let unit = path.file_name()?.to_str()?;
    let name = unit.strip_prefix("nfreezer-")?.strip_suffix(".timer")?;
    let text = fs::read_to_string(path).ok()?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().to_owned();
    let next = manager.systemctl(&["show", unit, "--property=NextElapseUSecRealtime", "--value"]);
    Some(Listed {
        name: name.to_owned(),
        profile: value(PROFILE),
        when: value("OnCalendar="),
        next: next.ok().filter(|outcome| outcome.is_success).map(|outcome| outcome.output.trim().to_owned()),
        by: if manager == Manager::System { "systemd" } else { "systemd, of the user" },
    })
}

/// Reports whether the timers of this user run while they are not logged in.
pub fn lingers() -> bool {
    Path::new("/var/lib/systemd/linger").join(user()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_units() {
        assert_eq!(quoted(Path::new("/a b/50%\"$x\\")), "\"/a b/50%%\\\"$$x\\\\\"");
    }
}
