//! Formats a node of a snapshot: as a name, as a line in the form of `ls -l`, and as a JSON object.

use serde_json::{Map, Value, json};

use super::{escape, human, output};
use crate::format::node::{Content, Node, PARTIAL};
use crate::trees::{LOST, lacks_parts};

/// Returns the path. The path of a directory ends with a slash.
pub fn name(path: &[u8], node: &Node) -> String {
    let slash = if matches!(node.content, Content::Directory(_)) { "/" } else { "" };
    format!("{}{slash}", escape::text(path))
}

/// Returns mode, owner, group, size, time, path, and a note if the contents are incomplete.
pub fn long_line(path: &[u8], node: &Node) -> String {
    let attrs = &node.attrs;
    let size = match node.content {
        Content::Block(major, minor) | Content::Char(major, minor) => format!("{major},{minor}"),
        _ => node.content.size().to_string(),
    };
    format!(
        "{}  {:<8} {:<8} {size:>12}  {}  {}{}",
        mode(letter(&node.content), attrs.mode),
        owner(&attrs.user, attrs.uid),
        owner(&attrs.group, attrs.gid),
        human::time(node.mtime),
        name(path, node),
        note(node),
    )
}

fn owner(name: &[u8], id: u32) -> String {
    if name.is_empty() { id.to_string() } else { escape::text(name) }
}

fn note(node: &Node) -> String {
    match &node.content {
        Content::Symlink(target) => format!(" -> {}", escape::text(target)),
        Content::Unreadable(LOST) => " (lost on the server, as `nfreezer repair` has marked)".into(),
        Content::Unreadable(errno) => {
            format!(" (was not readable: {})", std::io::Error::from_raw_os_error(*errno as i32))
        }
        _ if lacks_parts(node) => " (parts of it are lost)".into(),
        _ if node.flags & PARTIAL != 0 => " (only its beginning)".into(),
        _ => String::new(),
    }
}

/// Returns the fields of a JSON object of type `node`.
pub fn object(path: &[u8], node: &Node) -> Map<String, Value> {
    let attrs = &node.attrs;
    let mut fields = output::object(json!({
        "kind": kind(&node.content), "mode": attrs.mode, "uid": attrs.uid, "gid": attrs.gid,
        "size": node.content.size(), "mtime": human::rfc3339(node.mtime), "inode": node.inode, "links": node.nlink,
        "partial": node.flags & PARTIAL != 0, "lost": is_lost(node),
    }));
    output::put_bytes(&mut fields, "path", path);
    output::put_bytes(&mut fields, "user", &attrs.user);
    output::put_bytes(&mut fields, "group", &attrs.group);
    match &node.content {
        Content::Symlink(target) => output::put_bytes(&mut fields, "target", target),
        Content::Block(major, minor) | Content::Char(major, minor) => {
            fields.insert("device".into(), json!([major, minor]));
        }
        Content::Unreadable(errno) => drop(fields.insert("errno".into(), (*errno).into())),
        _ => {}
    }
    fields
}

/// Reports whether `repair` has marked the node, or parts of it, as lost.
fn is_lost(node: &Node) -> bool {
    lacks_parts(node) || node.content == Content::Unreadable(LOST)
}

/// Returns the word for the kind of a node.
pub fn kind(content: &Content) -> &'static str {
    match content {
        Content::File(_) | Content::Large { .. } => "file",
        Content::Directory(_) => "directory",
        Content::Symlink(_) => "symlink",
        Content::Block(..) => "block",
        Content::Char(..) => "char",
        Content::Fifo => "fifo",
        Content::Socket => "socket",
        Content::Unreadable(_) => "unreadable",
    }
}

/// Returns the letter for the kind of a node, as `ls -l` prints it.
pub fn letter(content: &Content) -> char {
    match content {
        Content::File(_) | Content::Large { .. } => '-',
        Content::Directory(_) => 'd',
        Content::Symlink(_) => 'l',
        Content::Block(..) => 'b',
        Content::Char(..) => 'c',
        Content::Fifo => 'p',
        Content::Socket => 's',
        Content::Unreadable(_) => '?',
    }
}

/// Formats a mode: `drwxr-sr-t`.
pub fn mode(letter: char, bits: u16) -> String {
    let bit = |i: usize| if bits & (0o400 >> i) != 0 { ['r', 'w', 'x'][i % 3] } else { '-' };
    let mut text: Vec<char> = std::iter::once(letter).chain((0..9).map(bit)).collect();
    for (bit, at, with, without) in [(0o4000, 3, 's', 'S'), (0o2000, 6, 's', 'S'), (0o1000, 9, 't', 'T')] {
        if bits & bit != 0 {
            text[at] = if text[at] == 'x' { with } else { without };
        }
    }
    text.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_as_ls_does() {
        for (bits, text) in
            [(0o755, "drwxr-xr-x"), (0o4755, "drwsr-xr-x"), (0o7000, "d--S--S--T"), (0o1777, "drwxrwxrwt")]
        {
            assert_eq!(mode('d', bits), text);
        }
    }
}
