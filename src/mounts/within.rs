//! Whether a path lies in a folder, by the identities of the folders above it. So another name of the folder (a link, a bind
//! mount) is found too.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The device and inode of a folder.
pub type FolderId = (u64, u64);

/// Returns whether a path is the folder, or lies in it. The path must be absolute, and only its last name may be a symbolic
/// link, which is not followed.
pub fn is_within(path: &Path, folder: FolderId) -> bool {
    let id = |path: &Path| path.symlink_metadata().ok().map(|meta| (meta.dev(), meta.ino()));
    path.ancestors().any(|path| id(path) == Some(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_in_its_folders_and_a_link_in_the_folder_that_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let [inner, other, link] = ["inner", "other", "other/link"].map(|name| root.join(name));
        std::fs::create_dir(&inner).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&inner, &link).unwrap();
        let meta = inner.metadata().unwrap();
        let id = (meta.dev(), meta.ino());
        assert!(is_within(&inner, id) && is_within(&inner.join("absent"), id));
        assert!(!is_within(&other, id) && !is_within(&link, id) && !is_within(&root, id));
    }
}
