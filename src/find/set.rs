//! Sets of snapshots, by their numbers.

/// A set of numbers below a bound, one bit each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set(Vec<u64>);

impl Set {
    /// Makes a set of one number.
    pub fn one(number: usize, bound: usize) -> Self {
        let mut words = vec![0; bound.div_ceil(64)];
        if let Some(word) = words.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
        Set(words)
    }

    /// Adds all numbers of a set with the same bound.
    pub fn add(&mut self, other: &Set) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }

    /// Returns the lowest number.
    pub fn first(&self) -> Option<usize> {
        let i = self.0.iter().position(|word| *word != 0)?;
        Some(i * 64 + self.0[i].trailing_zeros() as usize)
    }

    /// Returns the highest number.
    pub fn last(&self) -> Option<usize> {
        let i = self.0.iter().rposition(|word| *word != 0)?;
        Some(i * 64 + 63 - self.0[i].leading_zeros() as usize)
    }

    /// Returns how many numbers there are.
    pub fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_knows_its_ends_and_its_size() {
        let mut set = Set::one(70, 365);
        assert_eq!((set.first(), set.last(), set.count()), (Some(70), Some(70), 1));
        for number in [3, 364, 70] {
            set.add(&Set::one(number, 365));
        }
        assert_eq!((set.first(), set.last(), set.count()), (Some(3), Some(364), 3));
        assert_eq!(Set::one(64, 5).first(), None, "numbers far beyond the bound are left out");
    }
}
