//! Users and groups of this machine, looked up by its own rules (files, LDAP, ..).

use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User};
use rustix::io::Errno;

use crate::descriptors::patiently;

/// The numbers of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Number of the user.
    pub uid: u32,
    /// Number of the user's own group.
    pub gid: u32,
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Account { uid: user.uid.as_raw(), gid: user.gid.as_raw() }
    }
}

/// Returns the user of this name.
pub fn user(name: &[u8]) -> Option<Account> {
    let name = std::str::from_utf8(name).ok()?;
    look_up(|| User::from_name(name)).map(Account::from)
}

/// Returns the user of this number.
pub fn user_of_number(uid: u32) -> Option<Account> {
    look_up(|| User::from_uid(Uid::from_raw(uid))).map(Account::from)
}

/// Returns the number of the group of this name.
pub fn group(name: &[u8]) -> Option<u32> {
    let name = std::str::from_utf8(name).ok()?;
    look_up(|| Group::from_name(name)).map(|group| group.gid.as_raw())
}

/// Returns the name of a user.
pub fn user_name(uid: u32) -> Option<String> {
    look_up(|| User::from_uid(Uid::from_raw(uid))).map(|user| user.name)
}

/// Returns the name of a group.
pub fn group_name(gid: u32) -> Option<String> {
    look_up(|| Group::from_gid(Gid::from_raw(gid))).map(|group| group.name)
}

/// Returns the home folder of a user.
pub fn home(uid: u32) -> Option<PathBuf> {
    look_up(|| User::from_uid(Uid::from_raw(uid))).map(|user| user.dir)
}

/// Looks up an account. A lack of descriptors is not taken for an unknown account.
fn look_up<T>(mut ask: impl FnMut() -> nix::Result<Option<T>>) -> Option<T> {
    patiently(|| ask().map_err(|errno| Errno::from_raw_os_error(errno as i32))).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_of_root() {
        let root = Account { uid: 0, gid: 0 };
        assert_eq!((user(b"root"), user_of_number(0), group(b"root")), (Some(root), Some(root), Some(0)));
        assert_eq!((user_name(0).as_deref(), group_name(0).as_deref()), (Some("root"), Some("root")));
        assert_eq!(home(0).map(|home| home.is_absolute()), Some(true));
        for name in [&b"no-such-user-here"[..], b"", b"0", b"-s", b"a\0b", b"\xff"] {
            assert_eq!((user(name), group(name)), (None, None), "{name:?}");
        }
    }
}
