//! From saved owner names to numbers of this machine. A name that is unknown here keeps its saved number, and no name
//! makes root the owner of a file that did not belong to root (restic #22178).

use std::collections::HashMap;
use std::sync::Mutex;

use crate::accounts;
use crate::format::node::Attrs;

/// Names that are remembered; then the memory is cleared.
const MANY: usize = 64 << 10;

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

    /// Returns user and group for these attributes.
    pub fn of(&self, attrs: &Attrs) -> (u32, u32) {
        (self.number(false, &attrs.user, attrs.uid), self.number(true, &attrs.group, attrs.gid))
    }

    /// Returns the number for a user or group of this name, which had this number when it was saved.
    pub fn number(&self, group: bool, name: &[u8], saved: u32) -> u32 {
        if self.numeric || name.is_empty() {
            return saved;
        }
        let mut known = self.known.lock().expect("no holder panics");
        if known.len() > MANY {
            known.clear();
        }
        let here = match known.get(&(group, name.to_vec())) {
            Some(here) => *here,
            None => *known.entry((group, name.to_vec())).or_insert_with(|| look_up(group, name)),
        };
        here.filter(|id| *id != 0 || saved == 0).unwrap_or(saved)
    }
}

fn look_up(group: bool, name: &[u8]) -> Option<u32> {
    if group { accounts::group(name) } else { accounts::user(name).map(|account| account.uid) }
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
        let Some(nobody) = accounts::user(b"nobody") else { return };
        assert_eq!(Owners::new(false).of(&attrs("nobody", 4711)).0, nobody.uid);
        assert_eq!(Owners::new(true).of(&attrs("nobody", 4711)).0, 4711);
    }
}
