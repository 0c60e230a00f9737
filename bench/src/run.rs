//! One side in one case: the load, and what is read while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cases::{Case, Extent, FAN_OUT, TOPICS};
use crate::error::{Error, Outcome};
use crate::process::{Usage, own_usage};
use crate::sides::{Batch, Client, Running, Side};

/// Messages that publishers may be ahead of the consumers where both work at the same time.
const AHEAD_MESSAGES_MAX: u64 = 20_000;
/// How often a publisher that is too far ahead looks again.
const AHEAD_PERIOD: Duration = Duration::from_millis(1);
/// Requests under way at a time, of a load that does not wait: a side that has so many does not keep up.
const OPEN_IN_FLIGHT_MAX: usize = 20_000;
/// A case that takes longer has failed, but for the deep queue.
const CASE_PATIENCE: Duration = Duration::from_secs(90);
/// How long the deep queue may take.
const BACKLOG_PATIENCE: Duration = Duration::from_secs(240);
/// How long a server that was killed may take until it accepts a message again.
const RESTART_PATIENCE: Duration = Duration::from_secs(120);
/// The longest latency that is told from longer ones.
const LATENCY_US_MAX: u64 = 60_000_000;

/// What one run of a case has shown.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    /// Messages: published, or delivered and acked where the case delivers.
    pub(crate) per_s: f64,
    /// Of an open load: from the time when a request was due until it was answered.
    pub(crate) latency: Option<Latency>,
    /// Processor time for each message.
    pub(crate) server_cpu_us: f64,
    /// The same, of the client.
    pub(crate) client_cpu_us: f64,
    /// The most memory that the server had.
    pub(crate) server_peak_bytes: u64,
    /// Of the deep queue.
    pub(crate) backlog: Option<Backlog>,
}

/// What a deep queue was, and what became of it after a kill.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Backlog {
    /// How many messages waited.
    pub(crate) messages: u64,
    /// From the start of the killed server until it had accepted a message.
    pub(crate) restart_ms: u64,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
}

/// Puts a side through a case, with a server of its own.
pub(crate) async fn run(side: Side, case: Case, extent: Extent) -> Outcome<Sample> {
    let patience = if case == Case::Backlog { BACKLOG_PATIENCE } else { CASE_PATIENCE };
    if case == Case::Backlog && !side.keeps_messages() {
        return Err(Error::NotApplicable("it keeps no messages"));
    }
    let work = async {
        let mut bench = Bench { running: side.start().await?, side, case, extent };
        bench.run().await
    };
    tokio::time::timeout(patience, work).await.unwrap_or(Err(Error::TimeOut(patience.as_secs())))
}

struct Bench {
    running: Running,
    side: Side,
    case: Case,
    extent: Extent,
}

/// Tasks that load the server, and what they have done so far.
#[derive(Default)]
struct Load {
    tasks: JoinSet<Outcome>,
    published: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Bench {
    async fn run(&mut self) -> Outcome<Sample> {
        let (topics, subscriptions) = match self.case {
            Case::Topics => (TOPICS, 1),
            Case::FanOut => (1, FAN_OUT),
            _ => (1, 1),
        };
        self.running.client.prepare(topics, subscriptions).await?;
        match self.case {
            Case::Publish { .. } | Case::Topics => self.publish(topics).await,
            Case::Deliver => self.deliver().await,
            Case::Together | Case::FanOut => self.together(subscriptions).await,
            Case::Latency { per_s } => self.latency(per_s).await,
            Case::Backlog => {
                let messages = self.preload(self.extent.backlog_messages, self.extent.backlog).await?;
                let sample = self.together(subscriptions).await?;
                let restart_ms = u64::try_from(self.restart().await?.as_millis()).unwrap_or(u64::MAX);
                Ok(Sample { backlog: Some(Backlog { messages, restart_ms }), ..sample })
            }
        }
    }

    /// Kills the server, starts it again, and waits until it has accepted a message.
    async fn restart(&mut self) -> Outcome<Duration> {
        let Some(server) = self.running.servers.first_mut() else {
            return Err(Error::NotApplicable("it has no server"));
        };
        let begun = Instant::now();
        server.restart().await?;
        let batch = Batch { messages: 1, ..batch(self.case) };
        loop {
            let published = async { self.side.connect(server.address()).await?.publish(0, &batch).await };
            match published.await {
                Ok(()) => return Ok(begun.elapsed()),
                // It accepts connections before it has read what it holds.
                Err(_) if begun.elapsed() < RESTART_PATIENCE => tokio::time::sleep(AHEAD_PERIOD).await,
                Err(error) => return Err(error),
            }
        }
    }

    async fn publish(&self, topics: usize) -> Outcome<Sample> {
        let mut load = Load::default();
        load.publish(&self.running.client, self.case, topics, None);
        let published = Arc::clone(&load.published);
        self.steady(load, &published).await
    }

    async fn together(&self, subscriptions: usize) -> Outcome<Sample> {
        let mut load = Load::default();
        load.publish(&self.running.client, self.case, 1, Some(subscriptions as u64));
        (0..subscriptions).for_each(|number| load.consume(&self.running.client, number));
        let received = Arc::clone(&load.received);
        self.steady(load, &received).await
    }

    /// All that was published before, from the first message to the last.
    async fn deliver(&self) -> Outcome<Sample> {
        let published = self.preload(self.extent.preload_messages, self.extent.preload).await?;
        let mut load = Load::default();
        let begun = Mark::now(self, 0);
        load.consume(&self.running.client, 0);
        while load.received.load(Ordering::Relaxed) < published {
            load.check()?;
            tokio::time::sleep(AHEAD_PERIOD).await;
        }
        let sample = begun.until(Mark::now(self, load.received.load(Ordering::Relaxed)));
        load.end().await?;
        Ok(sample)
    }

    /// What a load does in the time that counts.
    async fn steady(&self, mut load: Load, count: &AtomicU64) -> Outcome<Sample> {
        tokio::time::sleep(self.extent.warm_up).await;
        let begun = Mark::now(self, count.load(Ordering::Relaxed));
        tokio::time::sleep(self.extent.measured).await;
        let ended = Mark::now(self, count.load(Ordering::Relaxed));
        load.check()?;
        load.end().await?;
        if ended.count == begun.count {
            return Err(Error::Server("nothing came through".to_owned()));
        }
        Ok(begun.until(ended))
    }

    /// Publishes messages, as many as the time allows; answers how many.
    async fn preload(&self, messages: u64, time: Duration) -> Outcome<u64> {
        let mut load = Load::default();
        let case = Case::Publish { batch: 1_000, bytes: self.case.bytes() };
        load.publish(&self.running.client, case, 1, None);
        let begun = Instant::now();
        while load.published.load(Ordering::Relaxed) < messages && begun.elapsed() < time {
            load.check()?;
            tokio::time::sleep(AHEAD_PERIOD).await;
        }
        let published = Arc::clone(&load.published);
        load.end().await?;
        Ok(published.load(Ordering::Relaxed))
    }

    async fn latency(&self, per_s: u32) -> Outcome<Sample> {
        let client = Arc::clone(&self.running.client);
        let case = self.case;
        // Lets connections and allocators settle.
        let warm_up = open_load(Arc::clone(&client), case, per_s, self.extent.warm_up).await?;
        drop(warm_up);
        let begun = Mark::now(self, 0);
        let histogram = open_load(client, case, per_s, self.extent.measured).await?;
        let sample = begun.until(Mark::now(self, histogram.len()));
        let at = |quantile| histogram.value_at_quantile(quantile);
        let latency = Latency { p50_us: at(0.5), p99_us: at(0.99), p999_us: at(0.999) };
        Ok(Sample { latency: Some(latency), ..sample })
    }
}

impl Load {
    /// Publishes batch after batch, so many at a time; with `fan_out`, only as far ahead of the consumers as they may be.
    fn publish(&mut self, client: &Arc<dyn Client>, case: Case, topics: usize, fan_out: Option<u64>) {
        for worker in 0..case.in_flight() {
            let client = Arc::clone(client);
            let batch = batch(case);
            let (published, received) = (Arc::clone(&self.published), Arc::clone(&self.received));
            let stop = self.stop.clone();
            let mut topic = worker;
            self.tasks.spawn(async move {
                while !stop.is_cancelled() {
                    let deliveries = fan_out.map_or(0, |fan_out| published.load(Ordering::Relaxed) * fan_out);
                    if deliveries > received.load(Ordering::Relaxed) + AHEAD_MESSAGES_MAX * fan_out.unwrap_or(1) {
                        tokio::time::sleep(AHEAD_PERIOD).await;
                        continue;
                    }
                    client.publish(topic % topics, &batch).await?;
                    published.fetch_add(batch.messages as u64, Ordering::Relaxed);
                    topic += case.in_flight();
                }
                Ok(())
            });
        }
    }

    fn consume(&mut self, client: &Arc<dyn Client>, subscription: usize) {
        let (client, received, stop) = (Arc::clone(client), Arc::clone(&self.received), self.stop.clone());
        self.tasks.spawn(async move { client.consume(subscription, &received, stop).await });
    }

    /// Passes on why a task has ended, if one has.
    fn check(&mut self) -> Outcome {
        match self.tasks.try_join_next() {
            Some(ended) => ended.map_err(Error::server)?,
            None => Ok(()),
        }
    }

    async fn end(mut self) -> Outcome {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(Error::server)??;
        }
        Ok(())
    }
}

fn batch(case: Case) -> Batch {
    Batch { body: vec![b'x'; case.bytes()].into(), messages: case.batch() }
}

/// Requests at fixed times, whatever became of those before. A thread keeps the times: timers of the runtime are too
/// coarse for it.
async fn open_load(client: Arc<dyn Client>, case: Case, per_s: u32, time: Duration) -> Outcome<Histogram<u64>> {
    let runtime = tokio::runtime::Handle::current();
    let pace = move || {
        let batch = batch(case);
        let mut tasks: JoinSet<Outcome<Duration>> = JoinSet::new();
        let mut latencies = Vec::new();
        let gap = Duration::from_secs(1) / per_s;
        let begun = Instant::now();
        let mut due = begun;
        while due < begun + time {
            if let Some(early) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(early);
            }
            let (client, batch) = (Arc::clone(&client), batch.clone());
            tasks.spawn_on(async move { client.publish(0, &batch).await.map(|()| due.elapsed()) }, &runtime);
            due += gap;
            while let Some(done) = tasks.try_join_next() {
                latencies.push(done.map_err(Error::server)??);
            }
            if tasks.len() > OPEN_IN_FLIGHT_MAX {
                return Err(Error::Server(format!("it does not keep up with {per_s} requests/s")));
            }
        }
        runtime.block_on(async {
            while let Some(done) = tasks.join_next().await {
                latencies.push(done.map_err(Error::server)??);
            }
            Ok(latencies)
        })
    };
    let latencies = tokio::task::spawn_blocking(pace).await.map_err(Error::server)??;
    let mut histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).map_err(Error::server)?;
    for latency in latencies {
        histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }
    Ok(histogram)
}

/// How far everything is at a point in time.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    count: u64,
    server: Usage,
    client: Usage,
}

impl Mark {
    fn now(bench: &Bench, count: u64) -> Self {
        let server = bench.running.servers.iter().map(|server| server.usage()).sum();
        Self { at: Instant::now(), count, server, client: own_usage() }
    }

    fn until(self, end: Self) -> Sample {
        let count = (end.count - self.count).max(1) as f64;
        let cpu_us = |from: Usage, to: Usage| to.cpu.saturating_sub(from.cpu).as_secs_f64() * 1e6 / count;
        Sample {
            per_s: count / (end.at - self.at).as_secs_f64(),
            latency: None,
            server_cpu_us: cpu_us(self.server, end.server),
            client_cpu_us: cpu_us(self.client, end.client),
            server_peak_bytes: end.server.peak_rss_bytes,
            backlog: None,
        }
    }
}
