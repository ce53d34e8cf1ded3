//! The targets. A target must not panic, hang, or use much memory on any bytes. Bytes that a decoder accepts must equal
//! the encoded value.

use std::sync::OnceLock;

use nfreezer::acl::{self, Names};
use nfreezer::crypto::keys::{ChunkId, Keys, RepoId};
use nfreezer::crypto::seal::{self, ObjectType, Opener};
use nfreezer::crypto::secret::Secret;
use nfreezer::format::keyfile::{self, KeyFile};
use nfreezer::format::list::List;
use nfreezer::format::page::Page;
use nfreezer::format::reference::{PackRef, Ref};
use nfreezer::format::{codec, index, limits, node, pack, record, stored};
use nfreezer::inode_flags;
use nfreezer::name::{Folder, ObjectId};
use nfreezer::storage::Location;
use sha2::{Digest, Sha256};

use crate::packet::{Frames, Reply};
use crate::{import, ssh};

type Target = fn(&[u8]);

/// All targets by name, as in `Cargo.toml`.
pub const TARGETS: &[(&str, Target)] = &[
    ("config", config),
    ("key_file", key_file),
    ("object", object),
    ("record_head", record_head),
    ("index_section", index_section),
    ("packs_section", packs_section),
    ("pack_table", pack_table),
    ("page", page),
    ("list", list),
    ("xattrs", xattrs),
    ("own_attributes", own_attributes),
    ("stored", stored_chunk),
    ("import_entry", import::entry),
    ("import_index", import::whole),
    ("sftp_reply", sftp_reply),
    ("sftp_stream", sftp_stream),
    ("location", location),
    ("known_hosts", ssh::known_hosts),
    ("ssh_config", ssh::config),
    ("names", names),
];

pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    target(data);
}

pub const OWN: PackRef = PackRef { id: ObjectId([0xcc; 32]), len: 65536 };

pub fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| Keys::derive(&Secret::new([9; 32]), &RepoId([2; 32])))
}

fn config(data: &[u8]) {
    if let Ok(id) = keyfile::decode_config(data) {
        assert_eq!(keyfile::encode_config(&id), data);
    }
}

/// Parses a key file with the right name. Does not run the key derivation.
fn key_file(data: &[u8]) {
    let id = ObjectId(Sha256::digest(data).into());
    let repo = RepoId(data.get(8..40).and_then(|id| id.try_into().ok()).unwrap_or([2; 32]));
    if let Ok(file) = KeyFile::parse(&id, &repo, data) {
        file.cost().check().expect("a cost in bounds");
    }
}

/// Opens a sealed object: any bytes, and a valid object with some changed bytes.
fn object(data: &[u8]) {
    let id = ObjectId(data.get(8..40).and_then(|id| id.try_into().ok()).unwrap_or([3; 32]));
    let opened = seal::open(keys(), ObjectType::Data, id, data.to_vec());
    assert!(opened.is_err(), "somebody without the key made an object");
    let (true_id, mut file) = seal::seal(keys(), ObjectType::Meta, &[3; 32], b"an object of one block");
    let before = file.clone();
    for edit in data.chunks_exact(3).take(64) {
        let at = usize::from(edit[0]) << 8 | usize::from(edit[1]);
        let at = at % (file.len() + 1);
        match edit[2] {
            0 => file.truncate(at),
            1 => file.insert(at, edit[0]),
            value => {
                if let Some(byte) = file.get_mut(at) {
                    *byte ^= value;
                }
            }
        }
    }
    let same = file == before;
    if let Ok(opener) = Opener::new(keys(), ObjectType::Meta, true_id, 22, &file) {
        let (start, len) = opener.place(0, 1);
        let _ =
            file.get(start as usize..start as usize + len).map(|block| opener.open(0, &mut block.to_vec()).map(drop));
    }
    assert_eq!(seal::open(keys(), ObjectType::Meta, true_id, file).is_ok(), same);
}

fn record_head(data: &[u8]) {
    if let Some(first) = data.first_chunk::<4>()
        && let Ok(end) = record::head_end(*first)
    {
        assert!(end <= limits::HEAD + 4);
    }
    let framed = [&(data.len() as u32).to_be_bytes(), data].concat();
    let sequence = data.first().copied().unwrap_or(0).into();
    if let Ok(record) = record::decode(sequence, &framed) {
        assert_eq!(codec::encode(&record.head), data);
    }
}

fn index_section(data: &[u8]) {
    let mut id = [0; 16];
    id.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
    let _ = index::find(data, &ChunkId(id));
    for row in data.as_chunks().0 {
        if let Ok((number, entry)) = index::decode(row) {
            let _ = entry.in_pack(OWN).check();
            assert_eq!(index::encode(&[(number, entry)]).0, row);
        }
    }
    let fences: Vec<u64> = data.as_chunks().0.iter().map(|fence| u64::from_be_bytes(*fence)).collect();
    if fences.is_sorted()
        && let Some((from, to)) = index::place(&fences, fences.len() * index::FENCED, &ChunkId(id))
    {
        assert!(from < to && to <= fences.len() * index::FENCED);
    }
}

fn packs_section(data: &[u8]) {
    if let Ok(packs) = index::decode_packs(data) {
        assert_eq!(index::encode_packs(&packs), data);
    }
}

fn pack_table(data: &[u8]) {
    let last = data.last_chunk().copied().unwrap_or_default();
    for len in [65536, data.len() as u32, limits::PACK_READ as u32] {
        if let Ok(table) = pack::table_len(len, last) {
            assert!(table <= len as usize);
        }
        if let Ok(rows) = pack::decode_table(ObjectId([1; 32]), len, data) {
            assert!(rows.iter().all(|row| row.in_pack(PackRef { id: OWN.id, len }).check().is_ok()));
        }
    }
}

fn page(data: &[u8]) {
    if let Ok(page) = Page::decode(data, &OWN) {
        assert_eq!(page.encode(&OWN), data);
        if let Page::Leaf(nodes) = page {
            nodes.iter().for_each(|node| node.check().expect("what is read can be written"));
        }
    }
}

fn list(data: &[u8]) {
    if let Ok(list) = List::decode(data, &OWN) {
        assert_eq!(list.encode(&OWN), data);
    }
}

/// Decodes the attributes that nfreezer adds, and renumbers ACLs.
fn own_attributes(data: &[u8]) {
    if let Ok(names) = Names::decode(data) {
        assert_eq!(names.encode(), data);
    }
    if let Ok(flags) = inode_flags::decode(data) {
        assert_eq!(inode_flags::decode(&inode_flags::encode(flags)).unwrap(), flags);
    }
    let fewer = acl::renumbered(data, |id| id.id % 4);
    assert!(fewer.len() <= data.len() && acl::named(&fewer).count() <= acl::named(data).count());
    assert_eq!(acl::renumbered(&fewer, |id| id.id), fewer);
}

fn xattrs(data: &[u8]) {
    if let Ok(list) = node::decode_xattrs(data) {
        assert_eq!(node::encode_xattrs(&list), data);
    }
}

/// Unpacks a stored chunk. The first four bytes select its length.
fn stored_chunk(data: &[u8]) {
    let Some((len, data)) = data.split_first_chunk() else { return };
    let len = u32::from_be_bytes(*len) % (limits::CHUNK as u32 + 1);
    let r = Ref { id: ChunkId([1; 16]), pack: OWN, offset: 0, stored: data.len() as u32, len };
    if r.check().is_err() {
        return;
    }
    if let Ok(plain) = stored::unpack(&r, data.to_vec()) {
        assert_eq!(plain.len(), len as usize);
    }
    if let Some(table) = data.get(..stored::table_len(&r))
        && let Ok(frames) = stored::frames(&r, table)
    {
        for (i, frame) in frames.into_iter().enumerate() {
            let _ = stored::unpack_frame(&r, i, &data[frame]);
        }
    }
}

fn sftp_reply(data: &[u8]) {
    if let Ok(Reply::Status(_, text)) = Reply::decode(data) {
        assert!(!text.contains(char::is_control));
    }
}

/// Checks that a stream contains the same packets whole and in pieces. The bytes select the sizes of the pieces.
fn sftp_stream(data: &[u8]) {
    let (mut whole, mut pieces) = (Vec::new(), Vec::new());
    let first = Frames::default().feed(data, |packet| {
        whole.push(packet);
        Ok(())
    });
    let (mut frames, mut rest, mut second) = (Frames::default(), data, Ok(()));
    while let Some(size) = rest.first().filter(|_| second.is_ok()) {
        let (head, tail) = rest.split_at((usize::from(*size) % 9 + 1).min(rest.len()));
        second = frames.feed(head, |packet| {
            pieces.push(packet);
            Ok(())
        });
        rest = tail;
    }
    assert_eq!((first, &whole), (second, &pieces));
    whole.iter().for_each(|packet| drop(Reply::decode(packet)));
}

fn location(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(location) = Location::parse(text) else { return };
    if let Location::Sftp(remote) = &location {
        assert!(!remote.host.starts_with('-') && !remote.host.is_empty() && !remote.path.is_empty());
        assert!(remote.user.as_ref().is_none_or(|user| !user.starts_with('-') && !user.is_empty()));
        let shown = location.to_string();
        let again = Location::parse(&shown);
        assert!(again.is_ok_and(|again| again == location), "{text:?} is shown as {shown:?}");
    }
}

fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for folder in [Folder::Root, Folder::Old].into_iter().chain(Folder::all()) {
        if let Some(name) = folder.parse(text) {
            assert_eq!((name.folder(), name.file().as_str()), (folder, text));
        }
    }
}
