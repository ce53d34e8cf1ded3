//! The names in a directory of many snapshots.

use std::collections::BTreeMap;

/// The names, each with a value. The pages of a directory come in the order of their names, version after version, and most
/// versions have the names of the one before. So the next name is nearly always the one behind the last one.
#[derive(Default)]
pub struct Names<T> {
    /// Names that came in their order, ascending.
    ordered: Vec<(Vec<u8>, T)>,
    /// Names that came later than a name behind them.
    others: BTreeMap<Vec<u8>, T>,
    /// The place behind the name that was asked for last.
    next: usize,
}

impl<T: Default> Names<T> {
    /// Returns the value of a name.
    pub fn get(&mut self, name: &[u8]) -> &mut T {
        let Some(place) = self.place(name) else {
            return self.others.entry(name.to_vec()).or_default();
        };
        self.next = place + 1;
        &mut self.ordered[place].1
    }

    /// Returns the place of a name among those that came in order, adding it if it comes behind all of them.
    fn place(&mut self, name: &[u8]) -> Option<usize> {
        if self.ordered.get(self.next).is_some_and(|(next, _)| next == name) {
            return Some(self.next);
        }
        if self.ordered.last().is_none_or(|(last, _)| last.as_slice() < name) {
            self.ordered.push((name.to_vec(), T::default()));
            return Some(self.ordered.len() - 1);
        }
        self.ordered.binary_search_by(|(known, _)| known.as_slice().cmp(name)).ok()
    }

    /// Returns all names in ascending order.
    pub fn into_sorted(self) -> Vec<(Vec<u8>, T)> {
        let mut all = self.ordered;
        if !self.others.is_empty() {
            all.extend(self.others);
            all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again_in_any_order_and_come_out_sorted() {
        let mut names = Names::<u32>::default();
        for round in 0..5 {
            for name in ["b", "d", "f"].into_iter().chain(["a", "e", "g", "c"].into_iter().take(round)) {
                *names.get(name.as_bytes()) += 1;
            }
        }
        let wanted = [("a", 4), ("b", 5), ("c", 1), ("d", 5), ("e", 3), ("f", 5), ("g", 2)];
        assert_eq!(names.into_sorted(), wanted.map(|(name, count)| (name.as_bytes().to_vec(), count)));
    }
}
