//! The file format of the seen heads: readable text, one fact per line, and a checksum that detects a truncated or
//! foreign file.

use sha2::{Digest, Sha256};

use super::{Seen, SeenCopy, SeenHead, SeenKey};
use crate::name::{ObjectId, hex};

const MAGIC: &str = "nfreezer memory 2";

pub(super) fn encode(seen: &Seen, repository: &[u8; 32]) -> Vec<u8> {
    let mut text = format!("{MAGIC}\nrepository {}\n", hex(repository));
    if let Some(master) = &seen.master {
        text += &format!("master {}\n", hex(master));
    }
    if let Some(SeenKey { id, work, local, created }) = &seen.key {
        text += &format!("key {id} {work} {} {created}\n", u8::from(*local));
    }
    for copy in &seen.copies {
        text += &format!("address {}\n", copy.address);
        copy.heads.iter().for_each(|h| text += &format!("head {} {} {}\n", h.sequence, h.id, h.time));
        copy.verified.iter().for_each(|id| text += &format!("verified {id}\n"));
    }
    seen.removed.iter().for_each(|id| text += &format!("removed {id}\n"));
    seen.told.iter().for_each(|id| text += &format!("told {id}\n"));
    text += &format!("sum {}\n", sum(&text));
    text.into_bytes()
}

/// Decodes the output of [`encode`]; `None` for any other text.
pub(super) fn decode(bytes: &[u8], repository: &[u8; 32]) -> Option<Seen> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut seen = Seen::default();
    for line in text.lines() {
        let (kind, rest) = line.split_once(' ')?;
        let words: Vec<&str> = rest.split(' ').collect();
        match (kind, words.as_slice()) {
            ("nfreezer" | "repository" | "sum", _) => {}
            ("address", _) => seen.copies.push(SeenCopy { address: rest.to_owned(), ..SeenCopy::default() }),
            ("master", [fingerprint]) => seen.master = Some(unhex(fingerprint)?),
            ("key", [id, work, local, created]) => {
                let (id, local) = (ObjectId::parse(id)?, *local == "1");
                seen.key = Some(SeenKey { id, work: work.parse().ok()?, local, created: created.parse().ok()? });
            }
            ("head", [sequence, id, time]) => {
                let (sequence, time) = (sequence.parse().ok()?, time.parse().ok()?);
                seen.copies.last_mut()?.heads.push(SeenHead { sequence, id: ObjectId::parse(id)?, time });
            }
            ("verified", [id]) => seen.copies.last_mut()?.verified.push(ObjectId::parse(id)?),
            ("removed", [id]) => seen.removed.push(ObjectId::parse(id)?),
            ("told", [id]) => seen.told.push(ObjectId::parse(id)?),
            _ => return None,
        }
    }
    (encode(&seen, repository) == bytes).then_some(seen)
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Returns the checksum of a text, as hex digits.
pub(super) fn sum(text: &str) -> String {
    hex(&Sha256::digest(text)[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t45_only_what_was_written_is_read_back() {
        let id = ObjectId([7; 32]);
        let seen = Seen {
            copies: vec![
                SeenCopy {
                    address: "anna@host:/a folder".into(),
                    heads: vec![SeenHead { sequence: 3, id, time: -1 }],
                    verified: vec![id],
                },
                SeenCopy { address: "/mnt/copy".into(), ..SeenCopy::default() },
            ],
            master: Some([0xab; 16]),
            key: Some(SeenKey { id, work: 196_608, local: true, created: 1_700_000_000 }),
            removed: vec![id],
            told: vec![id],
        };
        let bytes = encode(&seen, &[1; 32]);
        assert_eq!(decode(&bytes, &[1; 32]), Some(seen.clone()));
        assert_eq!(decode(&bytes, &[2; 32]), None, "of another repository");
        (0..bytes.len()).for_each(|len| assert_eq!(decode(&bytes[..len], &[1; 32]), None, "{len}"));
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert_eq!(decode(&bytes, &[1; 32]), None, "{at}");
        }
        let plain = Seen { removed: Vec::new(), told: Vec::new(), ..seen };
        assert!((300..600).contains(&encode(&plain, &[1; 32]).len()), "{}", encode(&plain, &[1; 32]).len());
    }
}
