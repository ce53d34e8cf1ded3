//! The times that decide whether a file changed since a push saved it.

use crate::format::codec;
use crate::format::record::{BEGUN, Extra, Snapshot};
use crate::push::read::attributes;
use crate::time::Time;

/// Time in nanoseconds that must lie between the last change of a file and the start of a push, to prove that the push saw
/// its last state: clocks of file systems tick every 10 ms at worst.
pub const GRANULE: i64 = 20_000_000;
/// The same for file systems with times in whole seconds or two (FAT).
pub const COARSE: i64 = 2_000_000_000;

/// Returns the time at which the push of this snapshot started, in nanoseconds.
pub fn begun_nanoseconds(s: &Snapshot) -> i64 {
    attributes::nanoseconds(begun(s))
}

/// Returns the time at which the push of this snapshot started. Times of files are compared with it. The snapshot's own
/// time can be set by the user.
pub fn begun(s: &Snapshot) -> Time {
    let noted = s.extra.iter().find(|extra| extra.0 == BEGUN);
    noted.and_then(|(_, bytes)| codec::decode("when a push began", bytes).ok()).unwrap_or(s.time)
}

/// Returns the entry of [`Snapshot::extra`] for the start of the push, if it differs from the snapshot's time.
pub fn note_begin(time: Time, begun: Time) -> Vec<Extra> {
    if time == begun {
        return Vec::new();
    }
    vec![(BEGUN, codec::encode(&begun).into())]
}
