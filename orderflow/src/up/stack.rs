//! The running stack: which part runs as which process, and what becomes of it on request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::oneshot;
use tokio::time;
use tokio_util::task::TaskTracker;

use super::child::{Launch, Running, Variable, Voice};
use super::control::{CHANGE_WITHIN, PartStatus, Reply, Request};
use super::layout::Layout;
use super::{Error, welcome};
use crate::part::{Instance, Part};
use crate::proxy::Proxy;
use crate::{health, terminal};

/// A part that isn't ready by then has failed to start.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// The same past one machine, where a broker has to join others, find their owner or become it, and everybody else may have
/// to wait for that: what an owner that vanished silently is waited for is part of it.
const JOINED_WITHIN: Duration = Duration::from_secs(50);
/// How long one question of a starting part may wait for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How long what is left of a killed PostgreSQL server may keep the next one from starting.
const LEFTOVERS_GO_WITHIN: Duration = Duration::from_secs(10);
// Whoever asks for a start from another terminal hears how the longest one ended.
const _: () = assert!(CHANGE_WITHIN.as_secs() > LEFTOVERS_GO_WITHIN.as_secs() + JOINED_WITHIN.as_secs());
/// The pause until it is tried again.
const LEFTOVERS_POLL: Duration = Duration::from_millis(200);
/// How often a starting part is asked whether it is ready.
const READY_POLL: Duration = Duration::from_millis(25);
/// What a part gets to finish its work after SIGTERM, a little more than its own grace period; then it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// How long a status waits for one part's answer.
const STATUS_WITHIN: Duration = Duration::from_secs(1);

/// All parts of one stack, running or not.
pub(crate) struct Stack {
    layout: Layout,
    /// One address for all instances of a part, where there are several.
    _doors: Vec<Proxy>,
    launch: Launch,
    /// How to call this program again, with the flags that lead to this stack: `orderflow --data-dir … `.
    program: Program,
    /// Where the runner serves its page, if it does.
    page: Option<SocketAddr>,
    /// The last process of each instance. An exit status inside says that it has ended.
    slots: Mutex<BTreeMap<Instance, Running>>,
    /// Set while everything is being stopped: ends are expected then, and nothing is started any more.
    ending: AtomicBool,
    watchers: TaskTracker,
}

/// The command line that reaches this stack from another terminal.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) executable: String,
    /// `--data-dir X`, or nothing for the default.
    pub(crate) flags: String,
}

impl Program {
    pub(crate) fn command(&self, command: &str) -> String {
        format!("{} {command}{}", self.executable, self.flags)
    }
}

impl Stack {
    pub(crate) fn new(
        layout: Layout,
        doors: Vec<Proxy>,
        program: Program,
        launch: Launch,
        page: Option<SocketAddr>,
    ) -> Arc<Self> {
        Arc::new(Self {
            layout,
            _doors: doors,
            launch,
            program,
            page,
            slots: Mutex::default(),
            ending: AtomicBool::new(false),
            watchers: TaskTracker::new(),
        })
    }

    /// Every process of the stack, in the order in which they start.
    pub(crate) fn instances(&self) -> impl Iterator<Item = Instance> {
        self.layout.instances()
    }

    /// How this stack is reached from another terminal.
    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    /// Starts a part and waits until it is ready.
    pub(crate) async fn start(self: &Arc<Self>, part: Instance) -> Result<u32, Error> {
        self.start_with(part, &[]).await
    }

    /// Starts a part with more in its environment than the runner has, and waits until it is ready.
    pub(crate) async fn start_with(self: &Arc<Self>, part: Instance, env: &[Variable]) -> Result<u32, Error> {
        let patience = time::Instant::now() + LEFTOVERS_GO_WITHIN;
        loop {
            let (tried, comes_again) = oneshot::channel();
            let outcome = self.start_once(part, env, comes_again).await;
            // The port and the memory of a server that was killed stay with its children for a moment.
            let again = part.part == Part::Postgres
                && matches!(outcome, Err(Error::Address { .. } | Error::EndedEarly { .. }))
                && time::Instant::now() < patience;
            // Nobody wants to know if nothing was started.
            let _ = tried.send(again);
            if !again {
                return outcome;
            }
            time::sleep(LEFTOVERS_POLL).await;
        }
    }

    async fn start_once(
        self: &Arc<Self>,
        part: Instance,
        env: &[Variable],
        comes_again: oneshot::Receiver<bool>,
    ) -> Result<u32, Error> {
        let running = self.spawn(part, env, comes_again)?;
        self.ready(part, &running).await?;
        Ok(running.pid)
    }

    /// Does what another terminal asks for.
    pub(crate) async fn handle(self: &Arc<Self>, request: Request) -> Reply {
        let done = match request {
            Request::Status => {
                let doors = self.layout.doors().keys().map(|part| (*part, self.layout.call(*part))).collect();
                return Reply::Status { parts: self.status().await, page: self.page, doors };
            }
            Request::Start { part } => {
                self.start(part).await.map(|pid| format!("{part} is ready again, as process {pid}"))
            }
            Request::Kill { part } => self.end(part, Signal::KILL).await.map(|()| format!("{part} was killed")),
            Request::Stop { part } => {
                self.end(part, part.part.stop_signal()).await.map(|()| format!("{part} has stopped"))
            }
        };
        match done {
            Ok(message) => {
                let hint = match request {
                    Request::Kill { part } | Request::Stop { part } => {
                        format!("; start it again: {}", self.program.command(&format!("start {part}")))
                    }
                    _ => String::new(),
                };
                Reply::Done { message: message + &hint }
            }
            Err(error) => Reply::Refused { message: error.to_string() },
        }
    }

    /// Lets every part finish its work, those that need others first.
    pub(crate) async fn drain(&self) {
        self.ending.store(true, Ordering::SeqCst);
        for step in Part::STOP_STEPS {
            let step = self.instances().filter(|instance| step.contains(&instance.part));
            let step: Vec<_> = step.filter_map(|instance| Some((instance, self.running(instance)?))).collect();
            for (instance, running) in &step {
                running.signal(instance.part.stop_signal());
            }
            let deadline = time::Instant::now() + STOP_WITHIN;
            for (part, running) in step {
                if !running.exited_within(deadline.saturating_duration_since(time::Instant::now())).await {
                    terminal::say(&format!("{part} did not stop within {} s: killed", STOP_WITHIN.as_secs()));
                    running.signal(Signal::KILL);
                    running.exited().await;
                }
            }
        }
        self.all_ended().await;
    }

    /// Ends every part at once.
    pub(crate) fn kill_all(&self) {
        self.ending.store(true, Ordering::SeqCst);
        for instance in self.instances() {
            if let Some(running) = self.running(instance) {
                running.signal(instance.part.end_signal());
            }
        }
    }

    /// What to say once everything is ready.
    pub(crate) fn welcome(&self, took: Duration) -> String {
        welcome::text(&self.layout, &self.program, took, self.page)
    }

    fn spawn(
        self: &Arc<Self>,
        part: Instance,
        env: &[Variable],
        comes_again: oneshot::Receiver<bool>,
    ) -> Result<Running, Error> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.layout.has(part) {
            return Err(Error::NotPlanned { part });
        }
        if let Some(running) = slots.get(&part)
            && running.exit_status().is_none()
        {
            return Err(Error::AlreadyRuns { part, pid: running.pid });
        }
        if self.ending.load(Ordering::SeqCst) {
            return Err(Error::Ending);
        }
        self.layout.check_address(part)?;
        let running = Running::spawn(part, &self.layout, &self.launch, env);
        let running = running.map_err(|source| Error::Spawn { part, source })?;
        slots.insert(part, running.clone());
        self.watchers.spawn(Arc::clone(self).announce_end(part, running.clone(), comes_again));
        Ok(running)
    }

    /// Says in one line that a part has ended, and how it is started again; not of a start that is tried once more, which
    /// `comes_again` tells when the try is over.
    async fn announce_end(self: Arc<Self>, part: Instance, running: Running, comes_again: oneshot::Receiver<bool>) {
        let status = running.exited().await;
        // Who gave up waiting for the start does not try it again.
        if comes_again.await.unwrap_or(false) {
            return;
        }
        if self.launch.voice == Voice::Quiet || self.ending.load(Ordering::SeqCst) {
            return;
        }
        let start = self.program.command(&format!("start {part}"));
        terminal::say(&format!("{part} (process {}) ended: {status}. Start it again: {start}", running.pid));
    }

    async fn ready(&self, part: Instance, running: &Running) -> Result<(), Error> {
        let within = if self.layout.is_scaled() { JOINED_WITHIN } else { READY_WITHIN };
        let poll = async {
            while health::check(part.part, self.layout.reach(part), ANSWER_WITHIN).await.is_err() {
                time::sleep(READY_POLL).await;
            }
        };
        tokio::select! {
            () = poll => Ok(()),
            status = running.exited() => Err(self.ended_early(part, status)),
            () = time::sleep(within) => Err(Error::NotReady {
                part,
                within_s: within.as_secs(),
                log: self.layout.log_file(part),
            }),
        }
    }

    fn ended_early(&self, part: Instance, status: ExitStatus) -> Error {
        Error::EndedEarly { part, status, log: self.layout.log_file(part) }
    }

    /// Ends a part by a signal, and waits until it has ended.
    pub(crate) async fn end(&self, part: Instance, signal: Signal) -> Result<(), Error> {
        let running = self.running(part).ok_or(Error::NotRunning { part })?;
        running.signal(signal);
        if running.exited_within(STOP_WITHIN).await {
            Ok(())
        } else {
            Err(Error::StillRuns { part, pid: running.pid, within_s: STOP_WITHIN.as_secs() })
        }
    }

    async fn status(&self) -> Vec<PartStatus> {
        let mut parts = self.processes();
        // Side by side: several that are frozen must not keep whoever asks waiting for each in turn.
        let ask = |status: &PartStatus| {
            let (part, address, runs) = (status.part, self.layout.reach(status.part), status.pid.is_some());
            tokio::spawn(async move { runs && health::check(part.part, address, STATUS_WITHIN).await.is_ok() })
        };
        let answers: Vec<_> = parts.iter().map(ask).collect();
        for (status, answer) in parts.iter_mut().zip(answers) {
            status.healthy = answer.await.unwrap_or(false);
            if status.healthy {
                "healthy".clone_into(&mut status.state);
            }
        }
        parts
    }

    /// How every part is, as far as that can be told without asking it.
    pub(crate) fn processes(&self) -> Vec<PartStatus> {
        let process = |part| {
            let last = self.slots.lock().unwrap_or_else(PoisonError::into_inner).get(&part).cloned();
            let (pid, state) = match &last {
                None => (None, "not started yet".to_owned()),
                Some(running) => match running.exit_status() {
                    Some(status) => (None, format!("ended: {status}")),
                    None => (Some(running.pid), "running, but not ready".to_owned()),
                },
            };
            PartStatus { part, pid, healthy: false, address: self.layout.reach(part).to_string(), state }
        };
        self.instances().map(process).collect()
    }

    /// Sends a signal to a part that runs.
    pub(crate) fn signal(&self, part: Instance, signal: Signal) -> Result<(), Error> {
        self.running(part).map(|running| running.signal(signal)).ok_or(Error::NotRunning { part })
    }

    /// Where the parts lie and listen.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Waits until everything that was ever started has ended.
    pub(crate) async fn all_ended(&self) {
        self.watchers.close();
        self.watchers.wait().await;
    }

    /// The process of a part that has not ended.
    pub(crate) fn running(&self, part: Instance) -> Option<Running> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.get(&part).cloned().filter(|running| running.exit_status().is_none())
    }
}
