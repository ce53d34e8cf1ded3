//! Text of other people (names, hosts, messages of a server) in a form that a terminal cannot obey.
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
                c if (c as u32) < 256 => out.push_str(&format!("\\x{:02x}", c as u32)),
                c => out.push_str(&format!("\\u{{{:x}}}", c as u32)),
            }
        }
        chunk.invalid().iter().for_each(|b| out.push_str(&format!("\\x{b:02x}")));
    }
    out
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
    fn an_excerpt_is_short_and_harmless() {
        assert_eq!(excerpt(b"no\x1b[2J \xe2\x80\xaespace\n"), "no[2J space");
        assert_eq!(excerpt(&[b'x'; 1000]).len(), EXCERPT);
    }
}
