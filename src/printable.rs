//! Makes text from others (names, hosts, messages of a server) harmless for a terminal.
//!
//! Pure: bytes or text in, text without control characters and without invisible characters out.

/// Longest excerpt of a server's message, in bytes.
const EXCERPT: usize = 300;

/// Returns bytes of a file system or a server as text: control characters, escape sequences, characters that are
/// invisible or turn the direction of writing, and invalid UTF-8 are written as `\n`, `\x1b`, `\u{202e}`. A backslash is
/// doubled, so no two names look alike because of the escapes.
pub fn name(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if !is_harmful(c) => out.push(c),
                c if c.is_ascii() => out.push_str(&format!("\\x{:02x}", c as u32)),
                c => out.push_str(&format!("\\u{{{:x}}}", c as u32)),
            }
        }
        chunk.invalid().iter().for_each(|b| out.push_str(&format!("\\x{b:02x}")));
    }
    out
}

/// Returns the bytes that [`name`] prints as `text`; `None` if `text` has no escapes, or a wrong one.
pub fn parse(text: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text);
    let mut escapes = 0;
    while let Some(at) = rest.iter().position(|b| *b == b'\\') {
        out.extend_from_slice(&rest[..at]);
        let length = match rest[at + 1..].first()? {
            b'\\' => push(&mut out, b'\\'),
            b'n' => push(&mut out, b'\n'),
            b'r' => push(&mut out, b'\r'),
            b't' => push(&mut out, b'\t'),
            b'x' => {
                out.push(u8::try_from(hex(rest.get(at + 2..at + 4)?)?).ok()?);
                3
            }
            b'u' => {
                let digits = rest[at + 2..].strip_prefix(b"{")?;
                let digits = &digits[..digits.iter().take(7).position(|b| *b == b'}')?];
                out.extend_from_slice(char::from_u32(hex(digits)?)?.encode_utf8(&mut [0; 4]).as_bytes());
                digits.len() + 3
            }
            _ => return None,
        };
        rest = &rest[at + 1 + length..];
        escapes += 1;
    }
    out.extend_from_slice(rest);
    (escapes > 0).then_some(out)
}

/// Appends the byte of an escape of one letter; returns the length of that.
fn push(out: &mut Vec<u8>, byte: u8) -> usize {
    out.push(byte);
    1
}

fn hex(digits: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u32::from_str_radix(digits, 16).ok()
}

/// Returns a message of this program that may quote such text: as [`name`], but a backslash stays single, since quoted
/// names may be escaped already, and a line break becomes `; `.
pub fn message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("; "),
            c if !is_harmful(c) => out.push(c),
            c => out.push_str(&format!("\\u{{{:x}}}", c as u32)),
        }
    }
    out
}

/// Returns the beginning of a message of a server or a helper program, without harmful characters.
pub fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT)]).chars().filter(|c| !is_harmful(*c)).collect()
}

/// Returns whether a terminal may obey or hide a character: control characters, and the format characters that hide
/// text or turn its direction (Unicode Cf, line separators, variation selectors, tags).
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c as u32,
            0xad | 0x34f | 0x61c | 0x115f | 0x1160 | 0x17b4 | 0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f
            | 0x2028..=0x202e | 0x2060..=0x206f | 0x3164 | 0xfe00..=0xfe0f | 0xfeff | 0xffa0 | 0xfff0..=0xfffb
            | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_name_is_read_back() {
        let names: [&[u8]; 6] = [
            b"bad\xff\xfename.txt",
            b"\x1b[2J \n\r\t\\x41 \x7f",
            "\u{9b}\u{202e}\u{e0061}\u{ad}".as_bytes(),
            b"\x9b\xc2",
            b"back\\slash",
            b"\\\\",
        ];
        for bytes in names {
            assert_eq!(parse(name(bytes).as_bytes()).as_deref(), Some(bytes), "{}", name(bytes));
        }
        for plain in ["plain", "", "K\u{e4}se"] {
            assert_eq!((name(plain.as_bytes()).as_str(), parse(plain.as_bytes())), (plain, None));
        }
        for wrong in
            ["\\", "a\\q", "\\x4", "\\xg0", "\\x+1", "\\u", "\\u{", "\\u{}", "\\u{d800}", "\\u{1234567}", "\\u41"]
        {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn an_excerpt_is_short_and_harmless() {
        assert_eq!(excerpt(b"no\x1b[2J \xe2\x80\xaespace\n"), "no[2J space");
        assert_eq!(excerpt(&[b'x'; 1000]).len(), EXCERPT);
    }
}
