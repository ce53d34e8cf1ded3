//! Writes trees directly, as hostile as a key holder can make them, and collects the reports of a restore.

pub use std::collections::BTreeMap;
pub use std::ffi::OsStr;
pub use std::fs;
pub use std::os::unix::ffi::OsStrExt;
pub use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
pub use std::path::{Path, PathBuf};
pub use std::process::Command;
pub use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
pub use std::sync::{Arc, Mutex};

pub use nfreezer::context::{Context, background};
pub use nfreezer::crypto::keys::ChunkKind;
pub use nfreezer::crypto::seal::ObjectType;
pub use nfreezer::error::Kind;
pub use nfreezer::format::list::List;
pub use nfreezer::format::node::{Attrs, Content, Node, Xattrs, encode_xattrs};
pub use nfreezer::format::pack::Builder;
pub use nfreezer::format::page::Page;
pub use nfreezer::format::record::{Head, Snapshot, SnapshotId};
pub use nfreezer::format::reference::{Extent, PackRef, Ref};
pub use nfreezer::name::Name;
pub use nfreezer::progress::{Event, Progress};
pub use nfreezer::repo::{Repository, random};
pub use nfreezer::restore::{Options, Overwrite, Summary, restore};
pub use nfreezer::storage::{Local, Memory, Storage};
use nfreezer::time::Time;

pub use crate::harness::cli::PASSPHRASE;
pub use crate::harness::process::hermetic;
pub use crate::harness::repository;
pub use crate::harness::root::needs_root;
pub use crate::harness::tree::noise;

pub struct Repo {
    pub repo: Repository,
    pub memory: Arc<Memory>,
}

pub fn repo() -> Repo {
    let (memory, repo) = repository::in_memory();
    Repo { repo, memory }
}

pub fn chunks(repo: &Repository, kind: ChunkKind, plain: &[&[u8]]) -> Vec<Ref> {
    let mut builder = Builder::default();
    let entries: Vec<_> = plain.iter().map(|p| builder.add(repo.keys().chunk_id(kind, p), kind, p, p.len())).collect();
    let object = if kind == ChunkKind::Data { ObjectType::Data } else { ObjectType::Meta };
    let pack = repo.put_pack(background(), object, &mut builder.finish(false).0).unwrap();
    entries.iter().map(|e| e.in_pack(pack)).collect()
}

pub fn data(repo: &Repository, bytes: &[u8]) -> Ref {
    chunks(repo, ChunkKind::Data, &[bytes])[0]
}

pub fn directory(repo: &Repository, mut nodes: Vec<Node>) -> Content {
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    if nodes.is_empty() {
        return Content::Directory(None);
    }
    Content::Directory(Some(chunks(repo, ChunkKind::Page, &[&Page::Leaf(nodes).encode(&PackRef::SELF)])[0]))
}

pub fn node(name: impl AsRef<[u8]>, mode: u16, content: Content) -> Node {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Node {
        name: name.as_ref().to_vec(),
        attrs: Arc::new(Attrs { mode, uid, gid, user: Vec::new(), group: Vec::new(), fs: 0 }),
        mtime: Time::new(1_000_000_000, 123_456_789),
        ctime: 5,
        inode: 0,
        nlink: 1,
        flags: 0,
        xattrs: Xattrs::Inline(Vec::new()),
        content,
    }
}

pub fn file(repo: &Repository, name: impl AsRef<[u8]>, bytes: &[u8]) -> Node {
    let extents = if bytes.is_empty() { Vec::new() } else { vec![Extent::Data(data(repo, bytes))] };
    node(name, 0o644, Content::File(extents))
}

pub fn link(mut node: Node, inode: u64, nlink: u32) -> Node {
    (node.inode, node.nlink) = (inode, nlink);
    node
}

pub fn snapshot(repo: &Repository, nodes: Vec<Node>) -> Snapshot {
    let Content::Directory(root) = directory(repo, nodes) else { unreachable!() };
    Snapshot {
        id: SnapshotId(random().unwrap()),
        time: Time::new(1_700_000_000, 0),
        host: "host".into(),
        user: "user".into(),
        root,
        program: "test".into(),
        ..Snapshot::default()
    }
}

#[derive(Default)]
pub struct Seen {
    pub skipped: Mutex<BTreeMap<String, String>>,
    pub warnings: Mutex<Vec<String>>,
}

impl Progress for Seen {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Skipped { path, why } => {
                let path = String::from_utf8_lossy(path).into_owned();
                self.skipped.lock().unwrap().insert(path, why.to_string());
            }
            Event::Warning { text } => self.warnings.lock().unwrap().push(text.into()),
            _ => {}
        }
    }
}

impl Seen {
    pub fn skipped(&self) -> Vec<String> {
        self.skipped.lock().unwrap().keys().cloned().collect()
    }
}

pub fn run(repo: &Repository, s: &Snapshot, target: &Path, options: &Options) -> (Summary, Seen) {
    let seen = Seen::default();
    let summary = restore(&background().with_progress(&seen), repo, s, b"/", target, options).unwrap();
    assert_no_torso(target);
    (summary, seen)
}

pub fn plain(repo: &Repository, s: &Snapshot, target: &Path) -> (Summary, Seen) {
    run(repo, s, target, &Options::default())
}

pub fn assert_no_torso(target: &Path) {
    let mut open = vec![target.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            assert!(!name.as_bytes().starts_with(b".nfreezer-partial"), "left behind: {:?}", entry.path());
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
        }
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub fn target() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    (folder, target)
}
