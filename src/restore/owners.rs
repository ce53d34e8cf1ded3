//! From saved owner names to numbers of this machine. A name that is unknown here keeps its saved number, and no name
//! makes root the owner of what was not root's (restic #22178).

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::format::node::Attrs;

type Known = HashMap<(bool, Vec<u8>), Option<u32>>;

/// Resolves names; each one is looked up once.
pub(super) struct Owners {
    numeric: bool,
    known: Mutex<Known>,
}

impl Owners {
    pub fn new(numeric: bool) -> Self {
        Owners { numeric, known: Mutex::new(HashMap::new()) }
    }

    /// User and group for these attributes.
    pub fn of(&self, attrs: &Attrs) -> (u32, u32) {
        (self.number(false, &attrs.user, attrs.uid), self.number(true, &attrs.group, attrs.gid))
    }

    fn number(&self, group: bool, name: &[u8], saved: u32) -> u32 {
        if self.numeric || name.is_empty() {
            return saved;
        }
        let mut known = self.known.lock().expect("no holder panics");
        let here = match known.get(&(group, name.to_vec())) {
            Some(here) => *here,
            None => *known.entry((group, name.to_vec())).or_insert_with(|| look_up(group, name)),
        };
        here.filter(|id| *id != 0 || saved == 0).unwrap_or(saved)
    }
}

/// In the local file first, then by `getent`, which asks what else the machine is configured for (LDAP, ..).
fn look_up(group: bool, name: &[u8]) -> Option<u32> {
    let file = std::fs::read(if group { "/etc/group" } else { "/etc/passwd" }).unwrap_or_default();
    find(&file, name).or_else(|| {
        // A number or an option would be understood as something else.
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'@' | b'\\' | b'$');
        let sound = name.iter().all(plain) && name[0] != b'-' && !name.iter().all(u8::is_ascii_digit);
        let name_text = std::str::from_utf8(name).ok().filter(|_| sound)?;
        let database = if group { "group" } else { "passwd" };
        let mut getent = Command::new("getent");
        let output = getent.args([database, name_text]).stdin(Stdio::null()).stderr(Stdio::null()).output();
        find(&output.ok()?.stdout, name)
    })
}

/// The third field of the line whose first field is `name`.
fn find(lines: &[u8], name: &[u8]) -> Option<u32> {
    let line = lines.split(|b| *b == b'\n').map(|line| line.split(|b| *b == b':').collect::<Vec<_>>());
    let mut found = line.filter(|fields| fields.len() >= 3 && fields[0] == name);
    std::str::from_utf8(found.next()?[2]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attrs(user: &str, uid: u32) -> Attrs {
        Attrs { mode: 0, uid, gid: 7, user: user.into(), group: Vec::new(), fs: 0 }
    }

    #[test]
    fn t70c_an_unknown_name_keeps_its_number_and_never_becomes_root() {
        let owners = Owners::new(false);
        assert_eq!(owners.of(&attrs("no-such-user-here", 4711)), (4711, 7));
        assert_eq!(owners.of(&attrs("root", 1000)), (1000, 7), "root by accident");
        assert_eq!(owners.of(&attrs("root", 0)), (0, 7));
        assert_eq!(owners.of(&attrs("0", 4711)), (4711, 7));
        assert_eq!(owners.of(&attrs("-s", 4711)), (4711, 7));
    }

    #[test]
    fn names_win_over_numbers_unless_told_otherwise() {
        let Some(nobody) = find(&std::fs::read("/etc/passwd").unwrap(), b"nobody") else { return };
        assert_eq!(Owners::new(false).of(&attrs("nobody", 4711)).0, nobody);
        assert_eq!(Owners::new(true).of(&attrs("nobody", 4711)).0, 4711);
    }
}
