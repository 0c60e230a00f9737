//! What happened, in the order in which it happened, and whether that is what was promised.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

/// Which start of the broker; a connection belongs to one.
pub(super) type Run = usize;
/// A message id. It grows along its topic.
pub(super) type Id = u64;

/// A message as it was published or delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parcel {
    pub(super) id: Id,
    pub(super) key: String,
    /// Counts up in its key.
    pub(super) number: u64,
}

/// One delivery on a stream of the strict subscription.
#[derive(Clone, Debug)]
pub(super) struct Delivered {
    pub(super) run: Run,
    pub(super) stream: usize,
    pub(super) parcel: Parcel,
    pub(super) attempt: u32,
}

/// What a consumer of a strict subscription saw or did.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Delivered(Delivered),
    AckSent(Id),
    AckConfirmed(Run, Id),
    NackSent(Run, Id),
    NackConfirmed(Run, Id),
}

/// Kept by all clients together, each event before its consequences.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    published: Vec<Parcel>,
    strict: HashMap<&'static str, History>,
    /// What came to the subscriptions that promise no more than that everything comes.
    loose: HashMap<&'static str, BTreeMap<Id, Parcel>>,
    progress: u64,
}

/// What the consumers of one strict subscription saw and did.
#[derive(Debug, Default)]
struct History {
    events: Vec<Event>,
    /// How many acks were confirmed.
    confirmed: usize,
}

/// How much happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) published: usize,
    pub(super) deliveries: usize,
    pub(super) acks_confirmed: usize,
    pub(super) nacks_confirmed: usize,
}

impl Ledger {
    pub(super) fn published(&self, parcels: impl IntoIterator<Item = Parcel>) {
        self.with(|book| book.published.extend(parcels));
    }

    pub(super) fn strict(&self, subscription: &'static str, event: Event) {
        self.with(|book| {
            let history = book.strict.entry(subscription).or_default();
            history.confirmed += usize::from(matches!(event, Event::AckConfirmed(..)));
            history.events.push(event);
        });
    }

    pub(super) fn received(&self, subscription: &'static str, parcel: Parcel) {
        self.with(|book| book.loose.entry(subscription).or_default().insert(parcel.id, parcel));
    }

    /// Grows with everything that happens.
    pub(super) fn progress(&self) -> u64 {
        self.0.lock().unwrap().progress
    }

    /// Whether the strict subscriptions have confirmed acks of nearly all that was published.
    pub(super) fn is_kept_up_with(&self, behind_max: usize) -> bool {
        let book = self.0.lock().unwrap();
        let wanted = book.published.len().saturating_sub(behind_max);
        book.strict.values().all(|history| history.confirmed >= wanted)
    }

    pub(super) fn totals(&self) -> Totals {
        let book = self.0.lock().unwrap();
        let count = |is: fn(&Event) -> bool| {
            book.strict.values().flat_map(|history| &history.events).filter(|event| is(event)).count()
        };
        Totals {
            published: book.published.len(),
            deliveries: count(|event| matches!(event, Event::Delivered(_))),
            acks_confirmed: count(|event| matches!(event, Event::AckConfirmed(..))),
            nacks_confirmed: count(|event| matches!(event, Event::NackConfirmed(..))),
        }
    }

    /// Panics over the first promise that was not kept.
    pub(super) fn judge(&self, filtered: &str, sees: impl Fn(&Parcel) -> bool) {
        let book = self.0.lock().unwrap();
        for (subscription, history) in &book.strict {
            println!("{subscription}: {} events", history.events.len());
            let keys = history.keys();
            let all = keys.values().flatten().map(|(id, parcel)| (*id, parcel.clone())).collect();
            nothing_is_lost(subscription, book.published.iter(), &all);
            publication_keeps_the_order_of_a_key(&keys);
            history.no_confirmed_ack_comes_back();
            history.each_key_comes_in_order(&keys);
            history.attempts_count_the_nacks_and_nothing_else();
        }
        for (subscription, found) in &book.loose {
            let is_wanted = |parcel: &&Parcel| *subscription != filtered || sees(parcel);
            nothing_is_lost(subscription, book.published.iter().filter(is_wanted), found);
            let unseen = found.values().find(|parcel| !is_wanted(parcel));
            assert!(unseen.is_none(), "the filter does not let this through: {unseen:?}");
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Book) -> T) {
        let mut book = self.0.lock().unwrap();
        book.progress += 1;
        change(&mut book);
    }
}

fn nothing_is_lost<'p>(name: &str, wanted: impl Iterator<Item = &'p Parcel>, found: &BTreeMap<Id, Parcel>) {
    let lost: Vec<&Parcel> = wanted.filter(|parcel| found.get(&parcel.id) != Some(parcel)).collect();
    assert!(lost.is_empty(), "{name} never got {} confirmed publications: {lost:?}", lost.len());
}

/// Repeats are allowed, since a publisher that heard nothing tries again; gaps are not.
fn publication_keeps_the_order_of_a_key(keys: &BTreeMap<String, BTreeMap<Id, Parcel>>) {
    for (key, parcels) in keys {
        let mut last = 0;
        for parcel in parcels.values() {
            assert!(parcel.number <= last + 1, "in {key} {parcel:?} stands behind {last}");
            last = last.max(parcel.number);
        }
    }
}

impl History {
    fn deliveries(&self) -> impl Iterator<Item = (usize, &Delivered)> {
        self.events.iter().enumerate().filter_map(|(at, event)| match event {
            Event::Delivered(delivered) => Some((at, delivered)),
            _ => None,
        })
    }

    /// Within a run no lease ends but by its own consumer, so that a delivery after the confirmation is a second one.
    /// What a consumer finds in the buffers of an older run was sent before.
    fn no_confirmed_ack_comes_back(&self) {
        let mut confirmed: HashMap<Id, Run> = HashMap::new();
        for event in &self.events {
            match event {
                Event::AckConfirmed(run, id) => {
                    confirmed.entry(*id).or_insert(*run);
                }
                Event::Delivered(delivered) => {
                    let before = confirmed.get(&delivered.parcel.id).filter(|run| **run <= delivered.run);
                    assert!(before.is_none(), "{delivered:?}, though its ack was confirmed in run {before:?}");
                }
                _ => {}
            }
        }
    }

    /// In front of each delivery stands the one of the message before it in the key, unless that one was acked.
    fn each_key_comes_in_order(&self, keys: &BTreeMap<String, BTreeMap<Id, Parcel>>) {
        let mut acked = BTreeSet::new();
        let mut last: HashMap<(usize, &str), Id> = HashMap::new();
        for event in &self.events {
            match event {
                Event::AckSent(id) => {
                    acked.insert(*id);
                }
                Event::Delivered(Delivered { stream, parcel, .. }) => {
                    let before = keys[&parcel.key].range(..parcel.id).next_back().map(|(id, _)| *id);
                    let last = last.insert((*stream, &parcel.key), parcel.id);
                    let in_order = before.is_none_or(|before| last == Some(before) || acked.contains(&before));
                    assert!(in_order, "{event:?} came behind {last:?}, and {before:?} was not acked");
                }
                _ => {}
            }
        }
    }

    /// A kill is no attempt, and a nack that was confirmed is one.
    fn attempts_count_the_nacks_and_nothing_else(&self) {
        let mut by_id: HashMap<Id, Vec<(Run, usize, u32)>> = HashMap::new();
        for (at, Delivered { run, parcel, attempt, .. }) in self.deliveries() {
            by_id.entry(parcel.id).or_default().push((*run, at, *attempt));
        }
        let mut sent: HashMap<Id, Vec<(Run, usize)>> = HashMap::new();
        let mut confirmed: HashMap<Id, Vec<(Run, usize)>> = HashMap::new();
        for (at, event) in self.events.iter().enumerate() {
            match event {
                Event::NackSent(run, id) => sent.entry(*id).or_default().push((*run, at)),
                Event::NackConfirmed(run, id) => confirmed.entry(*id).or_default().push((*run, at)),
                _ => {}
            }
        }
        for (id, mut attempts) in by_id {
            attempts.sort_unstable();
            let mut last = 0;
            for (run, at, attempt) in attempts {
                let before = |all: &HashMap<Id, Vec<(Run, usize)>>| {
                    let count = all.get(&id).into_iter().flatten().filter(|place| **place < (run, at)).count();
                    u32::try_from(count).unwrap()
                };
                let (least, most) = (1 + before(&confirmed), 1 + before(&sent));
                assert!(attempt >= last, "{id} came as attempt {attempt} after {last}");
                assert!((least..=most).contains(&attempt), "attempt {attempt} of {id} is not in {least} to {most}");
                last = attempt;
            }
        }
    }

    /// All messages that ever came, by key.
    fn keys(&self) -> BTreeMap<String, BTreeMap<Id, Parcel>> {
        let mut keys: BTreeMap<String, BTreeMap<Id, Parcel>> = BTreeMap::new();
        for (_, Delivered { parcel, .. }) in self.deliveries() {
            keys.entry(parcel.key.clone()).or_default().insert(parcel.id, parcel.clone());
        }
        keys
    }
}
