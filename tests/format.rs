//! The format as a stranger sees it: every vector of `docs/format.md` is what the code makes, known answers of the
//! primitives, and hostile bytes for every decoder.

use std::collections::BTreeMap;
use std::sync::Arc;

use aes_gcm::aead::{Aead, AeadInOut, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use nfreezer::crypto::chunker::{self, ChunkerKey};
use nfreezer::crypto::kdf::KdfCost;
use nfreezer::crypto::keys::{ChunkId, ChunkKind, Keys, RepoId};
use nfreezer::crypto::seal::{self, ObjectType};
use nfreezer::crypto::secret::{Passphrase, Secret};
use nfreezer::error::Kind;
use nfreezer::format::keyfile::{self, KeyFile, KeyInfo};
use nfreezer::format::list::List;
use nfreezer::format::page::{Page, Row};
use nfreezer::format::record::{self, Deed, Head, Mark, NewSection, SectionKind, Snapshot, Stats};
use nfreezer::format::reference::{Extent, PackRef, Ref};
use nfreezer::format::tree::{self, Attrs, Content, Node, Xattrs};
use nfreezer::format::{codec, index, limits, pack, stored};
use nfreezer::name::{ObjectId, hex};
use sha2::{Digest, Sha256};

const PASSPHRASE: &str = "correct horse battery staple";

fn keys() -> Keys {
    Keys::derive(&Secret::new([1; 32]), &RepoId([2; 32]))
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text.into()).unwrap()
}

fn key_file(lanes: u32) -> (ObjectId, Vec<u8>) {
    let cost = KdfCost { memory_kib: 65536, passes: 3, lanes };
    let info = KeyInfo { created: 1_700_000_000, label: "laptop".into() };
    keyfile::wrap(&Secret::new([1; 32]), &RepoId([2; 32]), &passphrase(PASSPHRASE), cost, &[4; 32], &info).unwrap()
}

const PACK_A: PackRef = PackRef { id: ObjectId([0xaa; 32]), len: 1 << 24 };
const PACK_B: PackRef = PackRef { id: ObjectId([0xbb; 32]), len: 65536 };
/// The pack that the pages of the vectors are in.
const OWN: PackRef = PackRef { id: ObjectId([0xcc; 32]), len: 65536 };

fn reference(byte: u8, pack: PackRef, offset: u32, stored: u32, len: u32) -> Ref {
    Ref { id: ChunkId([byte; 16]), pack, offset, stored, len }
}

fn attrs(mode: u16) -> Arc<Attrs> {
    Arc::new(Attrs { mode, uid: 1000, gid: 100, user: b"anna".to_vec(), group: b"users".to_vec(), fs: 0 })
}

fn node(name: &str, mode: u16, content: Content) -> Node {
    Node {
        name: name.into(),
        attrs: attrs(mode),
        mtime: (1_700_000_000, 5),
        ctime: 1_700_000_000_000_000_007,
        inode: 300,
        nlink: 1,
        flags: 0,
        xattrs: Xattrs::Inline(Vec::new()),
        content,
    }
}

/// One node of each kind and every optional part.
fn leaf() -> Page {
    let mut before_1970 = node("b", 0o644, Content::File(vec![Extent::Data(reference(1, PACK_A, 1000, 50, 100))]));
    (before_1970.mtime, before_1970.ctime, before_1970.inode) = ((-1, 999_999_999), -1, 299);
    let mut linked = node(
        "c",
        0o644,
        Content::File(vec![
            Extent::Data(reference(2, PACK_A, 1050, 7, 7)),
            Extent::Hole(1 << 20),
            Extent::Data(reference(3, PACK_B, 0, 9, 10)),
        ]),
    );
    (linked.nlink, linked.xattrs) = (2, Xattrs::Inline(vec![(b"user.a".to_vec(), b"1".to_vec())]));
    let mut large = node("d", 0o644, Content::Large { size: 5 << 30, list: reference(4, OWN, 64, 500, 1000) });
    (large.flags, large.xattrs) = (tree::PARTIAL | tree::CHANGED, Xattrs::Stored(reference(5, OWN, 0, 64, 64)));
    Page::Leaf(vec![
        node("a", 0o644, Content::File(Vec::new())),
        before_1970,
        linked,
        large,
        node("e", 0o755, Content::Directory(None)),
        node("f", 0o755, Content::Directory(Some(reference(6, OWN, 564, 40, 40)))),
        node("g", 0o777, Content::Symlink(b"../a".to_vec())),
        node("h", 0o660, Content::Block(8, 1)),
        node("i", 0o660, Content::Char(1, 3)),
        node("j", 0o600, Content::Fifo),
        node("k", 0o600, Content::Socket),
        node("l", 0o600, Content::Unreadable(13)),
        node("\u{e9}", 0o644, Content::File(vec![Extent::Hole(1)])),
    ])
}

fn upper() -> Page {
    let row = |first: &str, count, page| Row { first: first.into(), count, page };
    Page::Upper(vec![row("a", 200, reference(7, OWN, 0, 9000, 12000)), row("m", 1, reference(8, PACK_B, 5, 90, 90))])
}

fn list_leaf() -> List {
    List::Leaf(vec![
        Extent::Data(reference(1, PACK_A, 0, 1 << 20, 1 << 20)),
        Extent::Data(reference(2, PACK_A, 1 << 20, 100, 200)),
        Extent::Hole(4096),
        Extent::Data(reference(1, PACK_A, 0, 1 << 20, 1 << 20)),
    ])
}

fn list_upper() -> List {
    List::Upper(vec![(1 << 31, reference(9, OWN, 0, 60000, 70000)), (4096, reference(10, OWN, 60000, 30, 30))])
}

fn snapshot() -> Snapshot {
    Snapshot {
        id: [0x55; 16],
        time: (1_700_000_000, 250_000_000),
        host: "atlas".into(),
        user: "anna".into(),
        paths: vec![serde_bytes::ByteBuf::from(b"/home/anna".to_vec())],
        more_paths: 0,
        group: keys().name_hash(2, b"atlas\0/home/anna\0"),
        tags: vec!["monthly".into()],
        description: String::new(),
        root: Some(reference(6, PACK_B, 1, 40, 41)),
        partial: false,
        warnings: 0,
        stats: Stats { files: 3, directories: 2, bytes: 300, added: 150, stored: 65536, ..Stats::default() },
        program: "nfreezer 0.1.0".into(),
    }
}

fn entry(byte: u8, kind: ChunkKind, offset: u32, stored: u32, len: u32) -> pack::Entry {
    pack::Entry { id: ChunkId([byte; 16]), kind, offset, stored, len }
}

/// A record with everything that a head can hold.
fn head_and_sections() -> (Head, Vec<NewSection>) {
    let mark = |sequence, record, deed| Mark { sequence, record, snapshot: [0x55; 16], time: 1_700_000_100, deed };
    let foreign = record::Section {
        kind: SectionKind::Ancestry,
        record: Some((6, ObjectId([0x77; 32]), 4096)),
        offset: 64,
        len: 16,
        sha256: [0x99; 32],
        fences: Vec::new(),
    };
    let head = Head {
        sequence: 7,
        heads: vec![ObjectId([0x77; 32])],
        time: 1_700_000_101,
        snapshots: vec![snapshot()],
        marks: vec![
            mark(5, Some(ObjectId([0x66; 32])), Deed::Forget),
            mark(7, None, Deed::Undelete),
            mark(7, None, Deed::Tag(vec!["keep".into()])),
        ],
        condemned: vec![(ObjectId([0xa1; 32]), 1_700_000_000)],
        dropped: vec![ObjectId([0xa0; 32])],
        superseded: vec![ObjectId([0x66; 32])],
        sections: vec![foreign],
    };
    let packs = index::encode_packs(&[(PACK_A, ObjectType::Data), (PACK_B, ObjectType::Meta)]);
    let rows = [(0, entry(1, ChunkKind::Data, 1000, 50, 100)), (1, entry(6, ChunkKind::Page, 1, 40, 41))];
    let (bytes, fences) = index::encode(&rows);
    let sections = vec![
        NewSection { kind: SectionKind::Packs, bytes: packs, fences: Vec::new() },
        NewSection { kind: SectionKind::Index { packs: 1 }, bytes, fences },
    ];
    (head, sections)
}

/// SHA-256(label || be64(0)) || SHA-256(label || be64(1)) || .., cut to `len`.
fn stream(label: &str, len: usize) -> Vec<u8> {
    let block = |i: u64| Sha256::new().chain_update(label).chain_update(i.to_be_bytes()).finalize();
    let mut bytes: Vec<u8> = (0..len.div_ceil(32) as u64).flat_map(block).collect();
    bytes.truncate(len);
    bytes
}

fn pack_plain() -> Vec<u8> {
    let mut builder = pack::Builder::default();
    builder.add(keys().chunk_id(ChunkKind::Data, b"hello"), ChunkKind::Data, b"hello", 5);
    builder.add(keys().chunk_id(ChunkKind::Data, &[0; 300 << 10]), ChunkKind::Data, &[9; 60], 300 << 10);
    builder.finish(false).0
}

/// Every vector of the document, by name.
fn vectors() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut put = |name: &str, value: String| assert!(all.insert(name.to_owned(), value).is_none(), "{name} twice");
    let keys = keys();

    // 3: keys, by the bare primitives as the document says, not by our code.
    let (prk, hkdf) = Hkdf::<Sha256>::extract(Some(&[b"nfreezer/v1".as_slice(), &[2; 32]].concat()), &[1; 32]);
    put("prk", hex(&prk));
    for purpose in ["object", "object-id", "chunk-id", "name-hash", "chunker-prf", "chunker-table"] {
        let mut key = vec![0; if purpose == "chunker-table" { 4096 } else { 32 }];
        hkdf.expand(format!("nfreezer/v1/key/{purpose}").as_bytes(), &mut key).unwrap();
        match purpose {
            "chunker-table" => put("sha256(K_chunker-table)", hex(&Sha256::digest(&key))),
            _ => put(&format!("K_{purpose}"), hex(&key)),
        }
    }
    for (kind, name) in [ChunkKind::Data, ChunkKind::Page, ChunkKind::List, ChunkKind::Xattrs].iter().zip(1..) {
        put(&format!("chunk_id({name}, \"hello\")"), hex(&keys.chunk_id(*kind, b"hello").0));
    }
    put("chunk_id(1, \"\")", hex(&keys.chunk_id(ChunkKind::Data, b"").0));
    put("name_hash(1, \"a\")", format!("{:016x}", keys.name_hash(1, b"a")));

    // 4: config and key file.
    put("config", hex(&keyfile::encode_config(&RepoId([2; 32]))));
    let cost = KdfCost { memory_kib: 65536, passes: 3, lanes: 1 };
    put("ikm", hex(cost.derive(&passphrase(PASSPHRASE), &[4; 32]).unwrap().expose()));
    let (id, file) = key_file(1);
    put("key file", hex(&file));
    put("key file name", id.to_string());

    // 5: sealed objects.
    for (name, kind, plain) in [("hello", ObjectType::Data, b"hello".as_slice()), ("empty", ObjectType::Record, b"")] {
        let (id, file) = seal::seal(&keys, kind, &[3; 32], plain);
        put(&format!("object {name}: id"), id.to_string());
        put(&format!("object {name}: file"), hex(&file));
    }
    let long = stream("object", 65536 + 10);
    let (id, file) = seal::seal(&keys, ObjectType::Meta, &[3; 32], &long);
    put("object long: id", id.to_string());
    put("object long: size", file.len().to_string());
    put("object long: sha256(file)", hex(&Sha256::digest(&file)));

    // 7 to 10: packs, pages, lists, records.
    let plain = pack_plain();
    put("pack: length", plain.len().to_string());
    put("pack: table", hex(&plain[plain.len() - 60..]));
    put("page leaf", hex(&leaf().encode(&OWN)));
    put("page upper", hex(&upper().encode(&OWN)));
    put("list leaf", hex(&list_leaf().encode(&OWN)));
    put("list upper", hex(&list_upper().encode(&OWN)));
    put("xattrs", hex(&tree::encode_xattrs(&[(b"user.a".to_vec(), b"1".to_vec()), (b"user.b".to_vec(), Vec::new())])));
    let (head, sections) = head_and_sections();
    let plain = record::encode(head, &sections).unwrap();
    put("record: length", plain.len().to_string());
    put("record: to the end of its index", hex(&plain[..end_of_index(&plain)]));

    // Appendix: the chunker.
    let bytes = stream("nfreezer-cdc-v1 key", 4128);
    let key = ChunkerKey::new(bytes[..4096].try_into().unwrap(), bytes[4096..].try_into().unwrap());
    let data = stream("nfreezer-cdc-v1 data", 8 << 20);
    let (mut at, mut cuts) = (0, Vec::new());
    while at < data.len() {
        at += key.cut(&data[at..]);
        cuts.push(at.to_string());
    }
    put("cuts", cuts.join(" "));
    all
}

fn end_of_index(plain: &[u8]) -> usize {
    let end = record::head_end(plain[..4].try_into().unwrap()).unwrap();
    let record = record::decode(7, &plain[..end]).unwrap();
    let index = record.head.sections.last().unwrap();
    record.base as usize + (index.offset + index.len) as usize
}

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/format.md");

/// The lines `name = value` of the fenced blocks called `vectors`; indented lines continue a value.
fn documented(text: &str) -> BTreeMap<String, String> {
    let mut found: Vec<(String, String)> = Vec::new();
    for block in text.split("\n```vectors\n").skip(1) {
        for line in block.split("\n```").next().unwrap().lines() {
            match line.strip_prefix("    ") {
                Some(more) => found.last_mut().unwrap().1.push_str(more.trim()),
                None => {
                    let (name, value) = line.split_once(" = ").unwrap_or_else(|| panic!("not a vector: {line}"));
                    found.push((name.to_owned(), value.trim().to_owned()));
                }
            }
        }
    }
    let count = found.len();
    let found: BTreeMap<_, _> = found.into_iter().collect();
    assert_eq!(found.len(), count, "a vector stands twice in the document");
    found
}

#[test]
fn t75_every_vector_of_the_document_is_what_the_code_makes() {
    let text = std::fs::read_to_string(DOCUMENT).unwrap();
    let (mut documented, made) = (documented(&text), vectors());
    // Compressed bytes differ between versions of zstd: the document's are read, not made.
    let compressed = unhex(&documented.remove("compressed chunk").expect("the document holds a compressed chunk"));
    let plain = vec![0; 300 << 10];
    let mut r = reference(0, PACK_A, 0, compressed.len() as u32, plain.len() as u32);
    r.id = keys().chunk_id(ChunkKind::Data, &plain);
    assert_eq!(stored::unpack(&r, compressed).unwrap(), plain);
    for (name, value) in &made {
        assert_eq!(documented.get(name), Some(value), "{name}: `cargo test --test format -- --ignored` writes it anew");
    }
    assert_eq!(documented.len(), made.len(), "the document holds vectors that nobody makes");
}

#[test]
#[ignore = "writes the values of the vectors into docs/format.md"]
fn write_the_vectors() {
    let text = std::fs::read_to_string(DOCUMENT).unwrap();
    let mut made = vectors();
    let packed = stored::Packer::new(3).unwrap().pack(&vec![0; 300 << 10]).unwrap();
    made.insert("compressed chunk".into(), hex(&packed));
    let mut parts = text.split("\n```vectors\n");
    let mut out = parts.next().unwrap().to_owned();
    for block in parts {
        let (lines, rest) = block.split_once("\n```").unwrap();
        out.push_str("\n```vectors\n");
        let names = lines.lines().filter(|l| !l.starts_with(' ')).map(|l| l.split(" =").next().unwrap());
        let entries = names.map(|name| {
            let value = made.remove(name).unwrap_or_else(|| panic!("nobody makes {name}"));
            match value.len() > 100 && !value.contains(' ') {
                false => format!("{name} = {value}"),
                true => value.as_bytes().chunks(112).fold(format!("{name} ="), |text, line| {
                    format!(
                        "{text}{}{}",
                        if text.ends_with('=') { " \n    " } else { "\n    " },
                        str::from_utf8(line).unwrap()
                    )
                }),
            }
        });
        out.push_str(&entries.collect::<Vec<_>>().join("\n"));
        out.push_str("\n```");
        out.push_str(rest);
    }
    assert!(made.is_empty(), "not in the document: {:?}", made.keys());
    std::fs::write(DOCUMENT, out).unwrap();
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
