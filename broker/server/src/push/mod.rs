//! Push: messages go to their consumers by HTTP POST, one task for each subscription that has a push configuration.
//!
//! **Invariant:** it knows no engine but by the [`Engine`] trait, and it is one more consumer to it: pull, post, then ack,
//! nack, or give back. What is durable is the engine's.

mod client;
mod lane;
mod pusher;
mod request;
mod window;

use std::collections::HashMap;
use std::sync::Arc;

use broker_core::{SubscriptionConfig, SubscriptionName};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, Error};
use client::Client;
use pusher::Pusher;

/// The most requests that are open at a time, of all subscriptions together.
const REQUESTS_MAX: usize = 1_000;

/// Pushes until it is told to stop, and then until the requests that are open have their answers.
pub(crate) async fn run<E: Engine>(engine: E, stop: CancellationToken) {
    let mut changes = engine.push_changes();
    let mut pushers = Pushers {
        engine,
        client: Client::new(),
        requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
        running: HashMap::new(),
        tasks: JoinSet::new(),
    };
    loop {
        changes.mark_unchanged();
        if pushers.follow().await.is_err() {
            break;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { break },
            () = stop.cancelled() => break,
        }
    }
    pushers.end().await;
}

struct Pushers<E> {
    engine: E,
    client: Client,
    requests: Arc<Semaphore>,
    running: HashMap<SubscriptionName, Running>,
    tasks: JoinSet<()>,
}

/// A task that pushes for a subscription as it is configured.
struct Running {
    config: SubscriptionConfig,
    stop: CancellationToken,
}

impl<E: Engine> Pushers<E> {
    /// Ends and begins pushes, so that they are those that the engine names.
    async fn follow(&mut self) -> Result<(), Error> {
        let pushed = self.engine.pushed().await?;
        let mut wanted: HashMap<SubscriptionName, SubscriptionConfig> =
            pushed.into_iter().map(|subscription| (subscription.config.name.clone(), subscription.config)).collect();
        self.running.retain(|name, running| {
            let stays = wanted.get(name) == Some(&running.config);
            if stays {
                wanted.remove(name);
            } else {
                running.stop.cancel();
            }
            stays
        });
        for (name, config) in wanted {
            let stop = CancellationToken::new();
            let (engine, client, requests) = (self.engine.clone(), self.client.clone(), self.requests.clone());
            let pusher = Pusher::new(engine, client, requests, &config, stop.clone());
            let Some(pusher) = pusher else {
                tracing::error!(subscription = %name, "The push endpoint can't be used.");
                continue;
            };
            self.tasks.spawn(pusher.run());
            self.running.insert(name, Running { config, stop });
        }
        // Those that have ended are not waited for any more.
        while self.tasks.try_join_next().is_some() {}
        Ok(())
    }

    async fn end(mut self) {
        self.running.values().for_each(|running| running.stop.cancel());
        while self.tasks.join_next().await.is_some() {}
    }
}
