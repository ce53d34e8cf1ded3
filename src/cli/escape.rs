//! Escapes text of others for the terminal, see [`crate::printable`].

use std::path::Path;

pub use crate::printable::{is_harmful, message, name as text};

/// Escapes a path as [`text`] does.
pub fn path(path: &Path) -> String {
    text(path.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t70a_nothing_that_a_terminal_obeys_gets_through() {
        let hostile = b"\x1b[2J\x1b]0;x\x07 \xe2\x80\xae-rf \xff\xfe\x9b \xc2\x9b a\\b\n\t\x7f\xf3\xa0\x81\xa1";
        let shown = text(hostile);
        assert_eq!(shown, r"\x1b[2J\x1b]0;x\x07 \u{202e}-rf \xff\xfe\x9b \u{9b} a\\b\n\t\x7f\u{e0061}");
        assert_eq!(text("Käse – 写真 🎉.txt".as_bytes()), "Käse – 写真 🎉.txt");
        assert!(!message("a\u{1b}[31m\u{202e}\nb").chars().any(is_harmful));
    }
}
