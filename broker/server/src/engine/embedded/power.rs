//! Core, codec, batches, writer and journal together on a disk that loses power, at seeded moments.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use broker_core::{
    AckDeadline, AckOutcome, AckRef, Attach, Broker, ConsumerId, ConsumerKind, Delivery, Effect, Labels, Limits, Meta,
    ModifyOutcome, Output, Record, Recovery, RetryPolicy, Seq, SubscriptionConfig, SubscriptionName, Time, TopicConfig,
    TopicId, TopicName,
};
use broker_log::{Config, Journal, SEGMENT_BYTES_MIN, Verify};
use bytes::Bytes;
use fastrand::Rng;

use super::fetch::{Load, fetch};
use super::inspect::Figures;
use super::writer::{Batch, Checkpoint, Writer};
use super::{codec, open};
use crate::engine::Message;

#[expect(dead_code, reason = "the journal's own tests use the rest")]
#[path = "../../../../log/tests/it/sim.rs"]
mod sim;

use sim::SimDisk;

const HISTORIES: u64 = 12;
const STEPS: usize = 120;
const KEYS: u64 = 3;

/// What was released, and so promised.
#[derive(Debug, Default)]
struct Promised {
    published: BTreeMap<Seq, String>,
    /// Those that may be settled, since an ack was asked for.
    ack_asked: BTreeSet<Seq>,
    acked: BTreeSet<Seq>,
    /// Failed attempts.
    failed: BTreeMap<Seq, u32>,
    label: u64,
    label_asked: u64,
    delivered: Vec<(ConsumerId, TopicId, Delivery)>,
    loads: Vec<Load>,
}

type Shared = Arc<Mutex<Promised>>;

/// The engine task without its task: one call after the other.
struct Machine {
    disk: SimDisk,
    writer: Writer<SimDisk>,
    core: Broker,
    out: Output,
    batch: Batch,
    now: Time,
    promised: Shared,
    consumer: ConsumerId,
    texts: u64,
}

impl Machine {
    fn start(disk: SimDisk, promised: Shared, run: u64) -> Self {
        let (journal, recovery) = recover(&disk);
        let (mut out, now) = (Output::new(), Time(run * 1_000_000));
        let core = recovery.begin(Limits::default(), run, now, &mut out);
        let writer = Writer { journal, figures: Arc::new(Figures::new(now)) };
        let (batch, consumer, texts) = (Batch::default(), ConsumerId(run), run * 1_000_000);
        let mut machine = Self { disk, writer, core, out, batch, now, promised, consumer, texts };
        machine.settle(&[]);
        machine
    }

    fn create(&mut self) {
        self.core.handle_create_topic(TopicConfig::new(topic()), &mut self.out).unwrap();
        let config = SubscriptionConfig {
            ordering: true,
            exactly_once: true,
            retry: Some(RetryPolicy::new(0, 0).unwrap()),
            ..SubscriptionConfig::new(subscription(), topic())
        };
        self.core.handle_create_subscription(config, self.now, &mut self.out).unwrap();
        self.settle(&[]);
        self.sync(false).unwrap();
    }

    fn attach(&mut self) {
        let kind = ConsumerKind::Stream;
        let ack_deadline = AckDeadline::default();
        let attach = Attach { messages_max: 20, bytes_max: 0, ack_deadline, kind };
        self.core.handle_attach(self.consumer, &subscription(), attach, self.now, &mut self.out).unwrap();
        self.settle(&[]);
    }

    fn publish(&mut self, rng: &mut Rng) {
        let (mut metas, mut bodies, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rng.u32(1..6) {
            self.texts += 1;
            let text = format!("{} {}", self.texts, "x".repeat(rng.usize(0..300)));
            let (data, ordering_key) = (Bytes::from(text.clone()), format!("key {}", rng.u64(0..KEYS)));
            let key = codec::hash_of(&ordering_key);
            let (body, _) = codec::body_of(Message { data, ordering_key, ..Default::default() });
            metas.push(Meta { bytes: u32::try_from(body.len()).unwrap(), key });
            bodies.push(body);
            texts.push(text);
        }
        let published = self.core.handle_publish(&topic(), &metas, |_, _| None, self.now, &mut self.out).unwrap();
        self.settle_and(&bodies, move |promised| {
            promised.published.extend((published.first.0..).map(Seq).zip(texts));
        });
    }

    /// Acks or nacks a part of what was delivered, in order.
    fn answer(&mut self, rng: &mut Rng) {
        let count = rng.usize(0..8);
        let delivered: Vec<_> = {
            let mut promised = self.promised.lock().unwrap();
            let count = count.min(promised.delivered.len());
            promised.delivered.drain(..count).collect()
        };
        let nacks = rng.u8(0..4) == 0;
        for (_, topic, delivery) in delivered {
            self.check(topic, delivery);
            let subscription_id = self.core.subscription(&subscription()).unwrap().id;
            let seq = delivery.seq;
            let reference = AckRef { subscription: subscription_id, seq, lease: delivery.lease };
            let (name, now) = (subscription(), self.now);
            if nacks {
                let outcomes = self.core.handle_modify(&name, &[reference], 0, now, &mut self.out).unwrap();
                self.settle_and(&[], move |promised| {
                    if outcomes == [ModifyOutcome::Nacked] {
                        promised.failed.insert(seq, delivery.attempt);
                    }
                });
            } else {
                let outcomes = self.core.handle_ack(&name, &[reference], now, &mut self.out).unwrap();
                if outcomes == [AckOutcome::Acked] {
                    self.promised.lock().unwrap().ack_asked.insert(seq);
                }
                self.settle_and(&[], move |promised| {
                    if outcomes == [AckOutcome::Acked] {
                        promised.acked.insert(seq);
                    }
                });
            }
        }
    }

    /// What comes is not what was acked, has its failed attempts, and says what was published.
    fn check(&self, topic: TopicId, delivery: Delivery) {
        let promised = self.promised.lock().unwrap();
        let seq = delivery.seq;
        assert!(!promised.acked.contains(&seq), "{seq:?} came again after its ack was confirmed");
        let failed = promised.failed.get(&seq).copied().unwrap_or_default();
        assert!(delivery.attempt > failed, "{delivery:?} after {failed} failed attempts");
        let fetched = fetch(&self.writer.journal.reader(), topic, &[delivery]).unwrap();
        let text = fetched[0].as_ref().map(|fetched| String::from_utf8(fetched.message.data.to_vec()).unwrap());
        if let Some(expected) = promised.published.get(&seq) {
            assert_eq!(text.as_ref(), Some(expected), "{seq:?} says something else");
        }
    }

    fn label(&mut self) {
        let value = self.now.0;
        let labels = Labels::new([("value".to_owned(), value.to_string())].into()).unwrap();
        let config = TopicConfig { labels, ..TopicConfig::new(topic()) };
        self.core.handle_update_topic(config, &mut self.out).unwrap();
        self.promised.lock().unwrap().label_asked = value;
        self.settle_and(&[], move |promised| promised.label = value);
    }

    fn settle(&mut self, bodies: &[Bytes]) {
        self.settle_and(bodies, |_| {});
    }

    /// Moves what the core put out into the batch, as the engine task does, with a reply between records and effects.
    fn settle_and(&mut self, bodies: &[Bytes], reply: impl FnOnce(&mut Promised) + Send + 'static) {
        for record in self.out.records.drain(..) {
            let bodies = if matches!(record, Record::Published { .. }) { bodies } else { &[][..] };
            codec::encode_record(&record, bodies.into(), |key, payload| self.batch.put(key, payload));
        }
        let promised = Arc::clone(&self.promised);
        self.batch.release(Box::new(move || reply(&mut promised.lock().unwrap())));
        for effect in self.out.effects.drain(..) {
            let promised = Arc::clone(&self.promised);
            let last = self.core.topic(&topic()).unwrap().last;
            self.batch.release(Box::new(move || {
                let mut promised = promised.lock().unwrap();
                match effect {
                    Effect::Deliver { consumer, topic, messages, .. } => {
                        promised.delivered.extend(messages.into_iter().map(|message| (consumer, topic, message)));
                    }
                    Effect::Load { topic, from, messages_max, .. } => {
                        promised.loads.push(Load { topic, from, messages_max, last });
                    }
                    other => panic!("nothing asked for {other:?}"),
                }
            }));
        }
    }

    /// Writes the batch, and carries out what the core asked for. The disk may fail.
    fn sync(&mut self, checkpoint: bool) -> Result<(), super::Failure> {
        let mut batch = std::mem::take(&mut self.batch);
        if checkpoint {
            let core = &self.core;
            let floor = |topic: TopicId| core.topic_floor(topic).map(|floor| (topic.0, floor.0));
            batch.checkpoint = Some(Checkpoint {
                state: codec::encode_checkpoint(&core.snapshot()),
                floors: core.topic_ids().filter_map(floor).collect(),
                evacuated: BTreeSet::new(),
            });
        }
        self.writer.write(batch)?;
        let loads = std::mem::take(&mut self.promised.lock().unwrap().loads);
        for load in loads {
            let (metas, next) = load.run(&self.writer.journal.reader())?;
            let id = self.core.subscription(&subscription()).unwrap().id;
            self.core.handle_loaded(id, load.from, &metas, next, self.now, &mut self.out);
            self.settle(&[]);
        }
        Ok(())
    }

    fn step(&mut self, rng: &mut Rng) -> Result<(), super::Failure> {
        self.now = self.now.plus_ms(1);
        match rng.u32(0..20) {
            0..6 => self.publish(rng),
            6..12 => self.answer(rng),
            12 => self.label(),
            13 => {
                self.core.handle_timeout(self.now, &mut self.out);
                self.settle(&[]);
            }
            14 => self.sync(true)?,
            _ => self.sync(false)?,
        }
        Ok(())
    }

    /// Takes all that is left, and acks it.
    fn drain(&mut self, rng: &mut Rng) {
        let open =
            |promised: &Promised| promised.published.keys().find(|seq| !promised.ack_asked.contains(seq)).copied();
        for _ in 0..10_000 {
            self.now = self.now.plus_ms(1);
            self.core.handle_timeout(self.now, &mut self.out);
            self.settle(&[]);
            self.sync(false).unwrap();
            self.answer(rng);
            if open(&self.promised.lock().unwrap()).is_none() {
                return;
            }
        }
        panic!("{:?} was published and never comes", open(&self.promised.lock().unwrap()));
    }
}

fn recover(disk: &SimDisk) -> (Journal<SimDisk>, Recovery) {
    let config = Config { segment_bytes_max: SEGMENT_BYTES_MIN, verify: Verify::All, ..Default::default() };
    let (journal, recovered) = Journal::open(disk.clone(), config).unwrap();
    let (recovery, _) = open::restore(&journal, &recovered).unwrap();
    (journal, recovery)
}

fn topic() -> TopicName {
    "projects/p/topics/orders".parse().unwrap()
}

fn subscription() -> SubscriptionName {
    "projects/p/subscriptions/payment".parse().unwrap()
}

#[test]
fn whatever_was_released_outlives_a_loss_of_power() {
    for seed in 0..HISTORIES {
        let mut rng = Rng::with_seed(seed);
        let promised = Shared::default();
        let mut machine = Machine::start(SimDisk::default(), promised.clone(), 1);
        machine.create();
        for run in 2..8 {
            machine.attach();
            // The change that fails may come in the middle of a batch, a roll, a checkpoint or a removal.
            machine.disk.fail_after(rng.u64(0..150));
            for _ in 0..STEPS {
                if machine.step(&mut rng).is_err() {
                    break;
                }
            }
            let disk = machine.disk.clone();
            drop(machine);
            disk.lose_power(rng.u64(..));
            // Nothing of these was heard.
            promised.lock().unwrap().delivered.clear();
            promised.lock().unwrap().loads.clear();
            machine = Machine::start(disk, promised.clone(), run);
            let found = machine.core.topic(&topic()).unwrap().config.labels;
            let found: u64 = found.as_map().get("value").map_or(0, |value| value.parse().unwrap());
            let mut known = promised.lock().unwrap();
            let possible = known.label..=known.label_asked;
            assert!(possible.contains(&found), "{found} is set, and not one of {possible:?}");
            known.label = found;
        }
        machine.attach();
        machine.drain(&mut rng);
    }
}
