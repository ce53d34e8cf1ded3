//! Random choices that depend only on a seed.

/// A small random number generator (SplitMix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Returns a number below `sides`; 0 if there are none.
    pub fn roll(&mut self, sides: i64) -> i64 {
        (self.next() >> 2) as i64 % sides.max(1)
    }

    /// Returns true in `permille` of 1000 cases.
    pub fn chance(&mut self, permille: i64) -> bool {
        self.roll(1000) < permille
    }

    /// Returns one of these values.
    pub fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.roll(values.len() as i64) as usize]
    }

    /// Returns an independent generator.
    pub fn fork(&mut self) -> Dice {
        Dice(self.next())
    }
}
