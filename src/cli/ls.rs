//! `nfreezer ls`: lists a directory of a snapshot, or with `-R` all below it.

use std::ffi::OsString;

use serde_json::json;

use super::common::{Common, open_repository, read_state, snapshot_and_path};
use super::show::{self, Output};
use super::{DAMAGED, OK, exit_code, signals};
use crate::error::{Error, Kind, Result};
use crate::format::limits;
use crate::format::node::{self, Content, Node};
use crate::repo::Repository;
use crate::repo::tree::{Entries, LOST, lacks_parts};

/// Arguments of `ls`.
#[derive(clap::Args)]
pub struct Args {
    /// The snapshot (an id, `latest`, `latest~N`) and a path in it
    #[arg(value_name = "SNAPSHOT[:PATH]", default_value = "latest")]
    what: OsString,
    /// Mode, owner, size and time too
    #[arg(short, long)]
    long: bool,
    /// All levels
    #[arg(short = 'R', long)]
    recursive: bool,
}

/// Prints names relative to PATH, in byte order.
pub fn run(common: &Common, args: &Args) -> Result<u8> {
    let (snapshot, path) = snapshot_and_path(&args.what)?;
    let repo = open_repository(common)?;
    let mut out = Output::new(common.json);
    let snapshot = read_state(&repo, &mut out)?.select(&snapshot)?;
    let top = repo.at(signals::context(), &snapshot, &path)?;
    let mut listing = Listing { repo: &repo, args, out, entries: 0, damaged: 0 };
    match &top.content {
        Content::Directory(page) => listing.directory(repo.entries(signals::context(), page.as_ref()))?,
        _ => listing.node(&top.name, &top)?,
    }
    let Listing { mut out, entries, damaged, .. } = listing;
    let fields = json!({ "snapshot": snapshot.id.to_string(), "short_id": snapshot.id.short(), "entries": entries, "damaged": damaged });
    out.object("summary", show::object(fields))?;
    out.flush()?;
    Ok(if damaged > 0 { DAMAGED } else { OK })
}

struct Listing<'a> {
    repo: &'a Repository,
    args: &'a Args,
    out: Output,
    entries: u64,
    damaged: u64,
}

impl<'a> Listing<'a> {
    /// Walks with an own stack, so that no depth of a tree can overflow ours.
    fn directory(&mut self, top: Entries<'a>) -> Result<()> {
        let repo = self.repo;
        let mut path = Vec::new();
        let mut stack = vec![(top, 0)];
        while let Some((entries, length)) = stack.last_mut() {
            path.truncate(*length);
            let node = match entries.next() {
                None => {
                    stack.pop();
                    continue;
                }
                Some(Ok(node)) => node,
                Some(Err(e)) => {
                    self.damage(&path, e)?;
                    continue;
                }
            };
            if self.out.is_closed() {
                break;
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&node.name);
            self.node(&path, &node)?;
            if let (true, Content::Directory(page)) = (self.args.recursive, &node.content) {
                if stack.len() > limits::DEPTH {
                    return Err(Error::damaged("the directories are nested too deeply"));
                }
                stack.push((repo.entries(signals::context(), page.as_ref()), path.len()));
            }
        }
        Ok(())
    }

    fn damage(&mut self, path: &[u8], e: Error) -> Result<()> {
        if !e.kind().is_damage() {
            return Err(e);
        }
        self.damaged += 1;
        self.out.flush()?;
        show::error(
            self.out.is_json(),
            &e.while_doing(format!("cannot list {}", show::text(path))),
            exit_code(Kind::Damaged),
        );
        Ok(())
    }

    fn node(&mut self, path: &[u8], node: &Node) -> Result<()> {
        self.entries += 1;
        if self.out.is_json() {
            return self.object(path, node);
        }
        let mut line = show::text(path);
        if matches!(node.content, Content::Directory(_)) {
            line.push('/');
        }
        if self.args.long {
            let owner = |name: &[u8], id: u32| if name.is_empty() { id.to_string() } else { show::text(name) };
            let attrs = &node.attrs;
            let size = match node.content {
                Content::Block(major, minor) | Content::Char(major, minor) => format!("{major},{minor}"),
                _ => node.content.size().to_string(),
            };
            line = format!(
                "{}  {:<8} {:<8} {:>12}  {}  {line}",
                mode(letter(&node.content), attrs.mode),
                owner(&attrs.user, attrs.uid),
                owner(&attrs.group, attrs.gid),
                size,
                show::time(node.mtime),
            );
            match &node.content {
                Content::Symlink(target) => line += &format!(" -> {}", show::text(target)),
                Content::Unreadable(LOST) => line += " (lost on the server; repair has marked it)",
                Content::Unreadable(errno) => {
                    line += &format!(" (was not readable: {})", std::io::Error::from_raw_os_error(*errno as i32));
                }
                _ if lacks_parts(node) => line += " (parts of it are lost)",
                _ if node.flags & node::PARTIAL != 0 => line += " (only its beginning)",
                _ => {}
            }
        }
        self.out.line(line)
    }

    fn object(&mut self, path: &[u8], node: &Node) -> Result<()> {
        let attrs = &node.attrs;
        let mut fields = show::object(json!({
            "kind": kind(&node.content), "mode": attrs.mode, "uid": attrs.uid, "gid": attrs.gid,
            "size": node.content.size(), "mtime": show::rfc3339(node.mtime), "inode": node.inode, "links": node.nlink,
            "partial": node.flags & node::PARTIAL != 0, "lost": is_lost(node),
        }));
        show::put_bytes(&mut fields, "path", path);
        show::put_bytes(&mut fields, "user", &attrs.user);
        show::put_bytes(&mut fields, "group", &attrs.group);
        match &node.content {
            Content::Symlink(target) => show::put_bytes(&mut fields, "target", target),
            Content::Block(major, minor) | Content::Char(major, minor) => {
                fields.insert("device".into(), json!([major, minor]));
            }
            Content::Unreadable(errno) => drop(fields.insert("errno".into(), (*errno).into())),
            _ => {}
        }
        self.out.object("node", fields)
    }
}

/// Whether `repair` has marked it: it is lost on the server, or parts of it are.
fn is_lost(node: &Node) -> bool {
    lacks_parts(node) || node.content == Content::Unreadable(LOST)
}

fn kind(content: &Content) -> &'static str {
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

fn letter(content: &Content) -> char {
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

/// `drwxr-sr-t`
fn mode(letter: char, bits: u16) -> String {
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
