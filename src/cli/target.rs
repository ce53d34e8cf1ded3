//! The options of the repository that `copy` writes to.

use std::path::PathBuf;

use super::options::{AddressArgs, ConnectionArgs, OpenArgs, Role, SecretArgs, SshArgs};

const TARGET: &str = "Target";

/// A second repository, with a passphrase of its own.
#[derive(clap::Args, Clone, Debug)]
pub struct TargetArgs {
    /// The repository to copy into (passphrase: --to-password-file)
    #[arg(long, value_name = "REPO", help_heading = TARGET)]
    pub to: String,
    /// Read its passphrase from FILE
    ///
    /// One newline at the end is removed. [env: NFREEZER_TO_PASSWORD_FILE; the passphrase itself: NFREEZER_TO_PASSWORD]
    #[arg(long, value_name = "FILE", help_heading = TARGET, alias = "to-passphrase-file", hide_short_help = true)]
    pub to_password_file: Option<PathBuf>,
    /// Read it from the output of a shell command [env: NFREEZER_TO_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND", help_heading = TARGET, alias = "to-passphrase-command",
        hide_short_help = true)]
    pub to_password_command: Option<String>,
    /// Its second factor: a file with 32 random bytes [env: NFREEZER_TO_LOCAL_KEY]
    #[arg(long, value_name = "FILE", help_heading = TARGET, hide_short_help = true)]
    pub to_local_key: Option<PathBuf>,
    /// `ssh.config=FILE`, `sftp.command=COMMAND`
    ///
    /// Like -o, for the target only; -o does not count for the target. All other options of the connection count for both
    /// repositories.
    #[arg(long, value_name = "KEY=VALUE", help_heading = TARGET, hide_short_help = true)]
    pub to_option: Vec<String>,
}

impl TargetArgs {
    /// Returns the options that open the target. `main`: the options of the other repository.
    pub fn open(&self, main: &OpenArgs) -> OpenArgs {
        let ssh = SshArgs { option: self.to_option.clone(), ..main.connection.ssh.clone() };
        OpenArgs {
            address: AddressArgs { repo: Some(self.to.clone()), repository_file: None },
            secret: SecretArgs {
                role: Role::Target,
                password_file: self.to_password_file.clone(),
                password_command: self.to_password_command.clone(),
                local_key: self.to_local_key.clone(),
            },
            seen: main.seen.clone(),
            cache: main.cache.clone(),
            connection: ConnectionArgs { ssh, ..main.connection.clone() },
            ..OpenArgs::default()
        }
    }
}
