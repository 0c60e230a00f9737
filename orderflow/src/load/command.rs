//! `orderflow load`.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::after::{self, Accepted};
use super::summary::{Paid, Summary};
use super::{Error, Mix, Outcome, Plan, Tally};
use crate::audit::{self, Addresses, Verdict};
use crate::terminal::Progress;

/// The most orders that one command may place: it remembers each until it knows when it was paid.
pub const ORDERS_MAX: f64 = 1_000_000.0;

/// What load, and what to wait for.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Orders per second on average, 0.1 to 10000
    #[arg(long, default_value_t = 50.0)]
    pub rate: f64,
    /// For how long
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Over how many customers the orders are spread, at most 1000000
    #[arg(long, default_value_t = 1_000)]
    pub customers: u32,
    /// Weights by kind of order: paid, declined, flaky, lost-reply, slow, cancelled, deadline, synchronous
    #[arg(long, default_value_t = Mix::default(), value_name = "KIND=WEIGHT,…")]
    pub mix: Mix,
    /// What all choices follow from; another one each time if it isn't said
    #[arg(long)]
    pub seed: Option<u64>,
    /// Charge within the request, instead of through the queue
    #[arg(long)]
    pub synchronous: bool,
    /// How long a customer asks again while nobody answers; by default not at all
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub patience: Duration,
    /// How long to wait afterwards until everything is worked off and the books balance
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub wait: Duration,
}

impl Config {
    fn plan(&self) -> Result<Plan, Error> {
        let plan = Plan {
            rate_per_s: self.rate,
            duration: Some(self.duration),
            customers: self.customers,
            mix: self.mix.clone(),
            seed: self.seed.unwrap_or_else(|| fastrand::u64(..)),
            synchronous: self.synchronous,
            patience: self.patience,
        };
        plan.check()?;
        let orders = self.rate * self.duration.as_secs_f64();
        if orders > ORDERS_MAX { Err(Error::Orders(orders)) } else { Ok(plan) }
    }
}

/// Places the orders, waits until they are worked off, and checks the books. ctrl-c ends the placing early; the next one
/// ends what follows, and what was found by then is told.
pub(crate) async fn execute(config: &Config, addresses: &Addresses) -> Result<Summary, Error> {
    let plan = config.plan()?;
    // The one listener for the whole command: from its first moment on ctrl-c does not end the process any more.
    let mut interrupts = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let progress = Progress::new(Some(config.duration));
    let (mut accepted, mut refused) = (Accepted::new(), 0_u64);
    let observe = |outcome: &Outcome<'_>| {
        match outcome.result {
            // When an order of an earlier load was paid tells nothing about this one.
            Ok(_) if outcome.repeated => {}
            Ok(order) => drop(accepted.insert(order.order_id.clone(), outcome.intended)),
            Err(_) => refused += 1,
        }
        progress.say(format!("{} accepted, {refused} refused", accepted.len()));
    };
    let tally = place(&addresses.order_service, &plan, observe, &mut interrupts).await?;
    let after = tokio::select! {
        after = After::wait(addresses, &accepted, config.wait, &progress) => after?,
        _ = interrupts.recv() => After::broken_off(),
    };
    progress.done();
    Ok(Summary::new(&plan, &tally, after.paid, after.drain, after.verdict))
}

/// Places orders until the plan or an interrupt ends it. Those that are on their way then are waited for, until another
/// interrupt.
async fn place(
    url: &str,
    plan: &Plan,
    observe: impl FnMut(&Outcome<'_>) + Send,
    interrupts: &mut Signal,
) -> Result<Tally, Error> {
    let token = CancellationToken::new();
    let placing = super::run(url, plan, token.clone(), observe);
    tokio::pin!(placing);
    tokio::select! {
        tally = &mut placing => return tally,
        _ = interrupts.recv() => token.cancel(),
    }
    tokio::select! {
        tally = &mut placing => tally,
        _ = interrupts.recv() => Err(Error::Interrupted),
    }
}

/// What is to be seen once all orders are placed.
struct After {
    drain: Option<Duration>,
    verdict: Result<Verdict, String>,
    paid: Paid,
}

impl After {
    async fn wait(
        addresses: &Addresses,
        accepted: &Accepted,
        limit: Duration,
        progress: &Progress,
    ) -> Result<Self, Error> {
        let deadline = Instant::now() + limit;
        let drain = after::drain(addresses, limit, |waiting| {
            progress.say(format!("{} messages wait in the queues", waiting.messages));
        })
        .await;
        progress.say("the books are read".to_owned());
        let left = deadline.saturating_duration_since(Instant::now());
        let verdict = audit::run(addresses, left).await.map_err(|error| error.to_string());
        let paid = after::paid(&addresses.order_service, accepted).await?;
        let per_s = after::per_second(&paid);
        let paid = Paid { per_s, spread: after::latencies(paid.into_iter().map(|(_, took)| took)).spread() };
        Ok(Self { drain, verdict, paid })
    }

    /// Nobody wanted to wait for it.
    fn broken_off() -> Self {
        Self { drain: None, verdict: Err(Error::Interrupted.to_string()), paid: Paid::default() }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        config: Config,
    }

    fn config(flags: &[&str]) -> Config {
        Command::try_parse_from([&["load"], flags].concat()).unwrap().config
    }

    #[test]
    fn flags_become_a_plan_and_an_unsaid_seed_is_another_each_time() {
        let plan = config(&["--rate", "500", "--mix", "slow=1", "--seed", "42", "--synchronous"]).plan().unwrap();
        assert_eq!((plan.rate_per_s, plan.seed, plan.synchronous), (500.0, 42, true));
        assert_eq!((plan.mix.to_string().as_str(), plan.duration), ("slow=1", Some(Duration::from_secs(30))));
        let seed = || config(&[]).plan().unwrap().seed;
        assert_ne!(seed(), seed());
    }

    #[test]
    fn more_orders_than_are_remembered_are_refused() {
        assert!(config(&["--rate", "1000", "--duration", "1000s"]).plan().is_ok());
        let error = config(&["--rate", "1000", "--duration", "1001s"]).plan().unwrap_err();
        assert!(matches!(error, Error::Orders(_)), "{error}");
        assert!(matches!(config(&["--rate", "10001"]).plan(), Err(Error::Rate(_))));
    }
}
