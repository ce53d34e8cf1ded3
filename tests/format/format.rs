//! The format from the outside: the code makes every vector of `docs/format.md`, the primitives produce known answers,
//! and every decoder reads hostile bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use nfreezer::crypto::chunker::ChunkerKey;
use nfreezer::crypto::kdf::KdfCost;
use nfreezer::crypto::keys::{ChunkId, ChunkKind, Keys, RepoId};
use nfreezer::crypto::seal::{self, ObjectType};
use nfreezer::crypto::secret::{Passphrase, Secret};
use nfreezer::error::Kind;
use nfreezer::format::keyfile::{self, KeyFile, KeyInfo};
use nfreezer::format::list::List;
use nfreezer::format::node::{self, Attrs, Content, Node, Xattrs};
use nfreezer::format::page::{Page, Row};
use nfreezer::format::record::{self, Action, Head, Mark, NewSection, SectionKind, Snapshot, SnapshotId, Stats};
use nfreezer::format::reference::{Extent, PackRef, Ref};
use nfreezer::format::{codec, index, limits, pack, stored};
use nfreezer::name::{ObjectId, hex};
use nfreezer::time::Time;
use proptest::prelude::*;
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
/// Pack that holds the pages of the vectors.
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
        mtime: Time::new(1_700_000_000, 5),
        ctime: 1_700_000_000_000_000_007,
        inode: 300,
        nlink: 1,
        flags: 0,
        xattrs: Xattrs::Inline(Vec::new()),
        content,
    }
}

/// Returns a page with one node of each kind and every optional part.
fn leaf() -> Page {
    let mut before_1970 = node("b", 0o644, Content::File(vec![Extent::Data(reference(1, PACK_A, 1000, 50, 100))]));
    (before_1970.mtime, before_1970.ctime, before_1970.inode) = (Time::new(-1, 999_999_999), -1, 299);
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
    (large.flags, large.xattrs) = (node::PARTIAL | node::CHANGED, Xattrs::Stored(reference(5, OWN, 0, 64, 64)));
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
        id: SnapshotId([0x55; 16]),
        time: Time::new(1_700_000_000, 250_000_000),
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
        extra: Vec::new(),
    }
}

fn entry(byte: u8, kind: ChunkKind, offset: u32, stored: u32, len: u32) -> pack::Entry {
    pack::Entry { id: ChunkId([byte; 16]), kind, offset, stored, len }
}

/// Returns a record with everything that a head can hold.
fn head_and_sections() -> (Head, Vec<NewSection>) {
    let mark = |sequence, record, action| Mark {
        sequence,
        record,
        snapshot: SnapshotId([0x55; 16]),
        time: 1_700_000_100,
        action,
    };
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
            mark(5, Some(ObjectId([0x66; 32])), Action::Forget),
            mark(7, None, Action::Undelete),
            mark(7, None, Action::Tag(vec!["keep".into()])),
        ],
        condemned: vec![(ObjectId([0xa1; 32]), 1_700_000_000)],
        dropped: vec![ObjectId([0xa0; 32])],
        superseded: vec![ObjectId([0x66; 32])],
        sections: vec![foreign],
        extra: vec![(9, serde_bytes::ByteBuf::from(b"later".to_vec()))],
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

/// Returns SHA-256(label || be64(0)) || SHA-256(label || be64(1)) || .., cut to `len`.
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

/// Returns every vector of the document, by name.
fn vectors() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut put = |name: &str, value: String| assert!(all.insert(name.to_owned(), value).is_none(), "{name} twice");
    let keys = keys();

    // 3: keys, made with bare primitives as the document describes, not by nfreezer's code.
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
    let info = KeyInfo { created: 1_700_000_000, label: "laptop".into() };
    let local = || Some(Secret::new([5; 32]));
    let both = passphrase(PASSPHRASE).with_local_key(local());
    let (id, file) = keyfile::wrap(&Secret::new([1; 32]), &RepoId([2; 32]), &both, cost, &[4; 32], &info).unwrap();
    put("sha256(key file with local key)", id.to_string());
    assert!(KeyFile::parse(&id, &RepoId([2; 32]), &file).unwrap().open(&passphrase(PASSPHRASE)).is_err());

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
    put("xattrs", hex(&node::encode_xattrs(&[(b"user.a".to_vec(), b"1".to_vec()), (b"user.b".to_vec(), Vec::new())])));
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

/// Returns the lines `name = value` of the fenced blocks called `vectors`; indented lines continue a value.
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
    // Compressed bytes differ between versions of zstd, so the bytes of the document are read, not made.
    let compressed = unhex(&documented.remove("compressed chunk").expect("the document holds a compressed chunk"));
    let plain = vec![0; 300 << 10];
    let mut r = reference(0, PACK_A, 0, compressed.len() as u32, plain.len() as u32);
    r.id = keys().chunk_id(ChunkKind::Data, &plain);
    assert_eq!(stored::unpack(&r, compressed).unwrap(), plain);
    for (name, value) in &made {
        assert_eq!(
            documented.get(name),
            Some(value),
            "{name}: `cargo test --test format write_the_vectors -- --ignored` writes it anew"
        );
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

// ------------------------------------------------------------------------------------- known answers of the primitives

#[test]
fn t75_hmac_sha256_is_that_of_rfc_4231() {
    let mac = |key: &[u8], data: &[u8]| {
        hex(&Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(data).finalize().into_bytes())
    };
    let cases = [
        (vec![0x0b; 20], b"Hi There".to_vec(), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (
            b"Jefe".to_vec(),
            b"what do ya want for nothing?".to_vec(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (vec![0xaa; 20], vec![0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    ];
    cases.into_iter().for_each(|(key, data, expected)| assert_eq!(mac(&key, &data), expected));
}

#[test]
fn t75_hkdf_sha256_is_that_of_rfc_5869() {
    let (salt, info): (Vec<u8>, Vec<u8>) = ((0..13).collect(), (0xf0..0xfa).collect());
    let (prk, hkdf) = Hkdf::<Sha256>::extract(Some(&salt), &[0x0b; 22]);
    let mut okm = [0; 42];
    hkdf.expand(&info, &mut okm).unwrap();
    assert_eq!(hex(&prk), "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
    assert_eq!(hex(&okm), "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
}

#[test]
fn t75_argon2id_is_that_of_rfc_9106() {
    let params = argon2::ParamsBuilder::new()
        .m_cost(32)
        .t_cost(3)
        .p_cost(4)
        .data(argon2::AssociatedData::new(&[4; 12]).unwrap())
        .output_len(32)
        .build()
        .unwrap();
    let (algorithm, version) = (argon2::Algorithm::Argon2id, argon2::Version::V0x13);
    let argon2 = argon2::Argon2::new_with_secret(&[3; 8], algorithm, version, params).unwrap();
    let mut tag = [0; 32];
    argon2.hash_password_into(&[1; 32], &[2; 16], &mut tag).unwrap();
    assert_eq!(hex(&tag), "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659");
}

/// Cases 13, 14 and 16 of McGrew and Viega, "The Galois/Counter Mode of Operation" (in NIST's and Wycheproof's sets too).
#[test]
fn t75_aes_256_gcm_is_that_of_nist_and_refuses_every_other_tag() {
    let cases = [
        ("00".repeat(32), "00".repeat(12), "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
        (
            "00".repeat(32),
            "00".repeat(12),
            "00000000000000000000000000000000",
            "",
            "cea7403d4d606b6e074ec5d3baf39d18",
            "d0d1c8a799996bf0265b98b5d48ab919",
        ),
        (
            "feffe9928665731c6d6a8f9467308308".repeat(2),
            "cafebabefacedbaddecaf888".into(),
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
            "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            "76fc6ece0f4e1768cddf8853bb2d551b",
        ),
    ];
    for (key, nonce, plain, aad, sealed, tag) in cases {
        let aead = Aes256Gcm::new_from_slice(&unhex(&key)).unwrap();
        let nonce = Nonce::try_from(unhex(&nonce).as_slice()).unwrap();
        let (plain, aad, mut expected) = (unhex(plain), unhex(aad), unhex(&[sealed, tag].concat()));
        let sealed = aead.encrypt(&nonce, Payload { msg: &plain, aad: &aad }).unwrap();
        assert_eq!(sealed, expected);
        assert_eq!(aead.decrypt(&nonce, Payload { msg: &sealed, aad: &aad }).unwrap(), plain);
        for bit in 0..expected.len() * 8 {
            expected[bit / 8] ^= 1 << (bit % 8);
            assert!(aead.decrypt(&nonce, Payload { msg: &expected, aad: &aad }).is_err(), "bit {bit}");
            expected[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(aead.decrypt(&nonce, Payload { msg: &sealed, aad: b"other" }).is_err());
        assert!(aead.decrypt(&nonce, Payload { msg: &sealed[..sealed.len() - 1], aad: &aad }).is_err());
    }
}

// ------------------------------------------------------------------------------------------------------------ key files

fn named(file: &[u8]) -> ObjectId {
    ObjectId(Sha256::digest(file).into())
}

fn try_key(file: &[u8], id: &ObjectId) -> nfreezer::error::Result<()> {
    KeyFile::parse(id, &RepoId([2; 32]), file)?.open(&passphrase(PASSPHRASE)).map(drop)
}

#[test]
fn t20_t23_a_flipped_bit_of_a_key_file_is_a_wrong_passphrase() {
    let (id, file) = key_file(4);
    try_key(&file, &id).unwrap();
    let key = KeyFile::parse(&id, &RepoId([2; 32]), &file).unwrap();
    assert_eq!(key.open(&passphrase("another")).unwrap_err().kind(), Kind::Passphrase);
    for byte in 0..file.len() {
        let mut bad = file.clone();
        bad[byte] ^= 1 << (byte % 8);
        // Under its old name the file does not even reach the KDF. The server may rename it to fit.
        assert_eq!(try_key(&bad, &id).unwrap_err().kind(), Kind::Damaged, "byte {byte}");
        let parsed = KeyFile::parse(&named(&bad), &RepoId([2; 32]), &bad);
        match byte {
            0..44 => assert_eq!(parsed.err().unwrap().kind(), Kind::Damaged, "byte {byte}"),
            // A cost below the floor or above the bound is refused before Argon2 runs.
            44..56 if parsed.is_err() => assert_eq!(parsed.err().unwrap().kind(), Kind::Passphrase),
            _ if byte % 12 == 0 || byte == 55 || byte == 120 || byte == 263 => {
                assert_eq!(
                    parsed.unwrap().open(&passphrase(PASSPHRASE)).unwrap_err().kind(),
                    Kind::Passphrase,
                    "{byte}"
                );
            }
            _ => {}
        }
    }
}

#[test]
fn t21_t22_t24_key_files_of_another_size_or_cost_are_refused_without_running_argon2() {
    let (_, file) = key_file(4);
    for len in [0, 1, 263, 265, 1 << 20] {
        let mut bad = file.clone();
        bad.resize(len, 0);
        assert!(KeyFile::parse(&named(&bad), &RepoId([2; 32]), &bad).is_err(), "{len} bytes");
    }
    let (max, costs) =
        (u32::MAX, [[8, 1, 1], [65536, 1, 1], [65536, 2, 4], [65535, 3, 4], [65536, 0, 4], [65536, 3, 0]]);
    let dear = [
        [max, 3, 4],
        [65536, max, 4],
        [65536, 3, max],
        [max, max, max],
        [2 << 20, 5, 4],
        [65536, 3, 17],
        [1 << 21, 16, 1],
    ];
    for cost in costs.into_iter().chain(dear) {
        let mut bad = file.clone();
        bad[44..56].copy_from_slice(&cost.map(u32::to_be_bytes).concat());
        let refused = KeyFile::parse(&named(&bad), &RepoId([2; 32]), &bad).err().unwrap();
        assert_eq!(refused.kind(), Kind::Passphrase, "{cost:?}");
    }
}

#[test]
fn t27_a_key_file_of_another_repository_and_an_unknown_kdf_or_flag_are_refused() {
    let (id, file) = key_file(4);
    assert!(KeyFile::parse(&id, &RepoId([3; 32]), &file).is_err());
    for (at, value) in [(7, b'2'), (40, 0), (40, 2), (41, 2), (41, 0x81), (42, 1), (43, 1)] {
        let mut bad = file.clone();
        bad[at] = value;
        assert!(KeyFile::parse(&named(&bad), &RepoId([2; 32]), &bad).is_err(), "byte {at}");
    }
}

/// The AES key, nonce and tag are right, and only the commitment is wrong, as in a file made for two passphrases.
#[test]
fn t26_the_commitment_is_compared_before_anything_is_decrypted() {
    let (_, mut file) = key_file(4);
    let mut okm = [0; 76];
    let ikm = KdfCost { memory_kib: 65536, passes: 3, lanes: 4 }.derive(&passphrase(PASSPHRASE), &[4; 32]).unwrap();
    let info = [b"nfreezer/v1/keywrap\0".as_slice(), &file[..88]].concat();
    Hkdf::<Sha256>::from_prk(ikm.expose()).unwrap().expand(&info, &mut okm).unwrap();
    file[88] ^= 1;
    let payload = [[1; 32].as_slice(), &1u64.to_be_bytes(), &[0; 88]].concat();
    let aead = Aes256Gcm::new_from_slice(&okm[..32]).unwrap();
    let nonce = Nonce::try_from(&okm[32..44]).unwrap();
    let sealed = aead.encrypt(&nonce, Payload { msg: &payload, aad: &file[..120] }).unwrap();
    file.truncate(120);
    file.extend(sealed);
    assert_eq!(try_key(&file, &named(&file)).unwrap_err().kind(), Kind::Passphrase);
}

#[test]
fn t29_a_config_of_another_length_magic_or_version_is_refused() {
    let good = keyfile::encode_config(&RepoId([2; 32]));
    assert_eq!(keyfile::decode_config(&good).unwrap(), RepoId([2; 32]));
    for len in (0..44).chain([45, 1000]) {
        let mut bad = good.clone();
        bad.resize(len, 0);
        assert!(keyfile::decode_config(&bad).is_err(), "{len} bytes");
    }
    for bit in 0..12 * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(keyfile::decode_config(&bad).is_err(), "bit {bit}");
    }
}

// --------------------------------------------------------------------------------------------------------- round trips

fn some_ref() -> impl Strategy<Value = Ref> {
    let pack = prop_oneof![
        Just(PACK_A),
        Just(PACK_B),
        Just(OWN),
        any::<u8>().prop_map(|b| PackRef { id: ObjectId([b; 32]), len: 1 << 24 })
    ];
    (any::<[u8; 16]>(), pack, any::<u32>(), 1..=limits::CHUNK as u32, any::<u32>()).prop_map(
        |(id, pack, offset, len, stored)| {
            let len = len.min(pack.len);
            let stored = if stored % 3 == 0 { len } else { stored % len + 1 };
            Ref { id: ChunkId(id), pack, offset: offset % (pack.len - stored + 1), stored, len }
        },
    )
}

fn some_extent() -> impl Strategy<Value = Extent> {
    prop_oneof![3 => some_ref().prop_map(Extent::Data), 1 => (1..1u64 << 40).prop_map(Extent::Hole)]
}

fn some_name() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 1..=limits::NAME).prop_filter("a name", |n| node::valid_name(n))
}

fn some_xattrs() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let pairs = prop::collection::btree_map(some_name(), prop::collection::vec(any::<u8>(), 0..100), 0..4);
    pairs.prop_map(|map| map.into_iter().collect())
}

fn some_content() -> impl Strategy<Value = Content> {
    prop_oneof![
        prop::collection::vec(some_extent(), 0..=4).prop_map(Content::File),
        (1..=limits::FILE, some_ref()).prop_map(|(size, list)| Content::Large { size, list }),
        prop::option::of(some_ref()).prop_map(Content::Directory),
        prop::collection::vec(1..=255u8, 1..300).prop_map(Content::Symlink),
        any::<(u32, u32)>().prop_map(|(a, b)| Content::Block(a, b)),
        any::<(u32, u32)>().prop_map(|(a, b)| Content::Char(a, b)),
        Just(Content::Fifo),
        Just(Content::Socket),
        any::<u32>().prop_map(Content::Unreadable),
    ]
}

fn some_node() -> impl Strategy<Value = Node> {
    let attrs = (0..=0o7777u16, 0..3u32, any::<u32>(), some_name(), 0..3u32);
    let attrs = attrs.prop_map(|(mode, uid, gid, user, fs)| Attrs { mode, uid, gid, user, group: Vec::new(), fs });
    let xattrs = prop_oneof![some_xattrs().prop_map(Xattrs::Inline), some_ref().prop_map(Xattrs::Stored)];
    let times = (any::<i64>(), 0..1_000_000_000u32, any::<i64>(), any::<u64>());
    (attrs, times, 1..4u32, 0..4u8, xattrs, some_content()).prop_map(|(attrs, times, nlink, flags, xattrs, content)| {
        Node {
            name: Vec::new(),
            attrs: Arc::new(attrs),
            mtime: Time::new(times.0, times.1),
            ctime: times.2,
            inode: times.3,
            nlink,
            flags,
            xattrs,
            content,
        }
    })
}

fn some_page() -> impl Strategy<Value = Page> {
    let leaf = prop::collection::btree_map(some_name(), some_node(), 1..12)
        .prop_map(|map| Page::Leaf(map.into_iter().map(|(name, node)| Node { name, ..node }).collect()));
    let upper = prop::collection::btree_map(some_name(), (1..u64::MAX, some_ref()), 1..12).prop_map(|map| {
        Page::Upper(map.into_iter().map(|(first, (count, page))| Row { first, count, page }).collect())
    });
    prop_oneof![3 => leaf, 1 => upper]
}

fn some_list() -> impl Strategy<Value = List> {
    prop_oneof![
        prop::collection::vec(some_extent(), 1..40).prop_map(List::Leaf),
        prop::collection::vec((1..1u64 << 50, some_ref()), 1..40).prop_map(List::Upper),
    ]
}

proptest! {
    #[test]
    fn t65_pages_come_back_and_weigh_no_more_than_was_said(page in some_page()) {
        let bytes = page.encode(&OWN);
        prop_assert_eq!(&Page::decode(&bytes, &OWN).unwrap(), &page);
        if let Page::Leaf(nodes) = &page {
            prop_assert!(bytes.len() <= nodes.iter().map(Node::weight).sum::<usize>());
        }
    }

    #[test]
    fn t65_lists_come_back(list in some_list()) {
        prop_assert_eq!(List::decode(&list.encode(&OWN), &OWN).unwrap(), list);
    }

    #[test]
    fn t65_attributes_come_back(list in some_xattrs().prop_filter("some", |list| !list.is_empty())) {
        prop_assert_eq!(node::decode_xattrs(&node::encode_xattrs(&list)).unwrap(), list);
    }

    #[test]
    fn t65_an_index_finds_every_id_also_where_prefixes_are_equal(prefixes in prop::collection::vec(0..6u8, 1..9000)) {
        let mut ids: Vec<_> = prefixes.iter().zip(0u64..).map(|(p, i)| {
            let mut id = [*p; 16];
            id[8..].copy_from_slice(&i.to_be_bytes());
            ChunkId(id)
        }).collect();
        ids.sort();
        let entries: Vec<_> = ids.iter().map(|id| (7, pack::Entry { id: *id, ..entry(0, ChunkKind::Data, 1, 2, 3) })).collect();
        let (bytes, fences) = index::encode(&entries);
        for id in ids.iter().step_by(37).chain(ids.last()) {
            let (from, to) = index::place(&fences, bytes.len(), id).unwrap();
            prop_assert_eq!(index::find(&bytes[from..to], id).unwrap().unwrap().1.id, *id);
        }
        for missing in [[0; 16], [9; 16]] {
            let found = index::place(&fences, bytes.len(), &ChunkId(missing));
            let found = found.and_then(|(from, to)| index::find(&bytes[from..to], &ChunkId(missing)).unwrap());
            prop_assert_eq!(found.map(|f| f.1.id), ids.contains(&ChunkId(missing)).then_some(ChunkId(missing)));
        }
    }

    #[test]
    fn t65_a_chunk_comes_back_from_its_stored_form(len in 1..1_200_000usize, noise in 0..100usize, at in any::<prop::sample::Index>()) {
        let mut plain = vec![b'a'; len];
        let noisy = len * noise / 100;
        plain[len - noisy..].copy_from_slice(&stream("noise", noisy));
        let packed = stored::Packer::new(3).unwrap().pack(&plain).unwrap_or_else(|| plain.clone());
        let r = reference(0, PACK_A, 0, packed.len() as u32, len as u32);
        prop_assert_eq!(&stored::unpack(&r, packed.clone()).unwrap(), &plain);
        if r.stored < r.len {
            let frames = stored::frames(&r, &packed[..stored::table_len(&r)]).unwrap();
            let i = at.index(frames.len());
            let end = len.min((i + 1) * limits::FRAME);
            prop_assert_eq!(stored::unpack_frame(&r, i, &packed[frames[i].clone()]).unwrap(), &plain[i * limits::FRAME..end]);
        }
    }
}

#[test]
fn t65_records_come_back() {
    let (head, sections) = head_and_sections();
    let plain = record::encode(head.clone(), &sections).unwrap();
    assert_eq!(
        codec::padded_record(plain.len(), limits::RECORD_FLOOR),
        plain.len(),
        "a record has the size of a class"
    );
    let end = record::head_end(plain[..4].try_into().unwrap()).unwrap();
    let read = record::decode(7, &plain[..end]).unwrap();
    assert_eq!(read.head.sections.len(), 3);
    assert_eq!(Head { sections: head.sections.clone(), ..read.head.clone() }, head);
    for (section, new) in read.head.sections[1..].iter().zip(&sections) {
        let at = (read.base + u64::from(section.offset)) as usize;
        assert_eq!(plain[at..at + section.len as usize], new.bytes);
        assert_eq!(section.sha256, Sha256::digest(&new.bytes)[..]);
    }
    assert!(record::decode(8, &plain[..end]).is_err(), "under the name of another sequence");
    // A section of a whole block moves all sections to block boundaries.
    let long = NewSection { kind: SectionKind::Ancestry, bytes: vec![1; 65536 + 8], fences: Vec::new() };
    let plain = record::encode(Head { sequence: 1, ..Head::default() }, &[long]).unwrap();
    let end = record::head_end(plain[..4].try_into().unwrap()).unwrap();
    let base = record::decode(1, &plain[..end]).unwrap().base as usize;
    assert_eq!((base, plain[base], plain[base + 65543], plain[base - 1]), (65536, 1, 1, 0));
}

// ---------------------------------------------------------------------------------------------------------- hostile bytes

/// Decodes bytes with every decoder of repository data. Accepted bytes must equal the encoding of the decoded value.
fn feed(bytes: &[u8]) {
    if let Ok(page) = Page::decode(bytes, &OWN) {
        assert_eq!(page.encode(&OWN), bytes);
    }
    if let Ok(list) = List::decode(bytes, &OWN) {
        assert_eq!(list.encode(&OWN), bytes);
    }
    if let Ok(list) = node::decode_xattrs(bytes) {
        assert_eq!(node::encode_xattrs(&list), bytes);
    }
    let framed = [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
    if let Ok(record) = record::decode(7, &framed) {
        assert_eq!(codec::encode(&record.head), bytes);
    }
    let _ = pack::decode_table(ObjectId([1; 32]), 65536, bytes);
    let _ = index::decode_packs(bytes);
    let _ = keyfile::decode_config(bytes);
    let _ = KeyFile::parse(&named(bytes), &RepoId([2; 32]), bytes);
    if let Some(row) = bytes.first_chunk() {
        let _ = index::decode(row);
        let _ = pack::table_len(65536, *bytes.first_chunk().unwrap());
    }
    for len in [bytes.len() + 1, bytes.len() + 100, 700_000] {
        let r = reference(1, PACK_A, 0, bytes.len().max(1) as u32, len as u32);
        let _ = stored::unpack(&r, bytes.to_vec());
        let _ = stored::frames(&r, bytes);
    }
}

fn valid_encodings() -> Vec<Vec<u8>> {
    let (head, sections) = head_and_sections();
    let plain = record::encode(head, &sections).unwrap();
    let end = record::head_end(plain[..4].try_into().unwrap()).unwrap();
    let pack = pack_plain();
    let text: Vec<u8> = (0..60_000).flat_map(|i: u32| i.to_string().into_bytes()).collect();
    vec![
        leaf().encode(&OWN),
        upper().encode(&OWN),
        list_leaf().encode(&OWN),
        list_upper().encode(&OWN),
        node::encode_xattrs(&[(b"user.a".to_vec(), b"1".to_vec()), (b"user.b".to_vec(), Vec::new())]),
        plain[4..end].to_vec(),
        pack[pack.len() - 60..].to_vec(),
        stored::Packer::new(3).unwrap().pack(&text).unwrap(),
    ]
}

#[test]
fn t59_one_changed_byte_gives_an_error_or_another_canonical_value() {
    for valid in valid_encodings().iter().filter(|v| v.len() < 5000) {
        feed(valid);
        for at in 0..valid.len() {
            for value in [0, 1, 2, 0x7f, 0x80, 0xff, valid[at] ^ 1, valid[at] ^ 0x80] {
                let mut bad = valid.clone();
                bad[at] = value;
                feed(&bad);
            }
            feed(&valid[..at]);
            feed(&[&valid[..at], &[0x80], &valid[at..]].concat());
            feed(&[&valid[..at], &valid[at + 1..]].concat());
        }
        feed(&[valid, [0].as_slice()].concat());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn t64_arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        feed(&bytes);
    }

    #[test]
    fn t64_mutations_of_valid_bytes_never_panic(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6),
    ) {
        let mut bytes = which.get(&valid_encodings()).clone();
        for (at, value, edit) in edits {
            if bytes.is_empty() { break }
            let at = at.index(bytes.len());
            match edit {
                0 => bytes[at] = value,
                1 => bytes.insert(at, value),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        feed(&bytes);
    }
}

/// The counts 2^32 and 2^64 without data behind them, at every place where a count stands.
#[test]
fn t57_claimed_counts_reserve_nothing() {
    for count in [vec![0xff; 4], vec![0xff; 9]] {
        let count = [count.as_slice(), &[if count.len() == 4 { 0x0f } else { 0x01 }]].concat();
        for prefix in
            [vec![], vec![0], vec![0, 0], vec![0, 0, 0], vec![0, 0, 1], vec![0, 1], vec![7, 0, 0], vec![7, 0, 0, 0]]
        {
            feed(&[prefix.as_slice(), &count].concat());
            feed(&[prefix.as_slice(), &count, &[0; 64]].concat());
        }
    }
    assert!(pack::table_len(65536, [0xff; 4]).is_err());
    assert!(record::head_end([0xff; 4]).is_err());
}

fn names(names: &[&[u8]]) -> Vec<u8> {
    let nodes = names.iter().map(|name| Node { name: name.to_vec(), ..node("x", 0o644, Content::Fifo) });
    Page::Leaf(nodes.collect()).encode(&OWN)
}

#[test]
fn t60_names_that_are_no_names_or_out_of_order_are_refused() {
    assert!(Page::decode(&names(&[b"a", b"b", &[b'c'; 255]]), &OWN).is_ok());
    let long = [b'x'; 256];
    let bad: [&[&[u8]]; 12] = [
        &[],
        &[b""],
        &[b"."],
        &[b".."],
        &[b"a/b"],
        &[b"/"],
        &[b"a\0"],
        &[&long],
        &[b"a", b"a"],
        &[b"b", b"a"],
        &[b"a", b"..", b"b"],
        &[b"a", b"b", b"aa"],
    ];
    for names_of in bad {
        assert_eq!(Page::decode(&names(names_of), &OWN).unwrap_err().kind(), Kind::Damaged, "{names_of:?}");
    }
    let row = |first: &[u8], count| Row { first: first.to_vec(), count, page: reference(1, OWN, 0, 9, 9) };
    for rows in [
        vec![],
        vec![row(b"b", 1), row(b"a", 1)],
        vec![row(b"a", 1), row(b"a", 1)],
        vec![row(b"a", 0)],
        vec![row(b"..", 1)],
    ] {
        assert!(Page::decode(&Page::Upper(rows).encode(&OWN), &OWN).is_err());
    }
}

#[test]
fn t62_nodes_out_of_bounds_are_refused() {
    let good = || node("x", 0o644, Content::File(vec![Extent::Data(reference(1, PACK_A, 0, 9, 9))]));
    let refused = |what: &str, change: &dyn Fn(&mut Node)| {
        let mut bad = good();
        change(&mut bad);
        assert!(bad.check().is_err() || what.starts_with("a reference"), "{what}: a writer would not see it");
        let bytes = Page::Leaf(vec![bad]).encode(&OWN);
        assert_eq!(Page::decode(&bytes, &OWN).unwrap_err().kind(), Kind::Damaged, "{what}");
    };
    assert!(Page::decode(&Page::Leaf(vec![good()]).encode(&OWN), &OWN).is_ok());
    refused("nanoseconds", &|n| n.mtime.nanoseconds = 1_000_000_000);
    refused("no link", &|n| n.nlink = 0);
    refused("an unknown flag", &|n| n.flags = 4);
    refused("a mode", &|n| n.attrs = attrs(0o10000));
    refused("an owner", &|n| n.attrs = Arc::new(Attrs { user: vec![b'x'; 256], ..(*n.attrs).clone() }));
    refused("five extents", &|n| n.content = Content::File(vec![Extent::Hole(1); 5]));
    refused("a hole of nothing", &|n| n.content = Content::File(vec![Extent::Hole(0)]).clone());
    refused("2^63 bytes", &|n| n.content = Content::File(vec![Extent::Hole(1 << 62), Extent::Hole(1 << 62)]));
    refused("an endless hole", &|n| n.content = Content::File(vec![Extent::Hole(u64::MAX), Extent::Hole(2)]));
    refused("a large file of nothing", &|n| n.content = Content::Large { size: 0, list: reference(1, OWN, 0, 9, 9) });
    refused("an empty link", &|n| n.content = Content::Symlink(Vec::new()));
    refused("a long link", &|n| n.content = Content::Symlink(vec![b'x'; 4097]));
    refused("a link with NUL", &|n| n.content = Content::Symlink(b"a\0b".to_vec()));
    let xattrs =
        |list: &[(&[u8], usize)]| Xattrs::Inline(list.iter().map(|(n, len)| (n.to_vec(), vec![0; *len])).collect());
    refused("attributes without a name", &|n| n.xattrs = xattrs(&[(b"", 1)]));
    refused("attributes out of order", &|n| n.xattrs = xattrs(&[(b"b", 1), (b"a", 1)]));
    refused("attributes twice", &|n| n.xattrs = xattrs(&[(b"a", 1), (b"a", 1)]));
    refused("too many attributes", &|n| n.xattrs = xattrs(&[(b"a", 4096)]));
    for bad in [
        reference(1, PACK_A, 0, 0, 0),
        reference(1, PACK_A, 0, 10, 9),
        reference(1, PACK_A, (1 << 24) - 8, 9, 9),
        reference(1, PACK_A, u32::MAX, 9, 9),
        reference(1, PackRef { len: (64 << 20) + 1, ..PACK_A }, 0, 9, 9),
        reference(1, PACK_A, 0, 9, (4 << 20) + 1),
    ] {
        assert!(bad.check().is_err());
        refused("a reference", &|n| n.content = Content::Directory(Some(bad)));
    }
}

#[test]
fn pages_lists_and_records_above_their_limits_are_refused_and_not_written() {
    let nodes: Vec<_> = (0..9000).map(|i| node(&format!("{i:05}{}", "x".repeat(20)), 0o644, Content::Fifo)).collect();
    let bytes = Page::Leaf(nodes).encode(&OWN);
    assert!(bytes.len() > limits::PAGE && Page::decode(&bytes, &OWN).is_err());
    let rows = |n: usize| {
        List::Leaf(
            (0..n)
                .map(|i| {
                    Extent::Data(Ref {
                        id: ChunkId([7; 16]),
                        ..reference(
                            0,
                            PackRef { id: ObjectId(Sha256::digest([i as u8, (i >> 8) as u8]).into()), len: 1 << 24 },
                            9_000_000,
                            4_000_000,
                            4_000_001,
                        )
                    })
                })
                .collect(),
        )
    };
    let most = rows(3072).encode(&OWN);
    assert!(most.len() <= limits::PAGE, "a list of the most and longest rows is a page: {}", most.len());
    assert!(List::decode(&most, &OWN).is_ok());
    assert!(List::decode(&rows(3073).encode(&OWN), &OWN).is_err());
    assert!(List::decode(&List::Leaf(Vec::new()).encode(&OWN), &OWN).is_err());

    let head = |change: &dyn Fn(&mut Head)| {
        let (mut head, sections) = head_and_sections();
        change(&mut head);
        record::encode(head, &sections)
    };
    assert!(head(&|_| ()).is_ok());
    type Change<'a> = &'a dyn Fn(&mut Head);
    let refused: [(&str, Change<'_>); 12] = [
        ("a path of 4,095 bytes", &|h| h.snapshots[0].paths = vec![serde_bytes::ByteBuf::from(vec![b'x'; 4095])]),
        ("nanoseconds", &|h| h.snapshots[0].time.nanoseconds = 1_000_000_000),
        ("a root", &|h| h.snapshots[0].root = Some(reference(1, PACK_A, 1 << 24, 1, 1))),
        ("a snapshot twice", &|h| h.snapshots = vec![snapshot(), snapshot()]),
        ("heads out of order", &|h| h.heads = vec![ObjectId([2; 32]), ObjectId([1; 32])]),
        ("a pack dropped twice", &|h| h.dropped = vec![ObjectId([2; 32]); 2]),
        ("marks out of order", &|h| h.marks.reverse()),
        ("marks that contradict each other", &|h| h.marks[2].action = Action::Forget),
        ("a mark of the future", &|h| h.marks[0].sequence = 7),
        ("an own mark of another time", &|h| h.marks[1].sequence = 6),
        ("a section of an endless record", &|h| h.sections[0].record = Some((6, ObjectId([7; 32]), u64::MAX))),
        ("a section of the future", &|h| h.sections[0].record = Some((7, ObjectId([7; 32]), 4096))),
    ];
    for (what, change) in refused {
        assert!(head(change).is_err(), "{what}");
    }
    let section = |kind, len, fences| {
        record::encode(Head { sequence: 1, ..Head::default() }, &[NewSection { kind, bytes: vec![0; len], fences }])
    };
    assert!(section(SectionKind::Ancestry, 8, vec![]).is_ok());
    assert!(section(SectionKind::Ancestry, 9, vec![]).is_err());
    assert!(section(SectionKind::Ancestry, 8, vec![1]).is_err(), "fences of what is no index");
    assert!(section(SectionKind::Packs, 41, vec![]).is_err());
    assert!(section(SectionKind::Index { packs: 0 }, 32, vec![0]).is_err(), "an index that is its own table of packs");
    assert!(section(SectionKind::Index { packs: 9 }, 32, vec![0]).is_err());
    assert!(section(SectionKind::Ancestry, limits::SECTION + 8, vec![]).is_err());
}

#[test]
fn t57_tables_of_packs_that_overlap_or_leave_the_pack_are_refused() {
    let table = |rows: &[(u8, u32, u32, u32)]| {
        let rows = rows.iter().flat_map(|(kind, offset, stored, len)| {
            let numbers = [*offset, *stored, u32::from(*kind) << 24 | len];
            [[7; 16].as_slice(), &numbers.map(u32::to_be_bytes).concat()].concat()
        });
        rows.collect::<Vec<u8>>()
    };
    let decode = |rows: &[(u8, u32, u32, u32)], count: u32| {
        pack::decode_table(ObjectId([1; 32]), 65536, &[table(rows), count.to_be_bytes().to_vec()].concat())
    };
    assert!(decode(&[(1, 0, 9, 9), (2, 9, 5, 10)], 2).is_ok());
    let end = 65536 - 28 - 4;
    assert!(decode(&[(1, 0, end, end)], 1).is_ok());
    for bad in [
        (1, 0, end + 1, end + 1),
        (0, 0, 9, 9),
        (5, 0, 9, 9),
        (1, 0, 0, 9),
        (1, 0, 10, 9),
        (1, u32::MAX, 9, 9),
        (1, 0, 9, (4 << 20) + 1),
    ] {
        assert!(decode(&[bad], 1).is_err(), "{bad:?}");
    }
    assert!(decode(&[(1, 0, 9, 9), (1, 8, 9, 9)], 2).is_err(), "rows that overlap");
    assert!(decode(&[(1, 9, 9, 9), (1, 0, 9, 9)], 2).is_err(), "rows that descend");
    assert!(decode(&[(1, 0, 9, 9)], 2).is_err(), "another count");
}

#[test]
fn t63_zstd_bombs_and_frames_that_are_not_exactly_one_part_are_refused() {
    let zstd = |plain: &[u8]| zstd::bulk::compress(plain, 19).unwrap();
    let part = vec![0; 1000];
    let unpack = |stored: &[u8], len: usize| {
        stored::unpack(&reference(1, PACK_A, 0, stored.len() as u32, len as u32), stored.to_vec())
    };
    let good = zstd(&part);
    assert_eq!(unpack(&good, 1000).unwrap(), part);
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
    let half = zstd(&part[..500]);
    // The 8-byte field of the frame header claims 2^40 bytes.
    let claims = [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &[0, 0, 0, 0, 0, 1, 0, 0], &[0x03, 0, 0]].concat();
    let cases = [
        ("ten gigabytes in a few bytes", zstd(&vec![0; 64 << 20])),
        ("one byte more than said", zstd(&vec![0; 1001])),
        ("one byte less than said", zstd(&vec![0; 999])),
        ("two frames", [half.clone(), half.clone()].concat()),
        ("a skippable frame behind", [good.clone(), skippable.to_vec()].concat()),
        ("a skippable frame in front", [skippable.to_vec(), good.clone()].concat()),
        ("only a skippable frame", skippable.to_vec()),
        ("garbage behind", [good.clone(), vec![0]].concat()),
        ("cut off", good[..good.len() - 1].to_vec()),
        ("a claim of a terabyte", claims),
        ("a dictionary", {
            let mut bad = good.clone();
            bad[4] |= 1;
            bad.insert(5, 9);
            bad
        }),
        ("not zstd", vec![1; 50]),
        ("nothing", vec![]),
    ];
    for (what, stored) in cases {
        assert!(unpack(&stored, 1000).is_err(), "{what}");
    }
    // Two parts of 256 KiB: the table must lie within the chunk and each frame within its part.
    let two = zstd(&vec![0; limits::FRAME]);
    let stored = |first: u32| [first.to_be_bytes().to_vec(), two.clone(), two.clone()].concat();
    assert!(unpack(&stored(two.len() as u32), 2 * limits::FRAME).is_ok());
    for first in [0, 1, two.len() as u32 - 1, two.len() as u32 * 2, two.len() as u32 * 2 + 1, u32::MAX] {
        assert!(unpack(&stored(first), 2 * limits::FRAME).is_err(), "{first}");
    }
    assert!(unpack(&[0, 0, 0], 2 * limits::FRAME).is_err(), "shorter than its table");
    let longer = zstd(&stream("incompressible", 100));
    assert!(longer.len() > 100 && unpack(&longer, 100).is_err(), "a frame longer than its plaintext");
}

#[test]
fn t15_t16_what_is_read_as_one_kind_of_chunk_has_another_id_as_another_kind() {
    let bytes = leaf().encode(&OWN);
    let (data, page) = (keys().chunk_id(ChunkKind::Data, &bytes), keys().chunk_id(ChunkKind::Page, &bytes));
    assert_ne!(data, page, "a file whose bytes are a directory is none");
}

#[test]
fn a_page_names_its_own_pack_by_self_only() {
    let bytes = leaf().encode(&OWN);
    let at = bytes.windows(32).position(|w| w == [0; 32]).unwrap();
    let named = [&bytes[..at], &OWN.id.0, &[0x80, 0x80, 4], &bytes[at + 33..]].concat();
    assert!(Page::decode(&named, &OWN).is_err(), "two encodings of one page");
    let elsewhere = PackRef { id: ObjectId([0xdd; 32]), len: 65536 };
    let Page::Leaf(nodes) = Page::decode(&bytes, &elsewhere).unwrap() else { panic!() };
    assert!(matches!(&nodes[5].content, Content::Directory(Some(r)) if r.pack == elsewhere));
}

#[test]
fn what_a_later_version_adds_is_ignored_and_kept_in_order() {
    let (mut head, _) = head_and_sections();
    let plain = record::encode(head.clone(), &[]).unwrap();
    let end = record::head_end(plain[..4].try_into().unwrap()).unwrap();
    assert_eq!(record::decode(head.sequence, &plain[..end]).unwrap().head.extra, head.extra);
    head.extra.push(head.extra[0].clone());
    record::encode(head, &[]).unwrap_err();
}
