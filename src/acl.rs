//! POSIX access control lists, as the kernel stores them in extended attributes (`linux/posix_acl_xattr.h`): a version
//! of 4 bytes, then entries of a tag (2 bytes), permissions (2 bytes) and a user or group id (4 bytes), little-endian. Their
//! users and groups have only numbers, so a node keeps the names besides, see [`Names`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::error::Result;
use crate::format::{codec, limits};

/// Name of the attribute that holds the ACL of a file or directory.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// Name of the attribute that holds the ACL which new entries of a directory inherit.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: [u8; 4] = [2, 0, 0, 0];
const GROUP: u8 = 0x04;
/// Tags of the entries for a user and for a group by number.
const NAMED: [u8; 2] = [0x02, 0x08];
const MASK: u8 = 0x10;
const OTHER: u8 = 0x20;

/// Returns the three permission bits that an access ACL grants to the owning group: its entry, limited by the mask.
/// Returns `None` if the value is not a well-formed ACL.
pub fn group_permissions(value: &[u8]) -> Option<u8> {
    let group = permissions(value, GROUP)?;
    Some(group & permissions(value, MASK).unwrap_or(7))
}

/// Returns the ACL with the entry of the owning group limited to the permissions of all others, for a file whose group
/// could not be set: the members of its present group were among the others when it was saved.
pub fn with_group_like_others(value: &[u8]) -> Option<Vec<u8>> {
    let others = permissions(value, OTHER)?;
    let mut limited = value.to_vec();
    for entry in limited[VERSION.len()..].chunks_exact_mut(8) {
        if entry[..2] == [GROUP, 0] {
            entry[2] &= others;
        }
    }
    Some(limited)
}

/// Returns the mode of a file where only the mode decides, so that it grants no more than mode and ACL did: the bits of
/// the group and of all others are limited by each named user and group. A malformed ACL leaves the owner's bits.
pub fn mode_without_acl(mode: u16, value: &[u8]) -> u16 {
    let (Some(group), Some(entries)) = (group_permissions(value), value.strip_prefix(&VERSION)) else {
        return mode & !0o077;
    };
    let mask = permissions(value, MASK).unwrap_or(7);
    let named = entries.chunks_exact(8).filter(|entry| NAMED.contains(&entry[0]));
    let named = u16::from(named.fold(7, |bits, entry| bits & entry[2] & mask));
    let group = (mode >> 3) & u16::from(group) & named;
    mode & !0o077 | group << 3 | mode & 0o007 & named
}

/// A user or group that an ACL has by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Named {
    /// Whether it is a group.
    pub group: bool,
    /// Its number.
    pub id: u32,
}

/// Returns the users and groups that an ACL has by number, in its order.
pub fn named(value: &[u8]) -> impl Iterator<Item = Named> {
    let entries = value.strip_prefix(&VERSION).unwrap_or_default().chunks_exact(8);
    entries.filter(|entry| is_named(entry)).map(named_of)
}

/// Returns the ACL with other numbers for its users and groups. Two entries that get the same number become one, which
/// grants only what both granted.
pub fn renumbered(value: &[u8], number: impl Fn(Named) -> u32) -> Vec<u8> {
    let Some(entries) = value.strip_prefix(&VERSION).filter(|entries| entries.len() % 8 == 0) else {
        return value.to_vec();
    };
    let renumber = |entry: &[u8]| {
        let mut entry = entry.to_vec();
        if is_named(&entry) {
            let id = number(named_of(&entry));
            entry[4..].copy_from_slice(&id.swap_bytes().to_be_bytes());
        }
        entry
    };
    let mut entries: Vec<Vec<u8>> = entries.chunks_exact(8).map(renumber).collect();
    // Tags ascend in the order that the kernel demands; `setfacl` writes the numbers below a tag in ascending order.
    entries.sort_by_key(|entry| (entry[0], is_named(entry).then(|| named_of(entry))));
    entries.dedup_by(|next, entry| {
        let is_same = is_named(next) && (next[0], &next[4..]) == (entry[0], &entry[4..]);
        if is_same {
            entry[2] &= next[2];
        }
        is_same
    });
    [&VERSION[..], &entries.concat()].concat()
}

/// Names of users and groups in ACLs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Names(BTreeMap<Named, ByteBuf>);

impl Names {
    /// Takes the names of the users and groups in these ACLs, as many as fit. An empty name is none.
    pub fn of<'a>(acls: impl Iterator<Item = &'a [u8]>, name: impl Fn(Named) -> Vec<u8>) -> Names {
        const ENTRY: usize = 8; // more than the bytes of an entry beside its name
        let (mut names, mut bytes) = (BTreeMap::new(), ENTRY);
        for id in acls.flat_map(named).collect::<BTreeSet<_>>() {
            let name = name(id);
            let fits = (1..=limits::NAME).contains(&name.len()) && bytes + name.len() + ENTRY <= limits::OWN_ATTRIBUTE;
            if fits {
                bytes += name.len() + ENTRY;
                names.insert(id, ByteBuf::from(name));
            }
        }
        Names(names)
    }

    /// Returns the saved name, if there is one.
    pub fn get(&self, id: Named) -> Option<&[u8]> {
        self.0.get(&id).map(|name| name.as_slice())
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Encodes the names, ascending by kind and number.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&self.0)
    }

    /// Inverts [`Names::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Names> {
        let what = "the list of names in ACLs";
        if bytes.len() > limits::OWN_ATTRIBUTE {
            return Err(codec::malformed(what, "out of bounds"));
        }
        // Doubled and unordered entries are not in canonical form.
        let names: BTreeMap<Named, ByteBuf> = codec::decode(what, bytes)?;
        let fit = names.values().all(|name| (1..=limits::NAME).contains(&name.len()));
        if fit && !names.is_empty() { Ok(Names(names)) } else { Err(codec::malformed(what, "out of bounds")) }
    }
}

fn is_named(entry: &[u8]) -> bool {
    NAMED.contains(&entry[0]) && entry[1] == 0
}

fn named_of(entry: &[u8]) -> Named {
    let id = [entry[4], entry[5], entry[6], entry[7]];
    Named { group: entry[0] == NAMED[1], id: u32::from_be_bytes(id).swap_bytes() }
}

fn permissions(value: &[u8], tag: u8) -> Option<u8> {
    let entries = value.strip_prefix(&VERSION)?;
    if entries.len() % 8 != 0 {
        return None;
    }
    let entry = entries.chunks_exact(8).find(|entry| entry[..2] == [tag, 0])?;
    (entry[2] <= 7 && entry[3] == 0).then_some(entry[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u8, u8)]) -> Vec<u8> {
        let entries = entries.iter().flat_map(|(tag, bits)| [*tag, 0, *bits, 0, 0xff, 0xff, 0xff, 0xff]);
        VERSION.into_iter().chain(entries).collect()
    }

    #[test]
    fn the_mask_limits_the_group() {
        assert_eq!(group_permissions(&acl(&[(1, 6), (GROUP, 7), (MASK, 5), (OTHER, 0)])), Some(5));
        assert_eq!(group_permissions(&acl(&[(1, 6), (GROUP, 0), (MASK, 6), (OTHER, 0)])), Some(0));
        assert_eq!(group_permissions(&acl(&[(1, 6), (GROUP, 4), (OTHER, 0)])), Some(4));
    }

    #[test]
    fn a_malformed_value_has_no_permissions() {
        let good = acl(&[(1, 6), (GROUP, 7), (OTHER, 0)]);
        for bad in [&b""[..], b"\x02\0\0\0", b"\x01\0\0\0", &good[..good.len() - 1], &acl(&[(1, 6), (GROUP, 8)])] {
            assert_eq!(group_permissions(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_mode_alone_grants_no_more_than_the_acl() {
        let granted = acl(&[(1, 6), (2, 6), (GROUP, 0), (MASK, 6), (OTHER, 0)]);
        assert_eq!(mode_without_acl(0o660, &granted), 0o600);
        let denied = acl(&[(1, 7), (2, 0), (GROUP, 5), (MASK, 7), (OTHER, 5)]);
        assert_eq!(mode_without_acl(0o4775, &denied), 0o4700);
        let reading = acl(&[(1, 6), (2, 7), (GROUP, 4), (8, 6), (MASK, 6), (OTHER, 4)]);
        assert_eq!(mode_without_acl(0o664, &reading), 0o644);
        assert_eq!(mode_without_acl(0o777, b"?"), 0o700);
    }

    /// Returns one entry: tag, permissions, number.
    fn entry(tag: u8, bits: u8, id: u32) -> Vec<u8> {
        [&[tag, 0, bits, 0][..], &id.swap_bytes().to_be_bytes()].concat()
    }

    fn value(entries: &[Vec<u8>]) -> Vec<u8> {
        [&VERSION[..], &entries.concat()].concat()
    }

    #[test]
    fn users_and_groups_get_the_numbers_of_this_machine() {
        let (none, all) = (u32::MAX, 7);
        let saved = value(&[
            entry(1, 6, none),
            entry(2, 6, 1000),
            entry(2, 5, 2000),
            entry(4, 4, none),
            entry(8, all, 1000),
            entry(16, all, none),
            entry(32, 0, none),
        ]);
        let ids: Vec<_> = named(&saved).map(|named| (named.group, named.id)).collect();
        assert_eq!(ids, [(false, 1000), (false, 2000), (true, 1000)]);
        let here = renumbered(&saved, |named| if named.group { 0x0102_0304 } else { 3001 - named.id });
        let expected = value(&[
            entry(1, 6, none),
            entry(2, 5, 1001),
            entry(2, 6, 2001),
            entry(4, 4, none),
            entry(8, all, 0x0102_0304),
            entry(16, all, none),
            entry(32, 0, none),
        ]);
        assert_eq!(here, expected);
        assert_eq!(renumbered(&saved, |named| named.id), saved);
    }

    #[test]
    fn two_entries_that_become_one_grant_what_both_granted() {
        let saved = value(&[entry(1, 6, 0), entry(2, 6, 10), entry(2, 5, 11), entry(8, 1, 10), entry(8, 2, 11)]);
        let expected = value(&[entry(1, 6, 0), entry(2, 4, 5), entry(8, 0, 5)]);
        assert_eq!(renumbered(&saved, |_| 5), expected);
    }

    fn names(all: &[(bool, u32, &[u8])]) -> Vec<u8> {
        codec::encode(&all.iter().map(|(group, id, name)| (*group, *id, ByteBuf::from(*name))).collect::<Vec<_>>())
    }

    #[test]
    fn names_are_encoded_as_the_document_says() {
        let bytes = b"\x02\x00\xe8\x07\x04anna\x01\x64\x05users";
        let decoded = Names::decode(bytes).unwrap();
        assert_eq!(decoded.get(Named { group: false, id: 1000 }), Some(&b"anna"[..]));
        assert_eq!(decoded.get(Named { group: true, id: 1000 }), None);
        assert_eq!(decoded.encode(), bytes);
        assert_eq!(names(&[(false, 1000, b"anna"), (true, 100, b"users")]), bytes);
        let acl = value(&[entry(8, 7, 100), entry(2, 7, 1000), entry(2, 7, 5), entry(2, 7, 1000)]);
        let of = |named: Named| {
            if named.group { b"users".to_vec() } else { [&b"anna"[..], b""][(named.id == 5) as usize].into() }
        };
        assert_eq!(Names::of([acl.as_slice()].into_iter(), of), decoded);
    }

    #[test]
    fn hostile_lists_of_names_are_refused() {
        let long = [b'n'; 256];
        let lists: [Vec<(bool, u32, &[u8])>; 7] = [
            vec![],
            vec![(false, 1, b"")],
            vec![(false, 1, &long)],
            vec![(false, 1, b"a"), (false, 1, b"b")],
            vec![(false, 2, b"a"), (false, 1, b"b")],
            vec![(true, 1, b"a"), (false, 2, b"b")],
            (0..300).map(|id| (false, id, &long[..255])).collect(),
        ];
        for bad in &lists {
            assert!(Names::decode(&names(bad)).is_err(), "{} entries", bad.len());
        }
        for bad in [
            &b""[..],
            b"\x01",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x01\x02\x01\x01a",
            b"\x01\x00\x81\x00\x01a",
            b"\x01\x00\x01\xff\xff\xff\xff\x0fa",
            b"\x01\x00\x01\x01ab",
        ] {
            assert!(Names::decode(bad).is_err(), "{bad:?}");
        }
        let acl = value(&(0..300).map(|id| entry(2, 7, id)).collect::<Vec<_>>());
        let fitting = Names::of([acl.as_slice()].into_iter(), |_| long[..255].to_vec());
        assert_eq!(fitting.0.len(), 249, "as many as fit");
        assert_eq!(Names::decode(&fitting.encode()).unwrap(), fitting);
    }

    #[test]
    fn a_value_that_is_no_acl_stays_as_it_is() {
        for bad in [&b""[..], b"\x02\0\0", b"\x01\0\0\0\x02\0\x06\0\0\0\0\0", b"\x02\0\0\0\x02\0\x06\0\0\0\0"] {
            assert_eq!(renumbered(bad, |_| 5), bad);
        }
        assert_eq!(named(b"\x01\0\0\0\x02\0\x06\0\0\0\0\0").count(), 0);
    }

    #[test]
    fn an_unknown_group_gets_no_more_than_others() {
        let limited = with_group_like_others(&acl(&[(1, 6), (GROUP, 7), (MASK, 7), (OTHER, 4)])).unwrap();
        assert_eq!(limited, acl(&[(1, 6), (GROUP, 4), (MASK, 7), (OTHER, 4)]));
    }
}
