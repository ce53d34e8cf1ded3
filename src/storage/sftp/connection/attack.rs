//! Requests that change objects, which a thief of the access would send. Refusals are no errors here.

use super::{OPEN, OpenFile, SftpConnection};
use crate::context::Context;
use crate::name::Name;
use crate::storage::Attack;
use crate::storage::net::Fault;
use crate::storage::sftp::packet::{self, Reply, Request};
use crate::storage::sftp::session::SMALL;

impl SftpConnection {
    /// Tries to change an object in the ways of `attack`.
    pub fn attack(&self, ctx: &Context, name: &Name, attack: Attack) -> Result<(), Fault> {
        let path = self.path(&name.path());
        let from = path.as_bytes();
        match attack {
            Attack::Overwrite => self.overwrite(ctx, from),
            Attack::Rename(to) => {
                let to = self.path(&to.path());
                self.try_one(ctx, Request::new(packet::RENAME).string(from).string(to.as_bytes()))?;
                self.try_one(ctx, Request::extended("posix-rename@openssh.com").string(from).string(to.as_bytes()))
            }
            Attack::Link(to) => {
                let to = self.path(&to.path());
                self.try_one(ctx, Request::extended("hardlink@openssh.com").string(from).string(to.as_bytes()))
            }
        }
    }

    fn overwrite(&self, ctx: &Context, path: &[u8]) -> Result<(), Fault> {
        self.try_one(ctx, Request::new(packet::SETSTAT).string(path).mode(0o600))?;
        self.try_one(ctx, Request::extended("lsetstat@openssh.com").string(path).mode(0o600))?;
        for flags in [packet::FOR_READING, packet::FOR_WRITING] {
            if let Some(file) = self.open_as(ctx, path, flags)? {
                // A handle is valid on its channel only.
                let mut call = self.session.call_on(ctx, file.channel);
                let write = Request::new(packet::WRITE).string(&file.handle).u64(0).string(b"x");
                call.ask(write, |_| Ok(()))?;
                call.ask(Request::new(packet::FSETSTAT).string(&file.handle).size(1), |_| Ok(()))?;
            }
        }
        self.try_one(ctx, Request::new(packet::SETSTAT).string(path).size(1))
    }

    /// Opens a file with these flags; `None` if that is refused.
    fn open_as(&self, ctx: &Context, path: &[u8], flags: u32) -> Result<Option<OpenFile>, Fault> {
        let mut call = self.session.call(ctx);
        let open = Request::new(packet::OPEN).string(path).u32(flags).u32(0);
        let guess = call.open_with(OPEN, open, (SMALL, SMALL), |_| Vec::new())?;
        let (_, answer) = call.receive()?;
        let handle = match call.decode(&answer)? {
            Reply::Handle(handle) => Some(handle.to_vec()),
            _ => None,
        };
        call.opened(guess.as_deref(), handle.as_deref(), false);
        let shared = std::sync::Arc::downgrade(&self.session.shared);
        Ok(handle.map(|handle| OpenFile { channel: call.channel, handle, shared }))
    }

    /// Sends a request; the answer does not matter.
    fn try_one(&self, ctx: &Context, request: Request) -> Result<(), Fault> {
        self.session.call(ctx).ask(request, |_| Ok(()))
    }
}
