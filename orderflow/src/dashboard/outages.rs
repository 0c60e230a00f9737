//! When which part was not there. Told the time; asks no clock.

use std::collections::{BTreeMap, VecDeque};

use super::wire::Outage;
use crate::part::Instance;

/// Outages that are kept at most, the newest ones.
const OUTAGES_MAX: usize = 200;

/// The outages of all parts.
#[derive(Debug, Default)]
pub(super) struct Outages {
    /// Oldest first, by their beginnings.
    all: VecDeque<(Instance, i64, Option<i64>)>,
    /// How each part was when it was seen last.
    up: BTreeMap<Instance, bool>,
}

impl Outages {
    /// A part was seen. What has never been up has no outage: it has not started yet.
    pub(super) fn observe(&mut self, part: Instance, is_up: bool, now_ms: i64) {
        let was_up = self.up.get(&part).copied();
        match (was_up, is_up) {
            (Some(true), false) => {
                self.all.push_back((part, now_ms, None));
                if self.all.len() > OUTAGES_MAX {
                    self.all.pop_front();
                }
            }
            (Some(false), true) => {
                let open = self.all.iter_mut().rev().find(|(of, _, to_ms)| *of == part && to_ms.is_none());
                if let Some((_, _, to_ms)) = open {
                    *to_ms = Some(now_ms);
                }
            }
            _ => {}
        }
        self.up.insert(part, is_up);
    }

    /// Those that had not ended by a time, oldest first.
    pub(super) fn since(&self, since_ms: i64) -> Vec<Outage> {
        let reaches = |to_ms: Option<i64>| to_ms.is_none_or(|to_ms| to_ms >= since_ms);
        let told = self.all.iter().filter(|(_, _, to_ms)| reaches(*to_ms));
        told.map(|(part, from_ms, to_ms)| Outage { part: part.to_string(), from_ms: *from_ms, to_ms: *to_ms }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::Part;

    const PAYMENT: Instance = Instance { part: Part::PaymentService, number: 1 };
    const BROKER: Instance = Instance { part: Part::Broker, number: 1 };

    #[test]
    fn an_outage_lasts_from_the_loss_to_the_return() {
        let mut outages = Outages::default();
        for (time_ms, is_up) in [(1, true), (2, true), (3, false), (4, false), (5, true), (6, false)] {
            outages.observe(PAYMENT, is_up, time_ms);
            outages.observe(BROKER, true, time_ms);
        }
        let told: Vec<_> = outages.since(0).iter().map(|outage| (outage.from_ms, outage.to_ms)).collect();
        assert_eq!(told, [(3, Some(5)), (6, None)]);
        assert_eq!(outages.since(0)[0].part, "payment-service");
        assert_eq!(outages.since(6).len(), 1, "what ended before is not told");
    }

    #[test]
    fn a_part_that_has_not_started_yet_has_no_outage() {
        let mut outages = Outages::default();
        outages.observe(PAYMENT, false, 1);
        outages.observe(PAYMENT, true, 2);
        assert_eq!(outages.since(0), []);
    }

    #[test]
    fn only_the_newest_outages_are_kept() {
        let mut outages = Outages::default();
        for time_ms in 0..2_000 {
            outages.observe(PAYMENT, time_ms % 2 == 0, time_ms);
        }
        let told = outages.since(0);
        assert_eq!((told.len(), told[OUTAGES_MAX - 1].from_ms), (OUTAGES_MAX, 1_999));
    }
}
