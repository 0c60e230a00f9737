//! The books of one order, whatever overtakes whatever: charges by queue and by RPC, a cancellation, duplicates, lost
//! replies, and crashes between any two steps. The store and the acquirer are in memory, and a seeded scheduler
//! decides whose next step is done.

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use service_kit::CancellationToken;

use crate::app::{Acquirer, App, Asking, Error, NoAnswer, Patience, Payments, Position, StoreError};
use crate::domain::{
    Answer, Cancel, CancelAnswer, CardToken, Charge, ChargeKey, CustomerId, Money, OrderId, Payment, PaymentStatus,
    State, Step, TimestampUs, Told,
};

/// Histories that are tried.
const SEEDS: u64 = 3_000;
/// Steps after which a history must be over.
const STEPS_MAX: u32 = 20_000;
/// How often a message that comes too early is delivered before it is put aside.
const DELIVERIES_MAX: u32 = 6;

const ORDER_ID: &str = "0190163d-8694-739b-aea5-966c26f8ad91";

#[derive(Clone, Default)]
struct World(Arc<Inner>);

#[derive(Default)]
struct Inner {
    payment: Mutex<Option<Payment>>,
    inbox: Mutex<HashSet<String>>,
    told: Mutex<Vec<Told>>,
    accounts: Mutex<HashMap<u32, Account>>,
    captures: Mutex<u32>,
    /// Percent of the acquirer's replies that are lost.
    lost: u8,
    rng: Mutex<fastrand::Rng>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Account {
    Captured,
    Declined,
    Refunded,
    Blocked,
}

/// The point at which somebody else may come in between, or the process may die.
async fn pause() {
    let mut passed = false;
    std::future::poll_fn(|_| if std::mem::replace(&mut passed, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

impl World {
    fn reply<T>(&self, answer: T) -> Result<T, NoAnswer> {
        let lost = self.0.rng.lock().unwrap().u8(0..100) < self.0.lost;
        if lost { Err(NoAnswer::Unavailable { reason: "lost".to_owned(), asked: true }) } else { Ok(answer) }
    }

    fn kept(&self) -> usize {
        self.0.accounts.lock().unwrap().values().filter(|account| **account == Account::Captured).count()
    }
}

impl Payments for World {
    async fn apply(
        &self,
        message_id: Option<String>,
        step: Step,
        now: TimestampUs,
    ) -> Result<Option<Payment>, StoreError> {
        pause().await;
        let applied = {
            let mut payment = self.0.payment.lock().unwrap();
            let Some(change) = step.apply(payment.clone(), now) else { return Ok(None) };
            if message_id.is_some_and(|id| !self.0.inbox.lock().unwrap().insert(id)) {
                return Ok(None);
            }
            *payment = Some(change.payment.clone());
            self.0.told.lock().unwrap().extend(change.told);
            change.payment
        };
        pause().await;
        Ok(Some(applied))
    }

    async fn payment(&self, _: OrderId) -> Result<Option<Payment>, StoreError> {
        let payment = self.0.payment.lock().unwrap().clone();
        pause().await;
        Ok(payment)
    }

    async fn list(&self, _: Option<PaymentStatus>, _: Option<Position>, _: u32) -> Result<Vec<Payment>, StoreError> {
        Ok(Vec::new())
    }
}

impl Acquirer for World {
    async fn charge(&self, charge: &Charge, _: Asking<'_>) -> Result<Answer, NoAnswer> {
        pause().await;
        let answer = {
            let mut accounts = self.0.accounts.lock().unwrap();
            let declines = charge.card.as_str() == "tok_stolen_card";
            let account = accounts.entry(charge.attempt).or_insert_with(|| {
                *self.0.captures.lock().unwrap() += u32::from(!declines);
                if declines { Account::Declined } else { Account::Captured }
            });
            match account {
                Account::Captured => Answer::Captured { charge_id: charge.key().to_string() },
                Account::Declined => Answer::Declined { reason: "stolen_card".to_owned() },
                Account::Refunded | Account::Blocked => Answer::Cancelled,
            }
        };
        pause().await;
        self.reply(answer)
    }

    async fn cancel(&self, key: ChargeKey, _: Asking<'_>) -> Result<CancelAnswer, NoAnswer> {
        pause().await;
        let answer = {
            let mut accounts = self.0.accounts.lock().unwrap();
            let account = accounts.entry(key.attempt).or_insert(Account::Blocked);
            match account {
                Account::Captured | Account::Refunded => {
                    *account = Account::Refunded;
                    let (charge_id, refund_id) = (key.to_string(), format!("re_{key}"));
                    CancelAnswer::Refunded { charge_id, refund_id, amount: amount() }
                }
                Account::Declined | Account::Blocked => CancelAnswer::NothingTaken,
            }
        };
        pause().await;
        self.reply(answer)
    }

    fn answers(&self) -> bool {
        true
    }
}

/// A message waits, a caller does not.
struct Caller(Option<CancellationToken>);

impl Patience for Caller {
    async fn store<T, R>(&self, mut call: impl FnMut() -> R + Send) -> Result<T, Error>
    where
        T: Send,
        R: Future<Output = Result<T, StoreError>> + Send,
    {
        Ok(call().await?)
    }

    fn stopping(&self) -> Option<&CancellationToken> {
        self.0.as_ref()
    }

    fn has_time(&self) -> bool {
        self.0.is_some()
    }
}

fn amount() -> Money {
    Money::new("EUR".parse().unwrap(), 1_299).unwrap()
}

#[derive(Clone, Debug)]
enum Work {
    Queued { attempt: u32, card: &'static str },
    Called { attempt: u32, card: &'static str },
    Cancel { attempt: u32 },
}

#[derive(Clone, Debug)]
struct Message {
    id: String,
    work: Work,
    deliveries: u32,
}

type Running = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

fn begin(app: &App<World, World>, message: &Message) -> Running {
    let (app, message) = (app.clone(), message.clone());
    let (order_id, customer_id) = (ORDER_ID.parse().unwrap(), CustomerId::parse("ada").unwrap());
    Box::pin(async move {
        let id = Some(message.id.as_str());
        match message.work {
            Work::Queued { attempt, card } | Work::Called { attempt, card } => {
                let card = CardToken::parse(card).unwrap();
                let charge = Charge { order_id, customer_id, amount: amount(), card, attempt };
                let queued = matches!(message.work, Work::Queued { .. });
                let caller = Caller(queued.then(CancellationToken::new));
                app.charge(id.filter(|_| queued), charge, &caller).await.map(drop)
            }
            Work::Cancel { attempt } => {
                let cancel = Cancel { order_id, customer_id, amount: None, attempt };
                app.cancel(id, cancel, &Caller(Some(CancellationToken::new()))).await
            }
        }
    })
}

/// A history: up to three tries, each by queue, by RPC or by both, in any order and repeated, with or without a
/// cancellation of the last one.
fn history(rng: &mut fastrand::Rng) -> VecDeque<Message> {
    let mut works = Vec::new();
    let attempts = rng.u32(1..=3);
    for attempt in 1..=attempts {
        // A try follows a decline; the last one may be anything.
        let card = if attempt < attempts || rng.bool() { "tok_stolen_card" } else { "tok_visa" };
        let ways = rng.u32(1..=3);
        works.extend((ways & 1 != 0).then_some(Work::Queued { attempt, card }));
        works.extend((ways & 2 != 0).then_some(Work::Called { attempt, card }));
    }
    works.extend(rng.bool().then_some(Work::Cancel { attempt: attempts }));
    let mut messages: Vec<_> = works
        .into_iter()
        .enumerate()
        .flat_map(|(at, work)| {
            let copies = rng.usize(1..=2);
            (0..copies).map(move |_| Message { id: format!("m-{at}"), work: work.clone(), deliveries: 0 })
        })
        .collect();
    if rng.bool() {
        rng.shuffle(&mut messages);
    }
    messages.into()
}

fn run(seed: u64) -> World {
    let mut rng = fastrand::Rng::with_seed(seed);
    let inner = Inner { lost: if rng.bool() { 30 } else { 0 }, rng: Mutex::new(rng.fork()), ..Inner::default() };
    let world = World(Arc::new(inner));
    let app = App::new(world.clone(), world.clone(), || 1);
    let mut waiting = history(&mut rng);
    let mut running: Vec<(Message, Running)> = Vec::new();
    for _ in 0..STEPS_MAX {
        if running.len() < 4
            && rng.bool()
            && let Some(message) = waiting.pop_front()
        {
            running.push((message.clone(), begin(&app, &message)));
        }
        if running.is_empty() && waiting.is_empty() {
            return world;
        }
        if running.is_empty() {
            continue;
        }
        let at = rng.usize(0..running.len());
        let crashed = rng.u32(0..40) == 0;
        let ended = if crashed {
            Some(Err(Error::Interrupted))
        } else {
            match running[at].1.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(result) => Some(result),
                Poll::Pending => None,
            }
        };
        if let Some(result) = ended {
            let (message, _) = running.swap_remove(at);
            waiting.extend(comes_back(message, &result));
        }
        assert!(*world.0.captures.lock().unwrap() <= 1, "seed {seed}: two captures for one order");
    }
    panic!("seed {seed}: the history does not end");
}

/// What follows when a message was not handled, or a call brought no outcome.
fn comes_back(mut message: Message, result: &Result<(), Error>) -> Option<Message> {
    message.deliveries += 1;
    match (&message.work, result) {
        (_, Ok(()) | Err(Error::Closed(_))) => None,
        (_, Err(Error::TooEarly { .. })) => (message.deliveries < DELIVERIES_MAX).then_some(message),
        // order-service cancels an order whose synchronous charge has no outcome.
        (Work::Called { attempt, .. }, Err(_)) => {
            Some(Message { id: format!("cancel-{attempt}"), work: Work::Cancel { attempt: *attempt }, deliveries: 0 })
        }
        (_, Err(_)) => Some(message),
    }
}

#[test]
fn money_taken_minus_money_given_back_is_what_the_payment_says() {
    let mut ends: HashMap<&'static str, u32> = HashMap::new();
    for seed in 0..SEEDS {
        let world = run(seed);
        let payment = world.0.payment.lock().unwrap().clone();
        let told = world.0.told.lock().unwrap().clone();
        let count = |what| told.iter().filter(|told| **told == what).count();
        let state = payment.as_ref().map(|payment| &payment.state);
        let kept = usize::from(matches!(state, Some(State::Captured { .. })));
        assert_eq!(world.kept(), kept, "seed {seed}: {payment:?} {:?}", world.0.accounts.lock().unwrap());
        assert!(!matches!(state, Some(State::Pending)), "seed {seed}: {payment:?}");
        assert!(count(Told::Captured) <= 1, "seed {seed}: {told:?}");
        assert_eq!(count(Told::Refunded), usize::from(matches!(state, Some(State::Refunded { .. }))), "seed {seed}");
        assert_eq!(count(Told::Voided), usize::from(matches!(state, Some(State::Voided))), "seed {seed}");
        *ends
            .entry(match state {
                None => "none",
                Some(State::Pending) => "pending",
                Some(State::Captured { .. }) => "captured",
                Some(State::Declined { .. }) => "declined",
                Some(State::Voided) => "voided",
                Some(State::Refunded { .. }) => "refunded",
            })
            .or_default() += 1;
    }
    // The histories reach every end, or they prove little.
    for end in ["captured", "declined", "voided", "refunded"] {
        assert!(ends.get(end).is_some_and(|count| *count >= 50), "{ends:?}");
    }
}
