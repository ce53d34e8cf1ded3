//! Removes many objects by one request (DeleteObjects). The crate's own function panics if an answer names another object.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Method;

use super::client::Client;
use super::errors::Refusal;
use super::signed::Ask;
use super::xml::{elements, escaped, is_whole, text};
use crate::context::Context;
use crate::error::{Error, Kind};
use crate::name::Name;
use crate::storage::net::Fault;

/// Most objects of a request, by the protocol.
pub const MOST: usize = 1000;

/// An answer about a batch.
pub struct Removed {
    /// Objects that the store refuses to remove, by its answer.
    pub refused: Vec<(Name, Error)>,
    /// Objects that the answer does not settle: not named, or to be tried again.
    pub open: Vec<Name>,
}

impl Client {
    /// Removes up to [`MOST`] objects. `None` if the store cannot do so by one request.
    pub fn remove_batch(&self, ctx: &Context, names: &[Name]) -> Result<Option<Removed>, Fault> {
        let objects: String = names
            .iter()
            .map(|name| format!("<Object><Key>{}</Key></Object>", escaped(&self.key(&name.path()))))
            .collect();
        let body = format!("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{objects}</Delete>");
        let ask = Ask { method: Method::POST, target: "?delete=".into(), body: Bytes::from(body) };
        // A store that refuses every request refuses the ones for single objects too.
        let Some(answer) = self.ask(ctx, ask, "remove", "objects")? else { return Ok(None) };
        let answer = String::from_utf8_lossy(&answer);
        Ok(is_whole(&answer, "DeleteResult").then(|| self.removed(names, &answer)))
    }

    /// Sorts objects by an answer about them. Other objects in the answer are ignored.
    fn removed(&self, names: &[Name], answer: &str) -> Removed {
        let mut open: BTreeMap<String, Name> = names.iter().map(|name| (self.key(&name.path()), *name)).collect();
        let mut refused = Vec::new();
        for error in elements(answer, "Error") {
            let Some(name) = text(error, "Key").and_then(|key| open.get(&key).copied()) else { continue };
            if let Fault::Final(e) = Refusal::of_object(error).fault("remove", &name.path()) {
                open.remove(&self.key(&name.path()));
                if e.kind() != Kind::Missing {
                    refused.push((name, e));
                }
            }
        }
        for key in elements(answer, "Deleted").filter_map(|deleted| text(deleted, "Key")) {
            open.remove(&key);
        }
        Removed { refused, open: open.into_values().collect() }
    }
}
