//! One run: a stack, a load, an outage.

use std::time::{Duration, SystemTime};

use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{Config, Error, Mode};
use crate::audit::{self, Verdict};
use crate::lab::{self, Lab};
use crate::load::after::{self, Accepted};
use crate::load::{self, Plan};
use crate::part::Part;
use crate::queues;
use crate::terminal::Progress;
use crate::up::Signals;

/// How often the depth of the queue is looked at, in milliseconds.
const QUEUE_EVERY_MS: u64 = 500;
/// How long a stack may take to work off what has gathered, in milliseconds.
const DRAIN_MS_MAX: u64 = 120_000;
/// How long the books may take to balance after that, in milliseconds.
const BALANCE_MS_MAX: u64 = 30_000;
/// Where orders wait for payment-service.
const QUEUE: &str = "payment-service.order-events";

/// What a run was like. Times count from its start.
#[derive(Clone, Debug)]
pub(super) struct Recording {
    pub(super) mode: Mode,
    /// When payment-service was killed.
    pub(super) killed: Duration,
    /// When it was ready again.
    pub(super) restarted: Duration,
    pub(super) answers: Vec<Answer>,
    /// When paid orders were to be placed, and how long it took from then until they were paid.
    pub(super) paid: Vec<(Duration, Duration)>,
    /// How many messages waited for payment-service, and when.
    pub(super) queue: Vec<(Duration, u64)>,
    pub(super) verdict: Verdict,
}

/// What a customer got.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// When the order was to be placed.
    pub(super) at: Duration,
    pub(super) took: Duration,
    /// Nothing when it was accepted.
    pub(super) refused: Option<&'static str>,
    /// What the order would have brought in, in minor units.
    pub(super) total_minor: i64,
}

/// Measures in a new stack, and ends that whatever comes of it. A signal breaks it off.
pub(super) async fn run(
    mode: Mode,
    plan: &Plan,
    config: &Config,
    progress: &Progress,
    signals: &mut Signals,
) -> Result<Recording, Error> {
    progress.say(format!("{}: a stack starts", mode.name()));
    let lab = Lab::start(lab::Options::default()).await?;
    let recording = tokio::select! {
        recording = measure(mode, plan, config, progress, &lab) => recording,
        () = signals.next() => Err(Error::Interrupted),
    };
    if recording.as_ref().is_ok_and(|recording| !recording.verdict.is_balanced()) {
        lab.keep();
        eprintln!(
            "the books of the {} run do not balance; its folder is kept: {}",
            mode.name(),
            lab.folder().display()
        );
    }
    lab.end().await.map_err(Error::Folder)?;
    recording
}

/// Puts the load on the stack, kills payment-service in the midst of it, and asks everybody afterwards.
async fn measure(mode: Mode, plan: &Plan, config: &Config, progress: &Progress, lab: &Lab) -> Result<Recording, Error> {
    let name = mode.name();
    let totals: Vec<i64> = plan.arrivals().map(|arrival| arrival.total_minor()).collect();
    let (started, stop_looking) = (SystemTime::now(), CancellationToken::new());
    let since = |time: SystemTime| time.duration_since(started).unwrap_or_default();
    let (mut answers, mut accepted) = (Vec::new(), Accepted::new());
    let placing = async {
        load::run(&lab.entrance(), plan, CancellationToken::new(), |outcome| {
            if let Ok(order) = outcome.result {
                accepted.insert(order.order_id.clone(), outcome.intended);
            }
            answers.push(Answer {
                at: since(outcome.intended),
                took: outcome.took,
                refused: outcome.result.err().map(load::Refusal::reason),
                total_minor: usize::try_from(outcome.number).ok().and_then(|n| totals.get(n).copied()).unwrap_or(0),
            });
            progress.say(format!("{name}: {} of {} orders answered", answers.len(), totals.len()));
        })
        .await?;
        progress.say(format!("{name}: what has gathered is worked off"));
        after::drain(&lab.addresses(), Duration::from_millis(DRAIN_MS_MAX), |_| {}).await;
        stop_looking.cancel();
        Ok::<_, Error>(())
    };
    let looking = async { Ok(watch_queue(lab, &since, &stop_looking).await) };
    let ((), (killed, restarted), queue) = tokio::try_join!(placing, outage(lab, config, &since), looking)?;
    let verdict = audit::run(&lab.addresses(), Duration::from_millis(BALANCE_MS_MAX)).await?;
    let paid = after::paid(&lab.addresses().order_service, &accepted).await?;
    let paid = paid.into_iter().map(|(intended, took)| (since(intended), took)).collect();
    Ok(Recording { mode, killed, restarted, answers, paid, queue, verdict })
}

/// Ends payment-service at once, and starts it again when it was away for long enough.
async fn outage(
    lab: &Lab,
    config: &Config,
    since: &impl Fn(SystemTime) -> Duration,
) -> Result<(Duration, Duration), Error> {
    time::sleep(config.before).await;
    lab.kill(Part::PaymentService).await?;
    let killed = since(SystemTime::now());
    time::sleep(config.outage).await;
    lab.start_part(Part::PaymentService).await?;
    Ok((killed, since(SystemTime::now())))
}

async fn watch_queue(
    lab: &Lab,
    since: &impl Fn(SystemTime) -> Duration,
    stop: &CancellationToken,
) -> Vec<(Duration, u64)> {
    let mut depths = Vec::new();
    let mut ticks = time::interval(Duration::from_millis(QUEUE_EVERY_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return depths,
        }
        // A look that fails is a gap in the curve.
        if let Ok(waiting) = queues::waiting(&lab.addresses().broker).await {
            let depth = waiting.into_iter().find(|(name, _)| name == QUEUE).map_or(0, |(_, messages)| messages);
            depths.push((since(SystemTime::now()), depth));
        }
    }
}
