//! A dry run: reports and counts the entries that a restore would write, and writes nothing.

use std::collections::HashMap;
use std::sync::Mutex;

use super::dir::{self, Held, Identity};
use super::file::File;
use super::{Run, add, attributes, local, reuse};
use crate::error::Result;
use crate::format::node::{Content, Node};
use crate::progress::{Change, Event};
use crate::trees::LinkKey;

/// The files of several names that were counted, with the identity of the entry that has their first name.
#[derive(Default)]
pub(super) struct Links(Mutex<HashMap<LinkKey, Option<Identity>>>);

impl Links {
    /// Returns the identity of the entry that has the first name of a file; `None` if this is the first name.
    fn meet(&self, key: LinkKey, here: Option<Identity>) -> Option<Option<Identity>> {
        let mut met = self.0.lock().expect("no holder panics");
        let first = met.get(&key).copied();
        met.entry(key).or_insert(here);
        first
    }
}

/// Meets a name of a file that is compared with the existing one. Returns whether it is the first one; counts others.
pub(super) fn is_compared(run: &Run<'_>, held: &Held, node: &Node, key: LinkKey) -> Result<bool> {
    let here = held.stat(&node.name).ok().flatten().map(|stat| dir::identity(&stat));
    let Some(first) = run.dry_links.meet(key, here) else { return Ok(true) };
    if first == here
        && let Some(fd) = local::compare(run, held, node)?
        && attributes::are_set(run, &fd, node, &|| held.path(&node.name))
    {
        add(&run.tally.existing, 1);
        run.ctx().event(Event::Unchanged { files: 1, bytes: node.content.size() });
        return Ok(false);
    }
    add(&run.tally.links, 1);
    report(run, &held.path(&node.name), true);
    Ok(false)
}

/// Counts an entry that would be made. `replace`: something is in its place.
pub(super) fn entry(run: &Run<'_>, held: &Held, node: Node, replace: bool) -> Result<()> {
    if let Some(key) = LinkKey::of(&node)
        && run.dry_links.meet(key, None).is_some()
    {
        add(&run.tally.links, 1);
        report(run, &held.path(&node.name), replace);
        return Ok(());
    }
    if matches!(node.content, Content::File(_) | Content::Large { .. }) {
        let file = File::new(held.clone(), node, replace, None);
        return contents(run, &file, false);
    }
    add(&run.tally.others, 1);
    report(run, &held.path(&node.name), replace);
    Ok(())
}

/// Counts a file that would be written, and the bytes that would be fetched for it. `reuse`: the existing file is cut.
pub(super) fn contents(run: &Run<'_>, file: &File, reuse: bool) -> Result<()> {
    let size = file.node.content.size();
    let (chunks, fetched) = reuse::missing(run, file, reuse)?;
    add(&run.tally.files, 1);
    add(&run.tally.bytes, size);
    add(&run.tally.reused, chunks);
    add(&run.tally.to_fetch, fetched);
    run.ctx().event(Event::Unchanged { files: 1, bytes: size });
    report(run, &file.path(), file.replace);
    Ok(())
}

/// Reports an entry that would be written, by its path in the target.
pub(super) fn report(run: &Run<'_>, path: &[u8], replace: bool) {
    let path = &run.paths.in_target(path);
    let change = if replace { Change::Overwrite } else { Change::Write };
    run.ctx().event(Event::Changed { path, change, dry_run: true });
}
