//! Selects the snapshot that a user names.

use jiff::Timestamp;

use super::{State, latest_first, now};
use crate::error::{Error, Kind, Result};
use crate::format::record::Snapshot;
use crate::moment::moment;

/// The hint for a wrong name of a forgotten snapshot.
const FORGOTTEN: &str = "`nfreezer snapshots --forgotten` lists the ids of forgotten snapshots";

impl State {
    /// Returns the snapshot named by `latest`, `latest~N`, the beginning of an id (at least 4 digits), or a moment such as
    /// `yesterday` or `2026-11-03`, which names the newest snapshot up to then. Digits that begin an id are an id.
    /// Partial snapshots are never `latest`, and snapshots from the future come after all others.
    pub fn select(&self, text: &str) -> Result<Snapshot> {
        self.select_where(text, |_| true)
    }

    /// Like [`State::select`], but `latest`, `latest~N` and moments count only wanted snapshots.
    pub fn select_where(&self, text: &str, wanted: impl Fn(&Snapshot) -> bool) -> Result<Snapshot> {
        let snapshots = self.snapshots();
        if let Some(back) = steps_back(text) {
            let found = latest_first(snapshots.iter(), now()).filter(|s| wanted(s)).nth(back).cloned();
            return found.ok_or_else(|| unknown(text));
        }
        if !is_id(text)
            && let Some(until) = moment(text, &jiff::Zoned::now())
        {
            return self.newest_until(text, until, wanted);
        }
        match by_id(snapshots, text)? {
            Some(found) => Ok(found),
            None => match moment(text, &jiff::Zoned::now()) {
                Some(until) => self.newest_until(text, until, wanted),
                None => Err(unknown(text)),
            },
        }
    }

    fn newest_until(&self, text: &str, until: Timestamp, wanted: impl Fn(&Snapshot) -> bool) -> Result<Snapshot> {
        let snapshots = self.snapshots();
        let is_earlier = |s: &&Snapshot| s.time.timestamp().is_some_and(|time| time <= until);
        let found = latest_first(snapshots.iter(), now()).filter(|s| wanted(s)).find(is_earlier).cloned();
        found.ok_or_else(|| {
            Error::failed(format!("no snapshot was taken up to {text}")).hint("`nfreezer snapshots` lists them")
        })
    }

    /// Like [`State::select_where`], for a reader: an id may be one of a forgotten snapshot, too.
    pub fn select_to_read(&self, text: &str, wanted: impl Fn(&Snapshot) -> bool) -> Result<Snapshot> {
        if is_id(text)
            && by_id(self.snapshots(), text)?.is_none()
            && let Some(forgotten) = by_id(self.forgotten(), text)?
        {
            return Ok(forgotten);
        }
        self.select_where(text, wanted)
    }

    /// Returns the forgotten snapshot named by the beginning of its id.
    pub fn select_forgotten(&self, text: &str) -> Result<Snapshot> {
        if !is_id(text) {
            return Err(Error::new(Kind::Usage, format!("not the id of a snapshot: {text}")).hint(FORGOTTEN));
        }
        if let Some(found) = by_id(self.forgotten(), text)? {
            return Ok(found);
        }
        let text = match by_id(self.snapshots(), text)? {
            Some(_) => format!("snapshot {text} is not forgotten"),
            None => format!("no forgotten snapshot {text}"),
        };
        Err(Error::failed(text).hint(FORGOTTEN))
    }
}

/// Returns N of `latest~N`, and 0 for `latest`; `None` for an id.
fn steps_back(text: &str) -> Option<usize> {
    match text.strip_prefix("latest")?.strip_prefix('~') {
        None => (text == "latest").then_some(0),
        Some(n) => n.parse().ok(),
    }
}

/// Returns whether a text can be the beginning of an id.
fn is_id(text: &str) -> bool {
    text.len() >= 4 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Returns the snapshot whose id begins with `text`, `None` if there is none.
fn by_id(snapshots: Vec<Snapshot>, text: &str) -> Result<Option<Snapshot>> {
    let prefix = text.to_ascii_lowercase();
    if !is_id(text) {
        let text = format!("not a snapshot: {text}");
        return Err(Error::new(Kind::Usage, text)
            .hint("give `latest`, `latest~N`, 4 or more digits of an id, or a time such as `yesterday`; a path follows a colon: latest:/home"));
    }
    let mut found = snapshots.into_iter().filter(|s| s.id.to_string().starts_with(&prefix));
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => {
            let text = format!("more than one snapshot begins with {text}");
            Err(Error::failed(text).hint("`nfreezer snapshots` lists them"))
        }
        (found, _) => Ok(found),
    }
}

fn unknown(text: &str) -> Error {
    Error::failed(format!("no snapshot {text}")).hint("`nfreezer snapshots` lists them")
}
