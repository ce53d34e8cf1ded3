//! A limit of the bytes per second, which may differ by the time of the day.

/// Minutes of a day.
pub const DAY: u16 = 24 * 60;

/// One rate, or a timetable of rates over the day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// From which minute of the day which rate holds; `None` is no limit. Ascending, and never empty.
    changes: Vec<(u16, Option<u64>)>,
}

impl From<u64> for Limit {
    /// Makes a limit of this many bytes per second at any time.
    fn from(rate: u64) -> Self {
        Limit { changes: vec![(0, Some(rate))] }
    }
}

impl Limit {
    /// Makes a timetable: from which minute of the day which rate holds, until the next one. `None` if it is empty, or if a
    /// minute occurs twice or does not exist.
    pub fn timetable(mut changes: Vec<(u16, Option<u64>)>) -> Option<Self> {
        changes.sort_unstable();
        let is_strict = changes.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let exists = changes.last().is_some_and(|(minute, _)| *minute < DAY);
        (is_strict && exists).then_some(Limit { changes })
    }

    /// Returns the rate at a minute of the day. Before the first change, the last one of the day before holds.
    pub fn at(&self, minute: u16) -> Option<u64> {
        let now = self.changes.iter().rev().find(|(from, _)| *from <= minute);
        now.or(self.changes.last()).and_then(|(_, rate)| *rate)
    }

    /// Returns whether the rate is the same at any time.
    pub fn is_constant(&self) -> bool {
        self.changes.len() == 1
    }

    /// Returns the rate at this time of the day in the local zone.
    pub fn now(&self) -> Option<u64> {
        if self.is_constant() { self.at(0) } else { self.at(minute_of_day()) }
    }
}

/// Returns the minute of the day in the local zone.
pub fn minute_of_day() -> u16 {
    let now = jiff::Zoned::now();
    u16::from(now.hour().unsigned_abs()) * 60 + u16::from(now.minute().unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_holds_until_the_next_one_also_over_midnight() {
        let limit = Limit::timetable(vec![(19 * 60, None), (8 * 60, Some(2)), (12 * 60, Some(5))]).unwrap();
        let hours = [0, 7, 8, 11, 12, 18, 19, 23].map(|hour| limit.at(hour * 60));
        assert_eq!(hours, [None, None, Some(2), Some(2), Some(5), Some(5), None, None]);
        assert_eq!((limit.at(8 * 60 - 1), limit.at(12 * 60 - 1)), (None, Some(2)));
        assert_eq!((Limit::from(7).now(), Limit::from(7).at(DAY - 1)), (Some(7), Some(7)));
        for bad in [vec![], vec![(5, None), (5, Some(1))], vec![(DAY, None)]] {
            assert_eq!(Limit::timetable(bad), None);
        }
        assert!(minute_of_day() < DAY);
    }
}
