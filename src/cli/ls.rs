//! `nfreezer ls`: lists a directory of a snapshot, or with `-R` all below it.

use std::ffi::OsString;

use serde_json::json;

use super::exit::{DAMAGED, OK, exit_code};
use super::filter::FilterArgs;
use super::open::to_read_at;
use super::options::{OutputArgs, ReadArgs};
use super::output::{self, Output};
use super::{escape, ncdu, node, signals};
use crate::error::{Error, Kind, Result};
use crate::format::limits;
use crate::format::node::{Content, Node};
use crate::trees::{Entries, Trees};

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
    /// Print all levels in the format of `ncdu -f`
    #[arg(long, conflicts_with_all = ["long", "json"])]
    ncdu: bool,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    repository: ReadArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Prints names relative to PATH, in byte order.
pub fn run(args: &Args) -> Result<u8> {
    let mut out = Output::new(args.output.json);
    let (repo, snapshot, path) = to_read_at(&args.what, &args.filter, &args.repository, args.output, &mut out)?;
    let trees = &Trees::new(&repo);
    let top = trees.at(signals::context(), &snapshot, &path)?;
    if let (true, Content::Directory(page)) = (args.ncdu, &top.content) {
        // ncdu refuses an empty name.
        let name = if path.is_empty() { "/".into() } else { String::from_utf8_lossy(&path) };
        let (_, damaged) = ncdu::print(&mut out, trees, &name, *page)?;
        out.flush()?;
        return Ok(if damaged > 0 { DAMAGED } else { OK });
    }
    let mut listing = Listing { trees, args, out, entries: 0, damaged: 0 };
    match &top.content {
        Content::Directory(page) => listing.directory(trees.entries(signals::context(), page.as_ref()))?,
        _ => listing.node(&top.name, &top)?,
    }
    let Listing { mut out, entries, damaged, .. } = listing;
    let fields = json!({ "snapshot": snapshot.id.to_string(), "short_id": snapshot.id.short(), "entries": entries, "damaged": damaged });
    out.object("summary", output::object(fields))?;
    out.flush()?;
    Ok(if damaged > 0 { DAMAGED } else { OK })
}

struct Listing<'a> {
    trees: &'a Trees<'a>,
    args: &'a Args,
    out: Output,
    entries: u64,
    damaged: u64,
}

impl<'a> Listing<'a> {
    /// Walks with an own stack, so that no depth of a tree can overflow ours.
    fn directory(&mut self, top: Entries<'a>) -> Result<()> {
        let trees = self.trees;
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
                stack.push((trees.entries(signals::context(), page.as_ref()), path.len()));
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
        output::error(
            self.out.is_json(),
            &e.while_doing(format!("cannot list {}", escape::text(path))),
            exit_code(Kind::Damaged),
        );
        Ok(())
    }

    fn node(&mut self, path: &[u8], node: &Node) -> Result<()> {
        self.entries += 1;
        if self.out.is_json() {
            self.out.object("node", node::object(path, node))
        } else if self.args.long {
            self.out.line(node::long_line(path, node))
        } else {
            self.out.line(node::name(path, node))
        }
    }
}
