//! Standard input and the output of a command as sources. A push that is asked to stop does not wait for them.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use super::args::Args;
use crate::cli::{escape, standard, warnings};
use crate::error::{Error, Kind, Result};
use crate::push::{Failure, Opener, Stream, StreamKind};

/// Time that a read waits before it asks whether the push continues.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Time that a command has to end after it was asked to.
const GRACE: Duration = Duration::from_secs(2);

/// Returns the stream that the arguments ask for, if they do.
pub fn stream(args: &Args) -> Result<Option<Stream>> {
    let usage = |text: &str| Err(Error::new(Kind::Usage, text));
    let dash = args.sources.iter().filter(|source| *source == "-").count();
    let lists = [&args.files_from, &args.files_from_verbatim, &args.files_from_raw];
    let open: Opener = match (args.stdin_from_command, args.stdin || dash > 0) {
        (true, _) if args.sources.is_empty() => {
            return usage("--stdin-from-command needs a command: write it behind `--`");
        }
        (true, _) => {
            let (command, noted) = (args.sources.clone(), Noted::of(args));
            Box::new(move || Ok(Box::new(noted.reading(Output::start(&command)?, "the command wrote nothing"))))
        }
        (false, true) if args.sources.len() > dash || lists.iter().any(|lists| !lists.is_empty()) => {
            return usage("standard input is saved by itself: push other sources in another run");
        }
        (false, true) => {
            standard::claim_input(if args.stdin { "--stdin" } else { "the source -" })?;
            let noted = Noted::of(args);
            Box::new(move || Ok(Box::new(noted.reading(Patient(io::stdin()), "standard input is empty"))))
        }
        (false, false) => return Ok(None),
    };
    Ok(Some(Stream {
        path: path(args),
        mode: 0o644,
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
        mtime: args.time.unwrap_or_else(crate::repo::now),
        kind: StreamKind::File { size: None, failure: Failure::Fatal, open },
    }))
}

/// Returns the path of the stream in the snapshot.
fn path(args: &Args) -> Vec<u8> {
    let name = args.stdin_filename.as_bytes();
    if name.starts_with(b"/") { name.to_vec() } else { [b"/", name].concat() }
}

/// Names a stream in a warning.
struct Noted {
    path: String,
    json: bool,
}

impl Noted {
    fn of(args: &Args) -> Self {
        Noted { path: escape::text(&path(args)), json: args.progress.output.json }
    }

    /// Returns a reader that warns if the stream ends before its first byte, because a program before it may have failed.
    fn reading<R>(self, inner: R, why: &'static str) -> NotEmpty<R> {
        NotEmpty { inner, noted: Some(self), why }
    }
}

/// A stream that should not be empty.
struct NotEmpty<R> {
    inner: R,
    /// `None` once a byte was read or the warning was printed.
    noted: Option<Noted>,
    why: &'static str,
}

impl<R: Read> Read for NotEmpty<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if let Some(Noted { path, json }) = self.noted.take_if(|_| !buffer.is_empty())
            && n == 0
        {
            warnings::warn(json, &format!("{path} is an empty file: {}", self.why));
        }
        Ok(n)
    }
}

/// Reads the available bytes; [`io::ErrorKind::WouldBlock`] if there are none for a while.
struct Patient<F>(F);

impl<F: AsFd + Read> Read for Patient<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&WAIT))? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => self.0.read(buffer),
        }
    }
}

/// The output of a command. It ends without an error only if the command does.
struct Output {
    name: String,
    child: Child,
    stdout: Option<Patient<ChildStdout>>,
    status: Option<ExitStatus>,
}

impl Output {
    fn start(command: &[OsString]) -> Result<Self> {
        let Some((program, arguments)) = command.split_first() else { return Err(Error::failed("no command")) };
        let name = escape::text(program.as_bytes());
        let child = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|e| Error::io(format!("start the command `{name}`"), e))?;
        let stdout = child.stdout.take().map(Patient);
        Ok(Output { name, child, stdout, status: None })
    }

    /// Once it has closed its output: whether it ends well.
    fn end(&mut self) -> io::Result<usize> {
        let status = match self.status {
            Some(status) => status,
            None => match self.child.try_wait()? {
                Some(status) => *self.status.insert(status),
                None => {
                    std::thread::sleep(Duration::from_millis(10));
                    return Err(io::ErrorKind::WouldBlock.into());
                }
            },
        };
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(0),
            (Some(code), _) => Err(self.failed(format_args!("ended with exit status {code}"))),
            (None, signal) => Err(self.failed(format_args!("was ended by signal {}", signal.unwrap_or_default()))),
        }
    }

    fn failed(&self, how: std::fmt::Arguments<'_>) -> io::Error {
        let error = Error::failed(format!("the command `{}` {how}", self.name));
        io::Error::other(error.hint("no snapshot was made: what it wrote may be incomplete"))
    }
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.stdout {
            Some(stdout) => match stdout.read(buffer)? {
                0 => {
                    self.stdout = None;
                    self.end()
                }
                n => Ok(n),
            },
            None => self.end(),
        }
    }
}

impl Drop for Output {
    /// A command that is not needed any more is ended.
    fn drop(&mut self) {
        self.stdout = None;
        if self.status.is_some() || !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let asked = Instant::now();
        while asked.elapsed() < GRACE {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                _ => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
