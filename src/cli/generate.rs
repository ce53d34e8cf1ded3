//! Files for the installation: completions of shells, and man pages, generated from the definition of the arguments.

use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

use super::completion;
use super::exit::OK;
use super::options::JsonArgs;
use super::output::{self, Output};
use crate::error::{Error, Result};

/// A file or folder for each kind, as in restic.
#[derive(clap::Args)]
#[group(required = true, multiple = true)]
struct Wanted {
    /// Write completions for bash into FILE; `-` is standard output
    #[arg(long, value_name = "FILE")]
    bash_completion: Option<PathBuf>,
    /// Write completions for zsh into FILE
    #[arg(long, value_name = "FILE")]
    zsh_completion: Option<PathBuf>,
    /// Write completions for fish into FILE
    #[arg(long, value_name = "FILE")]
    fish_completion: Option<PathBuf>,
    /// Write a man page for each command into DIR
    #[arg(long, value_name = "DIR")]
    man: Option<PathBuf>,
}

#[derive(clap::Args)]
#[command(override_usage = "nfreezer generate [OPTIONS]")]
pub struct Args {
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    pub(super) output: JsonArgs,
}

/// Writes the files.
pub fn run(args: &Args) -> Result<u8> {
    let (wanted, mut out, mut made) = (&args.wanted, Output::new(args.output.json), Vec::new());
    let mut to_output = false;
    let shells = [
        (&wanted.bash_completion, Shell::Bash),
        (&wanted.zsh_completion, Shell::Zsh),
        (&wanted.fish_completion, Shell::Fish),
    ];
    for (file, shell) in shells.iter().filter_map(|(file, shell)| Some((file.as_deref()?, *shell))) {
        let text = completions(shell);
        if file == Path::new("-") {
            to_output = true;
            out.line(text.trim_end())?;
        } else {
            write(file, text.as_bytes())?;
            made.push(file.display().to_string());
        }
    }
    if let Some(folder) = &wanted.man {
        fs::create_dir_all(folder).map_err(|e| Error::io(format!("make {}", folder.display()), e))?;
        clap_mangen::generate_to(super::Cli::command(), folder)
            .map_err(|e| Error::io(format!("write man pages into {}", folder.display()), e))?;
        made.push(format!("man pages in {}", folder.display()));
    }
    // Standard output may be a file of completions.
    let texts = if to_output { &[] } else { &made[..] };
    texts.iter().try_for_each(|file| out.line(format_args!("wrote {file}")))?;
    out.object("summary", output::object(json!({ "files": made })))?;
    out.flush().map(|()| OK)
}

fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(file, bytes).map_err(|e| Error::io(format!("write {}", file.display()), e))
}

fn completions(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut super::Cli::command(), "nfreezer", &mut text);
    let text = String::from_utf8_lossy(&text);
    match shell {
        Shell::Bash => format!("{text}{}", completion::BASH),
        Shell::Fish => format!("{text}{}", completion::FISH),
        // The file is the body of a function, and its last lines call it.
        _ => {
            let renamed = text.replace("\n_nfreezer() {", "\n_nfreezer_options() {");
            renamed.replace("\nif [ \"$funcstack[1]\"", &format!("\n{}\nif [ \"$funcstack[1]\"", completion::ZSH))
        }
    }
}
