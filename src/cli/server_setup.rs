//! `nfreezer server-setup --append-only`: what a server needs so that a client's key can add to a repository and read it, but
//! neither change nor remove anything. Prints a script for the account on the server, or runs it there. For a bucket, the recipe
//! comes from [`super::bucket_setup`].

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::json;

use super::bucket_setup::Recipe;
use super::escape;
use super::exit::OK;
use super::open::ssh_options;
use super::options::{AddressArgs, JsonArgs, SshArgs};
use super::output::{self, Output};
use crate::error::{Error, Kind, Result};
use crate::storage::{Bucket, Location, Remote, on_server};

/// Requests of SFTP that change existing files.
pub const DENIED: &str = "remove,rmdir,mkdir,rename,posix-rename,hardlink,setstat,fsetstat,lsetstat,symlink,copy-data";
/// Requests that read, or that write into a file that the same session has made (files of others have mode 0400).
pub const HARMLESS: &str = "open,close,read,write,lstat,fstat,opendir,readdir,realpath,stat,readlink,statvfs,fstatvfs,fsync,\
                            limits,expand-path,home-directory,users-groups-by-id";
/// Public keys that are looked for without `--key`.
const USUAL: [&str; 3] = ["id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub"];

/// Arguments of `server-setup`.
#[derive(clap::Args)]
pub struct Args {
    /// The repository on the server or in a bucket; by default the one of -r
    #[arg(value_name = "USER@HOST:/PATH")]
    place: Option<String>,
    /// The client may add and read, but not change or remove
    #[arg(long, required = true)]
    append_only: bool,
    /// The public key of the client
    ///
    /// By default the file that belongs to -i, or the usual one in ~/.ssh.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Run the script on the server, with another key or a password
    #[arg(long)]
    install: bool,
    #[command(flatten)]
    address: AddressArgs,
    #[command(flatten)]
    ssh: SshArgs,
    #[command(flatten)]
    pub(super) output: JsonArgs,
}

/// Prints the script, or runs it on the server.
pub fn run(args: &Args) -> Result<u8> {
    let place = args.place.clone().map_or_else(|| args.address.get(), Ok)?;
    let location = Location::parse(&place)?;
    if let Location::S3(bucket) = &location {
        return print_recipe(args, bucket);
    }
    let remote = location.remote().ok_or_else(|| {
        Error::new(Kind::Usage, format!("{location} is on no SSH server that could be set up"))
            .hint("give user@host:/path, or s3://HOST/BUCKET/FOLDER")
    })?;
    if args.install && args.key.is_none() {
        return Err(Error::new(Kind::Usage, "--install needs --key FILE.pub: the key that may only add from then on")
            .hint("-i names the key to log in with now, which stays what it is"));
    }
    let key = public_key(&args.ssh, args.key.as_deref())?;
    let script = script(remote, &key);
    let mut out = Output::new(args.output.json);
    if args.install {
        for line in run_on_server(&args.ssh, remote, &script)?.lines() {
            out.line(escape::text(line.as_bytes()))?;
        }
        limits().try_for_each(|line| out.line(line))?;
    } else {
        out.line(script.trim_end())?;
    }
    let fields = json!({ "installed": args.install, "line": line(&key), "script": script });
    out.object("summary", output::object(fields))?;
    out.flush().map(|()| OK)
}

/// Prints the policies and commands for a bucket.
fn print_recipe(args: &Args, bucket: &Bucket) -> Result<u8> {
    if args.install || args.key.is_some() {
        let text = "--install and --key are for SSH servers: a bucket is set up with the tools of its store";
        return Err(Error::new(Kind::Usage, text).hint("run the printed commands"));
    }
    let Recipe { client, bucket, script } = Recipe::new(bucket);
    let mut out = Output::new(args.output.json);
    out.line(script.trim_end())?;
    let fields = json!({ "installed": false, "client_policy": client, "bucket_policy": bucket, "script": script });
    out.object("summary", output::object(fields))?;
    out.flush().map(|()| OK)
}

/// Returns the line of `authorized_keys`.
fn line(key: &str) -> String {
    format!("restrict,command=\"internal-sftp -P {DENIED} -u 0377\" {key}")
}

/// Everything as a script for `sh`, with what must be known as its comments.
fn script(remote: &Remote, key: &str) -> String {
    let host = &remote.host;
    let user = remote.user.as_ref().map_or_else(|| "USER".to_owned(), |user| escape::message(user));
    let stronger = format!(
        "RECOMMENDED, for root on {host}: a ChrootDirectory, in which nothing outside of the repository can be seen or\n\
         written, /proc included. In sshd_config, with the line below (or the key alone) in /etc/ssh/nfreezer/{user}, and\n\
         /srv/nfreezer owned by root (mode 755), in which the repository's folder belongs to {user}; the address is then\n\
         {user}@{host}:/FOLDER\n\
         Match User {user}\n    AuthorizedKeysFile /etc/ssh/nfreezer/%u\n    ChrootDirectory /srv/nfreezer\n    \
         ForceCommand internal-sftp -P {DENIED} -u 0377\n    DisableForwarding yes\n    PermitTTY no\n    PermitUserRC no\n    \
         PasswordAuthentication no\n    KbdInteractiveAuthentication no\n"
    );
    let intro = [
        format!(
            "WITHOUT ROOT: this script, for the account on {host} that holds the repository. Read it, then let that account run it:"
        ),
        format!("nfreezer server-setup --append-only ... | ssh {user}@{host} sh    (--install does the same)"),
        "It is weaker where the account runs anything but sshd, and says what it could not exclude.".into(),
        "It puts this line into ~/.ssh/authorized_keys and locks what a thief of the key could plant:".into(),
        line(key),
    ];
    let comments = |lines: &mut dyn Iterator<Item = String>| lines.map(|l| format!("# {l}\n")).collect::<String>();
    let head = comments(&mut intro.into_iter());
    let limits = comments(&mut limits().map(String::from));
    let stronger = comments(&mut stronger.lines().map(String::from));
    let (repository, key) = (quoted(&remote.path), quoted(key));
    let body = include_str!("../../scripts/append_only.sh");
    format!(
        "{stronger}#\n{head}#\n{limits}\nrepository={repository}\nkey={key}\ndenied={DENIED}\nharmless={HARMLESS}\n{body}"
    )
}

/// Returns the attacks that remain possible, as comment lines.
fn limits() -> impl Iterator<Item = &'static str> {
    "This does not protect from:\n\
     - reading: a thief with the key and the passphrase reads all that was ever saved, and the key alone reads every file that the\n  \
       account may read on the server\n\
     - new things: a thief can add snapshots (also false ones, which are then `latest`), fill the disk, and make files in\n  \
       folders that everybody may write to (/tmp)\n\
     - the server: its owner, root, and users who log in to this account by another key or a password can do everything\n\
     - other accounts that the key opens, and files that this account owns outside of the folders that were locked\n\
     - programs that this account runs: without ChrootDirectory a thief can write into their memory through /proc where the\n  \
       kernel allows it (kernel.yama.ptrace_scope 0), and so become the account\n\
     - the past: what a thief did before this was set up"
        .lines()
}

/// For `sh`.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Returns one line: type, key, comment. Nothing in it can end the line or its quotes.
fn public_key(ssh: &SshArgs, file: Option<&Path>) -> Result<String> {
    let beside = |identity: &PathBuf| {
        let mut name = identity.clone().into_os_string();
        if identity.extension().is_none_or(|extension| extension != "pub") {
            name.push(".pub");
        }
        PathBuf::from(name)
    };
    let home = std::env::home_dir().unwrap_or_default().join(".ssh");
    let usual = || USUAL.iter().map(|name| home.join(name)).find(|path| path.exists());
    let file = file.map(Path::to_owned).or_else(|| ssh.identity.first().map(beside)).or_else(usual);
    let file = file.ok_or_else(|| {
        Error::new(Kind::Usage, "no public key was found in ~/.ssh")
            .hint("name the client's with --key FILE.pub, or make one: ssh-keygen")
    })?;
    let name = escape::text(file.as_os_str().as_encoded_bytes());
    let text = fs::read_to_string(&file).map_err(|e| Error::io(format!("read the public key {name}"), e))?;
    let wrong = || {
        Error::new(Kind::Usage, format!("{name} is not a public key of SSH")).hint("it is the file that ends in .pub")
    };
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (line, rest) = (lines.next().ok_or_else(wrong)?, lines.next());
    let mut words = line.split_whitespace();
    let (kind, blob) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let kinds = ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"];
    let sound = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
    if rest.is_some() || !kinds.iter().any(|k| kind.starts_with(k)) || blob.len() < 16 || !blob.bytes().all(sound) {
        return Err(wrong());
    }
    let comment: String =
        words.collect::<Vec<_>>().join(" ").chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
    Ok(format!("{} {blob} {comment}", escape::text(kind.as_bytes())).trim_end().to_owned())
}

/// Runs the script on the server. Returns its output.
fn run_on_server(ssh_args: &SshArgs, remote: &Remote, script: &str) -> Result<String> {
    let mut ssh = on_server(remote, &ssh_options(ssh_args)?, "sh");
    let failed = |e| Error::io("run ssh", e);
    let mut child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    // A server that reads no script says why, below.
    child.stdin.take().map(|mut stdin| stdin.write_all(script.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = escape::text(said.trim().lines().last().unwrap_or_default().as_bytes());
    let hint = "without --install the script is printed, for you to look at and to run as that account on the server";
    Err(Error::failed(format!("the server was not set up: {said}")).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_keys_are_taken_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("k.pub");
        let read = |text: &str| {
            fs::write(&file, text).unwrap();
            public_key(&SshArgs::default(), Some(&file)).map_err(|e| e.to_string())
        };
        let blob = "AAAAC3NzaC1lZDI1NTE5AAAAIGx";
        assert_eq!(
            read(&format!("ssh-ed25519 {blob} jo's \"pc\"\n")).unwrap(),
            format!("ssh-ed25519 {blob} jo's \"pc\"")
        );
        for bad in [
            "",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "ssh-rsa",
            "ssh-rsa AAAA$(reboot)AAAAAAAAAA",
            "rsa AAAAB3NzaC1yc2EAAAA",
        ] {
            assert!(read(bad).unwrap_err().contains("is not a public key"), "{bad}");
        }
        read(&format!("ssh-ed25519 {blob}\nssh-ed25519 {blob}\n")).unwrap_err();
    }

    #[test]
    fn what_comes_from_outside_stays_within_its_quotes() {
        assert_eq!(quoted("a'b $(c)"), r"'a'\''b $(c)'");
        let remote = Remote { user: None, host: "nas".into(), port: None, path: "/a'; reboot; '".into() };
        let script = script(&remote, "ssh-ed25519 AAAA it's");
        assert!(
            script.contains("\nrepository='/a'\\''; reboot; '\\'''\nkey='ssh-ed25519 AAAA it'\\''s'\n"),
            "{script}"
        );
    }
}
