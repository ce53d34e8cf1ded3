//! The second transport: child processes `ssh -s HOST sftp`, each of which is one SFTP channel. They bring everything that
//! OpenSSH can do (jump hosts, security keys, certificates, GSSAPI) and take less CPU than libssh2.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use crate::storage::sftp::link::{Grow, Link};
use crate::storage::sftp::printable;

/// Buffer of the socket to a child, each way; the system may give less.
const BUFFER: usize = 1 << 20;
/// Bytes of a child's stderr that are kept.
const STDERR: usize = 4096;
/// Time that a child whose stream has ended has to print the reason.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A Ctrl-C reaches all programs of the terminal; the children must live on while a push writes its last record. Signals that
/// are ignored stay so over `exec`, and `ssh` respects that.
const DEAF: &str = r#"trap '' INT QUIT HUP; exec "$@""#;

/// The command line of a child.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program and its arguments for the first process, which may ask for secrets at the terminal.
    pub first: Vec<String>,
    /// The same for the others, which must not.
    pub more: Vec<String>,
}

struct Process {
    child: Child,
    socket: UnixStream,
    stderr: Arc<Mutex<Vec<u8>>>,
    /// Ends when no process has the child's stderr open any more.
    reader: JoinHandle<()>,
    blocked: bool,
}

impl Process {
    fn end(mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The children of one connection.
pub struct Children {
    program: Program,
    /// `None` where one was closed.
    processes: Vec<Option<Process>>,
}

impl Children {
    /// Starts no process yet.
    pub fn none(program: Program) -> Self {
        Children { program, processes: Vec::new() }
    }

    /// Starts the first process.
    pub fn start(program: Program) -> io::Result<Self> {
        let first = spawn(&program.first)?;
        Ok(Children { program, processes: vec![Some(first)] })
    }
}

fn spawn(words: &[String]) -> io::Result<Process> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    for socket in [&ours, &theirs] {
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(socket, BUFFER);
    }
    let input = OwnedFd::from(theirs);
    let output = input.try_clone()?;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", DEAF, "sh"]).args(words).stdin(input).stdout(output).stderr(Stdio::piped());
    // Other programs must not see the passphrase.
    for name in ["NFREEZER_PASSWORD", "NFREEZER_PASSWORD_FILE", "NFREEZER_PASSWORD_COMMAND"] {
        command.env_remove(name);
    }
    let mut child = command.spawn()?;
    drop(command); // it holds the other ends
    let stderr = Arc::new(Mutex::new(Vec::new()));
    let (pipe, kept) = (child.stderr.take(), Arc::clone(&stderr));
    let reader = std::thread::Builder::new().name("ssh stderr".into()).spawn(move || {
        let Some(mut pipe) = pipe else { return };
        let mut buffer = [0; 512];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            let mut kept = kept.lock().expect("no holder panics");
            kept.extend_from_slice(&buffer[..count]);
            let surplus = kept.len().saturating_sub(STDERR);
            kept.drain(..surplus);
        }
    })?;
    Ok(Process { child, socket: ours, stderr, reader, blocked: false })
}

impl Link for Children {
    fn begin(&mut self) {
        self.processes.iter_mut().flatten().for_each(|process| process.blocked = false);
    }

    fn read(&mut self, channel: usize, into: &mut [u8]) -> io::Result<usize> {
        self.processes[channel].as_mut().map_or(Ok(0), |process| process.socket.read(into))
    }

    fn write(&mut self, channel: usize, from: &[u8]) -> io::Result<usize> {
        let Some(process) = &mut self.processes[channel] else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let written = process.socket.write(from);
        process.blocked |= matches!(&written, Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        written
    }

    fn grow(&mut self) -> Grow {
        match spawn(&self.program.more) {
            Ok(process) => {
                self.processes.push(Some(process));
                Grow::Opened
            }
            Err(_) => Grow::Refused,
        }
    }

    fn close(&mut self, channel: usize) {
        if let Some(process) = self.processes[channel].take() {
            process.end();
        }
    }

    fn eager(&self) -> bool {
        false
    }

    fn buffered(&self) -> bool {
        false
    }

    fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        for process in self.processes.iter().flatten() {
            let out = if process.blocked { PollFlags::OUT } else { PollFlags::empty() };
            fds.push(PollFd::new(&process.socket, PollFlags::IN | out));
        }
    }

    fn shutdown(&mut self, _: bool) {
        self.processes.drain(..).flatten().for_each(Process::end);
    }

    /// Returns the last line on stderr of a child that ended; a child that just closed its stream gets a moment to
    /// print the reason. It is not waited for longer, since a process it leaves behind (a master of ControlPersist) may
    /// keep stderr open.
    fn complaint(&mut self) -> Option<String> {
        for process in self.processes.iter_mut().flatten() {
            let since = Instant::now();
            while !process.reader.is_finished() && since.elapsed() < LAST_WORDS {
                std::thread::sleep(Duration::from_millis(2));
            }
            let text = printable_lines(&process.stderr.lock().expect("no holder panics"));
            if text.is_some() {
                return text;
            }
        }
        None
    }
}

fn printable_lines(bytes: &[u8]) -> Option<String> {
    let lines = bytes.split(|byte| *byte == b'\n' || *byte == b'\r').map(printable);
    let lines: Vec<String> = lines.map(|line| line.trim().to_string()).filter(|line| !line.is_empty()).collect();
    let tail = &lines[lines.len().saturating_sub(2)..];
    (!tail.is_empty()).then(|| tail.join("; "))
}

/// Splits a command line into words: blanks part them, quotes and backslashes keep. No shell, no variables.
pub fn command_words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => word.get_or_insert_default().push(chars.next()?),
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    (quote.is_none() && !words.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_split_as_a_shell_would_but_nothing_is_expanded() {
        let split = |line| command_words(line).unwrap_or_default().join("|");
        assert_eq!(split(r#"ssh -o "a b" 'c $d' e\ f -s  h"#), r"ssh|-o|a b|c $d|e f|-s|h");
        assert_eq!(split("x ''"), "x|");
        for bad in ["", "  ", "a 'b", "a \\"] {
            assert_eq!(command_words(bad), None, "{bad:?}");
        }
    }
}
