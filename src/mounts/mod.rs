//! The mount table of the kernel. Reading it does not wait for any file system.
//!
//! In: the table, or a path. Out: mount points, whether a path lies in a mount or a folder (`within`), and whether a disk
//! that belongs above a path is not mounted (`absent`).

mod absent;
mod within;

pub use absent::{AbsentDisk, absent_disk};
pub use within::{FolderId, is_within};

use rustix::fs::{major, makedev, minor};

/// The type of a mounted backup.
pub const BACKUP: &str = "fuse.nfreezer";

/// Types of file systems whose calls wait for another program or machine, which may never answer.
const DISTANT: [&str; 16] = [
    "fuse", "fuseblk", "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs", "autofs", "lustre", "coda",
    "orangefs", "beegfs", "ncpfs",
];

/// One mount.
pub struct Mount {
    /// Number of its device, as `stat` shows it.
    pub device: u64,
    /// The path of the mount point.
    pub place: Vec<u8>,
    /// The type of the file system.
    pub kind: String,
}

impl Mount {
    /// Returns the number of the device in the form `major:minor`.
    pub fn device_text(&self) -> String {
        format!("{}:{}", major(self.device), minor(self.device))
    }

    /// Returns the last part of the mount point's path; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.place.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    /// Returns whether calls on this file system may never return.
    pub fn may_hang(&self) -> bool {
        self.kind.starts_with("fuse.") || DISTANT.contains(&self.kind.as_str())
    }
}

/// Returns all mounts that this process sees, the topmost of one mount point last.
pub fn table() -> Vec<Mount> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    table.split(|byte| *byte == b'\n').filter_map(entry).collect()
}

/// Parses a line of mountinfo: `id parent major:minor root path options .. - type ..`.
fn entry(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (major, minor) = std::str::from_utf8(fields.nth(2)?).ok()?.split_once(':')?;
    let device = makedev(major.parse().ok()?, minor.parse().ok()?);
    let place = unescaped(fields.nth(1)?);
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mount { device, place, kind: String::from_utf8_lossy(kind).into_owned() })
}

/// Decodes `\040` and similar octal escapes.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|d| *first == b'\\' && d.iter().all(|c| (b'0'..=b'7').contains(c)));
        match digits {
            Some(d) => {
                out.push(d.iter().fold(0u8, |n, c| n.wrapping_mul(8).wrapping_add(c - b'0')));
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: &str) -> Option<Mount> {
        entry(
            format!("36 35 0:98 / /mnt/a\\040b rw,noatime shared:1 master:2 - {kind} nfreezer rw,user_id=0").as_bytes(),
        )
    }

    #[test]
    fn a_line_of_the_table_is_understood() {
        let mount = parse(BACKUP).unwrap();
        assert_eq!((mount.device, mount.device_text().as_str()), (makedev(0, 98), "0:98"));
        assert_eq!((mount.place.as_slice(), mount.name()), (&b"/mnt/a b"[..], &b"a b"[..]));
        assert!(entry(b"").is_none() && entry(b"a - fuse.nfreezer ").is_none());
        assert_eq!(unescaped(br"/a\040b\134c\09"), b"/a b\\c\\09");
        assert!(table().iter().any(|mount| mount.place == b"/proc" && mount.kind == "proc"));
    }

    #[test]
    fn programs_and_other_machines_may_hang() {
        for (kind, may_hang) in
            [(BACKUP, true), ("fuse.sshfs", true), ("nfs4", true), ("ext4", false), ("fusectl", false)]
        {
            assert_eq!(parse(kind).unwrap().may_hang(), may_hang, "{kind}");
        }
    }
}
