//! Reads the environment: variables, the state folder, the name of this machine, users and groups.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::accounts;
use crate::storage::S3Options;

/// Returns a variable that is set and not empty.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Returns the folder for the state of nfreezer: `$XDG_STATE_HOME/nfreezer`, or `.local/state/nfreezer` in the home folder
/// of the environment, else of the account; for root without a home folder `/var/lib/nfreezer`.
pub fn state_folder() -> Option<PathBuf> {
    if let Some(state) = absolute("XDG_STATE_HOME") {
        return Some(state.join("nfreezer"));
    }
    match home().filter(|home| home.is_dir()) {
        Some(home) => Some(home.join(".local/state/nfreezer")),
        None => rustix::process::geteuid().is_root().then(|| PathBuf::from("/var/lib/nfreezer")),
    }
}

/// Returns the folder for the configuration: `$XDG_CONFIG_HOME/nfreezer`, or `.config/nfreezer` in the home folder.
pub fn config_folder() -> Option<PathBuf> {
    let folder = absolute("XDG_CONFIG_HOME").or_else(|| Some(home()?.join(".config")));
    folder.map(|folder| folder.join("nfreezer"))
}

/// Returns the home folder of the environment, else of the account.
pub fn home() -> Option<PathBuf> {
    absolute("HOME").or_else(|| accounts::home(rustix::process::geteuid().as_raw()))
}

fn absolute(name: &str) -> Option<PathBuf> {
    variable(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Returns the variables and files that the tools of object stores take their credentials from.
pub fn object_store() -> S3Options {
    let is_own = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    let is_asked = |name: &str| name.starts_with("AWS_") || name.to_ascii_lowercase().ends_with("_proxy");
    let own = std::env::vars_os().filter_map(is_own).filter(|(name, value)| is_asked(name) && !value.is_empty());
    S3Options { environment: own.collect(), home: absolute("HOME") }
}

/// Returns the name of this machine.
pub fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".into() } else { name.trim().into() }
}

/// Returns the name of the user that runs this process, or the number where there is no name.
pub fn user() -> String {
    let uid = rustix::process::geteuid().as_raw();
    accounts::user_name(uid).unwrap_or_else(|| uid.to_string())
}
