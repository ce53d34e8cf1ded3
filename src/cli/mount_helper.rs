//! `mount -t fuse.nfreezer` and /etc/fstab. mount(8) runs this program under the name `mount.fuse.nfreezer`, with
//! `SOURCE DIR [-sfnv] [-o OPTIONS]`; where that name does not exist, mount.fuse3 runs `nfreezer SOURCE DIR -o OPTIONS`.
//! Both become a call of `nfreezer mount`, whose long options are the options here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use clap::Command;

use super::exit::OK;
use super::{escape, output};
use crate::error::{Error, Kind, Result};

/// The names under which mount(8) looks for a helper of `-t fuse.nfreezer` and `-t nfreezer`.
const NAMES: [&str; 2] = ["mount.fuse.nfreezer", "mount.nfreezer"];

/// Options that every mount has or cannot have, and options for mount(8), fstab and systemd, not the file system. The mount is
/// read-only without devices, setuid bits and access times, whatever stands there.
const IGNORED: &str = "ro rw defaults auto noauto user nouser users owner group nofail _netdev dev nodev suid nosuid exec \
    atime noatime diratime nodiratime relatime norelatime strictatime nostrictatime lazytime nolazytime sync async dirsync \
    iversion noiversion mand nomand silent loud nofail default_permissions uhelper helper subtype comment";

/// Options of `nfreezer mount` that make no sense in a table of mounts.
const REFUSED: [&str; 9] =
    ["repo", "option", "help", "version", "json", "quiet", "verbose", "foreground", "background-child"];

/// Exit codes of mount(8): wrong usage, and failure.
const USAGE: u8 = 1;
const FAILED: u8 = 32;

/// A call by mount(8).
#[derive(Debug, Default)]
pub struct Call {
    source: OsString,
    dir: OsString,
    options: Vec<Vec<u8>>,
    /// Options that are not known are no error.
    sloppy: bool,
    /// Nothing is mounted.
    fake: bool,
    verbose: bool,
    wrong: Option<String>,
}

impl Call {
    /// `None` if this is an ordinary call.
    pub fn recognise(arguments: &[OsString]) -> Option<Call> {
        let (name, rest) = arguments.split_first()?;
        let name = Path::new(name).file_name().unwrap_or_default();
        let like_a_place = |place: &OsStr| !place.as_bytes().starts_with(b"-") && place.as_bytes().contains(&b'/');
        let generic = rest.len() >= 4 && like_a_place(&rest[0]) && like_a_place(&rest[1]) && rest[2] == "-o";
        (NAMES.iter().any(|n| name == *n) || generic).then(|| Call::parse(rest))
    }

    fn parse(arguments: &[OsString]) -> Self {
        let mut call = Call::default();
        let mut places = Vec::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_bytes() {
                [b'-', letters @ ..] if !letters.is_empty() => {
                    for letter in letters {
                        match letter {
                            b's' => call.sloppy = true,
                            b'f' => call.fake = true,
                            b'v' => call.verbose = true,
                            b'n' | b'r' | b'w' => {}
                            b'o' => call.options.extend(rest.next().map(|o| split(o.as_bytes())).unwrap_or_default()),
                            // The type, as mount(8) repeats it.
                            b't' => drop(rest.next()),
                            _ => call.wrong = Some(format!("unknown option {}", escape::text(argument.as_bytes()))),
                        }
                    }
                }
                _ => places.push(argument.clone()),
            }
        }
        match <[OsString; 2]>::try_from(places) {
            Ok([source, dir]) => (call.source, call.dir) = (source, dir),
            Err(_) => call.wrong = Some("write: mount.fuse.nfreezer REPOSITORY DIR [-sfnv] [-o OPTIONS]".into()),
        }
        call
    }

    /// Does it by `nfreezer`, which gets a call of the ordinary form; `known`: the ordinary command line.
    pub fn run(self, known: &mut Command, nfreezer: impl FnOnce(&[OsString]) -> u8) -> u8 {
        match self.translate(known) {
            Err(e) => {
                output::error(false, &e, USAGE);
                USAGE
            }
            Ok(_) if self.fake => OK,
            Ok(arguments) => match nfreezer(&arguments) {
                OK => OK,
                2 => USAGE,
                _ => FAILED,
            },
        }
    }

    fn translate(&self, known: &mut Command) -> Result<Vec<OsString>> {
        if let Some(wrong) = &self.wrong {
            return Err(Error::new(Kind::Usage, &**wrong));
        }
        let mut out: Vec<OsString> = vec!["nfreezer".into(), "mount".into()];
        let (mut snapshot, mut owner, mut noexec) = (None, [None, None], false);
        let mut from_file = false;
        for option in &self.options {
            let (name, value) = match option.iter().position(|b| *b == b'=') {
                Some(at) => (&option[..at], Some(OsStr::from_bytes(&option[at + 1..]))),
                None => (&option[..], None),
            };
            let name = String::from_utf8_lossy(name).into_owned();
            let long = name.replace('_', "-");
            match (name.as_str(), value, takes_value(known, &long)) {
                ("" | "exec" | "noexec", None, _) => noexec = if name.is_empty() { noexec } else { name == "noexec" },
                ("snapshot", Some(value), _) => snapshot = Some(value.to_owned()),
                ("uid" | "gid", Some(value), _) => owner[usize::from(name == "gid")] = Some(value.to_owned()),
                ("sftp.command" | "sftp.connections" | "ssh.config", Some(_), _) => {
                    out.extend(["--option".into(), OsString::from_vec(option.clone())]);
                }
                (_, Some(value), Some(true)) => {
                    from_file |= long == "repository-file";
                    out.push(joined(&format!("--{long}="), value));
                }
                (_, None, Some(false)) => out.push(format!("--{long}").into()),
                ("user", _, _) => {}
                (_, _, None) if ignored(&name) => {}
                (_, None, Some(true)) if ignored(&name) => {}
                (_, _, None) if self.sloppy => {}
                (_, None, Some(true)) => return Err(wrong(format!("the option {} needs a value", shown(&name)))),
                (_, Some(_), Some(false)) => return Err(wrong(format!("the option {} takes no value", shown(&name)))),
                (_, _, None) => return Err(wrong(format!("unknown mount option {}", shown(&name)))),
            }
        }
        if noexec {
            out.push("--noexec".into());
        }
        if let [uid, gid] = owner
            && (uid.is_some() || gid.is_some())
        {
            let uid = uid.unwrap_or_else(|| rustix::process::geteuid().as_raw().to_string().into());
            let gid = gid.map(|gid| joined(":", &gid)).unwrap_or_default();
            out.push(joined("--owner=", &[uid, gid].into_iter().collect::<OsString>()));
        }
        if !from_file {
            let address = self.source.as_bytes();
            let address = address.strip_prefix(b"nfreezer:").or(address.strip_prefix(b"nfreezer#")).unwrap_or(address);
            out.push(joined("--repo=", OsStr::from_bytes(address)));
        }
        out.push(joined("--fsname=", &self.source));
        if !self.verbose {
            out.push("--quiet".into());
        }
        out.extend(snapshot);
        out.push(self.dir.clone());
        Ok(out)
    }
}

/// Returns whether `nfreezer mount` has such an option, and whether it takes a value.
fn takes_value(known: &Command, long: &str) -> Option<bool> {
    let mount = known.find_subcommand("mount").into_iter().flat_map(Command::get_arguments);
    let mut named = mount.filter(|a| a.get_long() == Some(long) && !REFUSED.contains(&long));
    named.next().map(|argument| argument.get_action().takes_values())
}

fn ignored(name: &str) -> bool {
    name.starts_with("x-") || name.starts_with("X-") || IGNORED.split_whitespace().any(|known| known == name)
}

/// At commas, but for those in quotes or behind a backslash.
fn split(options: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    let (mut quoted, mut bytes) = (false, options.iter());
    while let Some(byte) = bytes.next() {
        let last = all.last_mut().expect("never empty");
        match byte {
            b'"' => quoted = !quoted,
            b'\\' => last.extend(bytes.next()),
            b',' if !quoted => all.push(Vec::new()),
            _ => last.push(*byte),
        }
    }
    all
}

fn joined(before: &str, value: &OsStr) -> OsString {
    [OsStr::new(before), value].into_iter().collect()
}

fn shown(name: &str) -> String {
    escape::text(name.as_bytes())
}

fn wrong(text: String) -> Error {
    Error::new(Kind::Usage, text).hint(
        "known are the long options of `nfreezer mount --help` with their values, and the options of mount(8) and fstab(5)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(line: &str) -> Result<String, String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let call = Call::recognise(&words).ok_or("not recognised")?;
        let mut cli = <super::super::Cli as clap::CommandFactory>::command();
        let out = call.translate(&mut cli).map_err(|e| e.to_string())?;
        Ok(out.iter().map(|a| a.to_str().unwrap()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_line_of_fstab_becomes_a_call() {
        let line = "/sbin/mount.fuse.nfreezer me@nas:/b /mnt -o rw,noexec,nosuid,_netdev,nofail,noauto,x-systemd.automount,\
                    user=jo,owner,password_file=/etc/n\\,p,allow_other,io_timeout=9s,ssh.config=/x,snapshot=latest:/home,uid=7";
        let expected = "nfreezer mount --password-file=/etc/n,p --allow-other --io-timeout=9s --option ssh.config=/x \
                        --noexec --owner=7 --repo=me@nas:/b --fsname=me@nas:/b --quiet latest:/home /mnt";
        assert_eq!(translated(line).unwrap(), expected);
        let line = "mount.nfreezer nfreezer:/srv/b /mnt -v -n -s -o nonsense,exec,port=22,gid=5,owner=keep,\"x-a=b,c\"";
        let call = translated(line).unwrap();
        assert!(call.starts_with("nfreezer mount --port=22 --owner=keep --owner="), "{call}");
        assert!(call.ends_with(":5 --repo=/srv/b --fsname=nfreezer:/srv/b /mnt"), "{call}");
        let call = translated("nfreezer me@nas:/b /mnt -o repository_file=/etc/r,dev,suid").unwrap();
        assert_eq!(call, "nfreezer mount --repository-file=/etc/r --fsname=me@nas:/b --quiet /mnt");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let says = |line: &str, words: &str| {
            let error = translated(&format!("mount.fuse.nfreezer {line}")).unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        says("me@nas:/b", "write: mount.fuse.nfreezer");
        says("me@nas:/b /mnt -z", "unknown option -z");
        says("me@nas:/b /mnt -o allow_others", "unknown mount option allow_others");
        says("me@nas:/b /mnt -o remount", "unknown mount option remount");
        says("me@nas:/b /mnt -o password_file", "password_file needs a value");
        says("me@nas:/b /mnt -o allow_other=1", "allow_other takes no value");
        says("me@nas:/b /mnt -o foreground", "unknown mount option foreground");
        for ordinary in ["nfreezer mount /mnt -o a", "nfreezer -r /a/b mount /mnt -o sftp.connections=1", "nfreezer"] {
            assert!(
                Call::recognise(&ordinary.split(' ').map(OsString::from).collect::<Vec<_>>()).is_none(),
                "{ordinary}"
            );
        }
    }
}
