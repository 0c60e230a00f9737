//! The steady load that people start from the page.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use serde::Deserialize;
use serde_json::{Value, json};
use service_kit::CancellationToken;
use service_kit::clock::now_ms;

use super::Refusal;
use super::http::{Page, body};
use super::wire::LoadState;
use crate::load::{self, Mix, Plan, RATE_PER_S_MIN};

/// The most orders per second that the page asks for.
const RATE_PER_S_MAX: f64 = 2_000.0;
/// Over how many customers the orders are spread.
const CUSTOMERS: u32 = 100;

/// The load that runs, if one does.
#[derive(Debug, Default)]
pub(super) struct Steady {
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    rate_per_s: f64,
    mix: Option<String>,
    counts: Arc<Counts>,
    started_ms: i64,
    token: CancellationToken,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl Steady {
    /// Starts a load, or changes the one that runs: its counts go on.
    pub(super) fn start(
        &self,
        url: &str,
        rate_per_s: f64,
        mix: Option<String>,
        ending: &CancellationToken,
    ) -> Result<(), String> {
        let kinds = mix.as_deref().map(str::parse::<Mix>).transpose().map_err(|error| format!("`mix`: {error}"))?;
        let plan = Plan {
            rate_per_s,
            duration: None,
            customers: CUSTOMERS,
            mix: kinds.unwrap_or_default(),
            // The same seed would ask for the same orders again.
            seed: fastrand::u64(..),
            synchronous: false,
            // A customer who is refused shows it at once.
            patience: Duration::ZERO,
        };
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let (counts, started_ms) = match running.take() {
            Some(before) => {
                before.token.cancel();
                (before.counts, before.started_ms)
            }
            None => (Arc::default(), now_ms()),
        };
        let token = ending.child_token();
        tokio::spawn(place(url.to_owned(), plan, token.clone(), Arc::clone(&counts)));
        *running = Some(Running { rate_per_s, mix, counts, started_ms, token });
        Ok(())
    }

    /// Ends the load that runs, and tells how it was; nothing if none ran.
    pub(super) fn stop(&self) -> Option<LoadState> {
        let ended = self.running.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        ended.token.cancel();
        Some(ended.state())
    }

    pub(super) fn state(&self) -> Option<LoadState> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Running::state)
    }
}

impl Running {
    fn state(&self) -> LoadState {
        LoadState {
            rate_per_s: self.rate_per_s,
            mix: self.mix.clone(),
            accepted: self.counts.accepted.load(Ordering::Relaxed),
            refused: self.counts.refused.load(Ordering::Relaxed),
            started_ms: self.started_ms,
        }
    }
}

async fn place(url: String, plan: Plan, token: CancellationToken, counts: Arc<Counts>) {
    let observe = |outcome: &load::Outcome<'_>| {
        let count = if outcome.result.is_ok() { &counts.accepted } else { &counts.refused };
        count.fetch_add(1, Ordering::Relaxed);
    };
    if let Err(error) = load::run(&url, &plan, token, observe).await {
        tracing::warn!(%error, "the load has ended");
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    rate_per_s: f64,
    #[serde(default)]
    mix: Option<String>,
}

/// `PUT /api/load`
pub(super) async fn start(
    State(page): State<Page>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Refusal> {
    let Wanted { rate_per_s, mix } = body(bytes)?;
    if !(RATE_PER_S_MIN..=RATE_PER_S_MAX).contains(&rate_per_s) {
        return Err(Refusal::bad(format!("`rate_per_s` must be {RATE_PER_S_MIN} to {RATE_PER_S_MAX}")));
    }
    let (live, url) = (&page.live, &page.live.site.addresses.order_service);
    live.steady.start(url, rate_per_s, mix, &page.ending).map_err(Refusal::bad)?;
    // Whoever starts a load is there, even if it is a script that never looks at the state.
    live.look();
    live.touch();
    Ok(Json(json!({ "load": live.steady.state() })))
}

/// `DELETE /api/load`
pub(super) async fn stop(State(page): State<Page>) -> Json<Value> {
    let last = page.live.steady.stop();
    page.live.touch();
    Json(json!({ "load": last }))
}
