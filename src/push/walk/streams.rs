//! Walks streams, in step with the parents as [`super::walker`] does. Adds the directories above them.

use std::iter::repeat_n;
use std::ops::Range;

use super::batcher::{self, Batcher};
use super::destination::{self, Destination};
use crate::error::{Error, Kind, Result};
use crate::format::limits;
use crate::format::node::{Content, Node, valid_name};
use crate::push::compare::old::{OldDirectory, OldNode};
use crate::push::read::attributes::{Made, Nodes};
use crate::push::read::item::{Enter, Item, Other, StreamJob};
use crate::push::read::stream::{Opener, Stream, StreamKind, tree_order};
use crate::time::Time;

/// The inputs of a walk over streams.
pub struct Streams<'w> {
    pub destinations: &'w [Destination<'w>],
    pub nodes: &'w Nodes,
    /// The time of the snapshot, for directories that are not streams themselves.
    pub time: Time,
}

struct StreamWalker<'w> {
    streams: Streams<'w>,
    batcher: Batcher<'w>,
    /// The open directories, the root first.
    levels: Vec<StreamLevel<'w>>,
    /// The path of the last stream.
    last: Vec<u8>,
}

/// An open directory.
struct StreamLevel<'w> {
    name: Vec<u8>,
    old: Vec<OldDirectory<'w>>,
}

impl<'w> Streams<'w> {
    /// Walks all streams and closes the queue.
    pub fn run(self, streams: &mut dyn Iterator<Item = Result<Stream>>, batcher: Batcher<'w>) -> Result<()> {
        let levels = vec![StreamLevel { name: Vec::new(), old: destination::roots(self.destinations) }];
        let mut walker = StreamWalker { streams: self, batcher, levels, last: Vec::new() };
        for stream in streams {
            walker.stream(stream?)?;
            walker.batcher.send_if_full()?;
        }
        while walker.levels.len() > 1 {
            walker.leave()?;
        }
        walker.batcher.close()
    }
}

impl StreamWalker<'_> {
    fn stream(&mut self, stream: Stream) -> Result<()> {
        let parts = self.parts(&stream.path)?;
        let Some((name, above)) = parts.split_last() else { return Ok(()) };
        self.go_to(above)?;
        let name = name.to_vec();
        let attributes = Made { name, mode: stream.mode, uid: stream.uid, gid: stream.gid, mtime: stream.mtime };
        self.last.clone_from(&stream.path);
        match stream.kind {
            StreamKind::Folder => self.enter(attributes, false),
            StreamKind::File { size, failure, open } => {
                let node = self.streams.nodes.made(attributes, Content::File(Vec::new()));
                let found = self.seek(&node.name)?;
                let path = stream.path;
                let job = |(destination, node): (usize, Node)| {
                    let old = OldNode::newest(&found[self.places(destination)]).map(Box::new);
                    let (path, others, pieces) = (path.clone(), Vec::new(), Vec::new());
                    StreamJob { destination, others, path, node, old, size, failure, open: None, pieces }
                };
                let jobs = repeat_n(node, self.streams.destinations.len()).enumerate().map(job);
                self.read(jobs.collect(), open, size)
            }
        }
    }

    /// Sends the jobs of a stream to the workers. The first one opens it.
    fn read(&mut self, jobs: Vec<StreamJob>, open: Opener, size: Option<u64>) -> Result<()> {
        let mut jobs = jobs.into_iter();
        let Some(mut first) = jobs.next() else { return Ok(()) };
        first.others = jobs.map(|job| Other { destination: job.destination, at: 0, job: Box::new(job) }).collect();
        first.open = Some(open);
        self.batcher.met(size.unwrap_or_default());
        // A stream of unknown size may take long, so its batch is sent at once.
        self.batcher.read(first.destination, &mut first.others, size.unwrap_or(batcher::BYTES));
        self.batcher.push(first.destination, Item::Stream(Box::new(first)));
        Ok(())
    }

    /// Returns the places of a destination among the nodes that were found in the parents.
    fn places(&self, destination: usize) -> Range<usize> {
        self.levels.last().map_or(0..0, |level| OldDirectory::places(&level.old, destination))
    }

    /// Leaves and enters directories until the one with these parts is the current one.
    fn go_to(&mut self, parts: &[&[u8]]) -> Result<()> {
        let open = self.levels[1..].iter().zip(parts).take_while(|(level, part)| level.name == **part).count();
        while self.levels.len() > open + 1 {
            self.leave()?;
        }
        for part in &parts[open..] {
            let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
            let made = Made { name: part.to_vec(), mode: 0o755, uid, gid, mtime: self.streams.time };
            self.enter(made, true)?;
        }
        Ok(())
    }

    /// Splits a path. Fails if the path may not come after the last one.
    fn parts<'p>(&self, path: &'p [u8]) -> Result<Vec<&'p [u8]>> {
        let parts: Vec<&[u8]> = path.strip_prefix(b"/").unwrap_or_default().split(|byte| *byte == b'/').collect();
        if parts.len() > limits::DEPTH || !parts.iter().all(|part| valid_name(part)) {
            return Err(Error::new(Kind::Usage, format!("not an absolute path of a file: {}", text(path))));
        }
        if !self.last.is_empty() && tree_order(&self.last, path).is_ge() {
            let (path, last) = (text(path), text(&self.last));
            return Err(Error::failed(format!("streams must come in the order of the tree: {path} after {last}")));
        }
        // The last path is an open directory, or a file.
        let below = path.strip_prefix(self.last.as_slice()).is_some_and(|rest| rest.starts_with(b"/"));
        let depth = self.last.iter().filter(|byte| **byte == b'/').count();
        if below && !self.last.is_empty() && self.levels.len() <= depth {
            let (path, last) = (text(path), text(&self.last));
            return Err(Error::failed(format!("{last} is a file, so there cannot be {path}")));
        }
        Ok(parts)
    }

    fn seek(&mut self, name: &[u8]) -> Result<Vec<Option<OldNode>>> {
        let Some(level) = self.levels.last_mut() else { return Ok(Vec::new()) };
        self.batcher.seek(&mut level.old, name)
    }

    fn enter(&mut self, made: Made, passage: bool) -> Result<()> {
        let found = self.seek(&made.name)?;
        let name = made.name.clone();
        let node = self.streams.nodes.made(made, Content::Directory(None));
        for (destination, node) in repeat_n(node, self.streams.destinations.len()).enumerate() {
            let old = OldNode::newest(&found[self.places(destination)]);
            self.batcher.push(destination, Item::Enter(Box::new(Enter { node, passage, old })));
        }
        let above = self.levels.last().map_or(&[][..], |level| &level.old);
        let old = above.iter().zip(&found).filter_map(|(old, found)| old.below(found.as_ref()?)).collect();
        self.levels.push(StreamLevel { name, old });
        self.batcher.send_if_full()
    }

    fn leave(&mut self) -> Result<()> {
        self.levels.pop();
        self.batcher.leave();
        self.batcher.send_if_full()
    }
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
