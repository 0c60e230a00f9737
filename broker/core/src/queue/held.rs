//! What a subscription holds, by the number of the message.
//!
//! Messages are taken up in ascending order and mostly settled in nearly the same, so that a row finds them at their
//! place. What stays behind while later ones come and go moves to a map, for the row to stay short.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Index;

use super::Message;
use crate::ids::Seq;

/// A row that is no longer than this many places is never too sparse, nor is its memory given back.
const ROW_KEPT: usize = 1_024;
/// In a longer row, one place of so many is taken at least.
const SPARSE: usize = 8;

/// Held messages. **Invariant:** the numbers of the map are lower than those of the row.
#[derive(Debug, Default)]
pub(super) struct Held {
    behind: BTreeMap<Seq, Message>,
    /// The number of the row's first place.
    first: u64,
    row: VecDeque<Option<Message>>,
    /// How many places of the row are taken.
    taken: usize,
}

impl Held {
    pub(super) fn get(&self, seq: &Seq) -> Option<&Message> {
        match self.place(*seq) {
            Some(place) => self.row.get(place)?.as_ref(),
            None => self.behind.get(seq),
        }
    }

    pub(super) fn get_mut(&mut self, seq: &Seq) -> Option<&mut Message> {
        match self.place(*seq) {
            Some(place) => self.row.get_mut(place)?.as_mut(),
            None => self.behind.get_mut(seq),
        }
    }

    /// Adds a message that is not held. Those that are held are mostly older.
    pub(super) fn insert(&mut self, seq: Seq, message: Message) {
        if self.row.is_empty() {
            // Nothing that is behind is later, or it would have kept the row from starting before it.
            match self.behind.last_key_value() {
                Some((last, _)) if *last > seq => drop(self.behind.insert(seq, message)),
                _ => self.start(seq, message),
            }
            return;
        }
        let Some(place) = self.place(seq) else {
            self.behind.insert(seq, message);
            return;
        };
        if place >= self.row.len() && place >= ROW_KEPT.max((self.taken + 1) * SPARSE) {
            self.retire();
            self.start(seq, message);
            return;
        }
        if place >= self.row.len() {
            self.row.resize_with(place + 1, || None);
        }
        self.row[place] = Some(message);
        self.taken += 1;
    }

    pub(super) fn remove(&mut self, seq: &Seq) -> Option<Message> {
        let Some(place) = self.place(*seq) else { return self.behind.remove(seq) };
        let message = self.row.get_mut(place)?.take()?;
        self.taken -= 1;
        while let Some(None) = self.row.front() {
            self.row.pop_front();
            self.first += 1;
        }
        if self.row.len() > ROW_KEPT && self.taken * SPARSE < self.row.len() {
            self.retire();
        }
        if self.row.is_empty() && self.row.capacity() > ROW_KEPT {
            self.row = VecDeque::new();
        }
        Some(message)
    }

    /// All, in ascending order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (Seq, &Message)> + '_ {
        let behind = self.behind.iter().map(|(seq, message)| (*seq, message));
        let seq = |place: usize| Seq(self.first + place as u64);
        let row = self.row.iter().enumerate();
        let row = row.filter_map(move |(place, message)| Some((seq(place), message.as_ref()?)));
        behind.chain(row)
    }

    /// Where in the row a number belongs; none if it is lower than all of them.
    fn place(&self, seq: Seq) -> Option<usize> {
        seq.0.checked_sub(self.first).map(|place| usize::try_from(place).unwrap_or(usize::MAX))
    }

    fn start(&mut self, seq: Seq, message: Message) {
        self.first = seq.0;
        self.row.push_back(Some(message));
        self.taken = 1;
    }

    /// Moves all of the row behind.
    fn retire(&mut self) {
        let numbers = (self.first..).map(Seq);
        let row = std::mem::take(&mut self.row);
        self.first += row.len() as u64;
        self.behind.extend(numbers.zip(row).filter_map(|(seq, message)| Some((seq, message?))));
        self.taken = 0;
    }
}

impl Index<&Seq> for Held {
    type Output = Message;

    fn index(&self, seq: &Seq) -> &Message {
        self.get(seq).expect("only held messages are looked up this way")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{KeyHash, Meta};
    use crate::queue::State;

    fn message(key: u64) -> Message {
        Message { meta: Meta { bytes: 1, key: Some(KeyHash(key)) }, state: State::Waiting, losses: 0 }
    }

    fn check(held: &Held, plain: &BTreeMap<Seq, u64>) {
        let key = |message: &Message| message.meta.key.map_or(0, |key| key.0);
        let all: Vec<_> = held.iter().map(|(seq, message)| (seq, key(message))).collect();
        let expected: Vec<_> = plain.iter().map(|(seq, key)| (*seq, *key)).collect();
        assert_eq!(all, expected);
        assert!(held.iter().rev().map(|(seq, _)| seq).eq(plain.keys().rev().copied()));
        let lowest = held.row.front().map(|_| Seq(held.first));
        assert!(lowest.is_none_or(|lowest| held.behind.keys().all(|seq| *seq < lowest)), "the map is behind the row");
        assert_eq!(held.row.iter().flatten().count(), held.taken);
        assert!(held.row.len() <= ROW_KEPT.max(held.taken * SPARSE), "the row is too long");
    }

    #[test]
    fn messages_are_found_as_in_a_plain_map_whatever_the_order_in_which_they_go() {
        let mut rng = fastrand::Rng::with_seed(11);
        for gap_max in [1, 3, 5_000] {
            let (mut held, mut plain, mut last) = (Held::default(), BTreeMap::new(), 0);
            for step in 0..6_000_u64 {
                if plain.is_empty() || rng.u8(..) < 140 {
                    last += rng.u64(1..=gap_max);
                    held.insert(Seq(last), message(step));
                    plain.insert(Seq(last), step);
                } else {
                    let at = if rng.u8(..) < 200 { rng.usize(..plain.len().min(4)) } else { rng.usize(..plain.len()) };
                    let seq = *plain.keys().nth(at).unwrap();
                    assert_eq!(held.remove(&seq).unwrap().meta.key, plain.remove(&seq).map(KeyHash));
                    assert!(held.get(&seq).is_none() && held.remove(&seq).is_none());
                }
                let seq = Seq(rng.u64(0..=last + 2));
                let found = held.get(&seq).and_then(|message| message.meta.key);
                assert_eq!(found, plain.get(&seq).copied().map(KeyHash));
                assert_eq!(held.get_mut(&seq).is_some(), plain.contains_key(&seq));
                if step % 64 == 0 {
                    check(&held, &plain);
                }
            }
        }
    }

    #[test]
    fn one_that_stays_behind_does_not_keep_the_row_long() {
        let (mut held, mut plain) = (Held::default(), BTreeMap::from([(Seq(1), 1)]));
        held.insert(Seq(1), message(1));
        for seq in 2..100_000 {
            held.insert(Seq(seq), message(seq));
            held.remove(&Seq(seq)).unwrap();
            assert!(held.row.len() <= ROW_KEPT + 1);
        }
        check(&held, &plain);
        assert!(held.remove(&Seq(1)).is_some());
        plain.clear();
        check(&held, &plain);
    }
}
