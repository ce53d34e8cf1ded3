//! Command lines of the program `ssh`: for its configuration, for SFTP, and for a command on the server.

use std::path::Path;
use std::process::Command;

use super::child::Program;
use super::config::HostConfig;
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

/// Options of a process for bulk data: nothing is asked, and nothing is tried that the login of this process did not need. Its
/// host key was verified and is known by then.
const SILENT: [&str; 5] = [
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    "PreferredAuthentications=publickey",
    "StrictHostKeyChecking=yes",
    "ControlPath=none",
];

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
pub fn sftp(remote: &Remote, options: &SshOptions, config: &HostConfig) -> Program {
    let mut settings: Vec<String> = ONLY_SFTP.map(Into::into).into();
    settings.push(format!("StrictHostKeyChecking={}", if config.accept_new { "accept-new" } else { "yes" }));
    settings.push(format!("ConnectTimeout={}", options.connect_timeout.as_secs().max(1)));
    settings.push(format!("ServerAliveInterval={}", (options.io_timeout.as_secs() / 2).max(1)));
    settings.extend(config.ciphers.as_deref().filter(|_| has_aes()).map(gcm_first));
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

/// Returns a program of the processes for bulk data, which log in with `key` and with nothing else.
pub fn bulk(program: &Program, key: &Path) -> Program {
    let mut words = program.more.clone();
    let settings = SILENT.into_iter().flat_map(|setting| ["-o".to_string(), setting.into()]);
    // ssh takes the first value of a setting
    words.splice(1..1, settings.chain(["-i".into(), literal(key)]));
    Program { first: words.clone(), more: words }
}

/// Returns the setting with the same ciphers, AES-GCM first: with instructions for AES it needs half as much processor time as
/// ChaCha20, which is OpenSSH's first choice.
fn gcm_first(ciphers: &str) -> String {
    let (first, rest): (Vec<&str>, Vec<&str>) = ciphers.split(',').partition(|name| name.contains("-gcm@"));
    format!("Ciphers={}", [first, rest].concat().join(","))
}

/// Returns whether the processor has instructions for AES.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ciphers_are_reordered_and_never_added() {
        let default = "chacha20-poly1305@openssh.com,aes128-ctr,aes128-gcm@openssh.com,aes256-gcm@openssh.com";
        let expected = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr";
        assert_eq!(gcm_first(default), format!("Ciphers={expected}"));
        assert_eq!(gcm_first("aes256-ctr"), "Ciphers=aes256-ctr");
    }

    #[test]
    fn a_process_for_bulk_data_uses_one_key_and_asks_nothing() {
        let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        let program =
            Program { first: words("ssh -s -- nas sftp"), more: words("ssh -o BatchMode=yes -s -- nas sftp") };
        let line = bulk(&program, Path::new("/k/100%")).more.join(" ");
        let ssh = "ssh -o IdentitiesOnly=yes -o IdentityAgent=none -o PreferredAuthentications=publickey";
        let rest = "-o StrictHostKeyChecking=yes -o ControlPath=none -i /k/100%% -o BatchMode=yes -s -- nas sftp";
        assert_eq!(line, format!("{ssh} {rest}"));
    }
}
