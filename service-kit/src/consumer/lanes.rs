//! Which message is handled next: a pure queue in which the messages of one ordering key stand in one lane.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// How long a key waits for its failed message to come back, in milliseconds. The broker delivers nothing of the key
/// before it, unless it went to the dead-letter topic or to another consumer of the subscription; so this is longer than
/// the longest backoff of the topology.
pub(super) const COMEBACK_MS_MAX: u64 = 75_000;

/// A lane: an ordering key, or a message that has none and stands alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Ordered(String),
    Alone(String),
}

/// A message in hand. A broker that restarted delivers it again, on a new lease; what becomes of the message then
/// goes for all of its leases.
#[derive(Debug)]
struct Item<M, L> {
    id: String,
    message: M,
    leases: Vec<L>,
}

#[derive(Debug)]
struct Lane<M, L> {
    running: Option<(String, Vec<L>)>,
    waiting: VecDeque<Item<M, L>>,
    comeback: Option<Comeback>,
}

/// A message that was nacked, and before which nothing of its key is handled.
#[derive(Debug)]
struct Comeback {
    id: String,
    /// On how many leases it was when it failed.
    leases: usize,
    until: Instant,
}

impl<M, L> Lane<M, L> {
    fn is_ready(&self) -> bool {
        self.running.is_none() && self.comeback.is_none() && !self.waiting.is_empty()
    }

    fn is_over(&self) -> bool {
        self.running.is_none() && self.comeback.is_none() && self.waiting.is_empty()
    }
}

/// Every message in hand: those that are being handled and those that wait for their turn.
#[derive(Debug)]
pub(super) struct Lanes<M, L> {
    lanes: HashMap<Key, Lane<M, L>>,
    ready: VecDeque<Key>,
    running: usize,
    running_max: usize,
    in_hand: usize,
}

impl<M, L> Lanes<M, L> {
    pub(super) fn new(running_max: usize) -> Self {
        Self { lanes: HashMap::new(), ready: VecDeque::new(), running: 0, running_max, in_hand: 0 }
    }

    /// How many different messages are in hand.
    pub(super) fn in_hand(&self) -> usize {
        self.in_hand
    }

    /// Takes a message, or one more lease of a message that is in hand already.
    pub(super) fn arrive(&mut self, ordering_key: &str, id: String, message: M, lease: L) {
        let key = if ordering_key.is_empty() { Key::Alone(id.clone()) } else { Key::Ordered(ordering_key.to_owned()) };
        let empty = || Lane { running: None, waiting: VecDeque::new(), comeback: None };
        let lane = self.lanes.entry(key.clone()).or_insert_with(empty);
        let was_ready = lane.is_ready();
        if let Some((_, leases)) = lane.running.as_mut().filter(|(running, _)| *running == id) {
            leases.push(lease);
        } else if let Some(item) = lane.waiting.iter_mut().find(|item| item.id == id) {
            item.leases.push(lease);
            // The broker delivers in order: it would not come to this message again if the failed one was still to
            // come. A lease that may have been under way when it failed says nothing.
            lane.comeback.take_if(|comeback| comeback.leases < item.leases.len());
        } else {
            let item = Item { id, message, leases: vec![lease] };
            if lane.comeback.as_ref().is_some_and(|comeback| comeback.id == item.id) {
                lane.comeback = None;
                lane.waiting.push_front(item);
            } else {
                lane.waiting.push_back(item);
            }
            self.in_hand += 1;
        }
        if !was_ready && lane.is_ready() {
            self.ready.push_back(key);
        }
    }

    /// The next message to handle, if one more may be handled now.
    pub(super) fn start(&mut self) -> Option<(Key, M)> {
        if self.running >= self.running_max {
            return None;
        }
        let key = self.ready.pop_front()?;
        let lane = self.lanes.get_mut(&key)?;
        let item = lane.waiting.pop_front()?;
        lane.running = Some((item.id, item.leases));
        self.running += 1;
        Some((key, item.message))
    }

    /// Takes the leases of the message that is being handled away from it: for a build that is broken on purpose.
    pub(super) fn leases_of_running(&mut self, key: &Key) -> Vec<L> {
        let running = self.lanes.get_mut(key).and_then(|lane| lane.running.as_mut());
        running.map(|(_, leases)| std::mem::take(leases)).unwrap_or_default()
    }

    /// A message was handled, whatever the outcome: gives its leases back.
    ///
    /// With `comes_back`, the broker will deliver it again, and its key waits for that.
    pub(super) fn finish(&mut self, key: Key, comes_back: bool, now: Instant) -> Vec<L> {
        let Some(lane) = self.lanes.get_mut(&key) else { return Vec::new() };
        let Some((id, leases)) = lane.running.take() else { return Vec::new() };
        self.running -= 1;
        self.in_hand -= 1;
        if comes_back && matches!(key, Key::Ordered(_)) {
            lane.comeback =
                Some(Comeback { id, leases: leases.len(), until: now + Duration::from_millis(COMEBACK_MS_MAX) });
        }
        if lane.is_ready() {
            self.ready.push_back(key);
        } else if lane.is_over() {
            self.lanes.remove(&key);
        }
        leases
    }

    /// Gives up on messages that were expected and did not come back: they went to the dead-letter topic.
    pub(super) fn expire(&mut self, now: Instant) {
        let Self { lanes, ready, .. } = self;
        lanes.retain(|key, lane| {
            if lane.comeback.as_ref().is_some_and(|comeback| comeback.until <= now) {
                lane.comeback = None;
                if lane.is_ready() {
                    ready.push_back(key.clone());
                }
            }
            !lane.is_over()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(lanes: &mut Lanes<&'static str, u32>) -> Vec<&'static str> {
        std::iter::from_fn(|| lanes.start()).map(|(_, message)| message).collect()
    }

    fn ordered(key: &str) -> Key {
        Key::Ordered(key.into())
    }

    fn arrive(lanes: &mut Lanes<&'static str, u32>, key: &str, message: &'static str, lease: u32) {
        lanes.arrive(key, message.into(), message, lease);
    }

    #[test]
    fn a_key_is_handled_one_after_the_other_and_keys_at_the_same_time() {
        let mut lanes = Lanes::new(8);
        for (at, (key, message)) in [("a", "a1"), ("a", "a2"), ("b", "b1"), ("", "x"), ("", "y")].iter().enumerate() {
            arrive(&mut lanes, key, message, u32::try_from(at).unwrap());
        }
        assert_eq!(started(&mut lanes), ["a1", "b1", "x", "y"]);
        assert_eq!(lanes.finish(ordered("a"), false, Instant::now()), [0]);
        assert_eq!(started(&mut lanes), ["a2"]);
        assert_eq!(lanes.in_hand(), 4);
    }

    #[test]
    fn no_more_are_handled_at_the_same_time_than_the_limit() {
        let mut lanes = Lanes::new(2);
        for message in ["x", "y", "z"] {
            arrive(&mut lanes, "", message, 0);
        }
        assert_eq!(started(&mut lanes), ["x", "y"]);
        lanes.finish(Key::Alone("x".into()), false, Instant::now());
        assert_eq!(started(&mut lanes), ["z"]);
    }

    #[test]
    fn a_second_lease_joins_the_message_in_hand() {
        let mut lanes = Lanes::new(1);
        arrive(&mut lanes, "a", "a1", 1);
        arrive(&mut lanes, "a", "a2", 2);
        assert_eq!(started(&mut lanes), ["a1"]);
        arrive(&mut lanes, "a", "a1", 11);
        arrive(&mut lanes, "a", "a2", 12);
        assert_eq!(lanes.in_hand(), 2);
        assert_eq!(lanes.finish(ordered("a"), false, Instant::now()), [1, 11]);
        assert_eq!(started(&mut lanes), ["a2"]);
        assert_eq!(lanes.finish(ordered("a"), false, Instant::now()), [2, 12]);
        assert_eq!((lanes.in_hand(), lanes.lanes.len()), (0, 0));
    }

    #[test]
    fn what_follows_a_failed_message_waits_for_its_comeback() {
        let mut lanes = Lanes::new(8);
        arrive(&mut lanes, "a", "a1", 1);
        arrive(&mut lanes, "a", "a2", 2);
        arrive(&mut lanes, "b", "b1", 3);
        assert_eq!(started(&mut lanes), ["a1", "b1"]);
        lanes.finish(ordered("a"), true, Instant::now());
        // It was under way to us when the first one was nacked.
        arrive(&mut lanes, "a", "a3", 4);
        assert_eq!(started(&mut lanes), Vec::<&str>::new());
        arrive(&mut lanes, "a", "a1", 5);
        for expected in ["a1", "a2", "a3"] {
            assert_eq!(started(&mut lanes), [expected]);
            lanes.finish(ordered("a"), false, Instant::now());
        }
    }

    #[test]
    fn a_delivery_from_before_a_failure_lets_nothing_overtake_the_failed_message() {
        let mut lanes = Lanes::new(8);
        arrive(&mut lanes, "a", "a1", 1);
        arrive(&mut lanes, "a", "a2", 2);
        assert_eq!(started(&mut lanes), ["a1"]);
        // The broker restarts and delivers both again; the first one fails before the second one is taken.
        arrive(&mut lanes, "a", "a1", 11);
        assert_eq!(lanes.finish(ordered("a"), true, Instant::now()), [1, 11]);
        arrive(&mut lanes, "a", "a2", 12);
        assert_eq!(started(&mut lanes), Vec::<&str>::new());
        arrive(&mut lanes, "a", "a1", 21);
        assert_eq!(started(&mut lanes), ["a1"]);
        lanes.finish(ordered("a"), false, Instant::now());
        assert_eq!(started(&mut lanes), ["a2"]);
    }

    #[test]
    fn a_failed_message_that_went_elsewhere_is_not_waited_for() {
        let mut lanes = Lanes::new(8);
        for key in ["a", "b", "c"] {
            arrive(
                &mut lanes,
                key,
                if key == "a" {
                    "a1"
                } else if key == "b" {
                    "b1"
                } else {
                    "c1"
                },
                1,
            );
        }
        started(&mut lanes);
        arrive(&mut lanes, "a", "a2", 2);
        let now = Instant::now();
        for key in ["a", "b", "c"] {
            lanes.finish(ordered(key), true, now);
        }
        // The broker comes to the second one again: the first one is in the dead-letter topic.
        arrive(&mut lanes, "a", "a2", 3);
        assert_eq!(started(&mut lanes), ["a2"]);
        // It came only now, and says nothing about the first one: until the time is over.
        arrive(&mut lanes, "b", "b2", 4);
        lanes.expire(now + Duration::from_millis(COMEBACK_MS_MAX - 1));
        assert_eq!(started(&mut lanes), Vec::<&str>::new());
        lanes.expire(now + Duration::from_millis(COMEBACK_MS_MAX));
        assert_eq!(started(&mut lanes), ["b2"]);
        assert!(!lanes.lanes.contains_key(&ordered("c")), "a lane without messages is gone");
    }
}
