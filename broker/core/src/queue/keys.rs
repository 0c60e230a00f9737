//! Ordering keys: messages of one key go out in the order of their publication, to one consumer at a time.
//!
//! The unacked messages of a key that were looked at are two rows: those that are out, and behind them those that wait.
//! **Invariant:** each message that is out is older than each one that waits. So a message that fails takes the later
//! ones that are out back with it, and they all wait behind it.

use std::collections::VecDeque;

use super::suspects::is_suspect;
use super::{Queue, State};
use crate::ids::{ConsumerId, KeyHash, Seq};

#[derive(Debug)]
pub(crate) struct Key {
    /// Ascending.
    pub(crate) out: VecDeque<Seq>,
    /// Who has what is out, or had it last.
    pub(crate) consumer: ConsumerId,
    /// Ascending.
    pub(crate) waiting: VecDeque<Seq>,
    offered: Offered,
}

/// Where the oldest waiting message of a key is on offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offered {
    /// It is delayed, on its way to the dead-letter topic, a suspect behind messages that are out, or behind messages of a
    /// consumer that is no longer attached.
    Nowhere,
    /// Nothing of its key is out: any consumer may take it, with regard to how often connections were lost with it.
    ToAll(Seq, u32),
    /// Only this consumer may take it.
    To(ConsumerId, Seq),
}

impl Key {
    pub(crate) fn new() -> Self {
        Key { out: VecDeque::new(), consumer: ConsumerId(0), waiting: VecDeque::new(), offered: Offered::Nowhere }
    }

    /// Whether a message that was never delivered, the next of this key, may go to `consumer` at once.
    pub(crate) fn admits(&self, consumer: ConsumerId) -> bool {
        self.waiting.is_empty() && (self.out.is_empty() || self.consumer == consumer)
    }
}

impl Queue {
    pub(super) fn key_mut(&mut self, key: KeyHash) -> &mut Key {
        self.keys.entry(key).or_insert_with(Key::new)
    }

    /// Notes that a message went out.
    pub(super) fn key_sent(&mut self, key: KeyHash, seq: Seq, consumer: ConsumerId) {
        let state = self.key_mut(key);
        if state.waiting.front() == Some(&seq) {
            state.waiting.pop_front();
        }
        state.out.push_back(seq);
        state.consumer = consumer;
        self.offer_key(key);
    }

    /// Notes that a message is settled.
    pub(super) fn key_settled(&mut self, key: KeyHash, seq: Seq) {
        let state = self.key_mut(key);
        for row in [&mut state.out, &mut state.waiting] {
            if let Ok(index) = row.binary_search(&seq) {
                row.remove(index);
            }
        }
        self.offer_key(key);
    }

    /// Moves a message that is out, and all later ones that are, to the front of the waiting ones. Gives the later ones.
    /// The caller sets their states and then calls [`Queue::offer_key`].
    pub(super) fn key_recall(&mut self, key: KeyHash, seq: Seq) -> Vec<Seq> {
        let state = self.key_mut(key);
        let index = state.out.binary_search(&seq).unwrap_or_else(|index| index);
        let recalled: Vec<Seq> = state.out.drain(index..).collect();
        for seq in recalled.iter().rev() {
            state.waiting.push_front(*seq);
        }
        recalled.into_iter().filter(|later| *later != seq).collect()
    }

    /// Offers the oldest waiting message of a key to whom it may go to now, and forgets the key when it is empty. To be
    /// called after each change of a key, of the state of its oldest waiting message, or of its consumer.
    pub(super) fn offer_key(&mut self, key: KeyHash) {
        let Some(state) = self.keys.get(&key) else { return };
        let offered = match state.waiting.front() {
            Some(head) if self.held.get(head).is_some_and(|message| message.state == State::Waiting) => {
                let losses = self.held[head].losses;
                if state.out.is_empty() {
                    Offered::ToAll(*head, losses)
                } else if is_suspect(losses) {
                    Offered::Nowhere
                } else if self.consumers.contains_key(&state.consumer) {
                    Offered::To(state.consumer, *head)
                } else {
                    Offered::Nowhere
                }
            }
            _ => Offered::Nowhere,
        };
        let (before, empty) = (state.offered, state.out.is_empty() && state.waiting.is_empty());
        if offered != before {
            match before {
                Offered::Nowhere => {}
                Offered::ToAll(seq, losses) => self.take_down(seq, losses),
                Offered::To(consumer, seq) => {
                    if let Some(consumer) = self.consumers.get_mut(&consumer) {
                        consumer.reserved.remove(&seq);
                    }
                }
            }
            match offered {
                Offered::Nowhere => {}
                Offered::ToAll(seq, losses) => self.put_up(seq, losses),
                Offered::To(id, seq) => {
                    if let Some(consumer) = self.consumers.get_mut(&id) {
                        consumer.reserved.insert(seq);
                        self.due.insert(id);
                    }
                }
            }
            self.key_mut(key).offered = offered;
        }
        if empty {
            self.keys.remove(&key);
        }
    }
}
