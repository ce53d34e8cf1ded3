//! The options of the repositories that `copy` and `push` write to besides the one of `--repo`.

use std::path::PathBuf;

use super::options::{AddressArgs, ConnectionArgs, OpenArgs, Role, SecretArgs, SshArgs};
use crate::error::{Error, Kind, Result};

const TARGET: &str = "Target";

/// Options for opening repositories of `--to`. An option that is given once is for all of them, else each has its own, in the order
/// of `--to`.
#[derive(clap::Args, Clone, Debug)]
pub struct TargetArgs {
    /// Read the passphrase of --to from FILE
    ///
    /// One newline at the end is removed. [env: NFREEZER_TO_PASSWORD_FILE; the passphrase itself: NFREEZER_TO_PASSWORD]
    #[arg(long, value_name = "FILE", help_heading = TARGET, alias = "to-passphrase-file", hide_short_help = true)]
    pub to_password_file: Vec<PathBuf>,
    /// Read it from the output of a shell command [env: NFREEZER_TO_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND", help_heading = TARGET, alias = "to-passphrase-command",
        hide_short_help = true)]
    pub to_password_command: Vec<String>,
    /// Its second factor: a file with 32 random bytes [env: NFREEZER_TO_LOCAL_KEY]
    #[arg(long, value_name = "FILE", help_heading = TARGET, hide_short_help = true)]
    pub to_local_key: Vec<PathBuf>,
    /// `ssh.config=FILE`, `sftp.command=COMMAND`
    ///
    /// Like -o, for --to only; -o does not count there. All other options of the connection count for all repositories.
    #[arg(long, value_name = "KEY=VALUE", help_heading = TARGET, hide_short_help = true)]
    pub to_option: Vec<String>,
}

impl TargetArgs {
    /// Returns the options that open the repositories at these addresses. `main`: the options of the other repository.
    pub fn open(&self, addresses: &[String], main: &OpenArgs) -> Result<Vec<OpenArgs>> {
        let count = addresses.len();
        check_count("--to-password-file", self.to_password_file.len(), count)?;
        check_count("--to-password-command", self.to_password_command.len(), count)?;
        check_count("--to-local-key", self.to_local_key.len(), count)?;
        Ok(addresses.iter().enumerate().map(|(i, address)| self.open_one(i, address, main)).collect())
    }

    fn open_one(&self, i: usize, address: &str, main: &OpenArgs) -> OpenArgs {
        let ssh = SshArgs { option: self.to_option.clone(), ..main.connection.ssh.clone() };
        OpenArgs {
            address: AddressArgs { repo: Some(address.to_owned()), repository_file: None },
            secret: SecretArgs {
                role: Role::Target,
                password_file: own(&self.to_password_file, i),
                password_command: own(&self.to_password_command, i),
                local_key: own(&self.to_local_key, i),
            },
            seen: main.seen.clone(),
            cache: main.cache.clone(),
            connection: ConnectionArgs { ssh, ..main.connection.clone() },
            ..OpenArgs::default()
        }
    }
}

/// Returns the value for the repository with this number.
fn own<T: Clone>(values: &[T], i: usize) -> Option<T> {
    if values.len() == 1 { values.first().cloned() } else { values.get(i).cloned() }
}

fn check_count(option: &str, given: usize, repositories: usize) -> Result<()> {
    if given <= 1 || given == repositories {
        return Ok(());
    }
    let text = format!("{option} is given {given} times, --to {repositories} times");
    Err(Error::new(Kind::Usage, text).hint("give it once for all repositories, or once for each, in the order of --to"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_for_all_repositories_or_for_each_its_own() {
        let files = |names: &[&str]| TargetArgs {
            to_password_file: names.iter().map(PathBuf::from).collect(),
            to_password_command: Vec::new(),
            to_local_key: Vec::new(),
            to_option: Vec::new(),
        };
        let open = |names: &[&str]| {
            let opened = files(names).open(&["a".into(), "b".into()], &OpenArgs::default())?;
            Ok::<_, Error>(opened.into_iter().map(|open| open.secret.password_file).collect::<Vec<_>>())
        };
        assert_eq!(open(&[]).unwrap(), [None, None]);
        assert_eq!(open(&["x"]).unwrap(), [Some("x".into()), Some("x".into())]);
        assert_eq!(open(&["x", "y"]).unwrap(), [Some("x".into()), Some("y".into())]);
        assert_eq!(open(&["x", "y", "z"]).unwrap_err().kind(), Kind::Usage);
    }
}
