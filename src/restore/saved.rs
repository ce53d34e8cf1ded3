//! The saved extended attributes of a node, made ready for this machine: users and groups in ACLs are mapped by name, as
//! owners are.

use rustix::fs::IFlags;

use super::Run;
use crate::acl::{self, Names};
use crate::error::{Error, Result};
use crate::format::node::{Node, Xattrs};
use crate::format::own;
use crate::inode_flags;

/// Extended attributes and flags of a node.
pub(super) struct Saved {
    /// Those that the file had, ascending by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub flags: IFlags,
}

impl Saved {
    /// Reads them. What nfreezer itself keeps among them and cannot be read is reported and left out.
    pub fn read(run: &Run<'_>, node: &Node, path: &dyn Fn() -> Vec<u8>) -> Result<Saved> {
        let (own, mut xattrs): (Vec<_>, Vec<_>) =
            run.trees.xattrs(run.ctx(), node)?.into_iter().partition(|(name, _)| own::is_own(name));
        let value = |wanted| own.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_slice());
        let names = value(own::ACL_NAMES).map(Names::decode).transpose().unwrap_or_else(|e| {
            run.skip(&path(), Error::while_doing(e, "its ACLs are restored by number"));
            None
        });
        let flags = value(own::FLAGS).map(inode_flags::decode).transpose().unwrap_or_else(|e| {
            run.skip(&path(), Error::while_doing(e, "it is restored without its flags"));
            None
        });
        let names = names.unwrap_or_default();
        for (_, value) in xattrs.iter_mut().filter(|(name, _)| [acl::ACCESS, acl::DEFAULT].contains(&name.as_slice())) {
            *value = acl::renumbered(value, |id| match names.get(id) {
                Some(name) => run.owners.number(id.group, name, id.id),
                None => id.id,
            });
        }
        Ok(Saved { xattrs, flags: flags.unwrap_or(IFlags::empty()) })
    }
}

/// Returns the saved flags of a node; none if they cannot be read, which [`Saved::read`] reports.
pub(super) fn flags(run: &Run<'_>, node: &Node) -> IFlags {
    if matches!(&node.xattrs, Xattrs::Inline(list) if list.is_empty()) {
        return IFlags::empty();
    }
    let pairs = run.trees.xattrs(run.ctx(), node).unwrap_or_default();
    let value = pairs.iter().find(|(name, _)| name == own::FLAGS);
    value.and_then(|(_, value)| inode_flags::decode(value).ok()).unwrap_or(IFlags::empty())
}
