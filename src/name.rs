//! Typed names of the files of a repository. A name from a listing can never become a path: text that does not parse
//! as a name is ignored and never opened.

use std::fmt;

/// The 32 bytes that name an object (record or pack), see [`crate::crypto::seal`]; shown as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ObjectId(pub [u8; 32]);

impl ObjectId {
    /// Parses exactly 64 lower-case hex digits; `None` for other text.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != 64 {
            return None;
        }
        let mut id = [0; 32];
        for (byte, pair) in id.iter_mut().zip(text.chunks_exact(2)) {
            *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
        }
        Some(ObjectId(id))
    }

    /// Returns the number (below 16) of the folder of packs that holds a pack of this id.
    pub fn shard(&self) -> u8 {
        self.0[0] >> 4
    }

    /// Returns the first eight hex digits, for messages.
    pub fn short(&self) -> String {
        hex(&self.0[..4])
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectId({})", self.short())
    }
}

fn hex_digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

/// Parses exactly 32 lower-case hex digits.
fn old_object(text: &str) -> Option<[u8; 16]> {
    let mut id = [0; 16];
    if text.len() != 32 {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Some(id)
}

/// Returns the bytes as lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|d| char::from_digit(d.into(), 16).expect("below 16")).collect()
}

/// A folder of a repository, with objects of one type. `init` creates all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Folder {
    /// The repository's root; the only object in it is `config`.
    Root,
    /// `keys/`
    Keys,
    /// `log/`
    Log,
    /// `packs/`, which holds sixteen folders and no object.
    Packs,
    /// `packs/<x>/`, x below 16.
    PackShard(u8),
    /// The only folder of a repository of the Python nFreezer (`import-v0`). Read-only.
    Old,
}

impl Folder {
    /// Returns every folder below the root, parents first.
    pub fn all() -> impl Iterator<Item = Folder> {
        [Folder::Keys, Folder::Log, Folder::Packs].into_iter().chain((0..16).map(Folder::PackShard))
    }

    /// Returns the folders that lead from the root to this one, with it and without the root.
    pub fn chain(self) -> impl Iterator<Item = Folder> {
        let parent = matches!(self, Folder::PackShard(_)).then_some(Folder::Packs);
        let own = (!matches!(self, Folder::Root | Folder::Old)).then_some(self);
        parent.into_iter().chain(own)
    }

    /// Returns the path relative to the repository's root, without a trailing slash; empty for the root.
    pub fn path(&self) -> String {
        match self {
            Folder::Root | Folder::Old => String::new(),
            Folder::Keys => "keys".into(),
            Folder::Log => "log".into(),
            Folder::Packs => "packs".into(),
            Folder::PackShard(x) => format!("packs/{:x}", x & 15),
        }
    }

    /// Parses a file name from a listing of this folder; `None` for a file that is not part of the format.
    pub fn parse(&self, name: &str) -> Option<Name> {
        match self {
            Folder::Root => (name == "config").then_some(Name::Config),
            Folder::Keys => ObjectId::parse(name).map(Name::Key),
            Folder::Log => {
                let (sequence, id) = name.split_at_checked(8)?;
                let lower = |c: u8| hex_digit(c).is_some();
                let sequence = sequence.bytes().all(lower).then(|| u32::from_str_radix(sequence, 16).ok())??;
                Some(Name::Record { sequence, id: ObjectId::parse(id.strip_prefix('-')?)? })
            }
            Folder::Packs => None,
            Folder::PackShard(x) => ObjectId::parse(name).filter(|id| id.shard() == *x).map(Name::Pack),
            Folder::Old if name == ".files" => Some(Name::OldIndex),
            Folder::Old => old_object(name).map(Name::OldObject),
        }
    }
}

/// The name of one file of a repository. The client uses no other paths on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// `config`
    Config,
    /// `keys/<id>`, id = SHA-256 of the file.
    Key(ObjectId),
    /// `log/<sequence>-<id>`
    Record {
        /// The Lamport sequence number.
        sequence: u32,
        /// The record's object id.
        id: ObjectId,
    },
    /// `packs/<x>/<id>`
    Pack(ObjectId),
    /// `.files` of a repository of the Python nFreezer.
    OldIndex,
    /// The contents of a file in a repository of the Python nFreezer: 32 hex digits.
    OldObject([u8; 16]),
}

impl Name {
    /// Returns the folder that holds the file.
    pub fn folder(&self) -> Folder {
        match self {
            Name::Config => Folder::Root,
            Name::Key(_) => Folder::Keys,
            Name::Record { .. } => Folder::Log,
            Name::Pack(id) => Folder::PackShard(id.shard()),
            Name::OldIndex | Name::OldObject(_) => Folder::Old,
        }
    }

    /// Returns the file name within its folder.
    pub fn file(&self) -> String {
        match self {
            Name::Config => "config".into(),
            Name::Key(id) | Name::Pack(id) => id.to_string(),
            Name::Record { sequence, id } => format!("{sequence:08x}-{id}"),
            Name::OldIndex => ".files".into(),
            Name::OldObject(id) => hex(id),
        }
    }

    /// Returns the path relative to the repository's root.
    pub fn path(&self) -> String {
        match self.folder() {
            Folder::Root | Folder::Old => self.file(),
            folder => format!("{}/{}", folder.path(), self.file()),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_can_never_become_a_path() {
        assert_eq!(ObjectId::parse("../../etc/passwd"), None);
        let hex64 = "a".repeat(64);
        for bad in
            ["..", ".", "", "a/b", "config/", "\u{1b}[2J", &hex64.to_uppercase(), &hex64[1..], &format!("{hex64}a")]
        {
            for folder in Folder::all().chain([Folder::Root, Folder::Old]) {
                assert_eq!(folder.parse(bad), None, "{bad:?} in {folder:?}");
            }
        }
        assert_eq!(Folder::PackShard(3).parse(&hex64), None, "a pack in a foreign shard");
        for bad in [
            format!("+0000001-{hex64}"),
            format!("0000000A-{hex64}"),
            format!("00000001{hex64}"),
            format!("é000000-{hex64}"),
        ] {
            assert_eq!(Folder::Log.parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn every_name_parses_back_from_its_folder() {
        let id = ObjectId([0xab; 32]);
        let ours = [Name::Config, Name::Key(id), Name::Record { sequence: 0x1f, id }, Name::Pack(id)];
        for name in ours.into_iter().chain([Name::OldIndex, Name::OldObject([0xcd; 16])]) {
            assert_eq!(name.folder().parse(&name.file()), Some(name));
        }
        assert_eq!(Name::OldObject([0xcd; 16]).path(), "cd".repeat(16));
        assert_eq!(Name::Record { sequence: 31, id }.path(), format!("log/0000001f-{}", "ab".repeat(32)));
    }
}
