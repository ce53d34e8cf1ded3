//! A dry run: reports and counts the entries that a restore would write, and writes nothing.

use std::collections::HashSet;
use std::sync::Mutex;

use super::dir::Held;
use super::file::File;
use super::{Run, add, reuse};
use crate::error::Result;
use crate::format::node::{Content, Node};
use crate::progress::{Change, Event};
use crate::trees::LinkKey;

/// The files of several names that were counted.
#[derive(Default)]
pub(super) struct Links(Mutex<HashSet<LinkKey>>);

/// Counts an entry that would be made. `replace`: something is in its place.
pub(super) fn entry(run: &Run<'_>, held: &Held, node: Node, replace: bool) -> Result<()> {
    if let Some(key) = LinkKey::of(&node)
        && !run.dry_links.0.lock().expect("no holder panics").insert(key)
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

/// Reports an entry that would be written.
pub(super) fn report(run: &Run<'_>, path: &[u8], replace: bool) {
    let change = if replace { Change::Overwrite } else { Change::Write };
    run.ctx().event(Event::Changed { path, change, dry_run: true });
}
