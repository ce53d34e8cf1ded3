//! Names a repository in the warnings about it, if a push writes to several.

use crate::context::Context;
use crate::progress::{Event, Progress};

/// Receives the events of one repository and passes them on.
pub(super) struct Named<'p> {
    outer: Context<'p>,
    name: &'p str,
}

impl<'p> Named<'p> {
    /// Names the repository in the warnings that `ctx` gets, unless `name` is empty.
    pub fn new(ctx: &Context<'p>, name: &'p str) -> Self {
        Named { outer: ctx.clone(), name }
    }
}

impl Progress for Named<'_> {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Warning { text } if !self.name.is_empty() => self.outer.warn(&format!("{}: {text}", self.name)),
            Event::Detail { text } if !self.name.is_empty() => {
                self.outer.event(Event::Detail { text: &format!("{}: {text}", self.name) });
            }
            event => self.outer.event(event),
        }
    }
}
