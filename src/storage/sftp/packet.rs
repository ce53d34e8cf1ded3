//! SFTP version 3 packets (draft-ietf-secsh-filexfer-02, and `PROTOCOL` of OpenSSH for the extensions). Requests are
//! built in one buffer; answers are read by a cursor that cannot run over, and nothing may be left behind.

/// Packet types.
pub const INIT: u8 = 1;
pub const VERSION: u8 = 2;
pub const OPEN: u8 = 3;
pub const CLOSE: u8 = 4;
pub const READ: u8 = 5;
pub const WRITE: u8 = 6;
pub const LSTAT: u8 = 7;
pub const FSTAT: u8 = 8;
pub const SETSTAT: u8 = 9;
pub const FSETSTAT: u8 = 10;
pub const OPENDIR: u8 = 11;
pub const READDIR: u8 = 12;
pub const REMOVE: u8 = 13;
pub const MKDIR: u8 = 14;
pub const STAT: u8 = 17;
pub const RENAME: u8 = 18;
pub const STATUS: u8 = 101;
pub const HANDLE: u8 = 102;
pub const DATA: u8 = 103;
pub const NAME: u8 = 104;
pub const ATTRS: u8 = 105;
pub const EXTENDED: u8 = 200;
pub const EXTENDED_REPLY: u8 = 201;

/// Status codes.
pub const OK: u32 = 0;
pub const EOF: u32 = 1;
pub const NO_SUCH_FILE: u32 = 2;
pub const PERMISSION_DENIED: u32 = 3;
pub const UNSUPPORTED: u32 = 8;
/// Of later versions of the protocol, but some servers send them.
pub const NO_SPACE: u32 = 14;
pub const QUOTA: u32 = 15;

/// Flags of OPEN.
pub const FOR_READING: u32 = 0x01;
pub const FOR_WRITING: u32 = 0x02;
pub const NEW_FOR_WRITING: u32 = 0x02 | 0x08 | 0x20; // WRITE | CREAT | EXCL

/// The longest packet that is accepted: OpenSSH's limit (256 KiB) and some room.
pub const MAX_PACKET: usize = (256 << 10) + 1024;
/// The longest handle the protocol allows.
const MAX_HANDLE: usize = 256;

/// The server sent something that is not SFTP; the text names the fault.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

type Result<T> = std::result::Result<T, Malformed>;

/// A request under construction: `length(4) type(1) id(4) ...`; length and id are filled in by [`Request::finish`].
pub struct Request(Vec<u8>);

impl Request {
    pub fn new(kind: u8) -> Self {
        Request::with_room(kind, 200)
    }

    pub fn with_room(kind: u8, room: usize) -> Self {
        let mut bytes = Vec::with_capacity(9 + room);
        bytes.extend([0, 0, 0, 0, kind, 0, 0, 0, 0]);
        Request(bytes)
    }

    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// Appends a string. Strings of this crate are far below 4 GiB.
    pub fn string(mut self, bytes: &[u8]) -> Self {
        self.0.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.0.extend(bytes);
        self
    }

    /// Attributes that hold a mode only.
    pub fn mode(self, mode: u32) -> Self {
        self.u32(HAS_MODE).u32(mode)
    }

    /// Attributes that hold a size only.
    pub fn size(self, size: u64) -> Self {
        self.u32(HAS_SIZE).u64(size)
    }

    pub fn extended(name: &str) -> Self {
        Request::new(EXTENDED).string(name.as_bytes())
    }

    /// Returns the packet, with its length and id.
    pub fn finish(mut self, id: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len() - 4).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0[5..9].copy_from_slice(&id.to_be_bytes());
        self.0
    }

    /// Returns its length in bytes so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// `INIT`, the only packet without an id.
pub fn init() -> Vec<u8> {
    vec![0, 0, 0, 5, INIT, 0, 0, 0, 3]
}

/// Reads the fields of a packet.
pub struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor(bytes)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Malformed("a packet that ends too early"))?;
        self.0 = rest;
        Ok(head)
    }

    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub fn u32(&mut self) -> Result<u32> {
        let bytes = self.take(4)?;
        Ok(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from(self.u32()?) << 32 | u64::from(self.u32()?))
    }

    pub fn string(&mut self) -> Result<&'a [u8]> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Insists that nothing is left.
    pub fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("a packet with more in it than it says")) }
    }
}

const HAS_SIZE: u32 = 1;
const HAS_OWNER: u32 = 2;
const HAS_MODE: u32 = 4;
const HAS_TIMES: u32 = 8;
const HAS_EXTENDED: u32 = 0x8000_0000;

/// Attributes of a file, as the server claims them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attrs {
    pub size: Option<u64>,
    pub mode: Option<u32>,
    pub mtime: Option<u32>,
}

impl Attrs {
    fn read(from: &mut Cursor<'_>) -> Result<Self> {
        let flags = from.u32()?;
        let has = |bit| flags & bit != 0;
        if flags & !(HAS_SIZE | HAS_OWNER | HAS_MODE | HAS_TIMES | HAS_EXTENDED) != 0 {
            return Err(Malformed("attributes of an unknown kind"));
        }
        let mut attrs = Attrs::default();
        if has(HAS_SIZE) {
            attrs.size = Some(from.u64()?);
        }
        if has(HAS_OWNER) {
            from.u64()?;
        }
        if has(HAS_MODE) {
            attrs.mode = Some(from.u32()?);
        }
        if has(HAS_TIMES) {
            from.u32()?;
            attrs.mtime = Some(from.u32()?);
        }
        if has(HAS_EXTENDED) {
            for _ in 0..from.u32()? {
                from.string()?;
                from.string()?;
            }
        }
        Ok(attrs)
    }

    /// Returns false only if the server claims another type.
    pub fn may_be_file(&self) -> bool {
        self.kind().is_none_or(|kind| kind == 0o100_000)
    }

    /// Returns false only if the server claims another type.
    pub fn may_be_folder(&self) -> bool {
        self.kind().is_none_or(|kind| kind == 0o040_000)
    }

    /// Returns the type bits, if the server sends any.
    fn kind(&self) -> Option<u32> {
        self.mode.map(|mode| mode & 0o170_000).filter(|kind| *kind != 0)
    }
}

/// An answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    Status(u32, String),
    Handle(&'a [u8]),
    Data(&'a [u8]),
    Names(Vec<(&'a [u8], Attrs)>),
    Attrs(Attrs),
    Extended(&'a [u8]),
}

impl<'a> Reply<'a> {
    /// Reads a packet from its type on (`type(1) id(4) ...`).
    pub fn decode(packet: &'a [u8]) -> Result<Self> {
        let mut from = Cursor::new(packet);
        let kind = from.u8()?;
        from.u32()?;
        let reply = match kind {
            STATUS => {
                let code = from.u32()?;
                // servers of version 3 add a message and a language, some leave both out
                let message = if from.is_empty() { &[][..] } else { from.string()? };
                if !from.is_empty() {
                    from.string()?;
                }
                Reply::Status(code, printable(message))
            }
            HANDLE => {
                let handle = from.string()?;
                if handle.len() > MAX_HANDLE {
                    return Err(Malformed("a handle that is too long"));
                }
                Reply::Handle(handle)
            }
            DATA => Reply::Data(from.string()?),
            NAME => {
                let count = from.u32()? as usize;
                let mut names = Vec::with_capacity(count.min(packet.len() / 12));
                for _ in 0..count {
                    let name = from.string()?;
                    from.string()?; // the line of `ls -l`
                    names.push((name, Attrs::read(&mut from)?));
                }
                Reply::Names(names)
            }
            ATTRS => Reply::Attrs(Attrs::read(&mut from)?),
            EXTENDED_REPLY => Reply::Extended(std::mem::take(&mut from.0)),
            _ => return Err(Malformed("a packet of an unknown type")),
        };
        from.end()?;
        Ok(reply)
    }
}

/// Words of a server, cut short and without control characters.
pub fn printable(bytes: &[u8]) -> String {
    crate::printable::excerpt(bytes)
}

/// Cuts a byte stream into packets (`type(1) id(4) ...`, without their length).
#[derive(Default)]
pub struct Frames {
    head: [u8; 4],
    have: usize,
    want: usize,
    body: Vec<u8>,
}

impl Frames {
    /// Returns the bytes of a length that is not complete.
    pub fn held(&self) -> &[u8] {
        &self.head[..self.have]
    }

    /// Takes some bytes of the stream and hands on every packet that they complete.
    pub fn feed(&mut self, mut bytes: &[u8], mut packet: impl FnMut(Vec<u8>) -> Result<()>) -> Result<()> {
        while !bytes.is_empty() {
            if self.have < 4 {
                let count = bytes.len().min(4 - self.have);
                self.head[self.have..self.have + count].copy_from_slice(&bytes[..count]);
                self.have += count;
                bytes = &bytes[count..];
                if self.have < 4 {
                    break;
                }
                self.want = Cursor::new(&self.head).u32()? as usize;
                if !(5..=MAX_PACKET).contains(&self.want) {
                    return Err(Malformed("a packet of an impossible length"));
                }
                self.body = Vec::with_capacity(self.want.min(4096 + bytes.len()));
            }
            let count = bytes.len().min(self.want - self.body.len());
            self.body.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.body.len() == self.want {
                self.have = 0;
                packet(std::mem::take(&mut self.body))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Reply::decode(&bytes);
            let mut seen = 0;
            let _ = Frames::default().feed(&bytes, |packet| { seen += packet.len(); Ok(()) });
            prop_assert!(seen <= bytes.len());
        }

        #[test]
        fn no_body_of_a_known_type_makes_the_decoder_panic(
            kind in prop_oneof![Just(STATUS), Just(HANDLE), Just(DATA), Just(NAME), Just(ATTRS), Just(EXTENDED_REPLY)],
            words in proptest::collection::vec(prop_oneof![0u32..40, any::<u32>()], 0..30),
        ) {
            let mut packet = vec![kind, 0, 0, 0, 1];
            packet.extend(words.iter().flat_map(|word| word.to_be_bytes()));
            let _ = Reply::decode(&packet);
        }

        #[test]
        fn packets_survive_any_cutting_of_the_stream(cuts in proptest::collection::vec(1usize..9, 1..60)) {
            let stream: Vec<u8> = (0..9u32).flat_map(|n| Request::new(READ).string(&vec![7; n as usize]).finish(n)).collect();
            let (mut frames, mut ids, mut rest) = (Frames::default(), Vec::new(), &stream[..]);
            for cut in cuts.iter().cycle() {
                let (head, tail) = rest.split_at((*cut).min(rest.len()));
                frames.feed(head, |packet| { ids.push(packet[4]); Ok(()) }).expect("our own packets");
                rest = tail;
                if rest.is_empty() { break }
            }
            prop_assert_eq!(ids, (0..9).collect::<Vec<u8>>());
        }
    }

    #[test]
    fn what_is_too_short_too_long_or_unknown_is_refused() {
        let status = Request::new(STATUS).u32(4).string(b"Fail\x1b[2Jure").string(b"en").finish(1);
        assert_eq!(Reply::decode(&status[4..]), Ok(Reply::Status(4, "Fail[2Jure".into())));
        assert!(Reply::decode(&status[4..status.len() - 1]).is_err());
        let longer = [&status[4..], &[0]].concat();
        assert!(Reply::decode(&longer).is_err());
        assert!(Reply::decode(&Request::new(99).finish(1)[4..]).is_err());
        let mut frames = Frames::default();
        assert!(frames.feed(&u32::MAX.to_be_bytes(), |_| Ok(())).is_err());
        assert!(Frames::default().feed(&[0, 0, 0, 4], |_| Ok(())).is_err());
    }
}
