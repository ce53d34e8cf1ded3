//! Cuts file contents into chunks where the contents say so, under a key. Pure: no I/O, no clock, no randomness.
//!
//! A server that logs which extents a mount reads learns chunk lengths. With a linear hash (gear, buzhash, Rabin with a
//! secret table or polynomial) every boundary is an equation in the key, and such keys have been recovered. Here a
//! universal hash makes windows collide with negligible probability and AES makes the decision (UHF-then-PRF,
//! "Chk-PHTE", IACR ePrint 2025/558): each *distinct* window gets an independent coin. Equal windows decide alike, which
//! makes deduplication possible.
//!
//! # Definition of `nfreezer-cdc-v1`
//!
//! ```text
//! F    = GF(2)[x] / (x^64 + x^4 + x^3 + x + 1); bit i of a 64-bit integer is the coefficient of x^i; + is XOR
//! T[b] = (be64(table[16b .. 16b+8]), be64(table[16b+8 .. 16b+16]))  in F^2,  b = 0..=255
//! H(n) = x^63 T[data[n-64]] + x^62 T[data[n-63]] + ... + x^0 T[data[n-1]]  in F^2: the 64 bytes before position n
//! v(n) = be64(first 8 bytes of AES-256[prf](be64(H(n).0) || be64(H(n).1)))
//! cut(data) = the least n in MIN <= n < e with v(n) mod 2^(20 if n < AVG else 18) = 0, else e
//!        where e = min(len, MAX)
//! ```
//!
//! `data` begins behind the last cut, so a decision depends on the window and the position since the last cut only.
//!
//! # Why two windows collide with probability 2^-128, exactly
//!
//! For windows v != w, `H(v) + H(w)` is the sum of `c_b T[b]` over all byte values b, where the polynomial `c_b` has
//! the coefficient 1 at x^(63-i) iff exactly one of `v_i`, `w_i` is b. As v != w some `c_b` is not zero; its degree is
//! below 64, so the irreducible modulus does not divide it: it is invertible in F. `T[b]` is uniform in F^2 and
//! independent of the other entries, hence `c_b T[b]` is uniform too, and so is the sum: it is (0, 0) with probability
//! 2^-64 * 2^-64. Among q windows any pair collides with probability below q^2 2^-129. The argument is that of an
//! LFSR-Toeplitz hash over GF(2^128); F^2 needs no carry from one 64-bit word to the next, so a step takes 60 % of the
//! time. (Four components in GF(2^32) would not do: there, polynomials of degree below 64 can vanish.)
//!
//! # What the data decides
//!
//! Data of period p has p distinct windows: it is cut at one of the first p positions from MIN on (or from AVG on), or
//! never before MAX; constant data at MIN with probability 2^-20, at AVG with 2^-18, else at MAX. Chunks of random data
//! have 1070 KiB on average; one chunk in 268,000 reaches MAX.

use std::fmt;

use aes::cipher::consts::U16;
use aes::cipher::inout::InOutBuf;
use aes::cipher::typenum::Unsigned;
use aes::cipher::{BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit};
use aes::{Aes256Enc, Block};
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// The least length of a chunk that is not the last one of its file.
pub const MIN: usize = 512 << 10;
/// Position at which the decision turns from strict to loose; the average chunk is 1070 KiB.
pub const AVG: usize = 1 << 20;
/// The greatest length of a chunk.
pub const MAX: usize = 4 << 20;

const WINDOW: usize = 64;
const STRICT: u64 = (1 << 20) - 1;
const LOOSE: u64 = (1 << 18) - 1;

/// Positions of a lane before the next look at the candidates, over which 64 bytes of warm-up are spread. Not a power of
/// two: the lanes would compete for the same lines of the processor's cache.
const STRETCH: usize = 2112;

/// Positions of a lane in one call of AES.
const STEPS: usize = 64;

/// An element of F^2.
type Pair = [u64; 2];

/// The blocks of all lanes for one step; each has two big-endian words.
type Row<const N: usize> = [[[u8; 8]; 2]; N];

/// The secret of the cut decisions: T, x^64 T and the AES-256 key schedule; all wiped on drop.
pub struct ChunkerKey {
    enters: Box<Zeroizing<[Pair; 256]>>,
    leaves: Box<Zeroizing<[Pair; 256]>>,
    prf: Box<Aes256Enc>,
}

/// `Zeroizing` and (with the `zeroize` feature of `aes`, see the tests) `Aes256Enc` wipe the fields.
impl ZeroizeOnDrop for ChunkerKey {}

impl fmt::Debug for ChunkerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkerKey(..)")
    }
}

impl ChunkerKey {
    /// Builds the key from two independent keys: `table` for the universal hash, `prf` for AES.
    pub fn new(table: &[u8; 4096], prf: &[u8; 32]) -> Self {
        let [mut enters, mut leaves] = [(); 2].map(|()| Box::new(Zeroizing::new([[0; 2]; 256])));
        for (entry, bytes) in enters.iter_mut().zip(table.as_chunks::<8>().0.as_chunks::<2>().0) {
            *entry = bytes.map(u64::from_be_bytes);
        }
        for (left, entry) in leaves.iter_mut().zip(enters.iter()) {
            *left = (0..WINDOW).fold(*entry, |power, _| power.map(times_x));
        }
        ChunkerKey { enters, leaves, prf: Box::new(Aes256Enc::new(prf.into())) }
    }

    /// Returns the length of the chunk at the front of `data`, which is the rest of the file or at least [`MAX`] bytes
    /// of it.
    ///
    /// At most `data.len()`; 0 only if `data` is empty. Does not read the bytes behind [`MAX`] nor those before the
    /// window of [`MIN`], so half of the data is never hashed.
    #[must_use]
    pub fn cut(&self, data: &[u8]) -> usize {
        let end = data.len().min(MAX);
        let strict = || self.first(data, MIN, end.min(AVG), STRICT);
        let loose = || self.first(data, AVG, end, LOOSE);
        strict().or_else(loose).unwrap_or(end)
    }

    /// Returns the least n in `from..to` where the masked bits of v(n) are 0. `from` must be above 64.
    fn first(&self, data: &[u8], from: usize, to: usize, mask: u64) -> Option<usize> {
        let mut found = None;
        self.prf.encrypt_with_backend(Search { key: self, data, from, to, mask, found: &mut found });
        found
    }

    /// Returns H(n) for each n.
    #[inline(always)]
    fn hashes<const N: usize>(&self, data: &[u8], n: [usize; N]) -> [Pair; N] {
        let windows = n.map(|n| &data[n - WINDOW..n]);
        let mut hashes = [[0; 2]; N];
        (0..WINDOW).for_each(|i| step(&mut hashes, &windows.map(|window| self.enters[usize::from(window[i])])));
        hashes
    }

    /// Writes H(n), H(n+1), ... for each n into the rows. `hashes`: H(n-1), then the last of them.
    ///
    /// `H(n+1) = x H(n) + T[data[n]] + x^64 T[data[n-64]]`
    #[inline(always)]
    fn digests<const N: usize>(&self, data: &[u8], n: [usize; N], hashes: &mut [Pair; N], rows: &mut [Row<N>]) {
        let enters = n.map(|n| &data[n - 1..][..rows.len()]);
        let leaves = n.map(|n| &data[n - 1 - WINDOW..][..rows.len()]);
        let mut sums = *hashes;
        for (i, row) in rows.iter_mut().enumerate() {
            let mut add = [[0; 2]; N];
            for (lane, add) in add.iter_mut().enumerate() {
                let (t, u) = (self.enters[usize::from(enters[lane][i])], self.leaves[usize::from(leaves[lane][i])]);
                *add = [t[0] ^ u[0], t[1] ^ u[1]];
            }
            step(&mut sums, &add);
            for (word, sum) in row.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
                *word = sum.to_be_bytes();
            }
        }
        *hashes = sums;
    }
}

/// A search in N lanes. `aes` calls it in a function that is compiled for the instructions that it uses itself, such as
/// AVX-512, so the loops here use them too.
struct Search<'a> {
    key: &'a ChunkerKey,
    data: &'a [u8],
    from: usize,
    to: usize,
    mask: u64,
    found: &'a mut Option<usize>,
}

impl BlockSizeUser for Search<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Search<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, aes: &B) {
        // Eight lanes need registers of 256 bits, as an AES has that takes many blocks at once.
        if B::ParBlocksSize::USIZE > 16 { self.run::<8, B>(aes) } else { self.run::<4, B>(aes) }
    }
}

impl Search<'_> {
    #[inline(always)]
    fn run<const N: usize, B: BlockCipherEncBackend<BlockSize = U16>>(mut self, aes: &B) {
        while self.from < self.to && self.found.is_none() {
            let count = (N * STRETCH).min(self.to - self.from);
            *self.found = self.stretch::<N, B>(aes, count);
            self.from += count;
        }
    }

    /// Searches the next `count` positions. Each lane has a part of them; the last ones overlap where the parts do not add
    /// up to `count`.
    #[inline(always)]
    fn stretch<const N: usize, B: BlockCipherEncBackend<BlockSize = U16>>(
        &self,
        aes: &B,
        count: usize,
    ) -> Option<usize> {
        let length = count.div_ceil(N);
        let starts = std::array::from_fn(|lane| self.from + (lane * length).min(count - length));
        let mut hashes = self.key.hashes::<N>(self.data, starts.map(|n| n - 1));
        let (mut rows, mut least) = ([[[[0; 8]; 2]; N]; STEPS], usize::MAX);
        let mask = self.mask;
        for at in (0..length).step_by(STEPS) {
            let rows = &mut rows[..STEPS.min(length - at)];
            self.key.digests(self.data, starts.map(|n| n + at), &mut hashes, rows);
            let blocks = Block::slice_as_chunks_mut(rows.as_flattened_mut().as_flattened_mut().as_flattened_mut()).0;
            let (groups, rest) = InOutBuf::from(blocks).into_chunks::<B::ParBlocksSize>();
            groups.into_iter().for_each(|group| aes.encrypt_par_blocks(group));
            aes.encrypt_tail_blocks(rest);
            for (i, row) in rows.iter().enumerate() {
                // Without `any` and `fold`, which the compiler does not always merge into this function.
                let mut any = false;
                for block in row {
                    any |= is_hit(block, mask);
                }
                if any {
                    for (n, block) in starts.iter().zip(row) {
                        if is_hit(block, mask) {
                            least = least.min(n + at + i);
                        }
                    }
                }
            }
        }
        (least < usize::MAX).then_some(least)
    }
}

/// Returns whether the masked bits of v(n) are 0. v and mask are swapped alike, so that a little-endian machine need not swap
/// v at all.
#[inline(always)]
fn is_hit(block: &[[u8; 8]; 2], mask: u64) -> bool {
    u64::from_be_bytes(block[0]).swap_bytes() & mask.swap_bytes() == 0
}

/// Multiplies each hash by x and adds to it.
#[inline(always)]
fn step<const N: usize>(hashes: &mut [Pair; N], add: &[Pair; N]) {
    for (hash, add) in hashes.as_flattened_mut().iter_mut().zip(add.as_flattened()) {
        *hash = times_x(*hash) ^ add;
    }
}

/// x a in F, without a branch.
#[inline(always)]
fn times_x(a: u64) -> u64 {
    (a << 1) ^ ((a as i64 >> 63) as u64 & 0b11011)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    /// Positions between two looks at the candidates, on a machine with eight lanes.
    const BATCH: usize = 8 * STRETCH;

    /// SHA-256(label || be64(0)) || SHA-256(label || be64(1)) || ..., cut to `len`.
    fn stream(label: &str, len: usize) -> Vec<u8> {
        let block = |i: u64| Sha256::new().chain_update(label).chain_update(i.to_be_bytes()).finalize();
        let mut bytes: Vec<u8> = (0..len.div_ceil(32) as u64).flat_map(block).collect();
        bytes.truncate(len);
        bytes
    }

    /// As `stream`, but fast: AES in counter mode.
    fn random(label: &str, len: usize) -> Vec<u8> {
        let seed: [u8; 32] = Sha256::digest(label).into();
        let mut blocks: Vec<Block> = (0..len.div_ceil(16) as u128).map(|i| i.to_be_bytes().into()).collect();
        Aes256Enc::new(&seed.into()).encrypt_blocks(&mut blocks);
        let mut bytes = blocks.concat();
        bytes.truncate(len);
        bytes
    }

    fn key(label: &str) -> ChunkerKey {
        let bytes = stream(label, 4128);
        ChunkerKey::new(bytes[..4096].try_into().unwrap(), bytes[4096..].try_into().unwrap())
    }

    /// The definition, read straight from the table's bytes: one polynomial after the other, one AES block at a time.
    struct Direct {
        table: Vec<u8>,
        prf: Aes256Enc,
    }

    impl Direct {
        fn new(label: &str) -> Self {
            let table = stream(label, 4128);
            let prf = Aes256Enc::new_from_slice(&table[4096..]).unwrap();
            Direct { table, prf }
        }

        fn v(&self, window: &[u8]) -> u64 {
            let mut hash = 0_u128;
            for &b in window {
                let overflow = [hash >> 127 & 1, hash >> 63 & 1].map(|bit| bit * 0x1b);
                hash = (hash & !(1 << 127 | 1 << 63)) << 1 ^ overflow[0] << 64 ^ overflow[1];
                hash ^= u128::from_be_bytes(self.table[16 * usize::from(b)..][..16].try_into().unwrap());
            }
            let mut block = hash.to_be_bytes().into();
            self.prf.encrypt_block(&mut block);
            u64::from_be_bytes(block[..8].try_into().unwrap())
        }

        fn first(&self, data: &[u8], from: usize, to: usize, mask: u64) -> Option<usize> {
            (from..to).find(|&n| self.v(&data[n - WINDOW..n]) & mask == 0)
        }

        fn cut(&self, data: &[u8]) -> usize {
            let end = data.len().min(MAX);
            let bits = |n: usize| if n < AVG { 20 } else { 18 };
            (MIN..end).find(|&n| self.v(&data[n - WINDOW..n]).trailing_zeros() >= bits(n)).unwrap_or(end)
        }
    }

    /// Returns the positions at which `data` is cut, its end included.
    fn cuts(key: &ChunkerKey, data: &[u8]) -> Vec<usize> {
        let (mut at, mut cuts) = (0, Vec::new());
        while at < data.len() {
            at += key.cut(&data[at..]);
            cuts.push(at);
        }
        cuts
    }

    /// Returns all n in 65.. where the masked bits of v(n) are zero.
    fn hits(key: &ChunkerKey, data: &[u8], mask: u64) -> Vec<usize> {
        let end = data.len() + 1;
        // A search looks at whole stretches. Most hits here are nearer.
        let next = |n: &usize| {
            let near = end.min(n + 1000);
            key.first(data, n + 1, near, mask).or_else(|| key.first(data, near, end, mask))
        };
        std::iter::successors(next(&WINDOW), next).collect()
    }

    fn assert_within_5_sigma(hits: usize, trials: usize, probability: f64) {
        let expected = trials as f64 * probability;
        let sigma = (expected * (1.0 - probability)).sqrt();
        assert!((hits as f64 - expected).abs() < 5.0 * sigma, "{hits} hits, expected {expected:.0} +- {sigma:.1}");
    }

    /// Checked once with an independent Python implementation of the definition.
    #[test]
    fn known_answers() {
        let (key, direct) = (key("nfreezer-cdc-v1 key"), Direct::new("nfreezer-cdc-v1 key"));
        let data = stream("nfreezer-cdc-v1 data", 8 << 20);
        assert_eq!(direct.v(&data[..64]), 0xa104_a510_660e_881e);
        assert_eq!(direct.v(&[0; 64]), 0x1ca7_6b82_7c8d_9232);
        let expected = [753128, 2086913, 2662029, 3852004, 4847077, 6192840, 7287953, 8388608];
        assert_eq!(cuts(&key, &data), expected);
    }

    #[test]
    fn the_modulus_is_irreducible() {
        // Rabin's test for degree 64 = 2^6: x^(2^64) = x, and x^(2^32) - x is prime to the modulus.
        let product =
            |a: u64, b: u64| (0..64).rev().fold(0, |sum, i| times_x(sum) ^ if b >> i & 1 == 1 { a } else { 0 });
        let frobenius = |times| (0..times).fold(2, |power, _| product(power, power));
        assert_eq!(frobenius(64), 2);
        let (mut a, mut b) = (1_u128 << 64 | 0x1b, u128::from(frobenius(32) ^ 2));
        while b != 0 {
            while a != 0 && a.leading_zeros() <= b.leading_zeros() {
                a ^= b << (b.leading_zeros() - a.leading_zeros());
            }
            (a, b) = (b, a);
        }
        assert_eq!(a, 1);
    }

    #[test]
    fn rolling_is_direct() {
        let (key, direct) = (key("a"), Direct::new("a"));
        let data = random("data", 700 << 10);
        for mask in [STRICT, LOOSE, 0xfff] {
            let (from, to) = (WINDOW + 1, data.len() + 1);
            assert_eq!(key.first(&data, from, to, mask), direct.first(&data, from, to, mask));
        }
        let few = &data[..20_000];
        let all: Vec<usize> = (WINDOW + 1..=few.len()).filter(|&n| direct.v(&few[n - WINDOW..n]) & 0xff == 0).collect();
        assert_eq!(hits(&key, few, 0xff), all);
    }

    /// The search of a machine whose AES takes few blocks at once.
    struct FourLanes<'a>(Search<'a>);

    impl BlockSizeUser for FourLanes<'_> {
        type BlockSize = U16;
    }

    impl BlockCipherEncClosure for FourLanes<'_> {
        fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, aes: &B) {
            self.0.run::<4, B>(aes);
        }
    }

    #[test]
    fn every_stretch_is_direct_in_any_number_of_lanes() {
        let (key, direct) = (key("b"), Direct::new("b"));
        let data = random("stretches", 40_000);
        let v: Vec<u64> = (WINDOW..=data.len()).map(|n| direct.v(&data[n - WINDOW..n])).collect();
        let lengths = prop_oneof![0..1200_usize, BATCH / 2 - 70..BATCH / 2 + 70, BATCH - 70..2 * BATCH + 70];
        proptest!(|(from in 65..5000_usize, length in lengths, bits in 0..18_u32)| {
            let (to, mask) = (from + length, (1 << bits) - 1);
            let expected = (from..to).find(|n| v[n - WINDOW] & mask == 0);
            prop_assert_eq!(key.first(&data, from, to, mask), expected);
            let mut found = None;
            let search = Search { key: &key, data: &data, from, to, mask, found: &mut found };
            key.prf.encrypt_with_backend(FourLanes(search));
            prop_assert_eq!(found, expected);
        });
    }

    #[test]
    fn lengths_around_every_edge_are_direct() {
        let (key, direct) = (key("c"), Direct::new("c"));
        let data = random("edges", MAX + 1);
        let edges = [0, 1, 64, MIN, MIN + 1, MIN + 64, MIN + BATCH / 2, MIN + BATCH, MIN + 2 * BATCH];
        for length in edges.into_iter().flat_map(|edge| edge.saturating_sub(1)..=edge + 1) {
            assert_eq!(key.cut(&data[..length]), direct.cut(&data[..length]), "{length}");
        }
        let whole = key.cut(&data);
        assert_eq!(whole, direct.cut(&data));
        assert!((MIN..=MAX).contains(&whole));
        for length in [whole - 1, whole, whole + 1] {
            assert_eq!(key.cut(&data[..length]), whole.min(length));
        }
    }

    #[test]
    fn a_planted_window_cuts_exactly_behind_it() {
        let key = key("d");
        let data = random("plants", 8 << 20);
        let found = |n: usize| data[n - WINDOW..n].to_vec();
        let strict = found(key.first(&data, 65, data.len(), STRICT).unwrap());
        let only_loose = found(
            hits(&key, &data, LOOSE).into_iter().find(|n| key.first(&data, *n, n + 1, STRICT).is_none()).unwrap(),
        );
        let mut zeros = vec![0; MAX + BATCH];
        assert_eq!(key.cut(&zeros), MAX);
        let edges =
            [MIN, MIN + BATCH / 2, MIN + BATCH, AVG - BATCH, AVG - BATCH / 2, AVG, AVG + BATCH, MAX - BATCH, MAX];
        for at in edges.into_iter().flat_map(|edge| edge - 2..=edge + 2) {
            for (window, least) in [(&strict, MIN), (&only_loose, AVG)] {
                zeros[at - WINDOW..at].copy_from_slice(window);
                let expected = if (least..MAX).contains(&at) { at } else { MAX };
                assert_eq!(key.cut(&zeros), expected, "{at}");
                assert_eq!(key.cut(&zeros[..at + 1]), expected.min(at + 1), "{at}");
                assert_eq!(key.cut(&zeros[..at]), at.min(MAX), "{at}");
                zeros[at - WINDOW..at].fill(0);
            }
        }
    }

    #[test]
    fn one_inserted_byte_changes_few_cuts() {
        let key = key("e");
        let mut data = random("insert", 32 << 20);
        let before = cuts(&key, &data);
        data.insert(1_000_000, 7);
        let after: Vec<usize> = cuts(&key, &data).into_iter().map(|cut| cut - 1).collect();
        let kept = before.iter().filter(|cut| after.contains(cut)).count();
        assert!(kept + 6 > before.len(), "{kept} of {} cuts kept", before.len());
        assert_eq!(before.last(), after.last());
    }

    #[test]
    fn two_keys_agree_by_chance_only() {
        let data = random("two keys", 1 << 20);
        let (a, b) = (hits(&key("f"), &data, 0xff), hits(&key("g"), &data, 0xff));
        assert_within_5_sigma(a.len(), data.len(), 1.0 / 256.0);
        let both = a.iter().filter(|n| b.binary_search(n).is_ok()).count();
        assert_within_5_sigma(both, data.len(), 1.0 / 65536.0);
        // Each half of the key counts.
        let bytes = stream("f", 4128);
        let prf = ChunkerKey::new(bytes[..4096].try_into().unwrap(), &[1; 32]);
        let both = hits(&prf, &data, 0xff).iter().filter(|n| a.binary_search(n).is_ok()).count();
        assert_within_5_sigma(both, data.len(), 1.0 / 65536.0);
    }

    /// Words of few symbols (the attack on Tarsnap's chunker) and text: distinct windows, so independent coins.
    #[test]
    fn small_alphabets_have_no_bias() {
        let (key, random) = (key("h"), random("alphabet", 1 << 20));
        for alphabet in [&b"\0\x01"[..], b"ab", b"\0\xff", b"abc", b"etaoin shrdlu\n"] {
            let data: Vec<u8> = random.iter().map(|&b| alphabet[usize::from(b) % alphabet.len()]).collect();
            assert_within_5_sigma(hits(&key, &data, 0xff).len(), data.len() - WINDOW, 1.0 / 256.0);
        }
    }

    /// Data of period p decides at p positions, each with the same probability, and over again.
    #[test]
    fn periodic_data_decides_once_per_phase() {
        let key = key("i");
        let (mut sum, mut trials) = (0, 0);
        for round in 0..8 {
            for period in 1..=128 {
                let word = random(&format!("period {round} {period}"), period);
                let data: Vec<u8> = word.iter().copied().cycle().take(WINDOW + 3 * period).collect();
                let hits = hits(&key, &data, 0xf);
                let phase =
                    |i| hits.iter().filter(move |&&n| (n - WINDOW - 1) / period == i).map(move |n| n - i * period);
                assert!(phase(0).eq(phase(1)));
                sum += phase(0).count();
                trials += period;
            }
        }
        assert_within_5_sigma(sum, trials, 1.0 / 16.0);
    }

    #[test]
    fn constant_data_is_cut_at_max() {
        let key = key("j");
        for byte in [0, b'a', 255] {
            assert_eq!(cuts(&key, &vec![byte; 2 * MAX + 5]), [MAX, 2 * MAX, 2 * MAX + 5]);
        }
    }

    /// Mean and standard deviation from the definition: a chunk reaches n if all decisions before n fell negative.
    #[test]
    fn the_average_is_as_expected() {
        let (mut reaches, mut mean, mut square) = (1.0, 0.0, 0.0);
        for n in MIN..=MAX {
            let cut = if n == MAX { 1.0 } else { 0.5_f64.powi(if n < AVG { 20 } else { 18 }) };
            mean += reaches * cut * n as f64;
            square += reaches * cut * (n as f64).powi(2);
            reaches *= 1.0 - cut;
        }
        assert_eq!(mean as usize >> 10, 1070);
        let data = random("average", 64 << 20);
        let mut cuts = cuts(&key("k"), &data);
        cuts.pop();
        let (count, average) = (cuts.len() as f64, cuts[cuts.len() - 1] as f64 / cuts.len() as f64);
        let sigma = ((square - mean * mean) / count).sqrt();
        assert!((average - mean).abs() < 5.0 * sigma, "{average:.0}, expected {mean:.0} +- {sigma:.0}");
        assert!(cuts.windows(2).all(|pair| (MIN..=MAX).contains(&(pair[1] - pair[0]))));
    }

    #[test]
    fn secrets_are_wiped_and_silent() {
        fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<Aes256Enc>();
        assert_eq!(format!("{:?}", key("l")), "ChunkerKey(..)");
    }

    #[test]
    #[ignore = "prints a speed; run with --release"]
    fn speed() {
        let (key, data) = (key("m"), random("speed", 128 << 20));
        for _ in 0..8 {
            let start = std::time::Instant::now();
            let chunks = cuts(&key, &data).len();
            let rate = data.len() as f64 / 1e6 / start.elapsed().as_secs_f64();
            println!("{rate:.0} MB/s, {chunks} chunks");
        }
    }
}
