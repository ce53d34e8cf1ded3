//! The character of a run: its clients, and the rate of each fault. All of it follows from the seed.

use super::dice::Dice;

/// Seconds of true time.
pub type Seconds = i64;

const HOUR: Seconds = 3600;
pub const DAY: Seconds = 24 * HOUR;

/// How the server dates objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dates {
    True,
    /// All of 1970: a NAS without a clock.
    Epoch,
    /// Packs of 1970, records of now: packs that another program copied.
    OldPacks,
    /// Any time between 1970 and next year.
    Random,
}

/// Operations in an order that random ones seldom have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Undeletes a forgotten snapshot while a pruner is suspended before it drops packs.
    Undelete,
    /// Pushes contents again that only a forgotten snapshot has.
    Return,
}

/// A rule that keeps data from being lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Only objects that a record condemned are deleted.
    CondemnFirst,
    /// The grace time runs from the first sight of the deleting machine.
    OwnSight,
    /// A writer lists the log again after its commit.
    SecondLook,
    /// Records and pages that cannot be read end the run.
    RefuseDoubt,
    /// Another place of a chunk counts only after it was read.
    VerifyPlaces,
    /// The deleting run recomputes the live chunks.
    FreshLiveness,
    /// The log is folded again after the drop record.
    FoldAgain,
    /// Unusual removals need the user's consent.
    Belts,
}

/// The character of a run. Rates are per 1000 requests.
#[derive(Clone, Debug)]
pub struct Plan {
    pub writers: usize,
    pub pruners: usize,
    /// Pushes of each writer, and prunes of each pruner.
    pub pushes: i64,
    pub prunes: i64,
    pub grace: Seconds,
    /// Longest time between two requests of a client that works.
    pub latency: Seconds,
    /// Longest time between two operations of a client.
    pub pauses: Seconds,
    /// How often a client goes on with its next request before others have their turn.
    pub burst: i64,
    pub killed: i64,
    pub lost: i64,
    pub suspended: i64,
    /// Puts that fail for the client and arrive later.
    pub late: i64,
    /// Entries that one listing leaves out.
    pub skipped: i64,
    /// Objects that listings show later than they were stored, to all clients or to some.
    pub hidden: i64,
    /// Longest time for which an object is hidden. Beyond a part of the grace time nothing can be promised: then hiding is
    /// as good as removing.
    pub hidden_for: Seconds,
    /// The server has two sites, one for writers and one for pruners. Each shows the objects of the other one later.
    pub has_sites: bool,
    /// What writers do in turn, instead of random changes.
    pub script: Option<Script>,
    /// Records before which a writer is suspended.
    pub commit_naps: i64,
    /// Records before which a pruner is suspended.
    pub prune_naps: i64,
    /// Packs that the server damages some time after they were stored.
    pub damaged: i64,
    /// Packs that are away for some hours some time after they were stored, as if a disk was not mounted.
    pub outages: i64,
    /// Packs that the server denies to have, when it is asked.
    pub denied: i64,
    pub jumps: i64,
    /// Whether clocks are wrong at all, and by years.
    pub skews: i64,
    /// A client that believes it is 1970.
    pub in_1970: Option<usize>,
    pub dates: Dates,
    /// Snapshots that are forgotten, of 1000.
    pub forgotten: i64,
    /// How often a client undeletes a snapshot after a push, of 1000.
    pub undeleted: i64,
    /// Pushes that end early with a partial snapshot, of 1000.
    pub partial: i64,
    /// The newest records that one listing of the log leaves out.
    pub newest: i64,
    /// Someone forgets all snapshots when the writers are done.
    pub vandal: bool,
    /// The rule that is not in force.
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

    /// Returns a plan in which clients are late and nothing else goes wrong.
    pub fn quiet(self) -> Plan {
        let Plan { grace, prunes, pushes, latency, removed, .. } = self.clone();
        let mut plan = self;
        plan.calm();
        Plan { grace, prunes, pushes, latency, removed, ..plan }
    }

    /// Ends everything that goes wrong.
    pub fn calm(&mut self) {
        (self.killed, self.lost, self.late, self.skipped, self.hidden) = Default::default();
        (self.denied, self.damaged, self.suspended, self.skews, self.jumps) = Default::default();
        (self.newest, self.commit_naps, self.prune_naps, self.outages) = (0, 0, 0, 0);
        (self.dates, self.latency, self.removed, self.has_sites) = (Dates::True, 4, None, false);
    }

    /// Returns the clients at the site of a client, one bit each.
    pub fn neighbours(&self, client: usize) -> i64 {
        let writers = (1 << self.writers) - 1;
        if client < self.writers { writers } else { !writers }
    }

    /// Returns whether nothing goes wrong in this run, so that no operation may fail.
    pub fn is_calm(&self) -> bool {
        let network = [self.killed, self.lost, self.late, self.suspended, self.commit_naps, self.prune_naps];
        let server = [self.newest, self.outages, self.skipped, self.hidden, self.denied, self.damaged, self.skews];
        network.iter().chain(&server).all(|rate| *rate == 0)
    }

    /// Returns the difference of a clock from the true time.
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

    /// Returns how long a client is suspended.
    pub fn nap(&self, dice: &mut Dice) -> Seconds {
        match dice.roll(4) {
            0 => dice.roll(self.grace / 2),
            1 => self.grace / 2 + dice.roll(self.grace / 2),
            2 => self.grace + dice.roll(self.grace),
            _ => dice.roll(5 * self.grace),
        }
    }

    /// Returns how long a client waits between two operations.
    pub fn pause(&self, dice: &mut Dice) -> Seconds {
        if dice.chance(300) { dice.roll(HOUR) } else { dice.roll(self.pauses) }
    }
}
