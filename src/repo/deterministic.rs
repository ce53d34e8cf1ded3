//! Makes a run repeatable, for the simulation in the unit tests: on a thread with a seed, random bytes follow from the seed
//! and [`super::parallel`] works on the calling thread. Nothing of this is compiled into the program.

use std::cell::Cell;

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Sets the seed of this thread.
pub(crate) fn seed(seed: u64) {
    SEED.set(Some(seed));
}

/// Returns whether this thread has a seed.
pub(crate) fn is_on() -> bool {
    SEED.get().is_some()
}

/// Returns the next bytes; `None` on a thread without a seed.
pub(super) fn bytes<const N: usize>() -> Option<[u8; N]> {
    let mut state = SEED.get()?;
    let mut bytes = [0; N];
    for part in bytes.chunks_mut(8) {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        let len = part.len();
        part.copy_from_slice(&x.to_be_bytes()[..len]);
    }
    SEED.set(Some(state));
    Some(bytes)
}
