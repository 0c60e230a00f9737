//! What a start leaves unread is read afterwards, so that damage in what nobody asks for is found as well.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Embedded;

/// How often a piece of the journal is read. With [`PIECE_BYTES`] this is at most 80 MiB a second, so that whoever is
/// served meanwhile has the greater part of the disk.
const PERIOD: Duration = Duration::from_millis(100);
/// How much of the journal is read at a time, in bytes.
const PIECE_BYTES: u64 = 8 << 20;

/// Reads the segments that the start has not read. Damage ends the engine, and keeps it from starting again.
pub(super) async fn run(engine: Embedded, segments: Vec<u64>, stop: CancellationToken) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for segment in segments.iter().copied() {
        let mut next = Some(0);
        while let Some(offset) = next {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let check = engine.read(move |reader| Ok(reader.check(segment, offset, PIECE_BYTES)?)).await;
            let Ok(then) = check else { return };
            next = then;
        }
    }
    if !segments.is_empty() {
        tracing::info!(segments = segments.len(), "Checked what the start had not read of the journal.");
    }
}
