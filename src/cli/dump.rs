//! `nfreezer dump`: writes a file, or a folder as an archive, to standard output.

use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal};

use clap::ValueEnum;

use super::exit::{CLOSED_PIPE, OK};
use super::filter::FilterArgs;
use super::open::to_read_at;
use super::options::{OutputArgs, ReadArgs};
use super::output::{self, Output};
use super::{escape, human, signals, warnings};
use crate::dump::{self, Format, Summary};
use crate::error::{Error, Kind, Result};
use crate::format::node::{Content, Node, PARTIAL};
use crate::progress::{Event, Progress};
use crate::trees::Trees;

/// Bytes that are written at once.
const BUFFER: usize = 256 << 10;

/// Arguments of `dump`.
#[derive(clap::Args)]
pub struct Args {
    /// The snapshot (an id, `latest`, `latest~N`) and a path in it
    ///
    /// The contents of a file are written as they are, a folder as an archive with paths relative to it.
    #[arg(value_name = "SNAPSHOT:PATH")]
    what: OsString,
    /// The form in which a folder is written
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    archive: FormatArg,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    repository: ReadArgs,
    /// No summary on standard error
    #[arg(short, long, help_heading = "Output")]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// owners, extended attributes, holes and hard links are kept
    #[default]
    Tar,
    /// only modes, times and symbolic links are kept
    Zip,
}

/// Prints the warnings of a dump.
struct Warnings;

impl Progress for Warnings {
    fn event(&self, event: Event<'_>) {
        if let Event::Warning { text } = event {
            warnings::warn(false, text);
        }
    }
}

/// Writes the contents. The exit code is 141 if the reader closes standard output before the end.
pub fn run(args: &Args) -> Result<u8> {
    let output = OutputArgs { json: false, quiet: args.quiet };
    let (repo, snapshot, path) =
        to_read_at(&args.what, &args.filter, &args.repository, output, &mut Output::new(false))?;
    let trees = Trees::new(&repo);
    let node = trees.at(signals::context(), &snapshot, &path)?;
    let ctx = signals::catch().with_progress(&Warnings);
    let mut out = BufWriter::with_capacity(BUFFER, io::stdout());
    let is_archive = matches!(node.content, Content::Directory(_));
    let written = match &node.content {
        Content::Directory(top) => {
            refuse_terminal(args)?;
            let format = if args.archive == FormatArg::Zip { Format::Zip } else { Format::Tar };
            dump::archive(&ctx, &trees, *top, format, &mut out)
        }
        Content::File(_) | Content::Large { .. } => {
            if node.flags & PARTIAL != 0 {
                warnings::warn(false, &format!("{} was not saved to its end", escape::text(&path)));
            }
            let size = node.content.size();
            let done = dump::file(&ctx, &trees, node, &mut out);
            done.map(|()| Summary { files: 1, bytes: size, ..Summary::default() })
        }
        _ => return Err(no_contents(&node, &path)),
    };
    // The buffer is dropped unwritten: nothing may follow an error.
    let _ = out.into_parts();
    match written {
        Ok(summary) => {
            if !args.quiet && is_archive {
                let (files, bytes) = (human::count(summary.files, "file"), human::size(summary.bytes));
                output::notice(format_args!("dumped {files}, {bytes} of snapshot {}", snapshot.id.short()));
            }
            Ok(OK)
        }
        Err(e) if e.kind() == Kind::Cancelled => Ok(CLOSED_PIPE),
        Err(e) if e.kind().is_damage() => Err(Error::new(e.kind(), format!("the output is incomplete: {e}"))
            .hint(e.hint_text().unwrap_or("`nfreezer check` finds all damage"))),
        Err(e) => Err(e),
    }
}

fn refuse_terminal(args: &Args) -> Result<()> {
    if !io::stdout().is_terminal() {
        return Ok(());
    }
    let what = escape::text(args.what.as_encoded_bytes());
    Err(Error::new(Kind::Usage, "an archive is not written to a terminal")
        .hint(format!("use `nfreezer dump {what} > archive.tar`, or `| tar -x`")))
}

fn no_contents(node: &Node, path: &[u8]) -> Error {
    let kind = super::node::kind(&node.content);
    let text = format!("{} has no contents: it is saved as {kind}", escape::text(path));
    Error::failed(text).hint("dump the folder that holds it, or use `nfreezer restore`")
}
