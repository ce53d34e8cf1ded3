//! Walks sources that are streams: in step with the previous snapshot, as [`super::walker`] does, making the folders on
//! the way.

use super::batcher::{self, Batcher};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::format::limits;
use crate::format::node::{Content, valid_name};
use crate::push::compare::parents::{Found, Old, Parents};
use crate::push::read::attributes::Nodes;
use crate::push::read::item::{Enter, Item, StreamJob};
use crate::push::read::stream::{Stream, StreamKind};
use crate::time::Time;
use crate::trees::Trees;

/// What the walk over streams is given.
pub struct Streams<'w> {
    pub trees: &'w Trees<'w>,
    pub ctx: &'w Context<'w>,
    pub parents: &'w Parents,
    pub nodes: &'w Nodes,
    /// The time of the snapshot, for folders that are only on the way.
    pub time: Time,
}

struct Walker<'w> {
    streams: Streams<'w>,
    feed: Batcher<'w>,
    levels: Vec<Level<'w>>,
    last: Vec<u8>,
}

/// A folder on the way down; the first one is the root.
struct Level<'w> {
    name: Vec<u8>,
    old: Vec<Old<'w>>,
}

impl<'w> Streams<'w> {
    /// Walks everything and closes the line.
    pub fn run(self, streams: &mut dyn Iterator<Item = Result<Stream>>, feed: Batcher<'w>) -> Result<()> {
        let levels = vec![Level { name: Vec::new(), old: self.parents.roots(self.ctx, self.trees) }];
        let mut walker = Walker { streams: self, feed, levels, last: Vec::new() };
        for stream in streams {
            walker.stream(stream?)?;
        }
        while walker.levels.len() > 1 {
            walker.leave()?;
        }
        walker.feed.close()
    }
}

impl Walker<'_> {
    fn stream(&mut self, stream: Stream) -> Result<()> {
        let parts = self.parts(&stream.path)?;
        let Some((name, folders)) = parts.split_last() else { return Ok(()) };
        let open = self.levels[1..].iter().zip(folders).take_while(|(level, part)| level.name == **part).count();
        while self.levels.len() > open + 1 {
            self.leave()?;
        }
        for folder in &folders[open..] {
            let ids = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
            self.enter(folder.to_vec(), 0o755, ids, self.streams.time, true)?;
        }
        let (name, ids, mtime) = (name.to_vec(), (stream.uid, stream.gid), stream.mtime);
        match stream.kind {
            StreamKind::Folder => self.enter(name, stream.mode, ids, mtime, false)?,
            StreamKind::File { size, failure, open } => {
                let node = self.streams.nodes.made(name, stream.mode, ids, mtime, Content::File(Vec::new()));
                let old = self.seek(&node.name)?.into_iter().flatten().next().map(|found| Box::new(found.node));
                let (path, pieces) = (stream.path.clone(), Vec::new());
                let job = StreamJob { path, node, old, size, failure, open: Some(open), pieces };
                self.feed.met(size.unwrap_or_default());
                // Nobody knows how long an unmeasured one takes: it goes at once.
                self.feed.read(Item::Stream(Box::new(job)), size.unwrap_or(batcher::BYTES))?;
            }
        }
        self.last = stream.path;
        Ok(())
    }

    /// The parts of a path that is allowed to come now.
    fn parts<'p>(&self, path: &'p [u8]) -> Result<Vec<&'p [u8]>> {
        let text = |path| String::from_utf8_lossy(path).into_owned();
        let parts: Vec<&[u8]> = path.strip_prefix(b"/").unwrap_or_default().split(|byte| *byte == b'/').collect();
        if parts.len() > limits::DEPTH || !parts.iter().all(|part| valid_name(part)) {
            return Err(Error::new(Kind::Usage, format!("not an absolute path of a file: {}", text(path))));
        }
        if !self.last.is_empty() && crate::push::read::stream::tree_order(&self.last, path).is_ge() {
            let (path, last) = (text(path), text(&self.last));
            return Err(Error::failed(format!("streams must come in the order of the tree: {path} after {last}")));
        }
        // The last one is an open folder, or else a file.
        let below = path.strip_prefix(self.last.as_slice()).is_some_and(|rest| rest.starts_with(b"/"));
        let depth = self.last.iter().filter(|byte| **byte == b'/').count();
        if below && !self.last.is_empty() && self.levels.len() <= depth {
            let (path, last) = (text(path), text(&self.last));
            return Err(Error::failed(format!("{last} is a file, so there cannot be {path}")));
        }
        Ok(parts)
    }

    fn seek(&mut self, name: &[u8]) -> Result<Vec<Option<Found>>> {
        let Some(level) = self.levels.last_mut() else { return Ok(Vec::new()) };
        self.feed.seek(self.streams.parents, &mut level.old, name)
    }

    fn enter(&mut self, name: Vec<u8>, mode: u16, ids: (u32, u32), mtime: Time, passage: bool) -> Result<()> {
        let found = self.seek(&name)?;
        let old = self.levels.last().map_or(&[][..], |level| &level.old);
        let old = old.iter().zip(&found).filter_map(|(old, found)| old.below(found.as_ref()?)).collect();
        let node = self.streams.nodes.made(name.clone(), mode, ids, mtime, Content::Directory(None));
        self.levels.push(Level { name, old });
        let old = found.into_iter().flatten().next().map(|found| found.node);
        self.feed.push(Item::Enter(Box::new(Enter { node, passage, old })))
    }

    fn leave(&mut self) -> Result<()> {
        self.levels.pop();
        self.feed.push(Item::Leave)
    }
}
