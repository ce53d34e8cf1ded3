//! The file `README` in the root of a mount of all snapshots. It explains the directories beside it.

use super::attr::{Attr, Kind};
use super::inode;
use crate::crypto::keys::Keys;
use crate::time::Time;

/// Its name in the root.
pub const NAME: &[u8] = b"README";

/// Its contents.
pub const TEXT: &str = "\
This folder is a backup, shown by nfreezer. Nothing in it can be changed.
Copy files out of it with any program, for example: cp -a latest/home/me/letter.txt ~/

latest/            the newest complete snapshot of all machines
snapshots/TIME/    each snapshot by its local time
hosts/HOST/TIME/   the snapshots of one machine; hosts/HOST/latest/ is its newest one
tags/TAG/TIME/     the snapshots with one tag; tags/TAG/latest/ is the newest one
ids/ID/            each snapshot by its id, as `nfreezer snapshots` prints it
at/WHEN/           the newest complete snapshot of that moment or before
versions/PATH/     all versions of a file, or all names that ever were in a folder
deleted/PATH/      what was in a folder and no longer is

Below a snapshot come absolute paths: latest/home/me is /home/me as it was saved.

at/ looks empty, because it understands every moment that is typed:
    ls at/yesterday/home/me
    ls at/2026-11-03/home/me
    ls at/'2 weeks ago'/home/me
versions/ and deleted/ list what they have of the path behind them:
    ls versions/home/me/letter.txt
    ls deleted/home/me

nfreezer umount DIR ends the mount. The manual is docs/mount.md of nfreezer.
";

/// Its size in bytes.
pub const SIZE: u64 = TEXT.len() as u64;

/// Returns its inode number.
pub fn number(keys: &Keys) -> u64 {
    inode::directory(keys, inode::ROOT, NAME, None)
}

/// Returns its attributes, with the owner of the directories of the view.
pub fn attr(keys: &Keys, owner: (u32, u32), mtime: Time) -> Attr {
    Attr {
        ino: number(keys),
        kind: Kind::File,
        mode: 0o444,
        nlink: 1,
        uid: owner.0,
        gid: owner.1,
        size: SIZE,
        blocks: SIZE.div_ceil(512),
        mtime,
        device: (0, 0),
    }
}

/// Returns a range of its contents, fewer bytes at its end.
pub fn read(offset: u64, size: u32) -> Vec<u8> {
    let rest = usize::try_from(offset).ok().and_then(|offset| TEXT.as_bytes().get(offset..)).unwrap_or_default();
    rest[..rest.len().min(size as usize)].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fits_a_terminal_and_is_read_in_ranges() {
        assert!(TEXT.lines().all(|line| line.len() <= 90) && TEXT.lines().count() <= 27);
        assert_eq!([read(0, 4), read(5, 6)], [b"This".to_vec(), b"folder".to_vec()]);
        assert_eq!(read(0, u32::MAX), TEXT.as_bytes());
        assert!(read(TEXT.len() as u64, 9).is_empty() && read(u64::MAX, 9).is_empty());
    }
}
