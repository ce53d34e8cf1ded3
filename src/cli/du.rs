//! `nfreezer du`: the size of the folders of a snapshot.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::ffi::OsString;

use serde_json::json;

use super::exit::{DAMAGED, OK, exit_code};
use super::filter::FilterArgs;
use super::open::to_read_at;
use super::options::{OutputArgs, ReadArgs};
use super::output::{self, Output};
use super::{escape, human, signals};
use crate::error::{Error, Result};
use crate::format::node::{Content, Node};
use crate::trees::{Below, LinkKey, Trees};

/// Arguments of `du`.
#[derive(clap::Args)]
pub struct Args {
    /// The snapshot (an id, `latest`, `latest~N`) and a path in it
    #[arg(value_name = "SNAPSHOT[:PATH]", default_value = "latest")]
    what: OsString,
    /// Show folders down to N levels below PATH
    #[arg(short = 'd', long, value_name = "N", default_value_t = 1)]
    max_depth: usize,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    repository: ReadArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Prints the folders, the largest first.
pub fn run(args: &Args) -> Result<u8> {
    let mut out = Output::new(args.output.json);
    let (repo, snapshot, path) = to_read_at(&args.what, &args.filter, &args.repository, args.output, &mut out)?;
    let trees = &Trees::new(&repo);
    let top = trees.at(signals::context(), &snapshot, &path)?;
    let mut sizes = Sizes::new(&path, args);
    sizes.add(&top);
    if let Content::Directory(page) = top.content {
        for found in Below::new(signals::context(), trees, page) {
            let found = found?;
            match found.node {
                Ok(node) => sizes.entry(&found.path, found.depth, &node),
                Err(e) => sizes.damage(&found.path, &e),
            }
        }
    }
    let damaged = sizes.damaged;
    let folders = sizes.end();
    for folder in &folders {
        print(&mut out, folder)?;
    }
    let top = folders.first();
    let [bytes, files] = [top.map_or(0, |top| top.bytes), top.map_or(0, |top| top.files)];
    let fields = json!({
        "snapshot": snapshot.id.to_string(), "short_id": snapshot.id.short(),
        "bytes": bytes, "files": files, "damaged": damaged,
    });
    out.object("summary", output::object(fields))?;
    out.flush()?;
    Ok(if damaged > 0 { DAMAGED } else { OK })
}

/// A folder with the files in and below it.
struct Folder {
    path: Vec<u8>,
    /// Levels below the path of the command.
    depth: usize,
    bytes: u64,
    files: u64,
}

/// Sums the sizes of files in the order of a walk.
struct Sizes<'a> {
    args: &'a Args,
    /// The folders on the way to the last entry, the first one is the path of the command.
    open: Vec<Folder>,
    done: Vec<Folder>,
    /// Files with several names that were counted.
    links: HashSet<LinkKey>,
    damaged: u64,
}

impl<'a> Sizes<'a> {
    fn new(path: &[u8], args: &'a Args) -> Self {
        let path = if path.is_empty() { b"/".to_vec() } else { path.to_vec() };
        let top = Folder { path, depth: 0, bytes: 0, files: 0 };
        Sizes { args, open: vec![top], done: Vec::new(), links: HashSet::new(), damaged: 0 }
    }

    /// Adds an entry at a path relative to the top.
    fn entry(&mut self, path: &[u8], depth: usize, node: &Node) {
        self.close(depth + 1);
        if matches!(node.content, Content::Directory(_)) {
            let top = self.open.first().map_or(&b""[..], |top| top.path.strip_suffix(b"/").unwrap_or(&top.path));
            self.open.push(Folder { path: [top, b"/", path].concat(), depth: depth + 1, bytes: 0, files: 0 });
        }
        self.add(node);
    }

    /// Adds a file to the innermost open folder.
    fn add(&mut self, node: &Node) {
        let is_counted = node.content.is_file() && LinkKey::of(node).is_none_or(|link| self.links.insert(link));
        if let (true, Some(folder)) = (is_counted, self.open.last_mut()) {
            folder.bytes = folder.bytes.saturating_add(node.content.size());
            folder.files += 1;
        }
    }

    /// Ends the open folders from a depth on.
    fn close(&mut self, depth: usize) {
        while self.open.len() > depth {
            let Some(folder) = self.open.pop() else { return };
            if let Some(above) = self.open.last_mut() {
                above.bytes = above.bytes.saturating_add(folder.bytes);
                above.files += folder.files;
            }
            if folder.depth <= self.args.max_depth {
                self.done.push(folder);
            }
        }
    }

    fn damage(&mut self, path: &[u8], e: &Error) {
        self.damaged += 1;
        let text = format!("cannot read {}: {e}", escape::text(path));
        output::error(self.args.output.json, &Error::new(e.kind(), text), exit_code(e.kind()));
    }

    /// Returns the folders, the path of the command first, the others by their size.
    fn end(mut self) -> Vec<Folder> {
        self.close(0);
        self.done.sort_by_key(|folder| (folder.depth > 0, Reverse(folder.bytes)));
        self.done
    }
}

fn print(out: &mut Output, folder: &Folder) -> Result<()> {
    if out.is_json() {
        let mut fields = output::object(json!({
            "depth": folder.depth, "bytes": folder.bytes, "files": folder.files,
        }));
        output::put_bytes(&mut fields, "path", &folder.path);
        return out.object("folder", fields);
    }
    let (size, files) = (human::size(folder.bytes), human::count(folder.files, "file"));
    out.line(format_args!("{size:>10}  {files:>14}  {}", escape::text(&folder.path)))
}
