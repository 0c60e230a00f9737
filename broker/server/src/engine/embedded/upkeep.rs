//! What is done now and then: messages that are too old are given up.

use std::time::Duration;

use broker_core::{Cut, Retained, Time};
use broker_log::Reader;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Embedded;
use super::failure::Failure;
use super::fetch::{first_since, published_at};
use super::task::State;
use crate::engine::Error;

/// How often messages are looked for that are too old. One lives at most this much longer than it should.
const PERIOD: Duration = Duration::from_secs(60);

/// Works until it is told to stop, or the engine has ended.
pub(super) async fn run(engine: Embedded, stop: CancellationToken) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        if let Err(Error::Unavailable) = give_up(&engine).await {
            return;
        }
    }
}

/// Gives up what is too old by now.
async fn give_up(engine: &Embedded) -> Result<(), Error> {
    let retained = |state: &mut State| Ok::<_, Error>((state.core.retained(), state.now));
    let (retained, now) = engine.ask(retained).await?;
    if retained.is_empty() {
        return Ok(());
    }
    let cuts = engine.read(move |reader| cuts(reader, &retained, now)).await?;
    if cuts.is_empty() {
        return Ok(());
    }
    engine
        .ask(move |state| {
            state.core.handle_retention(&cuts, state.now, &mut state.out);
            Ok::<_, Error>(())
        })
        .await
}

fn cuts(reader: &Reader, retained: &[Retained], now: Time) -> Result<Vec<Cut>, Failure> {
    let mut cuts = Vec::new();
    for Retained { keeper, topic, retention, oldest, last } in retained.iter().copied() {
        let since = Time(now.0.saturating_sub(retention.ms()));
        // Mostly nothing is too old, and then one read tells.
        if published_at(reader, topic, oldest)?.is_some_and(|published| published < since) {
            cuts.push(Cut { keeper, before: first_since(reader, topic, oldest, last, since)? });
        }
    }
    Ok(cuts)
}
