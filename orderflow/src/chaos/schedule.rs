//! What goes wrong, and when: a pure function of a seed and a few settings.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use fail_points::Point;
use fastrand::Rng;

use crate::acquirer::Mode;
use crate::lab::Line;
use crate::part::{Instance, Part};

/// Between two faults of one process it has so long to do some work, in milliseconds.
const REST_MS: u64 = 1_000;
/// A part that was killed stays away for at least so long, in milliseconds.
const DOWN_MS_MIN: u64 = 200;
/// And for at most so long.
const DOWN_MS_MAX: u64 = 4_000;
/// An armed process is given at most so long to reach its fail point, in milliseconds.
const ARMED_MS: u64 = 4_000;
/// A short freeze of a process or a line, in milliseconds, at most.
const FREEZE_MS_MAX: u64 = 2_000;
/// A long freeze of a process, in milliseconds: longer than the ack deadline of the suite's queues.
const LONG_FREEZE_MS: u64 = 11_000;
/// How much more comes in during a burst.
pub(super) const BURST_TIMES: f64 = 5.0;
/// How often a place for one more fault is looked for before it is given up.
const TRIES_MAX: usize = 20;

/// What the schedule depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Everything else being the same, another seed gives another schedule.
    pub seed: u64,
    /// From the first order to the last fault's end.
    pub duration: Duration,
    /// Every process of the stack.
    pub instances: Vec<Instance>,
}

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When it begins, in milliseconds from the start of the load.
    pub from_ms: u64,
    /// When it is over.
    pub until_ms: u64,
    /// What it is.
    pub what: What,
}

/// Kinds of faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A process is killed, and started again at the end.
    Killed(Instance),
    /// A process is started anew with armed fail points, and as it was at the end.
    Armed {
        /// Which one.
        instance: Instance,
        /// Where it dies.
        point: Point,
        /// At which passing.
        passing: u64,
    },
    /// A process stands still.
    Frozen(Instance),
    /// A server is told to end in order, and started again at the end.
    Stopped(Instance),
    /// Whoever has the role then is killed, and started again at the end.
    RoleKilled(Role),
    /// Whoever has the role then stands still.
    RoleFrozen(Role),
    /// Every broker is killed, and started again at the end.
    BrokersKilled,
    /// The acquirer misbehaves.
    Acquirer(Mode),
    /// The connections of a line are cut.
    Cut(Line),
    /// A line takes no new connections, and those that were there are cut.
    Refusing(Line),
    /// A line carries no bytes.
    FrozenLine(Line),
    /// A message that nobody can read is published.
    Poison {
        /// The id of the topic.
        topic: &'static str,
    },
    /// More orders come in.
    Burst,
}

/// Which of several that share a work, by what it does when the fault comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The NATS server that leads the stream of the journal.
    Leader,
    /// Another NATS server.
    Replica,
    /// The broker that owns the journal.
    Owner,
    /// A broker that forwards to the owner.
    Follower,
}

/// What can have one fault at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    Process(Instance),
    Line(Line),
    Acquirer,
    Poison,
    Load,
    /// All brokers, where there are several.
    Brokers,
    /// All NATS servers: a majority of them has to stay.
    Nats,
}

/// All faults of a run, the first first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The faults.
    pub faults: Vec<Fault>,
}

impl Schedule {
    /// The schedule of these settings: always the same.
    pub fn new(settings: &Settings) -> Self {
        let mut draft = Draft {
            rng: Rng::with_seed(settings.seed),
            duration_ms: u64::try_from(settings.duration.as_millis()).unwrap_or(u64::MAX),
            lanes: BTreeMap::new(),
        };
        let is_scaled = settings.instances.iter().any(|instance| instance.part == Part::Nats);
        if is_scaled {
            // Brokers and NATS servers are hurt by their roles.
            let alone = |instance: &Instance| !matches!(instance.part, Part::Broker | Part::Nats | Part::Postgres);
            let alone: Vec<Instance> = settings.instances.iter().copied().filter(alone).collect();
            draft.kill_everybody(&alone);
            draft.hurt_foundation();
            draft.hurt_processes(&alone);
            draft.hurt_lines(&[&Line::ALL[..], &Line::SCALED].concat());
        } else {
            draft.kill_everybody(&settings.instances);
            draft.hurt_processes(&settings.instances);
            draft.hurt_lines(&Line::ALL);
        }
        draft.hurt_the_rest();
        let mut faults: Vec<Fault> = draft.lanes.into_values().flatten().collect();
        faults.sort_by_key(|fault| (fault.from_ms, fault.until_ms, fault.what.lane()));
        Self { faults }
    }

    /// The faults of each lane, in their order.
    pub(super) fn lanes(&self) -> BTreeMap<Lane, Vec<Fault>> {
        let mut lanes: BTreeMap<Lane, Vec<Fault>> = BTreeMap::new();
        for fault in &self.faults {
            lanes.entry(fault.what.lane()).or_default().push(fault.clone());
        }
        lanes
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in self.faults.iter().enumerate() {
            let (from, until) = (seconds(fault.from_ms), seconds(fault.until_ms));
            let line_end = if number == 0 { "" } else { "\n" };
            write!(f, "{line_end}{from:>8} to {until:>8}  {}", fault.what)?;
        }
        Ok(())
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1_000, ms % 1_000)
}

impl What {
    pub(super) fn lane(&self) -> Lane {
        match *self {
            Self::Killed(instance)
            | Self::Frozen(instance)
            | Self::Stopped(instance)
            | Self::Armed { instance, .. } => Lane::Process(instance),
            Self::RoleKilled(Role::Owner | Role::Follower)
            | Self::RoleFrozen(Role::Owner | Role::Follower)
            | Self::BrokersKilled => Lane::Brokers,
            Self::RoleKilled(Role::Leader | Role::Replica) | Self::RoleFrozen(Role::Leader | Role::Replica) => {
                Lane::Nats
            }
            Self::Acquirer(_) => Lane::Acquirer,
            Self::Cut(line) | Self::Refusing(line) | Self::FrozenLine(line) => Lane::Line(line),
            Self::Poison { .. } => Lane::Poison,
            Self::Burst => Lane::Load,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed(instance) => write!(f, "{instance} is killed"),
            Self::Armed { instance, point, passing } => {
                write!(f, "{instance} dies at {}, passing {passing}", point.name())
            }
            Self::Frozen(instance) => write!(f, "{instance} stands still"),
            Self::Stopped(instance) => write!(f, "{instance} is stopped in order"),
            Self::RoleKilled(role) => write!(f, "{role} is killed"),
            Self::RoleFrozen(role) => write!(f, "{role} stands still"),
            Self::BrokersKilled => f.write_str("every broker is killed"),
            Self::Acquirer(mode) => f.write_str(match mode {
                Mode::Normal => "the acquirer is well",
                Mode::Unavailable => "the acquirer is unavailable",
                Mode::Slow => "the acquirer is slow",
                Mode::LostReplies => "the acquirer's replies are lost",
                Mode::DeclineAll => "the acquirer declines every card",
            }),
            Self::Cut(line) => write!(f, "the line {line} is cut"),
            Self::Refusing(line) => write!(f, "the line {line} is closed"),
            Self::FrozenLine(line) => write!(f, "the line {line} is frozen"),
            Self::Poison { topic } => write!(f, "an unreadable message on {topic}"),
            Self::Burst => write!(f, "{BURST_TIMES} times as many orders"),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "the NATS server that leads the journal",
            Self::Replica => "a NATS server that follows",
            Self::Owner => "the broker that owns the journal",
            Self::Follower => "a broker that forwards",
        })
    }
}

/// The fail points that a part passes.
fn points_of(part: Part) -> &'static [Point] {
    match part {
        Part::Nats | Part::Postgres => &[],
        Part::Broker => &[Point::BrokerAppended, Point::BrokerSynced, Point::BrokerAcked],
        Part::Acquirer => &[Point::AcquirerCommitted],
        Part::OrderService => &[Point::OrderCommitted, Point::OrderSettled, Point::RelayPublished],
        Part::PaymentService => &[Point::PaymentCharged, Point::PaymentCommitted, Point::RelayPublished],
        Part::NotificationService => &[Point::NotificationCommitted],
        Part::InvoiceWorker => &[Point::InvoicePublished],
    }
}

/// A schedule that is being made.
struct Draft {
    rng: Rng,
    duration_ms: u64,
    lanes: BTreeMap<Lane, Vec<Fault>>,
}

impl Draft {
    /// Every process dies once. The times are drawn for each by itself, so that some are down together.
    fn kill_everybody(&mut self, instances: &[Instance]) {
        for &instance in instances {
            let down_ms = self.length(DOWN_MS_MIN, DOWN_MS_MAX);
            self.put(down_ms, What::Killed(instance));
        }
    }

    /// One more fault of a process for about every one and a half seconds, as far as there is room.
    fn hurt_processes(&mut self, instances: &[Instance]) {
        for _ in 0..self.duration_ms / 1_500 {
            let Some(&instance) = self.rng.choice(instances) else { return };
            match self.rng.u8(0..10) {
                0..4 => {
                    let Some(&point) = self.rng.choice(points_of(instance.part)) else { continue };
                    let passing = self.rng.u64(1..=20);
                    self.put(ARMED_MS, What::Armed { instance, point, passing });
                }
                4..6 => {
                    let frozen_ms = self.length(100, FREEZE_MS_MAX);
                    self.put(frozen_ms, What::Frozen(instance));
                }
                6 => {
                    self.put(LONG_FREEZE_MS, What::Frozen(instance));
                }
                _ => {
                    let down_ms = self.length(DOWN_MS_MIN, DOWN_MS_MAX);
                    self.put(down_ms, What::Killed(instance));
                }
            }
        }
    }

    /// What is below the services dies once in each role, and now and then once more.
    fn hurt_foundation(&mut self) {
        let postgres = Part::Postgres.into();
        for what in [What::RoleKilled(Role::Leader), What::RoleKilled(Role::Owner), What::Killed(postgres)] {
            let down_ms = self.length(DOWN_MS_MIN, DOWN_MS_MAX);
            self.put(down_ms, what);
        }
        for _ in 0..self.duration_ms / 3_000 {
            let freeze_ms = self.length(100, FREEZE_MS_MAX);
            let down_ms = self.length(DOWN_MS_MIN, DOWN_MS_MAX);
            match self.rng.u8(0..9) {
                0 => self.put(down_ms, What::RoleKilled(Role::Owner)),
                1 => self.put(down_ms, What::RoleKilled(Role::Follower)),
                2 => self.put(freeze_ms, What::RoleFrozen(Role::Owner)),
                3 => self.put(freeze_ms, What::RoleFrozen(Role::Follower)),
                4 => self.put(down_ms, What::BrokersKilled),
                5 => self.put(down_ms, What::RoleKilled(Role::Replica)),
                6 => self.put(freeze_ms, What::RoleFrozen(Role::Leader)),
                7 => self.put(down_ms, What::Killed(postgres)),
                _ => self.put(down_ms, What::Stopped(postgres)),
            };
        }
    }

    fn hurt_lines(&mut self, lines: &[Line]) {
        for _ in 0..self.duration_ms / 2_000 {
            let line = lines[self.rng.usize(0..lines.len())];
            let ms = self.length(100, FREEZE_MS_MAX);
            match self.rng.u8(0..3) {
                0 => self.put(1, What::Cut(line)),
                1 => self.put(ms, What::Refusing(line)),
                _ => self.put(ms, What::FrozenLine(line)),
            };
        }
    }

    fn hurt_the_rest(&mut self) {
        let modes = [Mode::Unavailable, Mode::Slow, Mode::LostReplies, Mode::DeclineAll];
        for _ in 0..=self.duration_ms / 10_000 {
            let mode = modes[self.rng.usize(0..modes.len())];
            let ms = self.length(500, DOWN_MS_MAX);
            self.put(ms, What::Acquirer(mode));
        }
        for _ in 0..=self.duration_ms / 10_000 {
            let topic = if self.rng.bool() { "order-events" } else { "payment-events" };
            self.put(1, What::Poison { topic });
        }
        for _ in 0..=self.duration_ms / 20_000 {
            let ms = self.length(500, FREEZE_MS_MAX);
            self.put(ms, What::Burst);
        }
    }

    /// A length between the two, and never more than a quarter of the run.
    fn length(&mut self, ms_min: u64, ms_max: u64) -> u64 {
        self.rng.u64(ms_min..=ms_max.min(self.duration_ms / 4).max(ms_min))
    }

    /// Finds a time at which the lane has room, and says whether there is one.
    fn put(&mut self, length_ms: u64, what: What) -> bool {
        let Some(latest_ms) = self.duration_ms.checked_sub(length_ms) else { return false };
        let lane = self.lanes.entry(what.lane()).or_default();
        for _ in 0..TRIES_MAX {
            let from_ms = self.rng.u64(0..=latest_ms);
            let until_ms = from_ms + length_ms;
            let is_free = |other: &Fault| until_ms + REST_MS <= other.from_ms || other.until_ms + REST_MS <= from_ms;
            if lane.iter().all(is_free) {
                lane.push(Fault { from_ms, until_ms, what });
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;
    use crate::up;

    fn settings(seed: u64, duration_s: u64) -> Settings {
        let mut instances: Vec<Instance> = Part::ALL.map(Instance::from).to_vec();
        instances.push(Instance { part: Part::PaymentService, number: 2 });
        Settings { seed, duration: Duration::from_secs(duration_s), instances }
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_seed_another() {
        for seed in 0..20 {
            let schedule = Schedule::new(&settings(seed, 30));
            assert_eq!(schedule, Schedule::new(&settings(seed, 30)));
            assert_ne!(schedule, Schedule::new(&settings(seed + 1, 30)));
        }
    }

    #[test]
    fn the_schedule_of_a_seed_stays_as_it_was_printed() {
        // Whoever has a seed that failed repeats it with another build.
        let printed = Schedule::new(&settings(42, 5)).to_string();
        assert_eq!(printed.lines().next(), Some(PRINTED_FIRST), "{printed}");
    }

    const PRINTED_FIRST: &str = " 0.051 s to  1.024 s  payment-service-2 is killed";

    #[test]
    fn every_process_is_killed_and_everything_is_over_in_time() {
        for (seed, duration_s) in (0..200).zip([3, 5, 10, 20, 60].into_iter().cycle()) {
            let settings = settings(seed, duration_s);
            let schedule = Schedule::new(&settings);
            let killed: BTreeSet<_> = schedule
                .faults
                .iter()
                .filter_map(|fault| match fault.what {
                    What::Killed(instance) => Some(instance),
                    _ => None,
                })
                .collect();
            assert_eq!(killed.len(), settings.instances.len(), "seed {seed}");
            assert!(schedule.faults.iter().all(|fault| fault.until_ms <= duration_s * 1_000), "seed {seed}");
            assert!(schedule.faults.is_sorted_by_key(|fault| fault.from_ms), "seed {seed}");
        }
    }

    #[test]
    fn nothing_has_two_faults_at_a_time() {
        for seed in 0..100 {
            for (lane, faults) in Schedule::new(&settings(seed, 30)).lanes() {
                for (one, next) in faults.iter().zip(faults.iter().skip(1)) {
                    assert!(one.until_ms + REST_MS <= next.from_ms, "seed {seed}, {lane:?}");
                }
            }
        }
    }

    #[test]
    fn fifty_seeds_have_every_kind_of_fault_and_two_parts_down_at_once() {
        let mut kinds = HashSet::new();
        let mut points = BTreeSet::new();
        let (mut overlaps, mut long) = (0, 0);
        for seed in 1..=50 {
            let schedule = Schedule::new(&settings(seed, 20));
            let down: Vec<_> = schedule.faults.iter().filter(|fault| matches!(fault.what, What::Killed(_))).collect();
            overlaps += down.iter().zip(down.iter().skip(1)).filter(|(one, next)| next.from_ms < one.until_ms).count();
            for fault in &schedule.faults {
                kinds.insert(std::mem::discriminant(&fault.what));
                long += usize::from(matches!(fault.what, What::Frozen(_)) && fault.until_ms - fault.from_ms > 10_000);
                if let What::Armed { point, .. } = fault.what {
                    points.insert(point);
                }
            }
        }
        assert_eq!((kinds.len(), points.len()), (9, Point::ALL.len()));
        assert!(overlaps > 50 && long > 10, "{overlaps} overlaps, {long} long freezes");
    }

    #[test]
    fn past_one_machine_every_role_dies_and_a_majority_of_nats_servers_stays() {
        let scaled = |seed| {
            let instances = up::instances(true, &[]);
            Schedule::new(&Settings { seed, duration: Duration::from_secs(20), instances })
        };
        let mut roles = BTreeSet::new();
        let (mut stopped, mut all_brokers) = (0, 0);
        for seed in 1..=20 {
            let faults = scaled(seed).faults;
            let is = |what: What| faults.iter().any(|fault| fault.what == what);
            assert!(is(What::RoleKilled(Role::Leader)) && is(What::RoleKilled(Role::Owner)), "seed {seed}");
            assert!(is(What::Killed(Part::Postgres.into())), "seed {seed}");
            for fault in &faults {
                match fault.what {
                    What::RoleKilled(role) => drop(roles.insert(role)),
                    What::Stopped(_) => stopped += 1,
                    What::BrokersKilled => all_brokers += 1,
                    What::Killed(instance) | What::Frozen(instance) | What::Armed { instance, .. } => {
                        assert!(!matches!(instance.part, Part::Nats | Part::Broker), "seed {seed}: {}", fault.what);
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(roles.len(), 4);
        assert!(stopped > 0 && all_brokers > 0);
        assert_eq!(scaled(7), scaled(7));
    }
}
