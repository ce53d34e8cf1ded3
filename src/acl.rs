//! POSIX access control lists, as the kernel stores them in extended attributes (`linux/posix_acl_xattr.h`): a version
//! of 4 bytes, then entries of a tag (2 bytes), permissions (2 bytes) and a user or group id (4 bytes), little-endian.

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

    #[test]
    fn an_unknown_group_gets_no_more_than_others() {
        let limited = with_group_like_others(&acl(&[(1, 6), (GROUP, 7), (MASK, 7), (OTHER, 4)])).unwrap();
        assert_eq!(limited, acl(&[(1, 6), (GROUP, 4), (MASK, 7), (OTHER, 4)]));
    }
}
