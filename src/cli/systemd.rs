//! Notifications to systemd (`sd_notify(3)`).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::escape;

/// The service manager, if this process was started by one that wants to hear of it.
pub struct Manager(Option<(UnixDatagram, SocketAddr)>);

impl Manager {
    /// Returns the socket that `NOTIFY_SOCKET` names: a path, or `@NAME` for an abstract socket.
    pub fn from_environment() -> Self {
        let name = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
        let address = match name.as_bytes() {
            [b'/', ..] => SocketAddr::from_pathname(&name),
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
            _ => return Manager(None),
        };
        Manager(UnixDatagram::unbound().ok().zip(address.ok()))
    }

    /// Sends a message to the manager, for example `READY=1`. A manager that does not listen is not an error.
    pub fn tell(&self, state: &str) {
        if let Some((socket, address)) = &self.0 {
            drop(socket.send_to_addr(state.as_bytes(), address));
        }
    }

    /// Sends a line for `systemctl status`.
    pub fn status(&self, text: &str) {
        self.tell(&format!("STATUS={}", escape::message(text)));
    }
}
