//! Finds profiles: `NAME.toml` in the folder of the user, then in `/etc/nfreezer`.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cli::environment::config_folder;
use crate::cli::{escape, lists};
use crate::error::{Error, Kind, Result};

const SYSTEM: &str = "/etc/nfreezer";
const EXTENSION: &str = "toml";
/// Largest file that is read.
const LARGEST: u64 = 1 << 20;

/// The file of a profile.
pub struct Found {
    pub name: String,
    /// Absolute.
    pub path: PathBuf,
}

/// Returns the folders with profiles, the first one first.
fn folders() -> Vec<PathBuf> {
    config_folder().into_iter().chain([PathBuf::from(SYSTEM)]).collect()
}

/// Returns the name of a profile, from its name or from a path.
pub fn name_of(profile: &str) -> Result<String> {
    let file = profile.rsplit('/').next().unwrap_or_default();
    let name = file.strip_suffix(".toml").unwrap_or(file);
    check_name(name).map(|()| name.to_owned())
}

/// Returns the file of a profile, by its name or by a path.
pub fn find(profile: &str) -> Result<Found> {
    let name = name_of(profile)?;
    if profile.contains('/') {
        let path = std::path::absolute(profile).map_err(|e| Error::io("find the profile", e))?;
        return Ok(Found { name, path });
    }
    let folders = folders();
    let paths = folders.iter().map(|folder| folder.join(format!("{name}.{EXTENSION}")));
    match paths.clone().find(|path| path.exists()) {
        Some(path) => Ok(Found { name, path }),
        None => {
            let places: Vec<_> = paths.map(|path| escape::path(&path)).collect();
            Err(Error::new(Kind::Usage, format!("there is no profile {name}: neither {}", places.join(" nor ")))
                .hint("`nfreezer profile list` lists the profiles; docs/profiles.md has examples"))
        }
    }
}

/// Names become names of units and lock files.
fn check_name(name: &str) -> Result<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.is_empty() && name.len() <= 100 && !name.starts_with(['.', '-']) && name.chars().all(is_plain) {
        return Ok(());
    }
    let text = format!("not the name of a profile: {}", escape::text(name.as_bytes()));
    Err(Error::new(Kind::Usage, text).hint("a name consists of letters, digits, `-`, `_` and `.`"))
}

/// Returns all profiles. One in the folder of the user hides one of the same name in `/etc/nfreezer`.
pub fn all() -> Result<Vec<Found>> {
    let mut found: Vec<Found> = Vec::new();
    for folder in folders() {
        let entries = match folder.read_dir() {
            Err(e) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&e.kind()) => continue,
            other => other.map_err(|e| Error::io(format!("list {}", escape::path(&folder)), e))?,
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == EXTENSION)) {
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if check_name(&name).is_ok() && found.iter().all(|other| other.name != name) {
                found.push(Found { name, path });
            }
        }
    }
    Ok(found)
}

impl Found {
    /// Reads the file. Refuses one that other users may change, because it runs commands.
    pub fn read(&self) -> Result<String> {
        let name = escape::path(&self.path);
        let failed = |e| Error::io(format!("read the profile {name}"), e);
        let file = File::open(&self.path).map_err(|e| missing(failed(e)))?;
        let meta = file.metadata().map_err(failed)?;
        let own = rustix::process::geteuid().as_raw();
        if (meta.uid() != own && meta.uid() != 0) || meta.mode() & 0o022 != 0 {
            let text = format!("other users may change the profile {name}, and it runs commands");
            return Err(Error::new(Kind::Usage, text)
                .hint(format!("make it yours: `chown {own} {name}` and `chmod go-w {name}`")));
        }
        let mut bytes = Vec::new();
        file.take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
        lists::refuse_wide(&bytes, &self.path)?;
        String::from_utf8(bytes)
            .map_err(|_| Error::new(Kind::Usage, format!("the profile {name} is not UTF-8")).hint("save it as UTF-8"))
    }
}

fn missing(error: Error) -> Error {
    Error::new(Kind::Usage, error.to_string()).hint("`nfreezer profile list` lists the profiles")
}

/// Expands a `~` at the beginning to the home folder.
pub fn in_home(text: &str) -> String {
    let home = || crate::cli::environment::home().filter(|home| home.is_absolute());
    match text.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/')).zip(home()) {
        Some((rest, home)) => format!("{}{rest}", home.display()),
        None => text.to_owned(),
    }
}

/// Returns whether a path is absolute. Other paths are refused, because a timer starts in another folder than a shell.
pub fn is_absolute(path: &str) -> bool {
    Path::new(path).is_absolute()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_profiles_are_plain() {
        for good in ["home", "a.b-c_1", "7"] {
            check_name(good).unwrap();
        }
        for bad in ["", ".x", "-x", "a b", "a/b", "a%i", "ä", &"x".repeat(101)] {
            assert_eq!(check_name(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }
}
