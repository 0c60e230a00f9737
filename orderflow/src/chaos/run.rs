//! One run: a lab, a load, the torture, and the verdict.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::account::Account;
use super::diary::Diary;
use super::schedule::{Schedule, Settings};
use super::settle::settle;
use super::torture::Torture;
use super::witness::Witness;
use crate::lab::{Lab, Options};
use crate::load::{self, Plan};
use crate::part::Part;
use crate::queues;
use crate::up::{self, Scale, Signals};

/// What customers do. Every end of an order is in it.
const MIX: &str = "paid=56,declined=8,flaky=4,lost-reply=4,slow=2,cancelled=10,deadline=4,synchronous=12";
/// How many customers there are: few, so that each has many notifications to be numbered.
const CUSTOMERS: u32 = 40;
/// How long a customer asks again for an order that was not answered.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the last starts and answers may take after the last fault.
const OVERTIME: Duration = Duration::from_secs(90);
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// How long the broker may take to tell how its queues stand.
const QUEUES_WITHIN: Duration = Duration::from_millis(500);

/// What to run.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) seed: u64,
    pub(super) duration: Duration,
    pub(super) rate_per_s: f64,
    pub(super) instances: Vec<(Part, u16)>,
    pub(super) scale: Scale,
    pub(super) keep: bool,
}

impl Task {
    /// What goes wrong in it.
    pub(super) fn schedule(&self) -> Schedule {
        let instances = up::instances(self.scale.scale, &self.instances);
        Schedule::new(&Settings { seed: self.seed, duration: self.duration, instances })
    }

    fn plan(&self) -> Plan {
        Plan {
            rate_per_s: self.rate_per_s,
            duration: Some(self.duration),
            customers: CUSTOMERS,
            mix: MIX.parse().expect("the mix is one"),
            seed: self.seed,
            synchronous: false,
            patience: PATIENCE,
        }
    }

    fn duration_ms(&self) -> u64 {
        u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX)
    }

    /// Runs once and tells what came of it. A lab with a bad verdict is left where it is. A signal breaks it off.
    pub(super) async fn run(&self, signals: &mut Signals) -> Result<Account, Error> {
        let (instances, scale) = (self.instances.clone(), self.scale.clone());
        let options = Options { instances, scale, proxied: true, ..Options::default() };
        let lab = Arc::new(Lab::start(options).await?);
        let mut account = tokio::select! {
            account = self.account(&lab) => account,
            () = signals.next() => Err(Error::Interrupted),
        };
        let is_bad = account.as_ref().is_ok_and(|account| !account.is_good());
        if self.keep || is_bad {
            lab.keep();
            if let Ok(account) = &mut account {
                account.folder = Some(lab.folder().to_owned());
            }
        }
        // Torture that did not come to its end may have the lab for another moment: it can start nothing there any more.
        lab.end().await.map_err(Error::Folder)?;
        account
    }

    /// Tortures a lab, and judges.
    async fn account(&self, lab: &Arc<Lab>) -> Result<Account, Error> {
        let witness = Witness::subscribe(&lab.addresses().broker, self.seed).await?;
        let diary = Arc::new(Diary::new());
        let overtime = time::timeout(self.duration + OVERTIME, self.hurt(lab, &witness, &diary)).await;
        if overtime.is_err() {
            diary.surprised(self.duration_ms(), "the run does not come to its end", "");
        }
        let settled_from = Instant::now();
        let ending = CancellationToken::new();
        let (judgement, ()) = tokio::join!(
            async {
                let judgement = settle(lab, &witness, &diary).await;
                ending.cancel();
                judgement
            },
            watch(lab, &witness, &diary, &ending),
        );
        let drained = settled_from.elapsed();
        witness.end().await;
        Ok(Account::new(self, &mut diary.pages(), judgement, drained))
    }

    /// The load and the torture, side by side.
    async fn hurt(&self, lab: &Arc<Lab>, witness: &Witness, diary: &Arc<Diary>) {
        let plan = self.plan();
        let torture = Torture {
            lab: Arc::clone(lab),
            diary: Arc::clone(diary),
            plan: plan.clone(),
            duration_ms: self.duration_ms(),
        };
        let schedule = self.schedule();
        let ending = CancellationToken::new();
        let entrance = lab.entrance();
        let work = async {
            let observe = |outcome: &load::Outcome<'_>| diary.answered(outcome);
            let load = load::run(&entrance, &plan, CancellationToken::new(), observe);
            let (loaded, ()) = tokio::join!(load, torture.run(&schedule));
            if let Err(error) = loaded {
                diary.surprised(0, "there was no load", error.to_string());
            }
            ending.cancel();
        };
        tokio::join!(work, watch(lab, witness, diary, &ending));
    }
}

/// Takes a sample every second.
async fn watch(lab: &Lab, witness: &Witness, diary: &Diary, ending: &CancellationToken) {
    let broker = lab.addresses().broker;
    let mut seconds = time::interval(SAMPLE_EVERY);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    seconds.tick().await;
    while ending.run_until_cancelled(seconds.tick()).await.is_some() {
        let queues = time::timeout(QUEUES_WITHIN, queues::ask(&broker)).await;
        let queued = queues.ok().and_then(Result::ok).map(|queues| {
            let of_the_suite = queues.iter().filter(|queue| !queue.subscription.contains("/witness."));
            of_the_suite.map(|queue| queue.backlog_messages).sum()
        });
        let paid = witness.ledger().paid();
        diary.sample(paid, queued);
    }
}
