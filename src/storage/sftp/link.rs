//! The transport below the SFTP engine: a few byte streams ("channels") to as many SFTP servers on one machine,
//! none of which ever blocks. The engine's thread owns it.

use std::io;
use std::time::Duration;

use rustix::event::PollFd;

/// Byte streams to a server.
pub trait Link: Send {
    /// Begins a new round of reads and writes: forgets which of them would have blocked.
    fn begin(&mut self);

    /// Reads from a channel; `Ok(0)` is its end, `WouldBlock` that nothing is there.
    fn read(&mut self, channel: usize, into: &mut [u8]) -> io::Result<usize>;

    /// Writes to a channel. After `WouldBlock` the same bytes are offered again before any others (libssh2 insists).
    fn write(&mut self, channel: usize, from: &[u8]) -> io::Result<usize>;

    /// Makes a step towards one more channel.
    fn grow(&mut self) -> Grow;

    /// Returns the number of channels for bulk data that [`Link::grow`] opens from now on, instead of others; 0 for none yet.
    /// `moved` bytes have passed on the connection, and `round_trip` is its shortest one.
    fn bulk(&mut self, _moved: u64, _round_trip: Duration) -> usize {
        0
    }

    /// Closes a channel that never began to speak. Nothing is read from it or written to it any more.
    fn close(&mut self, channel: usize);

    /// Returns whether more channels are opened at once, not only when those there are busy.
    fn eager(&self) -> bool;

    /// Returns whether bytes wait that no poll would show.
    fn buffered(&self) -> bool;

    /// Adds the descriptors to poll until the next round.
    fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>);

    /// Ends everything at once, without waiting for the server; `lost` if the connection is broken or not to be trusted.
    fn shutdown(&mut self, lost: bool);

    /// Returns the transport's reason for a failure, in one line.
    fn complaint(&mut self) -> Option<String>;
}

/// The outcome of [`Link::grow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grow {
    /// One more channel is there; its number is the count of those before.
    Opened,
    /// Ask again in the next round.
    Pending,
    /// The server allows no further one.
    Refused,
}
