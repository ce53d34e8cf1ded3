//! Which snapshots of one group a policy keeps, and why. Pure: times come in, none is read from a clock.
//!
//! The rules are restic's: counts by hour, day and so on keep the newest snapshot of each period in the local time zone,
//! `within` counts back from the newest snapshot. Every snapshot is judged by the time that this machine can vouch for
//! ([`crate::seen::Sight::bound`]), not by the date in its record.
//!
//! A flood of new snapshots must not use up the counts. A snapshot that appeared within the last [`RECENT`] seconds and lies closer
//! to the one counted before it than half the usual interval of the group is kept and not counted.

use jiff::Zoned;
use jiff::tz::TimeZone;

use crate::format::record::{PINNED, Snapshot, SnapshotId};
use crate::time::Time;

/// Seconds for which a snapshot counts as new after it appeared.
pub const RECENT: i64 = 14 * 24 * 3600;
/// Largest interval, in seconds, below which a new snapshot is not counted.
const LARGEST_GAP: i64 = 24 * 3600;
/// Fewest older snapshots from which a usual interval is taken.
const USUAL: usize = 4;

/// A period of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// Each snapshot on its own.
    Last,
    /// Hours.
    Hourly,
    /// Days.
    Daily,
    /// Weeks, from Monday.
    Weekly,
    /// Months.
    Monthly,
    /// Years.
    Yearly,
}

impl Period {
    /// All of them, the shortest first.
    pub const ALL: [Period; 6] =
        [Period::Last, Period::Hourly, Period::Daily, Period::Weekly, Period::Monthly, Period::Yearly];

    /// Returns the word for it, as in `--keep-daily`.
    pub fn word(self) -> &'static str {
        ["last", "hourly", "daily", "weekly", "monthly", "yearly"][self as usize]
    }

    /// Returns a number for the period that contains a time; a snapshot of `Last` has its own.
    fn bucket(self, time: &Zoned, number: usize) -> [i64; 4] {
        let (year, month, day) = (i64::from(time.year()), i64::from(time.month()), i64::from(time.day()));
        let week = time.date().iso_week_date();
        match self {
            Period::Last => [number as i64, 0, 0, 0],
            Period::Hourly => [year, month, day, i64::from(time.hour())],
            Period::Daily => [year, month, day, 0],
            Period::Weekly => [week.year().into(), week.week().into(), 0, 0],
            Period::Monthly => [year, month, 0, 0],
            Period::Yearly => [year, 0, 0, 0],
        }
    }
}

/// A length of time in calendar units, as in `1y5m7d2h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Within {
    /// Years.
    pub years: i64,
    /// Months.
    pub months: i64,
    /// Days.
    pub days: i64,
    /// Hours.
    pub hours: i64,
}

impl Within {
    /// Returns the time this long before another one; the beginning of the calendar if that is outside of it.
    fn before(&self, time: &Zoned) -> i64 {
        let span = jiff::Span::new()
            .try_years(self.years)
            .and_then(|span| span.try_months(self.months))
            .and_then(|span| span.try_days(self.days))
            .and_then(|span| span.try_hours(self.hours));
        let before = span.and_then(|span| time.checked_sub(span));
        before.map_or(i64::MIN, |before| before.timestamp().as_second())
    }
}

/// The rules for keeping snapshots. By default they keep none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// For each of [`Period::ALL`]: how many periods; `u32::MAX` for all.
    pub counts: [u32; 6],
    /// Everything that is at most this old.
    pub within: Option<Within>,
    /// For each of [`Period::ALL`] but the first: one snapshot of each period that is at most this old.
    pub within_periods: [Option<Within>; 6],
    /// Snapshots that have all tags of one of these lists.
    pub tags: Vec<Vec<String>>,
    /// Snapshots with these ids.
    pub ids: Vec<SnapshotId>,
}

impl Policy {
    /// Returns whether it keeps nothing.
    pub fn is_empty(&self) -> bool {
        *self == Policy::default()
    }
}

/// A snapshot that is to be judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The time that counts.
    pub time: Time,
    /// It appeared within the last [`RECENT`] seconds, and not at the first look of this machine.
    pub is_new: bool,
}

/// A snapshot and why it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The snapshot.
    pub candidate: Candidate,
    /// The reasons for keeping it; without any, it is forgotten.
    pub reasons: Vec<String>,
}

impl Policy {
    /// Judges the snapshots of one group. Returns them oldest first.
    pub fn judge(&self, mut candidates: Vec<Candidate>, zone: &TimeZone) -> Vec<Judged> {
        candidates.sort_by_key(|c| (c.time, c.snapshot.id));
        candidates.reverse();
        let gap = smallest_gap(&candidates);
        let newest = candidates.first().and_then(|c| zoned(c.time, zone));
        let mut counts = Counts { policy: self, left: self.counts, buckets: [None; 12], counted: None };
        let mut judged = Vec::with_capacity(candidates.len());
        let number = candidates.len();
        for (i, candidate) in candidates.into_iter().enumerate() {
            let mut reasons = self.named(&candidate.snapshot);
            let is_close = |counted: Time| counted.seconds.saturating_sub(candidate.time.seconds) < gap;
            if candidate.is_new && counts.counted.is_some_and(is_close) && !self.is_count_used_up(&counts) {
                reasons.push("new, closer than usual".into());
            } else if let (Some(time), Some(newest)) = (zoned(candidate.time, zone), &newest) {
                reasons.extend(counts.take(&time, newest, i, i + 1 == number));
                counts.counted = Some(candidate.time);
            } else {
                reasons.push("its time is not in the calendar".into());
            }
            judged.push(Judged { candidate, reasons });
        }
        judged.reverse();
        judged
    }

    /// Returns the reasons that do not depend on times.
    fn named(&self, snapshot: &Snapshot) -> Vec<String> {
        let mut reasons = Vec::new();
        if snapshot.tags.iter().any(|tag| tag == PINNED) {
            reasons.push("pinned".into());
        }
        if self.ids.contains(&snapshot.id) {
            reasons.push("id".into());
        }
        if self.tags.iter().any(|tags| tags.iter().all(|tag| snapshot.tags.contains(tag))) {
            reasons.push("tag".into());
        }
        reasons
    }

    fn is_count_used_up(&self, counts: &Counts<'_>) -> bool {
        counts.left.iter().all(|left| *left == 0)
    }
}

/// The counts that are left while the snapshots of a group are visited, newest first.
struct Counts<'p> {
    policy: &'p Policy,
    left: [u32; 6],
    /// The last periods, of the counts and of the lengths of time.
    buckets: [Option<[i64; 4]>; 12],
    /// The time of the last snapshot that was counted.
    counted: Option<Time>,
}

impl Counts<'_> {
    /// Returns the reasons for one snapshot. As in restic, the oldest one is kept by each count that is not used up.
    fn take(&mut self, time: &Zoned, newest: &Zoned, number: usize, is_oldest: bool) -> Vec<String> {
        let mut reasons = Vec::new();
        for (i, period) in Period::ALL.into_iter().enumerate() {
            let bucket = Some(period.bucket(time, number));
            if self.left[i] > 0 && (self.buckets[i] != bucket || is_oldest) {
                let is_first = self.buckets[i] != bucket;
                reasons.push(if is_first { period.word().into() } else { format!("oldest {}", period.word()) });
                self.buckets[i] = bucket;
                self.left[i] -= u32::from(self.left[i] != u32::MAX);
            }
        }
        let seconds = time.timestamp().as_second();
        let is_within = |within: &Within| seconds >= within.before(newest);
        if self.policy.within.as_ref().is_some_and(is_within) {
            reasons.push("within".into());
        }
        for (i, period) in Period::ALL.into_iter().enumerate() {
            let bucket = Some(period.bucket(time, number));
            if self.policy.within_periods[i].as_ref().is_some_and(is_within) && self.buckets[6 + i] != bucket {
                reasons.push(format!("{} within", period.word()));
                self.buckets[6 + i] = bucket;
            }
        }
        reasons
    }
}

/// Returns half the usual interval between the snapshots that are not new, in seconds; 0 if there are few.
/// `candidates` descend by time.
fn smallest_gap(candidates: &[Candidate]) -> i64 {
    let older: Vec<i64> = candidates.iter().filter(|c| !c.is_new).map(|c| c.time.seconds).collect();
    if older.len() < USUAL {
        return 0;
    }
    let mut gaps: Vec<i64> = older.windows(2).map(|pair| pair[0].saturating_sub(pair[1])).collect();
    gaps.sort_unstable();
    (gaps[gaps.len() / 2] / 2).min(LARGEST_GAP)
}

fn zoned(time: Time, zone: &TimeZone) -> Option<Zoned> {
    time.timestamp().map(|time| time.to_zoned(zone.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;
    /// 2026-06-30 12:00 UTC, a Tuesday.
    const NOON: i64 = 1_782_820_800;

    fn candidate(id: u8, seconds: i64, is_new: bool) -> Candidate {
        let snapshot = Snapshot { id: SnapshotId([id; 16]), ..Snapshot::default() };
        Candidate { snapshot, time: Time::from_seconds(seconds), is_new }
    }

    /// Returns one snapshot a day, the last one at `NOON`.
    fn daily(days: u8) -> Vec<Candidate> {
        (0..days).map(|day| candidate(day, NOON - i64::from(day) * DAY, false)).collect()
    }

    fn kept(policy: &Policy, candidates: Vec<Candidate>) -> Vec<(u8, String)> {
        let judged = policy.judge(candidates, &TimeZone::UTC).into_iter().rev();
        let kept = judged.filter(|judged| !judged.reasons.is_empty());
        kept.map(|judged| (judged.candidate.snapshot.id.0[0], judged.reasons.join("+"))).collect()
    }

    fn ids(policy: &Policy, candidates: Vec<Candidate>) -> Vec<u8> {
        kept(policy, candidates).into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn the_last_of_each_day_week_and_month_is_kept() {
        let policy = Policy { counts: [0, 0, 3, 3, 2, 0], ..Policy::default() };
        let kept = kept(&policy, daily(70));
        let expected = [(0, "daily+weekly+monthly"), (1, "daily"), (2, "daily+weekly"), (9, "weekly"), (30, "monthly")];
        assert_eq!(kept, expected.map(|(id, why)| (id, why.to_owned())));
    }

    #[test]
    fn counts_that_are_not_used_up_keep_the_oldest() {
        let policy = Policy { counts: [0, 0, 0, 0, 0, 5], ..Policy::default() };
        assert_eq!(kept(&policy, daily(40)), [(0, "yearly".into()), (39, "oldest yearly".into())]);
        let all = Policy { counts: [u32::MAX, 0, 0, 0, 0, 0], ..Policy::default() };
        assert_eq!(ids(&all, daily(100)).len(), 100);
    }

    #[test]
    fn times_count_back_from_the_newest_snapshot() {
        let within = |days| Some(Within { days, ..Within::default() });
        assert_eq!(ids(&Policy { within: within(3), ..Policy::default() }, daily(40)), [0, 1, 2, 3]);
        let mut weekly = Policy::default();
        weekly.within_periods[Period::Weekly as usize] = within(15);
        assert_eq!(ids(&weekly, daily(40)), [0, 2, 9]);
    }

    #[test]
    fn pins_ids_and_tags_are_kept() {
        let mut candidates = daily(5);
        candidates[1].snapshot.tags = vec![PINNED.into()];
        candidates[2].snapshot.tags = vec!["a".into(), "b".into()];
        candidates[3].snapshot.tags = vec!["a".into()];
        let policy =
            Policy { tags: vec![vec!["a".into(), "b".into()]], ids: vec![SnapshotId([4; 16])], ..Policy::default() };
        let expected = [(1, "pinned"), (2, "tag"), (4, "id")].map(|(id, why)| (id, why.to_owned()));
        assert_eq!(kept(&policy, candidates), expected);
    }

    #[test]
    fn a_flood_of_new_snapshots_pushes_no_old_ones_out() {
        let policy = Policy { counts: [7, 0, 0, 0, 0, 0], ..Policy::default() };
        assert_eq!(ids(&policy, daily(20)), [0, 1, 2, 3, 4, 5, 6]);
        let mut flooded = daily(20);
        flooded.extend((0..100).map(|i| candidate(100 + i, NOON + 3600 + i64::from(i), true)));
        let kept = ids(&policy, flooded.clone());
        assert!([0, 1, 2, 3, 4, 5].iter().all(|old| kept.contains(old)), "{kept:?}");
        // It can be as many as usual, no more.
        flooded.iter_mut().for_each(|c| c.is_new = false);
        assert_eq!(ids(&policy, flooded).iter().filter(|id| **id < 100).count(), 0);
    }

    #[test]
    fn ordinary_new_snapshots_displace_old_ones() {
        let policy = Policy { counts: [7, 0, 0, 0, 0, 0], ..Policy::default() };
        let mut week = daily(14);
        // Pushed at night, an hour earlier or later each time.
        for (i, candidate) in week.iter_mut().enumerate().take(7) {
            candidate.is_new = true;
            candidate.time.seconds += if i % 2 == 0 { 3600 } else { -3600 };
        }
        assert_eq!(ids(&policy, week), [0, 1, 2, 3, 4, 5, 6]);
    }
}
