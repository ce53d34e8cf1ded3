//! Runs the hooks of a profile. A hook reads the summary of the run so far from its standard input.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};

use super::report::{Ended, Report};
use super::{cannot_start, code_of};
use crate::cli::{escape, output};
use crate::error::Result;

/// When a hook runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Before,
    After,
    Failed,
    Finally,
}

impl Hook {
    fn name(self) -> &'static str {
        match self {
            Hook::Before => "before",
            Hook::After => "after",
            Hook::Failed => "failed",
            Hook::Finally => "finally",
        }
    }
}

/// Runs a command for the shell. Its output goes to standard error.
pub fn run(hook: Hook, command: &str, report: &Report) -> Result<Ended> {
    let name = hook.name();
    let failed = |e| cannot_start(&format!("the hook {name}"), e);
    let error = report.failure().unwrap_or_default();
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command);
    shell.stdin(summary(report).map_err(failed)?);
    shell.stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned().map_err(failed)?));
    shell.env("NFREEZER_PROFILE", &report.profile).env("NFREEZER_HOOK", name);
    shell.env("NFREEZER_EXIT_CODE", report.code().to_string()).env("NFREEZER_ERROR", escape::message(&error));
    shell.env("NFREEZER_SNAPSHOTS", report.snapshots().join(" "));
    let code = code_of(shell.status().map_err(failed)?);
    let error = (code != 0).then(|| format!("the hook {name} failed with exit code {code}: {command}"));
    // A code of a hook has no meaning of ours.
    Ok(Ended { code: u8::from(code != 0), skipped: None, error, ..Ended::skipped(name, String::new()) })
}

/// Returns the summary as a file in memory, so that a hook that does not read it keeps nothing waiting.
fn summary(report: &Report) -> io::Result<File> {
    let mut file = File::from(memfd_create("summary", MemfdFlags::CLOEXEC)?);
    writeln!(file, "{}", output::json_line("summary", report.fields()))?;
    file.rewind()?;
    Ok(file)
}
