//! The collectors: each watches one thing and writes down what it finds.

mod backoff;
mod books;
mod broker;
mod orders;
mod parts;

use std::sync::Arc;
use std::time::Duration;

use service_kit::CancellationToken;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::task::TaskTracker;

use super::live::Live;

/// How often browsers get a new picture.
const TICK: Duration = Duration::from_millis(500);

/// Starts all of them. They end when the token is cancelled.
pub(super) fn start(live: &Arc<Live>, tasks: &TaskTracker, token: &CancellationToken) {
    let spawn = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
        let token = token.clone();
        tasks.spawn(async move { token.run_until_cancelled(task).await });
    };
    spawn(Box::pin(ticks(Arc::clone(live))));
    spawn(Box::pin(broker::watch(Arc::clone(live))));
    spawn(Box::pin(books::read(Arc::clone(live))));
    for watched in live.site.parts.clone() {
        spawn(Box::pin(parts::watch(Arc::clone(live), watched)));
    }
    // It tidies up behind itself, so that it hears of the end itself.
    tasks.spawn(orders::listen(Arc::clone(live), token.clone()));
}

async fn ticks(live: Arc<Live>) {
    let mut ticks = time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        live.tick();
    }
}
