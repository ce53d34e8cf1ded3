//! The parameters of a run: its clients, and the rate of each fault. All of them depend only on the seed.

use super::dice::Dice;

/// Seconds of true time.
pub type Seconds = i64;

const HOUR: Seconds = 3600;
pub const DAY: Seconds = 24 * HOUR;

/// Modification times that the server reports for objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dates {
    True,
    /// 1970 for all objects: a NAS without a clock.
    Epoch,
    /// 1970 for packs, and the present for records: another program has copied the packs.
    OldPacks,
    /// Random times between 1970 and next year.
    Random,
}

/// Operations in an order that is rare among random ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Undeletes a forgotten snapshot while a pruner is suspended before its drop record.
    Undelete,
    /// Pushes contents again that exist only in a forgotten snapshot.
    Return,
}

/// A rule that prevents data loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Only objects that a record condemned are deleted.
    CondemnFirst,
    /// The grace time starts when the deleting machine first sees the condemned object.
    OwnSight,
    /// A writer lists the log again after its commit.
    SecondLook,
    /// An unreadable record or page ends the run.
    RefuseDoubt,
    /// Another copy of a chunk counts only after it was read.
    VerifyPlaces,
    /// The deleting run recomputes the live chunks.
    FreshLiveness,
    /// The log is folded again after the drop record.
    FoldAgain,
    /// Unusual removals need the user's consent.
    Belts,
}

/// The parameters of a run. Rates are per 1000 requests.
#[derive(Clone, Debug)]
pub struct Plan {
    pub writers: usize,
    pub pruners: usize,
    /// Pushes of each writer, and prunes of each pruner.
    pub pushes: i64,
    pub prunes: i64,
    pub grace: Seconds,
    /// Longest time between two requests of an active client.
    pub latency: Seconds,
    /// Longest time between two operations of a client.
    pub pauses: Seconds,
    /// Rate at which a client makes its next request without passing the turn.
    pub burst: i64,
    pub killed: i64,
    pub lost: i64,
    pub suspended: i64,
    /// Rate of puts that fail for the client and arrive later.
    pub late: i64,
    /// Rate of entries that one listing leaves out.
    pub skipped: i64,
    /// Rate of objects that listings show only some time after the put, to all clients or to some.
    pub hidden: i64,
    /// Longest time for which an object is hidden. It must be a fraction of the grace time, since hiding an object for
    /// longer equals removing it.
    pub hidden_for: Seconds,
    /// Whether the server has two sites, one for writers and one for pruners. Each shows the other one's objects later.
    pub has_sites: bool,
    /// Sequence of operations of the writers, instead of random changes.
    pub script: Option<Script>,
    /// Rate of records before which a writer is suspended.
    pub commit_naps: i64,
    /// Rate of records before which a pruner is suspended.
    pub prune_naps: i64,
    /// Rate of packs that the server damages some time after they were stored.
    pub damaged: i64,
    /// Rate of packs that become missing for some hours, as if a disk was not mounted.
    pub outages: i64,
    /// Rate of requests to which the server answers that a stored pack is missing.
    pub denied: i64,
    pub jumps: i64,
    /// Rate of clients with a wrong clock. Some clocks are wrong by years.
    pub skews: i64,
    /// A client whose clock shows 1970.
    pub in_1970: Option<usize>,
    pub dates: Dates,
    /// Forgotten snapshots, per 1000.
    pub forgotten: i64,
    /// Pushes after which a client undeletes a snapshot, per 1000.
    pub undeleted: i64,
    /// Pushes that end early with a partial snapshot, per 1000.
    pub partial: i64,
    /// Rate at which a listing of the log leaves out each of the newest records.
    pub newest: i64,
    /// Whether a vandal forgets all snapshots when the writers are done.
    pub vandal: bool,
    /// The disabled rule.
    pub removed: Option<Rule>,
}

impl Plan {
    /// Returns the plan of a seed.
    pub fn of(seed: u64) -> Plan {
        let dice = &mut Dice::new(seed ^ 0x5eed);
        let grace = DAY;
        let calm = dice.chance(100);
        let mut often = |rates: &[i64]| if calm { 0 } else { dice.pick(rates) };
        let (killed, lost, suspended) = (often(&[0, 2, 8]), often(&[0, 0, 5]), often(&[0, 2, 10]));
        let (late, skipped, hidden) = (often(&[0, 0, 20]), often(&[0, 0, 5]), often(&[0, 0, 200]));
        let (denied, jumps, skews) = (often(&[0, 0, 0, 2]), often(&[0, 0, 5]), often(&[0, 0, 500, 1000]));
        let damaged = often(&[0, 0, 0, 0, 50]);
        let outages = often(&[0, 0, 0, 30]);
        let commit_naps = often(&[0, 0, 30]);
        Plan {
            writers: 2 + dice.roll(2) as usize,
            pruners: 1 + dice.roll(2) as usize,
            pushes: 5 + dice.roll(6),
            prunes: 6 + dice.roll(8),
            grace,
            latency: dice.pick(&[4, 60, 300]),
            pauses: 2 * grace,
            burst: dice.pick(&[300, 800, 950]),
            killed,
            lost,
            suspended,
            late,
            skipped,
            hidden,
            hidden_for: grace / 5,
            damaged,
            commit_naps,
            outages,
            denied,
            jumps,
            skews,
            dates: if calm {
                Dates::True
            } else {
                dice.pick(&[Dates::True, Dates::True, Dates::True, Dates::OldPacks, Dates::Epoch, Dates::Random])
            },
            forgotten: dice.pick(&[300, 700]),
            partial: dice.pick(&[0, 200]),
            newest: if calm { 0 } else { dice.pick(&[0, 0, 100]) },
            undeleted: dice.pick(&[0, 400]),
            prune_naps: if calm { 0 } else { dice.pick(&[0, 0, 30]) },
            in_1970: None,
            has_sites: !calm && dice.chance(150),
            script: None,
            vandal: false,
            removed: None,
        }
    }

    /// Returns the plan with latency as its only fault.
    pub fn quiet(self) -> Plan {
        let Plan { grace, prunes, pushes, latency, removed, .. } = self.clone();
        let mut plan = self;
        plan.calm();
        Plan { grace, prunes, pushes, latency, removed, ..plan }
    }

    /// Ends all faults and restores the removed rule.
    pub fn calm(&mut self) {
        (self.killed, self.lost, self.late, self.skipped, self.hidden) = Default::default();
        (self.denied, self.damaged, self.suspended, self.skews, self.jumps) = Default::default();
        (self.newest, self.commit_naps, self.prune_naps, self.outages) = (0, 0, 0, 0);
        (self.dates, self.latency, self.removed, self.has_sites) = (Dates::True, 4, None, false);
    }

    /// Returns the clients at the same site as a client, as a bit mask.
    pub fn neighbours(&self, client: usize) -> i64 {
        let writers = (1 << self.writers) - 1;
        if client < self.writers { writers } else { !writers }
    }

    /// Returns whether the run has no faults, so that no operation may fail.
    pub fn is_calm(&self) -> bool {
        let network = [self.killed, self.lost, self.late, self.suspended, self.commit_naps, self.prune_naps];
        let server = [self.newest, self.outages, self.skipped, self.hidden, self.denied, self.damaged, self.skews];
        network.iter().chain(&server).all(|rate| *rate == 0)
    }

    /// Returns a random difference of a clock from the true time.
    pub fn skew(&mut self, dice: &mut Dice) -> Seconds {
        if !dice.chance(self.skews) {
            return 0;
        }
        match dice.roll(6) {
            0 => -super::world::START, // 1970
            1 => 365 * DAY,            // next year
            2 => 74 * 365 * DAY,       // 2100
            3 => dice.roll(4 * self.grace) - 2 * self.grace,
            _ => dice.roll(2 * HOUR) - HOUR,
        }
    }

    /// Returns a random time for which a client is suspended.
    pub fn nap(&self, dice: &mut Dice) -> Seconds {
        match dice.roll(4) {
            0 => dice.roll(self.grace / 2),
            1 => self.grace / 2 + dice.roll(self.grace / 2),
            2 => self.grace + dice.roll(self.grace),
            _ => dice.roll(5 * self.grace),
        }
    }

    /// Returns a random time between two operations of a client.
    pub fn pause(&self, dice: &mut Dice) -> Seconds {
        if dice.chance(300) { dice.roll(HOUR) } else { dice.roll(self.pauses) }
    }
}
