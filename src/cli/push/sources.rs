//! Turns the arguments into absolute paths that exist. Refuses the repository itself and mounted backups.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::args::Args;
use crate::cli::options::AddressArgs;
use crate::cli::values::looks_remote;
use crate::cli::{escape, lists};
use crate::error::{Error, Kind, Result};
use crate::mounts;
use crate::pattern::{self, NamePattern};
use crate::storage::Location;

/// The name of the entries of a list.
const SOURCES: &str = "sources";

/// Returns the sources of a push.
#[derive(Debug, Default)]
pub struct Sources {
    /// Absolute.
    pub paths: Vec<PathBuf>,
    /// Sources that do not exist, with the reason.
    pub missing: Vec<(Vec<u8>, Error)>,
}

/// Returns all sources. A source that does not exist is reported, and the others are saved.
pub fn sources(args: &Args) -> Result<Sources> {
    let mut all = Sources::default();
    for source in args.sources.iter().cloned().chain(listed(args)?) {
        match absolute(&source) {
            Ok(path) => all.paths.push(path),
            Err(why) => all.missing.push((source.into_vec(), why)),
        }
    }
    if !all.paths.is_empty() {
        return Ok(all);
    }
    let hint = "name files or folders: `nfreezer push -r REPO ~/documents`";
    if all.missing.is_empty() {
        return Err(Error::new(Kind::Usage, "nothing to push: no source is given").hint(hint));
    }
    let why: Vec<_> = all.missing.iter().map(|(_, why)| why.to_string()).collect();
    Err(Error::failed(format!("nothing to push: {}", why.join("; "))).hint(hint))
}

/// Returns the absolute path of a source. A symbolic link is saved as a link.
fn absolute(source: &OsStr) -> Result<PathBuf> {
    let name = escape::text(source.as_bytes());
    // The kernel resolves `..`, and a slash at the end follows a link. Other links stay links.
    let resolve = Path::new(source).components().any(|part| part == Component::ParentDir);
    let resolve = resolve || source.as_bytes().ends_with(b"/");
    let path = if resolve { Path::new(source).canonicalize() } else { std::path::absolute(source) };
    let path = path.map_err(|e| Error::io(format!("read the source {name}"), e))?;
    path.symlink_metadata().map_err(|e| Error::io(format!("read the source {name}"), e))?;
    Ok(path)
}

/// Returns the paths that the lists name.
fn listed(args: &Args) -> Result<Vec<OsString>> {
    let mut all = Vec::new();
    for file in &args.files_from {
        for (i, line) in pattern::lines(&lists::read("--files-from", file, SOURCES)?).enumerate() {
            let line = line.trim_ascii();
            if !line.is_empty() && !line.starts_with(b"#") {
                let place = || format!("{}, line {}", escape::text(file.as_os_str().as_bytes()), i + 1);
                all.extend(expand(line).map_err(|e| e.while_doing(place()))?);
            }
        }
    }
    let whole = |part: &[u8]| OsString::from_vec(part.to_vec());
    for file in &args.files_from_verbatim {
        let list = lists::read("--files-from-verbatim", file, SOURCES)?;
        all.extend(pattern::lines(&list).filter(|line| !line.is_empty()).map(whole));
    }
    for file in &args.files_from_raw {
        let bytes = lists::read_bytes("--files-from-raw", file, SOURCES)?;
        let wrong = |what| {
            let name = escape::text(file.as_os_str().as_bytes());
            Error::new(Kind::Usage, format!("{name} is no list of names that end with a zero byte: {what}"))
        };
        let Some(names) = bytes.strip_suffix(b"\0") else {
            if bytes.is_empty() {
                continue;
            }
            return Err(wrong("the last one does not"));
        };
        for name in names.split(|byte| *byte == 0) {
            if name.is_empty() {
                return Err(wrong("one of them is empty"));
            }
            all.push(whole(name));
        }
    }
    Ok(all)
}

/// Returns the existing paths that match a path with wildcards. A path without wildcards, or without a match, stands for itself.
fn expand(path: &[u8]) -> Result<Vec<OsString>> {
    let wild = |part: &[u8]| part.iter().any(|byte| b"*?[\\".contains(byte));
    if !wild(path) {
        return Ok(vec![OsString::from_vec(path.to_vec())]);
    }
    let start = if path.starts_with(b"/") { PathBuf::from("/") } else { PathBuf::new() };
    let mut found = vec![start];
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        if !wild(part) {
            found.iter_mut().for_each(|path| path.push(OsStr::from_bytes(part)));
            continue;
        }
        let wrong = |why: String| {
            let text = escape::text(part);
            Error::new(Kind::Usage, format!("the pattern `{text}` is wrong: {why}"))
        };
        let glob = NamePattern::new(part).map_err(wrong)?;
        let here = |path: &PathBuf| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.clone() };
        let names =
            |path: &PathBuf| std::fs::read_dir(here(path)).into_iter().flatten().flatten().map(|e| e.file_name());
        found = found
            .iter()
            .flat_map(|path| {
                names(path).filter(|name| glob.matches(name.as_bytes())).map(|name| path.join(name)).collect::<Vec<_>>()
            })
            .collect();
    }
    found.retain(|path| path.symlink_metadata().is_ok());
    found.sort();
    match found.is_empty() {
        true => Ok(vec![OsString::from_vec(path.to_vec())]),
        false => Ok(found.into_iter().map(PathBuf::into_os_string).collect()),
    }
}

/// The files that must not be saved into themselves.
#[derive(Default)]
pub struct Own {
    /// The folders of local repositories.
    pub folders: Vec<mounts::FolderId>,
    /// The devices of mounted backups.
    pub mounted: Vec<u64>,
}

impl Own {
    /// Finds them from the addresses of the repositories and the table of mounts.
    pub fn find<'a>(addresses: impl Iterator<Item = &'a str>) -> Self {
        // A `stat` of a mount that hangs would hang too.
        let mounted = mounts::table().into_iter().filter(|mount| mount.kind == mounts::BACKUP);
        Own {
            folders: addresses.filter_map(own_folder).collect(),
            mounted: mounted.map(|mount| mount.device).collect(),
        }
    }

    /// Refuses a source that is, or lies in, what must not be saved.
    pub fn check(&self, source: &Path) -> Result<()> {
        let refuse = |what: &str| {
            let name = escape::text(source.as_os_str().as_bytes());
            Err(Error::new(Kind::Usage, format!("cannot push {name}: {what}")))
        };
        // A link is saved as a link, wherever it leads.
        let real =
            source.parent().zip(source.file_name()).and_then(|(up, name)| Some(up.canonicalize().ok()?.join(name)));
        let real = real.unwrap_or_else(|| source.to_path_buf());
        if self.folders.iter().any(|folder| mounts::is_within(&real, *folder)) {
            return refuse("it is the repository itself, or lies in it");
        }
        match real.symlink_metadata() {
            Ok(meta) if self.mounted.contains(&meta.dev()) => refuse("it lies in a mounted backup"),
            _ => Ok(()),
        }
    }
}

fn own_folder(address: &str) -> Option<mounts::FolderId> {
    let location = Location::parse(address).ok()?;
    let meta = location.local_path()?.metadata().ok()?;
    Some((meta.dev(), meta.ino()))
}

/// `nfreezer backup SRC user@host:/path` is how the Python tool was called.
pub fn refuse_old_form(address: &AddressArgs, sources: &[OsString]) -> Result<()> {
    match sources {
        [source, place] if looks_remote(place) && !address.is_given() && !Path::new(place).exists() => {
            let [source, place] = [source, place].map(|s| escape::text(s.as_encoded_bytes()));
            let text = "this is how the old nfreezer was called";
            Err(Error::new(Kind::Usage, text).hint(format!("write: nfreezer push -r {place} {source}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_source_keeps_symbolic_links() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/nowhere", &link).unwrap();
        assert_eq!(absolute(link.as_os_str()).unwrap(), link);
        assert_eq!(absolute("/no/such/source".as_ref()).unwrap_err().kind(), Kind::Failed);
    }
}
