//! Lines of a crontab.

use super::program::{self, Outcome};
use super::{Job, Listed};
use crate::cli::profile::quoted;
use crate::error::{Error, Result};

/// Ends our lines. It is a comment for the shell.
const MARK: &str = "# nfreezer schedule: ";

/// Reports whether there is a `crontab` to call.
pub fn is_there() -> bool {
    program::run("crontab", &["-l"], "").is_ok()
}

/// Returns the line of a job.
pub fn line(job: &Job<'_>) -> String {
    let [program, profile] = [job.program, job.profile].map(|path| quoted(&path.display().to_string()));
    // cron ends a command at a percent sign.
    let command = format!("{program} run -q --low-priority {profile}").replace('%', "\\%");
    format!("{} {command} {MARK}{}", job.when.cron(), job.name)
}

/// Replaces the line of a job.
pub fn install(job: &Job<'_>) -> Result<()> {
    let others = without(&read()?, job.name);
    write(&format!("{others}{}\n", line(job)))
}

/// Removes the line of a profile. Reports whether there was one.
pub fn remove(name: &str) -> Result<bool> {
    let before = read()?;
    let after = without(&before, name);
    if before == after {
        return Ok(false);
    }
    write(&after).map(|()| true)
}

/// Returns our lines.
pub fn list() -> Result<Vec<Listed>> {
    let text = read()?;
    let of = |line: &str| {
        let (line, name) = line.rsplit_once(MARK)?;
        let fields: Vec<&str> = line.split(' ').collect();
        let profile = line.rsplit_once("--low-priority ")?.1.trim().replace("\\%", "%");
        let when = fields.get(..5)?.join(" ");
        Some(Listed { name: name.to_owned(), profile, when, next: None, by: "cron" })
    };
    Ok(text.lines().filter_map(of).collect())
}

fn without(text: &str, name: &str) -> String {
    let mark = format!("{MARK}{name}");
    text.lines().filter(|line| !line.ends_with(&mark)).map(|line| format!("{line}\n")).collect()
}

/// Returns the crontab of this user; nothing if there is none.
fn read() -> Result<String> {
    let Outcome { is_success, output, errors } = program::run("crontab", &["-l"], "")?;
    match is_success {
        true => Ok(output),
        false if errors.contains("no crontab for") => Ok(String::new()),
        false => Err(Error::failed(format!("`crontab -l` failed: {errors}"))),
    }
}

fn write(text: &str) -> Result<()> {
    let outcome = program::run("crontab", &["-"], text)?;
    if outcome.is_success { Ok(()) } else { Err(Error::failed(format!("`crontab -` failed: {}", outcome.errors))) }
}
