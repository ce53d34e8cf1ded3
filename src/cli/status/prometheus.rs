//! The state as a textfile for the node_exporter of Prometheus, in its text format 0.0.4.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Status;
use crate::cli::escape;
use crate::error::{Error, Kind, Result};
use crate::seen::Run;

/// Writes under a temporary name in the same folder, syncs and renames, so that no reader sees half of it.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let Some(name) = path.file_name() else {
        return Err(Error::new(Kind::Usage, format!("--prometheus: {} is not a file name", escape::path(path))));
    };
    // node_exporter reads only names that end with `.prom`.
    let mut new = std::ffi::OsString::from(".");
    new.push(name);
    new.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(new);
    let written = write_new(&new, text.as_bytes()).and_then(|()| fs::rename(&new, path));
    written.map_err(|e| {
        let _ = fs::remove_file(&new);
        Error::io(format!("write {}", escape::path(path)), e)
    })
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o644).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A metric with its samples, each with its labels.
struct Metric {
    name: &'static str,
    help: &'static str,
    samples: Vec<(String, i128)>,
}

/// Returns the text of the file.
pub fn text(status: &Status) -> String {
    let repository = label("repository", status.repository.as_bytes());
    let per_path = |value: fn(&super::Newest) -> i128| {
        let rows = status.newest.iter().flat_map(|row| row.paths.iter().map(move |path| (row, path)));
        rows.map(|(row, path)| {
            let host = label("host", row.snapshot.host.as_bytes());
            (format!("{repository},{host},{}", label("path", path)), value(row))
        })
        .collect()
    };
    let one = |value: Option<i128>| value.map(|value| (repository.clone(), value)).into_iter().collect();
    let runs = [("push", Run::Push), ("check", Run::Check), ("check_data", Run::CheckData), ("prune", Run::Prune)];
    let last = |(word, run): (&str, Run)| {
        let time = status.last(run)?;
        Some((format!("{repository},run=\"{word}\""), i128::from(time.seconds)))
    };
    [
        Metric {
            name: "nfreezer_snapshot_timestamp_seconds",
            help: "Time of the newest complete snapshot of a host and path.",
            samples: per_path(|row| row.time.seconds.into()),
        },
        Metric {
            name: "nfreezer_snapshot_files",
            help: "Files in the newest complete snapshot.",
            samples: per_path(|row| row.snapshot.stats.files.into()),
        },
        Metric {
            name: "nfreezer_snapshot_bytes",
            help: "Restore size of the newest complete snapshot.",
            samples: per_path(|row| row.snapshot.stats.bytes.into()),
        },
        Metric {
            name: "nfreezer_last_run_timestamp_seconds",
            help: "Time of the last successful run of this machine.",
            samples: runs.into_iter().filter_map(last).collect(),
        },
        Metric {
            name: "nfreezer_space_free_bytes",
            help: "Free space on the server.",
            samples: one(status.space.map(|space| space.free.into())),
        },
        Metric {
            name: "nfreezer_space_total_bytes",
            help: "Size of the file system on the server.",
            samples: one(status.space.map(|space| space.total.into())),
        },
        Metric {
            name: "nfreezer_status_timestamp_seconds",
            help: "Time of the last successful nfreezer status.",
            samples: one(Some(status.now.seconds.into())),
        },
    ]
    .iter()
    .map(Metric::text)
    .collect()
}

impl Metric {
    fn text(&self) -> String {
        if self.samples.is_empty() {
            return String::new();
        }
        let name = self.name;
        let mut text = format!("# HELP {name} {}\n# TYPE {name} gauge\n", self.help);
        self.samples.iter().for_each(|(labels, value)| text += &format!("{name}{{{labels}}} {value}\n"));
        text
    }
}

/// Returns a label. Its value is shown as everywhere, so bytes that are not UTF-8 are `\xff`, and then escaped.
fn label(name: &str, value: &[u8]) -> String {
    let value = escape::text(value).replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    format!("{name}=\"{value}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_end_early() {
        assert_eq!(label("path", b"/a b\"c\\d\xff\n"), r#"path="/a b\"c\\\\d\\xff\\n""#);
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nfreezer.prom");
        write(&path, "one").unwrap();
        write(&path, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write(Path::new("/"), "x").is_err() && write(&dir.path().join("no/file"), "x").is_err());
    }
}
