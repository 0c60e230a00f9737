//! Random histories with crashes against a model that knows what was promised.

use std::collections::BTreeSet;

use broker_log::{AHEAD_BYTES_DEFAULT, Config, Error, Journal, Position, Recovered, Verify};
use proptest::prelude::*;

use crate::sim::SimDisk;
use crate::support::{Replayed, Stored, append, as_replayed, key, latest, open, replay, small};

#[derive(Clone, Debug)]
enum Op {
    Append(Vec<Plan>),
    Sync,
    /// Covers a boundary that lies this far back.
    Checkpoint(usize),
    Remove(usize),
    LosePower(u64),
    KillProcess,
    CloseAndOpen,
    /// The change after so many fails, then power is lost or the process is killed.
    FailAfter(u64),
    Scan {
        stream: u32,
        skip: u64,
        entries_max: usize,
        bytes_max: u64,
    },
}

#[derive(Clone, Debug)]
enum Plan {
    New {
        stream: u32,
        count: u32,
        bytes: usize,
    },
    Plain {
        bytes: usize,
    },
    /// The entry this far back is appended again, with other bytes so that copies can be told apart.
    Again {
        back: usize,
        bytes: usize,
    },
}

fn plan() -> impl Strategy<Value = Plan> {
    let bytes = prop_oneof![4 => 0..80_usize, 2 => 80..900_usize, 1 => Just(5000_usize)];
    prop_oneof![
        5 => (0..3_u32, 1..20_u32, bytes.clone()).prop_map(|(stream, count, bytes)| Plan::New { stream, count, bytes }),
        2 => bytes.clone().prop_map(|bytes| Plan::Plain { bytes }),
        2 => (0..60_usize, bytes).prop_map(|(back, bytes)| Plan::Again { back, bytes }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => prop::collection::vec(plan(), 0..8).prop_map(Op::Append),
        8 => Just(Op::Sync),
        3 => (0..6_usize).prop_map(Op::Checkpoint),
        3 => (0..6_usize).prop_map(Op::Remove),
        3 => any::<u64>().prop_map(Op::LosePower),
        1 => Just(Op::KillProcess),
        1 => Just(Op::CloseAndOpen),
        3 => (0..25_u64).prop_map(Op::FailAfter),
        4 => (0..3_u32, 0..200_u64, 0..9_usize, 0..4000_u64)
            .prop_map(|(stream, skip, entries_max, bytes_max)| Op::Scan { stream, skip, entries_max, bytes_max }),
    ]
}

struct Machine {
    disk: SimDisk,
    journal: Option<Journal<SimDisk>>,
    /// Everything that was appended, with its place once that is known.
    log: Vec<(Option<Position>, Stored)>,
    /// How many of these must survive.
    durable: usize,
    /// Positions that a checkpoint may cover, with how many entries lie before.
    boundaries: Vec<(Position, usize)>,
    /// How many entries the last checkpoint covers that was reported as stored.
    covered: usize,
    /// Segments that may be gone.
    removed: BTreeSet<u64>,
    next: [u64; 3],
    stamp: u64,
    ahead_bytes: u64,
}

impl Machine {
    fn new(ahead_bytes: u64) -> Self {
        let mut machine = Self {
            disk: SimDisk::default(),
            journal: None,
            log: Vec::new(),
            durable: 0,
            boundaries: Vec::new(),
            covered: 0,
            removed: BTreeSet::new(),
            next: [1; 3],
            stamp: 0,
            ahead_bytes,
        };
        machine.recover();
        machine
    }

    fn journal(&mut self) -> &mut Journal<SimDisk> {
        self.journal.as_mut().unwrap()
    }

    fn apply(&mut self, op: Op) {
        let outcome = match op {
            Op::Append(plans) => self.append(plans),
            Op::Sync => self.sync(),
            Op::Checkpoint(back) => self.checkpoint(back),
            Op::Remove(index) => self.remove(index),
            Op::LosePower(seed) => return self.lose_power(seed),
            Op::KillProcess => {
                self.disk.kill_process();
                return self.recover();
            }
            Op::CloseAndOpen => {
                self.journal = None;
                return self.recover();
            }
            Op::FailAfter(changes) => {
                self.disk.fail_after(changes);
                Ok(())
            }
            Op::Scan { stream, skip, entries_max, bytes_max } => {
                self.check_scan(stream, skip, entries_max, bytes_max);
                Ok(())
            }
        };
        match outcome {
            Ok(()) => {}
            Err(Error::Io { .. }) => self.fail(),
            Err(error) => panic!("{error}"),
        }
    }

    fn append(&mut self, plans: Vec<Plan>) -> Result<(), Error> {
        let entries: Vec<_> = plans.into_iter().filter_map(|plan| self.make(plan)).collect();
        self.log.extend(entries.iter().map(|stored| (None, stored.clone())));
        let rolled_from = self.journal().end().segment;
        let end = append(self.journal(), &entries)?;
        if end.segment != rolled_from {
            // What lies in the segments before was synced on the way.
            self.place();
            let before = |(position, _): &&(Option<Position>, Stored)| position.unwrap().segment < end.segment;
            self.durable = self.durable.max(self.log.iter().take_while(before).count());
        }
        self.boundaries.push((end, self.log.len()));
        Ok(())
    }

    fn make(&mut self, plan: Plan) -> Option<Stored> {
        self.stamp += 1;
        let stamp = self.stamp.to_le_bytes();
        let fill = |bytes: usize| stamp.iter().copied().cycle().take(bytes).collect();
        match plan {
            Plan::New { stream, count, bytes } => {
                let next = &mut self.next[stream as usize];
                let first = *next;
                // Leaves gaps now and then.
                *next += u64::from(count) + u64::from(count % 3);
                Some(Stored { key: key(stream, first, count), payload: fill(bytes) })
            }
            Plan::Plain { bytes } => Some(Stored { key: None, payload: fill(bytes) }),
            Plan::Again { back, bytes } => {
                let at = self.log.len().checked_sub(back + 1)?;
                Some(Stored { key: Some(self.log[at].1.key?), payload: fill(bytes) })
            }
        }
    }

    fn sync(&mut self) -> Result<(), Error> {
        let durable = self.journal().sync()?;
        assert_eq!(durable, self.journal().end());
        self.durable = self.log.len();
        Ok(())
    }

    fn checkpoint(&mut self, back: usize) -> Result<(), Error> {
        let durable = self.journal().durable();
        let good = |(at, count): &&(Position, usize)| *at <= durable && *count >= self.covered;
        let Some(&(covers, count)) = self.boundaries.iter().rev().filter(good).take(back + 1).last() else {
            return Ok(());
        };
        let state = [&(count as u64).to_le_bytes()[..], &vec![7; count % 300]].concat();
        // Every other segment is dead, as far as the checkpoint is concerned.
        let dead: Vec<_> = self.journal().segments().iter().map(|one| one.id).filter(|id| id % 2 == 1).collect();
        self.journal().checkpoint(covers, &state, &dead)?;
        self.covered = count;
        Ok(())
    }

    fn remove(&mut self, index: usize) -> Result<(), Error> {
        let Some(segment) = self.journal().segments().get(index).cloned() else { return Ok(()) };
        match self.journal().remove_segment(segment.id) {
            Err(Error::SegmentInUse { .. }) => Ok(()),
            outcome => {
                self.removed.insert(segment.id);
                outcome
            }
        }
    }

    /// A change failed: nothing may be touched any more.
    fn fail(&mut self) {
        let counts = self.disk.counts();
        let end = self.journal().end();
        let journal = self.journal();
        assert!(matches!(append(journal, &[]), Err(Error::Poisoned)));
        assert!(matches!(journal.sync(), Err(Error::Poisoned)));
        assert!(matches!(journal.checkpoint(end, &[], &[]), Err(Error::Poisoned)));
        assert!(matches!(journal.remove_segment(1), Err(Error::Poisoned)));
        assert!(matches!(replay(journal, Position::START), Err(Error::Poisoned)));
        assert!(matches!(journal.reader().scan(0, 0, 1, 1), Err(Error::Poisoned)));
        assert_eq!(self.disk.counts(), counts);
        if self.stamp.is_multiple_of(3) {
            self.disk.kill_process();
            self.recover();
        } else {
            self.lose_power(self.stamp);
        }
    }

    fn lose_power(&mut self, seed: u64) {
        self.disk.lose_power(seed);
        // Half of the time, power is lost once more during the recovery.
        if seed.is_multiple_of(2) {
            self.disk.fail_after(seed / 2 % 8);
            drop(open(&self.disk));
            self.disk.lose_power(seed / 16);
        }
        self.recover();
    }

    fn recover(&mut self) {
        self.journal = None;
        self.disk.kill_process();
        let verify = if self.stamp.is_multiple_of(2) { Verify::All } else { Verify::SinceCheckpoint };
        let config = Config { verify, ahead_bytes: self.ahead_bytes, ..small() };
        let (journal, recovered) = Journal::open(self.disk.clone(), config).unwrap();
        self.check_suffix(&journal, &recovered);
        self.boundaries = vec![(recovered.end, self.log.len())];
        self.journal = Some(journal);
        self.place();
        for stream in 0..3 {
            self.check_scan(stream, 0, usize::MAX, u64::MAX);
        }
    }

    /// What is replayed is what was appended, at least as far as it was promised and without anything else.
    fn check_suffix(&mut self, journal: &Journal<SimDisk>, recovered: &Recovered) {
        let covered = recovered.checkpoint.as_ref().map_or(0, |checkpoint| {
            usize::try_from(u64::from_le_bytes(checkpoint.state[..8].try_into().unwrap())).unwrap()
        });
        assert!(covered >= self.covered, "a checkpoint is lost");
        assert!(recovered.checkpoints_damaged.is_empty());
        let replayed = replay(journal, recovered.replay_from()).unwrap();
        let survived = covered + replayed.len();
        assert!(survived >= self.durable, "{survived} of {} durable entries survived", self.durable);
        assert!(survived <= self.log.len(), "something appeared that was never appended");
        for ((_, found), (_, stored)) in replayed.iter().zip(&self.log[covered..]) {
            assert_eq!(found, stored);
        }
        self.log.truncate(survived);
        self.durable = survived;
        self.covered = covered;
    }

    /// Learns where the entries are, and checks that segments which were not removed are whole.
    fn place(&mut self) -> Replayed {
        let all = replay(self.journal(), Position::START).unwrap();
        for ((position, stored), (place, logged)) in all.iter().rev().zip(self.log.iter_mut().rev()) {
            if place.is_none() {
                assert_eq!(stored, logged);
                *place = Some(*position);
            }
        }
        let present: BTreeSet<_> = self.journal().segments().iter().map(|segment| segment.id).collect();
        let last = self.journal().end().segment;
        assert!((1..=last).all(|id| present.contains(&id) || self.removed.contains(&id)));
        let expected = self.log.iter().filter(|(place, _)| present.contains(&place.unwrap().segment));
        let expected: Replayed = expected.map(|(place, stored)| (place.unwrap(), stored.clone())).collect();
        assert_eq!(all, expected);
        all
    }

    fn check_scan(&mut self, stream: u32, from: u64, entries_max: usize, bytes_max: u64) {
        let expected = latest(&self.place(), stream, from);
        let reader = self.journal().reader();
        let found = as_replayed(reader.scan(stream, from, entries_max, bytes_max).unwrap());
        let mut bytes = 0;
        let fits = |(at, (_, stored)): &(usize, &(Position, Stored))| {
            bytes += stored.payload.len() as u64;
            *at < entries_max && (*at == 0 || bytes <= bytes_max)
        };
        let count = expected.iter().enumerate().take_while(fits).count();
        assert_eq!(found, expected[..count]);

        let looked_up = reader.lookup(stream, from).unwrap().map(|found| (found.position, found.key));
        let first = expected.first().map(|(position, stored)| (*position, stored.key.unwrap()));
        assert_eq!(looked_up, first.filter(|(_, key)| key.contains(from)));
    }
}

proptest! {
    #[test]
    fn what_was_synced_survives_every_crash_and_the_rest_is_a_prefix(
        ops in prop::collection::vec(op(), 1..80),
        ahead_bytes in prop::sample::select(&[0, 300, AHEAD_BYTES_DEFAULT][..]),
    ) {
        let mut machine = Machine::new(ahead_bytes);
        for op in ops {
            machine.apply(op);
        }
        machine.lose_power(77);
    }
}
