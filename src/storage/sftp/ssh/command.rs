//! Command lines of the program `ssh`: for its configuration, for SFTP, and for a command on the server.

use std::path::Path;
use std::process::Command;

use super::child::Program;
use super::options::SshOptions;
use crate::storage::location::Remote;

/// Options of every SFTP process: nothing that is not SFTP.
const ONLY_SFTP: [&str; 5] =
    ["ClearAllForwardings=yes", "PermitLocalCommand=no", "RemoteCommand=none", "ControlMaster=no", "EscapeChar=none"];

/// Returns `ssh -G HOST`, which prints the configuration for a host.
pub fn configuration(remote: &Remote, options: &SshOptions) -> Command {
    let mut command = Command::new("ssh");
    command.arg("-G").args(address(remote, options)).args(["--", &remote.host]);
    command
}

/// Returns `ssh HOST COMMAND`.
pub fn on_server(remote: &Remote, options: &SshOptions, shell_command: &str) -> Command {
    let mut command = Command::new("ssh");
    command.args(["-T", "-o", "ControlMaster=no"]);
    if options.accept_new_host_key {
        command.args(["-o", "StrictHostKeyChecking=accept-new"]);
    }
    command.args(identities(options)).args(address(remote, options)).args(["--", &remote.host, shell_command]);
    command
}

/// Returns `ssh -s HOST sftp` with the user's configuration.
pub fn sftp(remote: &Remote, options: &SshOptions, accept_new: bool) -> Program {
    let mut settings: Vec<String> = ONLY_SFTP.map(Into::into).into();
    settings.push(format!("StrictHostKeyChecking={}", if accept_new { "accept-new" } else { "yes" }));
    settings.push(format!("ConnectTimeout={}", options.connect_timeout.as_secs().max(1)));
    settings.push(format!("ServerAliveInterval={}", (options.io_timeout.as_secs() / 2).max(1)));
    if let Some(files) = &options.known_hosts {
        let files: Vec<String> = files.iter().map(|file| format!("\"{}\"", literal(file))).collect();
        settings.push(format!("UserKnownHostsFile={}", files.join(" ")));
        settings.push("GlobalKnownHostsFile=none".into());
    }
    if let Some(agent) = &options.agent {
        let agent = if agent.as_os_str().is_empty() { "none".into() } else { literal(agent) };
        settings.push(format!("IdentityAgent=\"{agent}\""));
    }
    let mut line: Vec<String> = ["ssh", "-x", "-a", "-T"].map(Into::into).into();
    line.extend(settings.into_iter().flat_map(|setting| ["-o".into(), setting]));
    line.extend(identities(options));
    line.extend(address(remote, options));
    let end = ["-s".to_string(), "--".into(), remote.host.clone(), "sftp".into()];
    let more = line.iter().cloned().chain(["-o".to_string(), "BatchMode=yes".into()]).chain(end.clone()).collect();
    line.extend(end);
    Program { first: line, more }
}

/// Returns the configuration file, the account and the port.
fn address(remote: &Remote, options: &SshOptions) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(file) = &options.ssh_config {
        words.extend(["-F".into(), file.display().to_string()]);
    }
    if let Some(user) = &remote.user {
        words.extend(["-l".into(), user.clone()]);
    }
    if let Some(port) = remote.port.or(options.port) {
        words.extend(["-p".into(), port.to_string()]);
    }
    words
}

/// Returns the key files of `-i`.
fn identities(options: &SshOptions) -> Vec<String> {
    options.identity.iter().flat_map(|file| ["-i".into(), literal(file)]).collect()
}

/// Returns a file name in which `ssh` expands no `%` token.
fn literal(file: &Path) -> String {
    file.display().to_string().replace('%', "%%")
}
