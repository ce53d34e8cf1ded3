//! The listing of a directory in the format that `ncdu -f` reads: nested JSON arrays, each directory's own object first.

use serde_json::{Value, json};

use super::output::{self, Output};
use super::signals;
use crate::error::Result;
use crate::format::node::{Content, Node};
use crate::format::reference::Ref;
use crate::trees::{Below, Trees};

/// Prints everything below a directory. Returns the number of entries and of damaged directories.
pub fn print(out: &mut Output, trees: &Trees<'_>, name: &str, top: Option<Ref>) -> Result<(u64, u64)> {
    let program = json!({ "progname": "nfreezer", "progver": env!("CARGO_PKG_VERSION") });
    out.line(format_args!("[1,2,{program},[{}", json!({ "name": name })))?;
    let (mut depth, mut entries, mut damaged) = (0, 0, 0);
    for found in Below::new(signals::context(), trees, top) {
        let found = found?;
        let Ok(node) = found.node else {
            damaged += 1;
            continue;
        };
        if out.is_closed() {
            break;
        }
        entries += 1;
        // The directories that ended before this entry.
        let ends = "]".repeat(depth.max(found.depth) - found.depth);
        let is_directory = matches!(node.content, Content::Directory(_));
        let open = if is_directory { "[" } else { "" };
        out.line(format_args!("{ends},{open}{}", object(&node)))?;
        depth = found.depth + usize::from(is_directory);
    }
    out.line(format_args!("{}]]", "]".repeat(depth)))?;
    Ok((entries, damaged))
}

fn object(node: &Node) -> Value {
    let size = node.content.size();
    let is_regular = matches!(node.content, Content::File(_) | Content::Large { .. } | Content::Directory(_));
    let mut fields = output::object(json!({
        "asize": size, "dsize": size, "ino": node.inode, "uid": node.attrs.uid,
        "gid": node.attrs.gid, "mode": node.attrs.mode, "mtime": node.mtime.seconds,
    }));
    fields.insert("name".into(), String::from_utf8_lossy(&node.name).into());
    if node.nlink > 1 && !matches!(node.content, Content::Directory(_)) {
        fields.insert("hlnkc".into(), true.into());
        fields.insert("nlink".into(), node.nlink.into());
    }
    if !is_regular {
        fields.insert("notreg".into(), true.into());
    }
    Value::Object(fields)
}
