//! Names of users and groups in ACLs, and flags of inodes (`chattr`), as a push saves them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use crate::harness::repository;
use crate::harness::root::{Filesystem, needs_root};
use crate::harness::tree::{in_snapshot, settle, write};
use nfreezer::acl::{Named, Names};
use nfreezer::context::background;
use nfreezer::format::node::Node;
use nfreezer::format::own::{ACL_NAMES, FLAGS};
use nfreezer::format::record::Snapshot;
use nfreezer::push::{Options, Select, Summary, push};
use nfreezer::repo::Repository;
use nfreezer::storage::Memory;
use nfreezer::trees::Trees;

struct Case {
    repo: Repository,
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Case {
        Case { repo: repository::init(Arc::new(Memory::default())), dir: tempfile::tempdir().unwrap() }
    }

    fn top(&self) -> PathBuf {
        self.dir.path().join("top")
    }

    fn push(&self, nodump: bool) -> Summary {
        let mut select = Select::default();
        select.nodump = nodump;
        let select = Arc::new(select);
        let sources = vec![self.top()];
        let options = Options { sources, host: "host".into(), user: "user".into(), select, ..Options::default() };
        let summary = push(background(), &self.repo, &options).unwrap();
        assert_eq!(summary.skipped, 0);
        summary
    }

    fn node(&self, snapshot: &Snapshot, name: &str) -> Node {
        let path = self.top().join(name);
        Trees::new(&self.repo).at(background(), snapshot, path.to_str().unwrap().as_bytes()).unwrap()
    }

    fn attribute(&self, snapshot: &Snapshot, name: &str, wanted: &[u8]) -> Option<Vec<u8>> {
        let pairs = Trees::new(&self.repo).xattrs(background(), &self.node(snapshot, name)).unwrap();
        pairs.into_iter().find(|(name, _)| name == wanted).map(|(_, value)| value)
    }

    fn saved(&self, summary: &Summary) -> Vec<String> {
        let model = in_snapshot(&self.repo, &summary.snapshot, &self.top());
        model.keys().map(|name| String::from_utf8_lossy(name).into_owned()).filter(|name| !name.is_empty()).collect()
    }
}

fn setfacl(entries: &str, path: &Path) {
    assert!(Command::new("setfacl").args(["-m", entries]).arg(path).status().unwrap().success());
}

fn add(path: &Path, flags: IFlags) {
    let file = fs::File::open(path).unwrap();
    ioctl_setflags(&file, ioctl_getflags(&file).unwrap() | flags).unwrap();
}

#[test]
fn users_and_groups_in_acls_are_saved_with_their_names() {
    let case = Case::new();
    write(case.top().join("f"), b"x");
    write(case.top().join("plain"), b"x");
    symlink("f", case.top().join("link")).unwrap();
    setfacl("u:0:rw,g:0:r,u:4711:r,g:4711:r", &case.top().join("f"));
    setfacl("d:u:0:r", &case.top());
    settle();
    let first = case.push(false);
    let names = Names::decode(&case.attribute(&first.snapshot, "f", ACL_NAMES).unwrap()).unwrap();
    let name = |group, id| names.get(Named { group, id });
    assert_eq!((name(false, 0), name(true, 0)), (Some(&b"root"[..]), Some(&b"root"[..])));
    assert_eq!((name(false, 4711), name(true, 4711)), (None, None), "it has no name");
    let names = Names::decode(&case.attribute(&first.snapshot, "", ACL_NAMES).unwrap()).unwrap();
    assert_eq!(names.get(Named { group: false, id: 0 }), Some(&b"root"[..]), "of a default ACL");
    assert_eq!(case.attribute(&first.snapshot, "plain", ACL_NAMES), None);
    let second = case.push(false);
    assert_eq!((second.read, second.changed, second.unchanged, second.packs), (0, 0, 2, 0));
    assert_eq!(second.snapshot.root, first.snapshot.root);
}

#[test]
fn flags_cost_nothing_where_nothing_changed_and_are_seen_when_they_change() {
    if !needs_root("an ext4 file system") {
        return;
    }
    let case = Case::new();
    let _disk = Filesystem::image(&case.top(), "mkfs.ext4 -q");
    write(case.top().join("d/f"), b"x");
    write(case.top().join("d/g"), b"x");
    add(&case.top().join("d"), IFlags::NOATIME);
    add(&case.top().join("d/f"), IFlags::NODUMP);
    settle();
    let first = case.push(false);
    assert_eq!(case.attribute(&first.snapshot, "d", FLAGS), Some(b"\x80\x01".to_vec()));
    assert_eq!(case.attribute(&first.snapshot, "d/f", FLAGS), Some(b"\x40".to_vec()));
    assert_eq!(case.attribute(&first.snapshot, "d/g", FLAGS), None, "of an ext4 file without flags of a user");
    assert_eq!(first.snapshot.stats.xattrs, 0, "a mount need not look for attributes");
    let second = case.push(false);
    assert_eq!((second.read, second.changed, second.packs), (0, 0, 0));
    assert_eq!(second.snapshot.root, first.snapshot.root);
    add(&case.top().join("d/g"), IFlags::APPEND);
    let third = case.push(false);
    assert_eq!((third.changed, third.unchanged), (1, 1));
    assert_eq!(case.attribute(&third.snapshot, "d/g", FLAGS), Some(b"\x20".to_vec()));
}

#[test]
fn files_and_folders_with_the_flag_nodump_are_left_out_on_request() {
    if !needs_root("an ext4 file system") {
        return;
    }
    let case = Case::new();
    let _disk = Filesystem::image(&case.top(), "mkfs.ext4 -q -O ^has_journal");
    fs::remove_dir(case.top().join("lost+found")).unwrap();
    for name in ["cache/below", "kept/f", "one", "other"] {
        write(case.top().join(name), b"x");
    }
    fs::hard_link(case.top().join("one"), case.top().join("kept/one")).unwrap();
    for name in ["", "cache", "one"] {
        add(&case.top().join(name), IFlags::NODUMP);
    }
    settle();
    let all = ["cache", "cache/below", "kept", "kept/f", "kept/one", "one", "other"];
    assert_eq!(case.saved(&case.push(false)), all);
    // The source itself is never left out. Files of the parent snapshot are left out as well.
    let less = case.push(true);
    assert_eq!(case.saved(&less), ["kept", "kept/f", "other"]);
    assert_eq!((less.excluded, less.read), (3, 0));
    assert_eq!(case.saved(&case.push(false)), all);
}
