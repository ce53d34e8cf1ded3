//! Attributes that nfreezer itself keeps among the extended attributes of a node. No attribute of Linux has such a name.

/// Prefix of the names of these attributes. A reader ignores those that it does not know.
pub const PREFIX: &[u8] = b"nfreezer.";
/// The names of the users and groups in the ACLs of the node.
pub const ACL_NAMES: &[u8] = b"nfreezer.acl-names";
/// The flags of the inode, as `chattr` sets them.
pub const FLAGS: &[u8] = b"nfreezer.flags";

/// Returns whether this attribute is one of nfreezer, and not one of the file.
pub fn is_own(name: &[u8]) -> bool {
    name.starts_with(PREFIX)
}
