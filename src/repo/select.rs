//! Selects the snapshot that a user names.

use super::{State, latest_first, now};
use crate::error::{Error, Kind, Result};
use crate::format::record::Snapshot;

impl State {
    /// Returns the snapshot named by `latest`, `latest~N`, or the beginning of an id (at least 4 digits).
    /// Partial snapshots are never `latest`, and snapshots from the future come after all others.
    pub fn select(&self, text: &str) -> Result<Snapshot> {
        self.select_where(text, |_| true)
    }

    /// Like [`State::select`], but `latest` and `latest~N` count only wanted snapshots.
    pub fn select_where(&self, text: &str, wanted: impl Fn(&Snapshot) -> bool) -> Result<Snapshot> {
        let snapshots = self.snapshots();
        let hint = "`nfreezer snapshots` lists them";
        if let Some(rest) = text.strip_prefix("latest") {
            let back = match rest.strip_prefix('~') {
                None if rest.is_empty() => Some(0),
                n => n.and_then(|n| n.parse::<usize>().ok()),
            };
            if let Some(back) = back {
                let found = latest_first(snapshots.iter(), now()).filter(|s| wanted(s)).nth(back).cloned();
                return found.ok_or_else(|| Error::failed(format!("no snapshot {text}")).hint(hint));
            }
        }
        let prefix = text.to_ascii_lowercase();
        if prefix.len() < 4 || !prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
            let text = format!("not a snapshot: {text}");
            return Err(Error::new(Kind::Usage, text).hint(
                "give `latest`, `latest~N`, or 4 or more digits of an id; a path stands behind it: latest:/home",
            ));
        }
        let mut found = snapshots.into_iter().filter(|s| s.id.to_string().starts_with(&prefix));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(Error::failed(format!("no snapshot {text}")).hint(hint)),
            (Some(_), Some(_)) => Err(Error::failed(format!("more than one snapshot begins with {text}")).hint(hint)),
        }
    }
}
