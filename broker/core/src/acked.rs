//! Which messages of a topic a subscription has settled: a floor, and a compressed set above it.

use roaring::RoaringTreemap;

use crate::error::ReplayError;
use crate::ids::Seq;
use crate::record::SeqRange;

/// The settled messages of one subscription: acked, dead-lettered, or published before it was created.
///
/// Kept small: the floor moves up as far as it can, and only what stands out above it takes memory.
#[derive(Clone, Debug, PartialEq)]
pub struct AckedSet {
    floor: Seq,
    above: RoaringTreemap,
}

impl AckedSet {
    /// A set of all messages up to `floor`.
    pub fn new(floor: Seq) -> Self {
        AckedSet { floor, above: RoaringTreemap::new() }
    }

    /// A set from its floor and from what [`AckedSet::above_to_bytes`] gave.
    pub fn from_parts(floor: Seq, above: &[u8]) -> Result<Self, ReplayError> {
        let above = RoaringTreemap::deserialize_from(above).map_err(|error| ReplayError::SeqSet(error.to_string()))?;
        match above.min() {
            Some(min) if min <= floor.0 + 1 => {
                Err(ReplayError::SeqSet(format!("it starts at {min}, not above the floor {floor} with a gap")))
            }
            _ => Ok(AckedSet { floor, above }),
        }
    }

    /// What is settled above the floor, in the portable format of Roaring bitmaps.
    pub fn above_to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.above.serialized_size());
        self.above.serialize_into(&mut bytes).expect("a vector takes every write");
        bytes
    }

    /// The newest message below which all are settled, itself included.
    pub fn floor(&self) -> Seq {
        self.floor
    }

    /// How many messages are settled above the floor.
    pub fn above_count(&self) -> u64 {
        self.above.len()
    }

    /// Whether a message is settled.
    pub fn contains(&self, seq: Seq) -> bool {
        seq <= self.floor || (!self.above.is_empty() && self.above.contains(seq.0))
    }

    /// The first message at or after `from` that is not settled. It need not be published yet.
    pub(crate) fn next_unsettled(&self, from: Seq) -> Seq {
        let mut next = from.max(self.floor.next()).0;
        if !self.above.contains(next) {
            return Seq(next);
        }
        // `next` is settled. Leap in doubling steps over the run that it stands in, then in halving ones to its end.
        let mut step = 1;
        while self.above.contains_range(next..=next + step) {
            next += step;
            step *= 2;
        }
        while step > 0 {
            if self.above.contains_range(next..=next + step) {
                next += step;
            }
            step /= 2;
        }
        Seq(next + 1)
    }

    /// How many of the messages `first..=last` are not settled.
    pub(crate) fn unsettled_within(&self, first: Seq, last: Seq) -> u64 {
        let first = first.max(self.floor.next());
        if first > last {
            return 0;
        }
        let settled = self.above.rank(last.0) - self.above.rank(first.0 - 1);
        last.0 - first.0 + 1 - settled
    }

    /// Settles a range; false if a part of it was settled before.
    pub(crate) fn insert(&mut self, range: SeqRange) -> bool {
        if range.first <= self.floor {
            return false;
        }
        if self.above.is_empty() && range.first == self.floor.next() {
            self.floor = range.last;
            return true;
        }
        let fresh = if range.first == range.last {
            self.above.insert(range.first.0)
        } else {
            self.above.insert_range(range.first.0..=range.last.0) == range.count()
        };
        if range.first == self.floor.next() {
            self.raise_floor();
        }
        fresh
    }

    /// Settles a range, whatever of it was settled before; gives how many messages were not.
    pub(crate) fn cover(&mut self, range: SeqRange) -> u64 {
        let first = range.first.max(self.floor.next());
        if first > range.last {
            return 0;
        }
        if first > self.floor.next() {
            return self.above.insert_range(first.0..=range.last.0);
        }
        let fresh = range.last.0 - self.floor.0 - self.above.remove_range(..=range.last.0);
        self.floor = range.last;
        self.raise_floor();
        fresh
    }

    /// Settles everything up to `to`; gives how many messages were not.
    pub(crate) fn raise(&mut self, to: Seq) -> u64 {
        self.cover(SeqRange { first: Seq(1), last: to })
    }

    /// Settles what is settled in `other`, as far as `to`.
    pub(crate) fn absorb(&mut self, other: &AckedSet, to: Seq) {
        self.raise(other.floor.min(to));
        let mut above = other.above.clone();
        above.remove_range(to.0 + 1..);
        self.above |= above;
        self.raise_floor();
    }

    /// Keeps as settled only what is settled in `other` too.
    pub(crate) fn restrict(&mut self, other: &AckedSet) {
        let (low, high) = if self.floor <= other.floor { (&*self, other) } else { (other, &*self) };
        let mut above = low.above.clone();
        above.remove_range(high.floor.0 + 1..);
        above |= &low.above & &high.above;
        *self = AckedSet { floor: low.floor, above };
    }

    fn raise_floor(&mut self) {
        let floor = self.next_unsettled(self.floor.next()).0 - 1;
        self.above.remove_range(..=floor);
        self.floor = Seq(floor);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange { first: Seq(first), last: Seq(last) }
    }

    #[test]
    fn the_floor_rises_over_all_that_is_settled_above_it() {
        let mut acked = AckedSet::new(Seq(10));
        for seq in (12..=5_000).rev() {
            assert!(acked.insert(range(seq, seq)));
        }
        assert_eq!((acked.floor(), acked.above_count()), (Seq(10), 4_989));
        assert!(acked.insert(range(11, 11)));
        assert_eq!((acked.floor(), acked.above_count()), (Seq(5_000), 0));
    }

    /// A set of what `seqs` holds, and the same in the plainest of sets.
    fn random(rng: &mut fastrand::Rng) -> (AckedSet, BTreeSet<u64>) {
        let floor = rng.u64(0..20);
        let mut acked = AckedSet::new(Seq(floor));
        let mut plain: BTreeSet<u64> = (1..=floor).collect();
        for _ in 0..rng.u64(0..8) {
            let first = rng.u64(1..60);
            let last = first + rng.u64(0..6);
            let fresh = (first..=last).filter(|seq| plain.insert(*seq)).count();
            assert_eq!(acked.cover(range(first, last)), fresh as u64);
        }
        (acked, plain)
    }

    fn check(acked: &AckedSet, plain: &BTreeSet<u64>) {
        for seq in 1..90 {
            assert_eq!(acked.contains(Seq(seq)), plain.contains(&seq), "{seq} of {acked:?}");
            let unsettled = (seq..=seq + 7).filter(|seq| !plain.contains(seq)).count();
            assert_eq!(acked.unsettled_within(Seq(seq), Seq(seq + 7)), unsettled as u64, "from {seq} of {acked:?}");
        }
        assert_eq!(AckedSet::from_parts(acked.floor(), &acked.above_to_bytes()).as_ref(), Ok(acked), "the floor is up");
    }

    #[test]
    fn sets_combine_like_plain_ones() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..2_000 {
            let ((mut acked, mut plain), (other, other_plain)) = (random(&mut rng), random(&mut rng));
            check(&acked, &plain);
            let to = rng.u64(0..70);
            if rng.bool() {
                acked.absorb(&other, Seq(to));
                plain.extend(other_plain.range(..=to));
            } else {
                acked.restrict(&other);
                plain.retain(|seq| other_plain.contains(seq));
            }
            check(&acked, &plain);
            let fresh = (1..=to).filter(|seq| plain.insert(*seq)).count();
            assert_eq!(acked.raise(Seq(to)), fresh as u64);
            check(&acked, &plain);
        }
    }

    #[test]
    fn what_is_settled_twice_is_reported() {
        let mut acked = AckedSet::new(Seq(3));
        assert!(!acked.insert(range(3, 3)), "at the floor");
        assert!(acked.insert(range(6, 8)));
        assert!(!acked.insert(range(8, 9)), "an overlap");
        assert!(!acked.insert(range(7, 7)), "inside");
    }

    #[test]
    fn the_next_unsettled_message_is_found_behind_runs_of_every_length() {
        for length in (1..70).chain([255, 256, 257, 65_535, 65_536, 65_537, 200_000]) {
            let mut acked = AckedSet::new(Seq::ZERO);
            assert!(acked.insert(range(5, 4 + length)));
            assert_eq!(acked.next_unsettled(Seq(1)), Seq(1), "{length}");
            assert_eq!(acked.next_unsettled(Seq(5)), Seq(5 + length), "{length}");
            assert_eq!(acked.next_unsettled(Seq(4 + length)), Seq(5 + length), "{length}");
        }
    }

    #[test]
    fn a_set_survives_its_bytes() {
        let mut acked = AckedSet::new(Seq(7));
        assert!(acked.insert(range(9, 9)));
        assert!(acked.insert(range(1 << 33, (1 << 33) + 70_000)));
        assert_eq!(AckedSet::from_parts(Seq(7), &acked.above_to_bytes()), Ok(acked.clone()));
        assert!(AckedSet::from_parts(Seq(7), b"nonsense").is_err());
        assert!(AckedSet::from_parts(Seq(8), &acked.above_to_bytes()).is_err(), "the floor should have risen");
    }
}
