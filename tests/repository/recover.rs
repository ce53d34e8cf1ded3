//! Golden repositories of format version 1: this and every later release reads them (T83), and so does
//! `scripts/recover.py`, which knows the format from `docs/format.md` only.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use nfreezer::context::background;
use nfreezer::crypto::kdf::KdfCost;
use nfreezer::crypto::keys::{ChunkId, ChunkKind};
use nfreezer::crypto::seal::ObjectType;
use nfreezer::crypto::secret::Passphrase;
use nfreezer::format::list::List;
use nfreezer::format::node::{self, Attrs, Content, Node, Xattrs};
use nfreezer::format::own;
use nfreezer::format::page::{Page, Row};
use nfreezer::format::record::{Action, Head, Mark, NewSection, SectionKind, Snapshot, SnapshotId};
use nfreezer::format::reference::{Extent, PackRef, Ref};
use nfreezer::format::{index, pack, stored};
use nfreezer::name::{Name, ObjectId, hex};
use nfreezer::repo::{Repository, Span, State};
use nfreezer::storage::Local;
use nfreezer::time::Time;
use nfreezer::trees::{Lookup, Trees};
use sha2::{Digest, Sha256};

const PASSPHRASE: &str = "golden, not secret";
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1");

fn passphrase() -> Passphrase {
    Passphrase::new(PASSPHRASE.into()).unwrap()
}

fn open(path: &Path) -> Repository {
    Repository::open(background(), Arc::new(Local::new(path)), || Ok(passphrase())).unwrap()
}

// ---------------------------------------------------------------------------------------- the contents of a repository

/// Returns one line for each entry of a snapshot, as the library reads it.
fn describe(repo: &Repository, state: &State, snapshot: &Snapshot) -> String {
    let mut out = format!(
        "snapshot {} {:?} {} {:?} {:?}\n",
        hex(&snapshot.id.0),
        (snapshot.time.seconds, snapshot.time.nanoseconds),
        snapshot.host,
        snapshot.tags,
        snapshot.paths.iter().map(|p| p.escape_ascii().to_string()).collect::<Vec<_>>()
    );
    for (path, node) in nodes(repo, snapshot) {
        let a = &node.attrs;
        let owner = format!("{}:{}", a.user.escape_ascii(), a.group.escape_ascii());
        let what = match &node.content {
            Content::File(_) | Content::Large { .. } => {
                let bytes = contents(repo, state, &node);
                format!("file {} {}", bytes.len(), hex(&Sha256::digest(&bytes)[..8]))
            }
            Content::Directory(_) => "directory".into(),
            Content::Symlink(target) => format!("symlink {}", target.escape_ascii()),
            other => format!("{other:?}"),
        };
        let xattrs = Trees::new(repo).xattrs(background(), &node).unwrap();
        let xattrs = xattrs.iter().map(|(k, v)| format!(" {}={}", k.escape_ascii(), hex(&Sha256::digest(v)[..4])));
        out += &format!(
            "{} {:04o} {}:{} {owner} fs{} {:?} {} {} {} {} {what}{}\n",
            path.escape_ascii(),
            a.mode,
            a.uid,
            a.gid,
            a.fs,
            (node.mtime.seconds, node.mtime.nanoseconds),
            node.ctime,
            node.inode,
            node.nlink,
            node.flags,
            xattrs.collect::<String>()
        );
    }
    out
}

fn describe_all(path: &Path) -> String {
    let repo = open(path);
    let state = repo.state(background()).unwrap();
    assert_eq!(state.warnings(), Vec::<String>::new());
    let mut out = String::new();
    for snapshot in state.snapshots() {
        out += if snapshot.partial { "partial " } else { "" };
        out += &describe(&repo, &state, &snapshot);
    }
    for snapshot in state.forgotten() {
        out += &format!("forgotten {}", describe(&repo, &state, &snapshot));
    }
    out
}

fn nodes(repo: &Repository, snapshot: &Snapshot) -> Vec<(Vec<u8>, Node)> {
    let mut found = Vec::new();
    let mut open = vec![(Vec::new(), snapshot.root)];
    while let Some((path, page)) = open.pop() {
        for node in Trees::new(repo).entries(background(), page.as_ref()) {
            let node = node.unwrap();
            let below = [path.as_slice(), b"/", &node.name].concat();
            if let Content::Directory(page) = node.content {
                open.push((below.clone(), page));
            }
            found.push((below, node));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn contents(repo: &Repository, state: &State, node: &Node) -> Vec<u8> {
    let mut bytes = Vec::new();
    let trees = Trees::with(repo, Arc::new(Lookup::from_state(state.clone())));
    for extent in trees.extents(background(), &node.content) {
        match extent.unwrap() {
            Extent::Hole(len) => bytes.resize(bytes.len() + len as usize, 0),
            Extent::Data(r) => bytes.extend(trees.chunk(background(), &r, Span::Exact).unwrap()),
        }
    }
    assert_eq!(bytes.len() as u64, node.content.size());
    bytes
}

// ------------------------------------------------------------------------------------------- making golden repositories

/// Chunks for one pack; references name it [`PackRef::SELF`] until it is sealed.
struct Filling {
    kind: ObjectType,
    builder: pack::Builder,
    packer: stored::Packer,
}

impl Filling {
    fn new(kind: ObjectType) -> Self {
        Filling { kind, builder: pack::Builder::default(), packer: stored::Packer::new(3).unwrap() }
    }

    fn add(&mut self, repo: &Repository, kind: ChunkKind, plain: &[u8]) -> Ref {
        let id = repo.keys().chunk_id(kind, plain);
        let packed = self.packer.pack(plain);
        let stored = packed.as_deref().unwrap_or(plain);
        self.builder.add(id, kind, stored, plain.len()).in_pack(PackRef::SELF)
    }

    fn page(&mut self, repo: &Repository, page: &Page) -> Ref {
        self.add(repo, ChunkKind::Page, &page.encode(&PackRef::SELF))
    }

    fn seal(self, repo: &Repository) -> (PackRef, Vec<pack::Entry>) {
        let (mut plain, entries) = self.builder.finish(false);
        (repo.put_pack(background(), self.kind, &mut plain).unwrap(), entries)
    }
}

fn sections(packs: &[(PackRef, ObjectType, Vec<pack::Entry>)]) -> Vec<NewSection> {
    let rows: Vec<_> = packs.iter().map(|(pack, kind, _)| (*pack, *kind)).collect();
    let numbered = packs.iter().zip(0..).flat_map(|((_, _, entries), i)| entries.iter().map(move |e| (i, *e)));
    let mut entries: Vec<_> = numbered.collect();
    entries.sort_by_key(|(_, e)| e.id);
    entries.dedup_by_key(|(_, e)| e.id);
    let (bytes, fences) = index::encode(&entries);
    vec![
        NewSection { kind: SectionKind::Packs, bytes: index::encode_packs(&rows), fences: Vec::new() },
        NewSection { kind: SectionKind::Index { packs: 0 }, bytes, fences },
    ]
}

fn snapshot(id: u8, time: i64, root: Ref) -> Snapshot {
    Snapshot {
        id: SnapshotId([id; 16]),
        time: Time::new(time, 500),
        host: "atlas".into(),
        user: "anna".into(),
        paths: vec![serde_bytes::ByteBuf::from(b"/home/anna\n\xff".to_vec())],
        group: 77,
        tags: vec!["golden".into()],
        description: "made by tests/recover.rs".into(),
        root: Some(root),
        program: "nfreezer test".into(),
        extra: vec![(5, serde_bytes::ByteBuf::from(b"of a later version".to_vec()))],
        ..Snapshot::default()
    }
}

fn node(name: &[u8], mode: u16, content: Content) -> Node {
    let owner = (b"nobody-here".to_vec(), b"".to_vec());
    Node {
        name: name.into(),
        attrs: Arc::new(Attrs { mode, uid: 12345, gid: 54321, user: owner.0, group: owner.1, fs: 0 }),
        mtime: Time::new(1_600_000_000, 123_456_789),
        ctime: 1_600_000_001_000_000_002,
        inode: 0,
        nlink: 1,
        flags: 0,
        xattrs: Xattrs::Inline(Vec::new()),
        content,
    }
}

fn in_pack(r: Ref, pack: PackRef) -> Ref {
    Ref { pack, ..r }
}

fn stream(label: &str, len: usize) -> Vec<u8> {
    let block = |i: u64| Sha256::new().chain_update(label).chain_update(i.to_be_bytes()).finalize();
    let mut bytes: Vec<u8> = (0..len.div_ceil(32) as u64).flat_map(block).collect();
    bytes.truncate(len);
    bytes
}

fn init(path: &Path) -> Repository {
    let cost = KdfCost { memory_kib: 64 << 10, passes: 3, lanes: 2 };
    Repository::init(background(), Arc::new(Local::new(path)), &passphrase(), cost, "golden").unwrap()
}

/// Makes every kind of node and every structure: directories of several pages, lists of two levels, compressed chunks
/// of several frames, attributes in a chunk, holes, hard links; a forgotten and a partial snapshot.
fn make_kinds(path: &Path) {
    let repo = init(path);
    let mut data = Filling::new(ObjectType::Data);
    let hello = data.add(&repo, ChunkKind::Data, b"hello\n");
    let text: Vec<u8> = (0..90_000).flat_map(|i| format!("line {i}\n").into_bytes()).collect();
    assert!(text.len() > 3 << 18);
    let text = data.add(&repo, ChunkKind::Data, &text);
    assert!(text.stored < text.len);
    let noise = data.add(&repo, ChunkKind::Data, &stream("noise", 20_000));
    let half: Vec<u8> = [stream("half", 300 << 10)[..4096].to_vec(), vec![b'x'; 400 << 10]].concat();
    let half = data.add(&repo, ChunkKind::Data, &half);
    let (data_pack, data_entries) = data.seal(&repo);
    let [hello, text, noise, half] = [hello, text, noise, half].map(|r| Extent::Data(in_pack(r, data_pack)));
    let file = |extents: &[Extent]| Content::File(extents.to_vec());

    let mut meta = Filling::new(ObjectType::Meta);
    // A list of two levels: 600 stretches, half of them holes.
    let rows: Vec<_> = (0..600).map(|i| if i % 2 == 0 { hello } else { Extent::Hole(4000 + i) }).collect();
    let lists: Vec<_> = rows.chunks(256).map(|rows| List::Leaf(rows.to_vec())).collect();
    let below =
        |list: &List, meta: &mut Filling| (list.span(), meta.add(&repo, ChunkKind::List, &list.encode(&PackRef::SELF)));
    let upper = List::Upper(lists.iter().map(|list| below(list, &mut meta)).collect());
    let list = meta.add(&repo, ChunkKind::List, &upper.encode(&PackRef::SELF));
    let large = Content::Large { size: upper.span(), list };
    let many = vec![(b"user.big".to_vec(), stream("xattr", 1000)), (b"user.small".to_vec(), vec![b'y'; 500])];
    let many = meta.add(&repo, ChunkKind::Xattrs, &node::encode_xattrs(&many));
    // A directory of three pages below an upper page.
    let names: Vec<_> = (0..400).map(|i| format!("entry {i:04}").into_bytes()).collect();
    let mut pages = Vec::new();
    for names in names.chunks(150) {
        let nodes: Vec<_> = names.iter().map(|name| node(name, 0o600, file(&[hello]))).collect();
        let page = meta.page(&repo, &Page::Leaf(nodes));
        pages.push(Row { first: names[0].clone(), count: names.len() as u64, page });
    }
    let wide = meta.page(&repo, &Page::Upper(pages));
    let deep = meta.page(&repo, &Page::Leaf(vec![node(b"empty folder", 0o700, Content::Directory(None))]));

    let mut nodes = vec![
        node(b"a file", 0o644, file(&[hello])),
        node(b"block", 0o660, Content::Block(7, 200)),
        node(b"char", 0o666, Content::Char(1, 3)),
        node(b"deep", 0o500, Content::Directory(Some(deep))),
        node(b"empty", 0o444, file(&[])),
        node(b"fifo", 0o622, Content::Fifo),
        node(b"hard 1", 0o640, file(&[noise])),
        node(b"hard 2", 0o640, file(&[noise])),
        node(b"hole at its end", 0o644, file(&[noise, Extent::Hole(1 << 20)])),
        node(b"large", 0o644, large),
        node(b"link", 0o777, Content::Symlink(b"../../outside\xff".to_vec())),
        node(b"only a hole", 0o644, file(&[Extent::Hole(1_000_000)])),
        node(b"setuid", 0o4755, file(&[hello])),
        node(b"sock", 0o755, Content::Socket),
        node(b"text", 0o644, file(&[text, half, Extent::Hole(12345), text])),
        node(b"times", 0o644, file(&[hello, hello, hello, hello])),
        node(b"unreadable", 0o600, Content::Unreadable(13)),
        node(b"wide", 0o755, Content::Directory(Some(wide))),
        node(b"xattrs", 0o644, file(&[hello])),
        node(&[b'y'; 255], 0o644, file(&[hello])),
        node(b"z\n\x1b[2J\xff\xfe", 0o644, file(&[hello])),
    ];
    for n in &mut nodes {
        match n.name.as_slice() {
            b"hard 1" | b"hard 2" => (n.inode, n.nlink) = (u64::MAX, 2),
            b"times" => (n.mtime, n.ctime) = (Time::new(-86_401, 999_999_999), i64::MIN),
            b"empty" => n.mtime = Time::new(5_000_000_000, 0),
            b"a file" => n.xattrs = Xattrs::Inline(vec![(b"user.comment".to_vec(), b"inline".to_vec())]),
            b"xattrs" => n.xattrs = Xattrs::Stored(many),
            b"only a hole" => n.flags = node::CHANGED,
            _ => {}
        }
    }
    let home = meta.page(&repo, &Page::Leaf(nodes));
    let root = meta.page(&repo, &Page::Leaf(vec![node(b"home", 0o755, Content::Directory(Some(home)))]));
    let mut unfinished = node(b"unfinished", 0o600, file(&[hello]));
    unfinished.flags = node::PARTIAL;
    let partial_root = meta.page(&repo, &Page::Leaf(vec![unfinished]));
    let (meta_pack, meta_entries) = meta.seal(&repo);

    let packs = [(data_pack, ObjectType::Data, data_entries), (meta_pack, ObjectType::Meta, meta_entries)];
    let (root, partial_root) = (in_pack(root, meta_pack), in_pack(partial_root, meta_pack));
    let mut state = repo.state(background()).unwrap();
    let first = Head { snapshots: vec![snapshot(0x11, 1_600_000_000, root)], ..Head::default() };
    repo.commit(background(), &mut state, first, &sections(&packs)).unwrap();
    let second = Head { snapshots: vec![snapshot(0x22, 1_600_086_400, partial_root)], ..Head::default() };
    repo.commit(background(), &mut state, second, &[]).unwrap();
    let mark =
        |id, action| Mark { sequence: 0, record: None, snapshot: SnapshotId([id; 16]), time: 1_600_100_000, action };
    let marks = vec![mark(0x22, Action::Forget), mark(0x11, Action::Tag(vec!["kept".into()]))];
    repo.commit(background(), &mut state, Head { marks, ..Head::default() }, &[]).unwrap();
    let partial = Snapshot { partial: true, ..snapshot(0x33, 1_600_200_000, partial_root) };
    repo.commit(background(), &mut state, Head { snapshots: vec![partial], ..Head::default() }, &[]).unwrap();
}

/// Makes the result of a prune: a missing pack whose chunk lives elsewhere, a merged record whose superseded records
/// are gone, and a concurrent record that still names one of them.
fn make_pruned(path: &Path) {
    let repo = init(path);
    let mut data = Filling::new(ObjectType::Data);
    let moved = data.add(&repo, ChunkKind::Data, b"moved to another pack");
    let (old_pack, old_entries) = data.seal(&repo);
    let mut meta = Filling::new(ObjectType::Meta);
    let content = Content::File(vec![Extent::Data(in_pack(moved, old_pack))]);
    let root = meta.page(&repo, &Page::Leaf(vec![node(b"moved", 0o644, content)]));
    let (meta_pack, meta_entries) = meta.seal(&repo);
    let root = in_pack(root, meta_pack);
    let packs = [(old_pack, ObjectType::Data, old_entries), (meta_pack, ObjectType::Meta, meta_entries.clone())];

    let mut state = repo.state(background()).unwrap();
    let first = Head { snapshots: vec![snapshot(0x44, 1_600_000_000, root)], ..Head::default() };
    let first = repo.commit(background(), &mut state, first, &sections(&packs)).unwrap();
    let mut concurrent = state.clone();

    let mut data = Filling::new(ObjectType::Data);
    data.add(&repo, ChunkKind::Data, b"moved to another pack");
    let (new_pack, new_entries) = data.seal(&repo);
    let packs = [(new_pack, ObjectType::Data, new_entries), (meta_pack, ObjectType::Meta, meta_entries)];
    let ancestry = first.0[..8].to_vec();
    let merged = Head {
        snapshots: vec![snapshot(0x44, 1_600_000_000, root)],
        dropped: vec![old_pack.id],
        superseded: vec![first],
        ..Head::default()
    };
    let ancestry = NewSection { kind: SectionKind::Ancestry, bytes: ancestry, fences: Vec::new() };
    let mut all = sections(&packs);
    all.push(ancestry);
    // The other writer's listing did not contain the merged record yet.
    let mark = Mark {
        sequence: 0,
        record: None,
        snapshot: SnapshotId([0x44; 16]),
        time: 1_600_100_000,
        action: Action::Tag(vec![]),
    };
    let other = Head { marks: vec![mark], ..Head::default() };
    repo.commit(background(), &mut concurrent, other, &[]).unwrap();
    let theirs = repo.storage().list(background(), nfreezer::name::Folder::Log).unwrap();
    let theirs = theirs.into_iter().map(|e| e.name).find(|n| matches!(n, Name::Record { sequence: 2, .. })).unwrap();
    let bytes = repo
        .storage()
        .read(background(), &theirs, 0, repo.storage().size(background(), &theirs).unwrap() as usize)
        .unwrap();
    repo.storage().remove(background(), &theirs).unwrap();
    repo.commit(background(), &mut state, merged, &all).unwrap();
    repo.storage().put(background(), &theirs, &bytes).unwrap();
    repo.storage().remove(background(), &Name::Record { sequence: 1, id: first }).unwrap();
    repo.storage().remove(background(), &Name::Pack(old_pack.id)).unwrap();
}

/// Makes nodes with nfreezer's own extended attributes: names of users and groups in ACLs, flags, and an attribute of a
/// later version. The attributes are in a node, in a chunk, and on folders.
fn make_rights(path: &Path) {
    let repo = init(path);
    let mut data = Filling::new(ObjectType::Data);
    let hello = data.add(&repo, ChunkKind::Data, b"hello\n");
    let (data_pack, data_entries) = data.seal(&repo);
    let hello = Content::File(vec![Extent::Data(in_pack(hello, data_pack))]);

    let entry = |tag: u8, bits: u8, id: u32| [&[tag, 0, bits, 0][..], &id.swap_bytes().to_be_bytes()].concat();
    let none = u32::MAX;
    let entries = [(1, 6, none), (2, 6, 1001), (2, 4, 4711), (4, 4, none), (8, 4, 2002), (16, 6, none), (32, 0, none)];
    let entries: Vec<_> = entries.iter().map(|(tag, bits, id)| entry(*tag, *bits, *id)).collect();
    let acl = [&[2, 0, 0, 0][..], &entries.concat()].concat();
    let pair = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
    let names = pair("nfreezer.acl-names", b"\x02\x00\xe9\x07\x04anna\x01\xd2\x0f\x05users");
    let access = pair("system.posix_acl_access", &acl);
    let with = |mut node: Node, pairs: &[(Vec<u8>, Vec<u8>)]| {
        node.xattrs = Xattrs::Inline(pairs.to_vec());
        node
    };

    let mut meta = Filling::new(ObjectType::Meta);
    let many = [names.clone(), access.clone(), pair("user.big", &stream("xattr", 1000))];
    let many = meta.add(&repo, ChunkKind::Xattrs, &node::encode_xattrs(&many));
    let below = meta.page(&repo, &Page::Leaf(vec![node(b"inner", 0o600, hello.clone())]));
    let folder = node(b"folder", 0o755, Content::Directory(Some(below)));
    let mut stored = node(b"stored", 0o660, hello.clone());
    stored.xattrs = Xattrs::Stored(many);
    let nodes = vec![
        with(node(b"acl", 0o660, hello.clone()), &[names.clone(), access]),
        // Immutable, no dump: 0x50.
        with(node(b"flags", 0o644, hello.clone()), &[pair("nfreezer.flags", b"\x50"), pair("user.a", b"1")]),
        with(folder, &[names, pair("nfreezer.flags", b"\x80\x01"), pair("system.posix_acl_default", &acl)]),
        with(node(b"later", 0o644, hello), &[pair("nfreezer.of-a-later-version", b"?"), pair("user.a", b"2")]),
        stored,
    ];
    let root = meta.page(&repo, &Page::Leaf(nodes));
    let (meta_pack, meta_entries) = meta.seal(&repo);
    let packs = [(data_pack, ObjectType::Data, data_entries), (meta_pack, ObjectType::Meta, meta_entries)];
    let mut state = repo.state(background()).unwrap();
    let head = Head { snapshots: vec![snapshot(0x55, 1_600_000_000, in_pack(root, meta_pack))], ..Head::default() };
    repo.commit(background(), &mut state, head, &sections(&packs)).unwrap();
}

#[test]
#[ignore = "makes those of tests/golden/v1 that are missing"]
fn make_the_golden_repositories() {
    for (name, make) in [("kinds", make_kinds as fn(&Path)), ("pruned", make_pruned), ("rights", make_rights)] {
        let path = Path::new(GOLDEN).join(name);
        if path.exists() {
            continue; // remove it to make it anew
        }
        std::fs::create_dir_all(GOLDEN).unwrap();
        make(&path);
        std::fs::write(path.with_extension("txt"), describe_all(&path)).unwrap();
    }
}

// ------------------------------------------------------------------------------------------------------------- the tests

/// Copies a golden repository, so that it may be damaged, and adds the folders that git does not keep.
fn copy(name: &str) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for folder in nfreezer::name::Folder::all() {
        std::fs::create_dir_all(to.path().join(folder.path())).unwrap();
    }
    let status =
        Command::new("cp").args(["-r", "--"]).arg(Path::new(GOLDEN).join(name).join(".")).arg(to.path()).status();
    assert!(status.unwrap().success());
    for file in objects(to.path()) {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    to
}

fn objects(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(objects(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[must_use = "assert the exit code"]
fn recover(passphrase: &str, args: &[&OsStr]) -> Output {
    let modules = Command::new("python3").args(["-c", "import cryptography, argon2, zstandard"]).output();
    let there = modules.expect("python3 is missing: scripts/setup.sh tests installs what the tests need");
    let why = String::from_utf8_lossy(&there.stderr);
    assert!(there.status.success(), "modules of Python are missing: run scripts/setup.sh tests\n{why}");
    let mut command = Command::new("python3");
    command.arg("-B").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/recover.py")).args(args);
    command.env("NFREEZER_PASSWORD", passphrase).output().unwrap()
}

fn code(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn t83_the_library_reads_the_golden_repositories() {
    for name in ["kinds", "pruned", "rights"] {
        let repo = copy(name);
        let expected = std::fs::read_to_string(Path::new(GOLDEN).join(name).with_extension("txt")).unwrap();
        assert_eq!(describe_all(repo.path()), expected, "{name}");
    }
}

#[test]
fn recover_lists_every_snapshot_and_escapes_what_it_prints() {
    let repo = copy("kinds");
    let output = recover(PASSPHRASE, &["list".as_ref(), repo.path().as_ref()]);
    assert_eq!(code(&output), (0, String::new()));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("11111111 2020-09-13 12:26:40 UTC atlas /home/anna\\n\\udcff"), "{text}");
    assert!(
        lines[0].ends_with("[kept]") && lines[1].contains("[forgotten]") && lines[2].contains("[partial]"),
        "{text}"
    );
}

#[test]
fn recover_ignores_a_record_that_hides_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    let repo = init(&path);
    let mut state = repo.state(background()).unwrap();
    let root =
        Ref { id: ChunkId([6; 16]), pack: PackRef { id: ObjectId([7; 32]), len: 65536 }, offset: 0, stored: 1, len: 1 };
    let head = Head { snapshots: vec![snapshot(1, 1_600_000_000, root)], ..Head::default() };
    repo.commit(background(), &mut state, head, &[]).unwrap();
    let forged = Head { superseded: state.frontier(), ..Head::default() };
    repo.commit(background(), &mut state, forged, &[]).unwrap();
    let output = recover(PASSPHRASE, &["list".as_ref(), path.as_os_str()]);
    let (code, errors) = code(&output);
    assert_eq!((code, String::from_utf8(output.stdout).unwrap().lines().count()), (4, 1), "{errors}");
    assert!(errors.contains("claims to contain record"), "{errors}");
}

/// Compares a restored tree with the nodes that the library reads from the snapshot.
fn compare(repo: &Path, which: &str, target: &Path) {
    let repo = open(repo);
    let state = repo.state(background()).unwrap();
    let snapshot = state.select(which).unwrap();
    let (root, mut seen, mut expected) = (rustix::process::geteuid().is_root(), BTreeMap::new(), 0);
    for (path, node) in nodes(&repo, &snapshot) {
        let shown = path.escape_ascii().to_string();
        let at = target.join(OsStr::from_bytes(&path[1..]));
        if matches!(node.content, Content::Unreadable(_))
            || !root && matches!(node.content, Content::Block(..) | Content::Char(..))
        {
            assert!(at.symlink_metadata().is_err(), "{shown}");
            continue;
        }
        expected += 1;
        let meta = at.symlink_metadata().unwrap_or_else(|e| panic!("{shown}: {e}"));
        let kind = meta.file_type();
        match &node.content {
            Content::File(_) | Content::Large { .. } => {
                assert!(kind.is_file(), "{shown}");
                assert!(std::fs::read(&at).unwrap() == contents(&repo, &state, &node), "{shown}: other contents");
            }
            Content::Directory(_) => assert!(kind.is_dir(), "{shown}"),
            Content::Symlink(to) => assert_eq!(std::fs::read_link(&at).unwrap().as_os_str().as_bytes(), to, "{shown}"),
            Content::Block(major, minor) => {
                assert!(kind.is_block_device() && meta.rdev() == rustix::fs::makedev(*major, *minor), "{shown}");
            }
            Content::Char(major, minor) => {
                assert!(kind.is_char_device() && meta.rdev() == rustix::fs::makedev(*major, *minor), "{shown}");
            }
            Content::Fifo => assert!(kind.is_fifo(), "{shown}"),
            Content::Socket => assert!(kind.is_socket(), "{shown}"),
            Content::Unreadable(_) => unreachable!(),
        }
        assert_eq!(Time::new(meta.mtime(), meta.mtime_nsec() as u32), node.mtime, "{shown}");
        let mode = if root { node.attrs.mode } else { node.attrs.mode & 0o1777 };
        if !kind.is_symlink() {
            assert_eq!(meta.mode() as u16 & 0o7777, mode, "{shown}");
        }
        if root {
            assert_eq!((meta.uid(), meta.gid()), (node.attrs.uid, node.attrs.gid), "{shown}");
        }
        if node.nlink > 1 {
            assert_eq!(*seen.entry(node.inode).or_insert(meta.ino()), meta.ino(), "{shown} is a link");
            assert_eq!(meta.nlink(), 2);
        }
        let pairs = Trees::new(&repo).xattrs(background(), &node).unwrap();
        for (name, value) in pairs.into_iter().filter(|(name, _)| !own::is_own(name)) {
            let mut buffer = vec![0; 1 << 16];
            let len = rustix::fs::lgetxattr(&at, OsStr::from_bytes(&name), &mut buffer).unwrap();
            assert!(buffer[..len] == value, "{shown}");
        }
    }
    let there =
        Command::new("find").arg(target).args(["-mindepth", "1", "-printf", "x"]).output().unwrap().stdout.len();
    assert_eq!(there, expected, "recover.py made something that is not in the snapshot");
}

#[test]
fn recover_restores_what_the_library_reads() {
    for (name, which) in [("kinds", "latest"), ("kinds", "33333333"), ("pruned", "4444"), ("rights", "5555")] {
        let (repo, target) = (copy(name), tempfile::tempdir().unwrap());
        let target = target.path().join("new");
        let output = recover(PASSPHRASE, &["restore".as_ref(), repo.path().as_ref(), which.as_ref(), target.as_ref()]);
        assert_eq!(code(&output).0, 0, "{}", code(&output).1);
        compare(repo.path(), which, &target);
    }
    let holes = tempfile::tempdir().unwrap();
    let repo = copy("kinds");
    let output =
        recover(PASSPHRASE, &["restore".as_ref(), repo.path().as_ref(), "1111".as_ref(), holes.path().as_ref()]);
    assert_eq!(code(&output).0, 0);
    let hole = holes.path().join("home/only a hole").metadata().unwrap();
    assert!(hole.len() == 1_000_000 && hole.blocks() < 64, "a hole takes no space");
}

#[test]
fn recover_names_a_wrong_passphrase_a_missing_repository_and_wrong_usage() {
    let repo = copy("pruned");
    let none = tempfile::tempdir().unwrap();
    assert_eq!(code(&recover("wrong", &["list".as_ref(), repo.path().as_ref()])).0, 12);
    assert_eq!(code(&recover(PASSPHRASE, &["list".as_ref(), none.path().as_ref()])).0, 10);
    assert_eq!(code(&recover(PASSPHRASE, &["frobnicate".as_ref()])).0, 2);
    let args = ["restore".as_ref(), repo.path().as_ref(), "beef".as_ref(), none.path().as_ref()];
    assert_eq!(code(&recover(PASSPHRASE, &args)).0, 1);
}

#[test]
fn recover_restores_everything_but_the_damaged_file_and_exits_4() {
    let (repo, target) = (copy("kinds"), tempfile::tempdir().unwrap());
    let opened = open(repo.path());
    let state = opened.state(background()).unwrap();
    let noise = Trees::new(&opened).at(background(), &state.select("latest").unwrap(), b"home/hard 1").unwrap();
    let Content::File(extents) = &noise.content else { panic!() };
    let Extent::Data(r) = extents[0] else { panic!() };
    let pack = repo.path().join(Name::Pack(r.pack.id).path());
    let mut bytes = std::fs::read(&pack).unwrap();
    // Damages the block in which the chunk ends: chunks before that block stay whole.
    let block = (r.offset + r.stored - 1) / 65536;
    let at = 72 + block as usize * 65552 + 100;
    bytes[at] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let output =
        recover(PASSPHRASE, &["restore".as_ref(), repo.path().as_ref(), "latest".as_ref(), target.path().as_ref()]);
    let (code, text) = code(&output);
    assert_eq!(code, 4);
    assert!(text.contains("home/hard 1: ") && text.contains(&r.pack.id.to_string()), "{text}");
    assert!(target.path().join("home/hard 1").symlink_metadata().is_err(), "nothing stays that is not whole");
    assert!(target.path().join("home/fifo").symlink_metadata().is_ok(), "the rest is restored");
    assert!(target.path().join("home/deep/empty folder").is_dir());
}

#[test]
fn t60_recover_never_leaves_its_folder_and_refuses_forbidden_and_doubled_names() {
    let (path, outer) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let repo = init(path.path());
    let mut state = repo.state(background()).unwrap();
    let link = |name: &[u8]| node(name, 0o777, Content::Symlink(outer.path().as_os_str().as_bytes().to_vec()));
    let bad: [Vec<Vec<u8>>; 5] = [
        vec![b"..".to_vec()],
        vec![b"../../evil".to_vec()],
        vec![outer.path().join("evil").as_os_str().as_bytes().to_vec()],
        vec![b"twice".to_vec(), b"twice".to_vec()],
        vec![b"b".to_vec(), b"a".to_vec()],
    ];
    let mut meta = Filling::new(ObjectType::Meta);
    let mut roots: Vec<_> = bad
        .iter()
        .map(|names| {
            meta.page(&repo, &Page::Leaf(names.iter().map(|n| node(n, 0o644, Content::File(vec![]))).collect()))
        })
        .collect();
    // Two pages, each in order, hold a symbolic link and a folder of the same name with a file in it.
    let inner = meta.page(&repo, &Page::Leaf(vec![node(b"evil", 0o644, Content::File(vec![]))]));
    let first = meta.page(&repo, &Page::Leaf(vec![link(b"twice")]));
    let second = meta.page(&repo, &Page::Leaf(vec![node(b"twice", 0o755, Content::Directory(Some(inner)))]));
    let row = |first: &[u8], page| Row { first: first.to_vec(), count: 1, page };
    roots.push(meta.page(&repo, &Page::Upper(vec![row(b"twice", first), row(b"twicf", second)])));
    let (pack, _) = meta.seal(&repo);
    let ids = 0x50..0x50 + roots.len() as u8;
    let snapshots = ids.clone().zip(&roots).map(|(id, root)| snapshot(id, 1, in_pack(*root, pack))).collect();
    repo.commit(background(), &mut state, Head { snapshots, ..Head::default() }, &[]).unwrap();
    for (id, root) in ids.zip(roots) {
        assert!(
            Trees::new(&repo).entries(background(), Some(&in_pack(root, pack))).any(|node| node.is_err()),
            "the library takes {id:x}"
        );
        let target = outer.path().join("target");
        let which = hex(&[id; 16]);
        let args = ["restore".as_ref(), path.path().as_ref(), which.as_ref(), target.as_ref()];
        assert_eq!(code(&recover(PASSPHRASE, &args)).0, 4, "{id:x}");
        assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1, "something was made outside of the target");
        std::fs::remove_dir_all(&target).unwrap();
    }
}

/// The vectors of `docs/format.md`, made or read by an implementation that shares no code with nfreezer.
const INDEPENDENT: &str = r#"
import hashlib, hmac, importlib.util, re, struct, sys
spec = importlib.util.spec_from_file_location("recover", sys.argv[1])
r = importlib.util.module_from_spec(spec)
spec.loader.exec_module(r)
v = {}
for block in re.findall("\n```vectors\n(.*?)\n```", open(sys.argv[2]).read(), re.S):
    for line in re.sub("\n    ", "", block).splitlines():
        name, value = line.split(" = ", 1)
        v[name] = value.strip()
dec = bytes.fromhex
mac = lambda key, data: hmac.digest(key, data, "sha256")
prk = mac(b"nfreezer/v1" + bytes([2]) * 32, bytes([1]) * 32)
assert prk.hex() == v["prk"]
key = lambda purpose, n=32: r.expand(prk, b"nfreezer/v1/key/" + purpose.encode(), n)
for purpose in "object", "object-id", "chunk-id", "name-hash", "chunker-prf":
    assert key(purpose).hex() == v["K_" + purpose], purpose
assert hashlib.sha256(key("chunker-table", 4096)).hexdigest() == v["sha256(K_chunker-table)"]
for kind, text in (1, ""), (1, "hello"), (2, "hello"), (3, "hello"), (4, "hello"):
    assert mac(key("chunk-id"), bytes([kind]) + text.encode())[:16].hex() == v[f'chunk_id({kind}, "{text}")']
assert mac(key("name-hash"), b"\x01a")[:8].hex() == v['name_hash(1, "a")']
# The key file, made from nothing.
header = b"NFRZKEY1" + bytes([2]) * 32 + b"\1\0\0\0" + struct.pack(">III", 65536, 3, 1) + bytes([4]) * 32
ikm = r.hash_secret_raw(b"correct horse battery staple", bytes([4]) * 32, 3, 65536, 1, 32, r.Type.ID, 0x13)
okm = r.expand(ikm, b"nfreezer/v1/keywrap\0" + header, 76)
payload = (bytes([1]) * 32 + struct.pack(">Q", 1700000000) + b"\x06laptop").ljust(128, b"\0")
file = header + okm[44:]
file += r.AESGCM(okm[:32]).encrypt(okm[32:44], payload, file)
assert (ikm.hex(), file.hex(), hashlib.sha256(file).hexdigest()) == (v["ikm"], v["key file"], v["key file name"])
assert v["config"] == (b"NFRZREPO\0\0\0\1" + bytes([2]) * 32).hex()
# Sealed objects, made from nothing.
def stream(label, n): return b"".join(hashlib.sha256(label + struct.pack(">Q", i)).digest() for i in range(-(-n // 32)))[:n]
def seal(kind, plain):
    id = mac(key("object-id"), bytes([kind]) + bytes([3]) * 32 + hashlib.sha256(plain).digest())
    okm = r.expand(key("object"), b"nfreezer/v1/object\0" + bytes([kind]) + id + struct.pack(">Q", len(plain)), 76)
    blocks = [plain[i:i + 65536] for i in range(0, len(plain), 65536)] or [b""]
    out, base = b"NFRZOBJ1" + id + okm[44:], int.from_bytes(okm[32:44], "big")
    for i, block in enumerate(blocks):
        nonce = base ^ int.from_bytes(b"\0\0\0" + bytes([i == len(blocks) - 1]) + struct.pack(">Q", i), "big")
        out += r.AESGCM(okm[:32]).encrypt(nonce.to_bytes(12, "big"), block, b"")
    return id.hex(), out
for name, kind, plain in ("hello", 2, b"hello"), ("empty", 1, b""), ("long", 3, stream(b"object", 65546)):
    id, out = seal(kind, plain)
    assert id == v[f"object {name}: id"]
    if name == "long": assert (str(len(out)), hashlib.sha256(out).hexdigest()) == (v["object long: size"], v["object long: sha256(file)"])
    else: assert out.hex() == v[f"object {name}: file"]
# What the structures say.
A, B, P = (bytes([0xaa]) * 32, 1 << 24), (bytes([0xbb]) * 32, 65536), (bytes([0xcc]) * 32, 65536)
import functools
read = lambda page, name: r.decode(functools.partial(page, P), dec(v[name]), r.PAGE)
ref = lambda n, *rest: r.Ref(bytes([n]) * 16, *rest)
leaf, nodes, first = read(r.directory_page, "page leaf")
assert leaf and first == b"a" and len(nodes) == 13
b, c, d, f = nodes[1], nodes[2], nodes[3], nodes[5]
assert (b.mtime, b.ctime, b.inode, b.content) == (-10**9 + 999999999, 2**64 - 1, 299, (ref(1, A, 1000, 50, 100),))
assert c.content == (ref(2, A, 1050, 7, 7), 1 << 20, ref(3, B, 0, 9, 10)) and (c.nlink, c.xattrs) == (2, ((b"user.a", b"1"),))
assert d.content == (5 << 30, ref(4, P, 64, 500, 1000)) and (d.flags, d.xattrs) == (3, ref(5, P, 0, 64, 64))
assert f.content == ref(6, P, 564, 40, 40) and nodes[6].content == b"../a" and nodes[7].content == (8, 1) and nodes[11].content == 13
assert [n.kind for n in nodes] == [0, 0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 0] and nodes[12].name == "\u00e9".encode()
assert all((n.mtime, n.ctime, n.inode) == (1700000000 * 10**9 + 5, 1700000000000000007, 300) for n in nodes if n is not b)
assert read(r.directory_page, "page upper") == (False, [(b"a", ref(7, P, 0, 9000, 12000)), (b"m", ref(8, B, 5, 90, 90))], b"a")
MiB = 1 << 20
assert read(r.list_page, "list leaf")[1] == (ref(1, A, 0, MiB, MiB), ref(2, A, MiB, 100, 200), 4096, ref(1, A, 0, MiB, MiB))
assert read(r.list_page, "list upper") == (False, ((1 << 31, ref(9, P, 0, 60000, 70000)), (4096, ref(10, P, 60000, 30, 30))), (1 << 31) + 4096)
assert r.decode(r.attributes, dec(v["xattrs"]), r.CHUNK) == ((b"user.a", b"1"), (b"user.b", b""))
record = dec(v["record: to the end of its index"])
end = 4 + int.from_bytes(record[:4], "big")
head = r.decode(r.head, record[4:end], r.HEAD)
s, base = head["snapshots"][0], -(-end // 32) * 32
assert head["sequence"] == 7 and s["root"] == ref(6, B, 1, 40, 41) and s["paths"] == (b"/home/anna",) and head["marks"][2]["action"] == (2, ("keep",))
assert s["group"] == int.from_bytes(mac(key("name-hash"), b"\x02atlas\0/home/anna\0")[:8], "big")
packs, index = (record[base + x["offset"]:base + x["offset"] + x["len"]] for x in head["sections"][1:])
assert [hashlib.sha256(x).digest() for x in (packs, index)] == [x["sha256"] for x in head["sections"][1:]]
assert packs == A[0] + struct.pack(">II", A[1], 2) + B[0] + struct.pack(">II", B[1], 3)
assert index == bytes([1]) * 16 + struct.pack(">4I", 0, 1000, 50, 1 << 24 | 100) + bytes([6]) * 16 + struct.pack(">4I", 1, 1, 40, 2 << 24 | 41)
assert head["sections"][2]["fences"] == (0x0101010101010101,)
table = dec(v["pack: table"])
assert table[:16].hex() == v['chunk_id(1, "hello")'] and table[-4:] == b"\0\0\0\2" and struct.unpack(">3I", table[16:28]) == (0, 5, 1 << 24 | 5)
print("agreed")
"#;

#[test]
fn t75_an_independent_implementation_makes_and_reads_the_vectors_of_the_document() {
    let file = |path: &str| format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("python3");
    command.args(["-B", "-c", INDEPENDENT, &file("scripts/recover.py"), &file("docs/format.md")]);
    let output = command.output().expect("python3 is missing: scripts/setup.sh tests installs what the tests need");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "agreed\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn recover_is_small_enough_to_be_read() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/recover.py")).unwrap();
    assert!(text.lines().count() < 320, "recover.py has {} lines", text.lines().count());
}
