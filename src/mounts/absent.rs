//! Notices that a folder lies below a mount point at which nothing is mounted, so that nothing is written to the disk of the
//! system in its place.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::{table, unescaped};

/// The table of file systems.
const FSTAB: &str = "/etc/fstab";
/// The units of the administrator. Most units of packages are not in use, so they are not read.
const UNITS: &str = "/etc/systemd/system";
/// Folders in which desktops mount removable disks.
const REMOVABLE: [&str; 2] = ["/media", "/run/media"];
/// Largest file that is read.
const LARGEST: u64 = 1 << 20;
/// Most symbolic links that are followed.
const LINKS: usize = 40;

/// The reason why the disk of a folder seems to be absent.
#[derive(Debug, PartialEq, Eq)]
pub enum AbsentDisk {
    /// A file names a mount point, and nothing is mounted there.
    Named {
        /// The mount point.
        place: PathBuf,
        /// The file that names it.
        file: PathBuf,
    },
    /// The folder is below `/media` or `/run/media`, and no disk is mounted between them.
    Removable,
}

/// A mount point and the file that names it.
type Named = (PathBuf, PathBuf);

/// Returns why the disk of a folder, which need not exist, seems to be absent; `None` if nothing speaks for that.
pub fn absent_disk(folder: &Path) -> Option<AbsentDisk> {
    let folder = resolved(&std::path::absolute(folder).ok()?);
    let mounted: Vec<PathBuf> = table().into_iter().map(|mount| path(mount.place)).collect();
    let fstab = in_fstab(&bounded(Path::new(FSTAB))).into_iter().map(|place| (place, FSTAB.into()));
    judge(&folder, &fstab.chain(in_units()).collect::<Vec<_>>(), &mounted)
}

fn judge(folder: &Path, named: &[Named], mounted: &[PathBuf]) -> Option<AbsentDisk> {
    let is_absent = |place: &Path| place != Path::new("/") && folder.starts_with(place);
    let named = named.iter().find(|(place, _)| is_absent(place) && !mounted.contains(place));
    if let Some((place, file)) = named {
        return Some(AbsentDisk::Named { place: place.clone(), file: file.clone() });
    }
    let disk =
        mounted.iter().filter(|place| folder.starts_with(place)).max_by_key(|place| place.components().count())?;
    let is_removable = |path: &Path| REMOVABLE.iter().any(|folder| path.starts_with(folder));
    (is_removable(folder) && !is_removable(disk)).then_some(AbsentDisk::Removable)
}

/// Resolves symbolic links, also those to places that do not exist.
fn resolved(folder: &Path) -> PathBuf {
    let mut folder = folder.to_path_buf();
    for _ in 0..LINKS {
        let ancestors = folder.ancestors();
        let Some(there) = ancestors.clone().find(|path| path.exists()) else { break };
        let rest = folder.strip_prefix(there).map(Path::to_path_buf).unwrap_or_default();
        let first = rest.components().next().map(|first| there.join(first));
        let Some(target) = first.as_ref().and_then(|link| fs::read_link(link).ok()) else {
            let there = there.canonicalize().unwrap_or_else(|_| there.to_path_buf());
            return if rest.as_os_str().is_empty() { there } else { there.join(rest) };
        };
        let behind: PathBuf = rest.components().skip(1).collect();
        folder = there.join(target).join(behind);
    }
    folder
}

/// Returns the mount points of a table of file systems: the second fields.
fn in_fstab(text: &[u8]) -> Vec<PathBuf> {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.starts_with(b"#"));
    let second = |line: &[u8]| {
        let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        fields.nth(1).map(|field| path(unescaped(field)))
    };
    lines.filter_map(second).filter(|place| place.is_absolute()).collect()
}

/// Returns the mount points of the administrator's mount units.
fn in_units() -> Vec<Named> {
    let files = fs::read_dir(UNITS).into_iter().flatten().flatten().map(|entry| entry.path());
    let units = files.filter(|file| file.extension().is_some_and(|extension| extension == "mount"));
    units.filter_map(|file| Some((in_unit(&bounded(&file))?, file))).collect()
}

fn in_unit(text: &[u8]) -> Option<PathBuf> {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let place = lines.filter_map(|line| line.strip_prefix(b"Where=")).next_back()?;
    Some(path(place.to_vec())).filter(|place| place.is_absolute())
}

/// Reads a file; returns nothing if that fails.
fn bounded(file: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(file) {
        let _ = file.take(LARGEST).read_to_end(&mut bytes);
    }
    bytes
}

fn path(bytes: Vec<u8>) -> PathBuf {
    let text = std::ffi::OsString::from_vec(bytes);
    // Without a slash at the end, so that it compares.
    Path::new(std::ffi::OsStr::from_bytes(text.as_bytes())).components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FSTAB_TEXT: &str = "# <file system> <mount point>\n\
        UUID=1 / ext4 defaults 0 1\n\
        UUID=2\t/mnt/usb\\040disk/   vfat noauto 0 0\n\
        #UUID=3 /mnt/comment ext4 defaults 0 0\n\
        UUID=4 none swap sw 0 0\n\
        broken\n";

    fn paths(texts: &[&str]) -> Vec<PathBuf> {
        texts.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn mount_points_are_read_from_fstab_and_units() {
        assert_eq!(in_fstab(FSTAB_TEXT.as_bytes()), paths(&["/", "/mnt/usb disk"]));
        assert_eq!(in_unit(b"[Mount]\nWhat=/dev/sdb1\nWhere=/srv/disk\n"), Some("/srv/disk".into()));
        assert_eq!(in_unit(b""), None);
    }

    #[test]
    fn a_named_mount_point_at_which_nothing_is_mounted() {
        let named: Vec<Named> =
            in_fstab(FSTAB_TEXT.as_bytes()).into_iter().map(|place| (place, FSTAB.into())).collect();
        let judge = |folder: &str, mounted: &[&str]| judge(Path::new(folder), &named, &paths(mounted));
        let absent = AbsentDisk::Named { place: "/mnt/usb disk".into(), file: FSTAB.into() };
        assert_eq!(judge("/mnt/usb disk/backup", &["/"]), Some(absent));
        assert_eq!(judge("/mnt/usb disk/backup", &["/", "/mnt/usb disk"]), None);
        assert_eq!(judge("/mnt/usb disk2", &["/"]), None, "another folder");
        assert_eq!(judge("/mnt/other", &["/", "/mnt/usb disk"]), None);
    }

    #[test]
    fn a_folder_of_removable_disks_on_another_disk() {
        let judge = |folder: &str, mounted: &[&str]| judge(Path::new(folder), &[], &paths(mounted));
        for folder in ["/media/usb", "/media/me/usb/backup", "/run/media/me/usb/backup", "/media"] {
            assert_eq!(judge(folder, &["/", "/run", "/media/me/other"]), Some(AbsentDisk::Removable), "{folder}");
        }
        assert_eq!(judge("/media/me/usb/backup", &["/", "/media/me/usb"]), None);
        assert_eq!(judge("/run/media/me/usb", &["/", "/run", "/run/media/me/usb"]), None);
        assert_eq!(judge("/media/me/usb", &["/", "/media"]), None, "a disk for all of them");
        assert_eq!(judge("/mediathek/backup", &["/"]), None);
    }

    #[test]
    fn a_link_to_a_place_that_does_not_exist_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::os::unix::fs::symlink("absent/disk", root.join("link")).unwrap();
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        assert_eq!(resolved(&root.join("link/backup")), root.join("absent/disk/backup"));
        assert_eq!(resolved(&root.join("new/folder")), root.join("new/folder"));
        assert_eq!(resolved(&root), root);
        let _ = resolved(&root.join("loop/x"));
    }
}
