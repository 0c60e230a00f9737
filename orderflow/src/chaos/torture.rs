//! Does to a lab what the schedule says, and undoes it.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use broker::JournalState;
use fail_points::Point;
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::diary::Diary;
use super::poison::Poison;
use super::schedule::{BURST_TIMES, Fault, Lane, Role, Schedule, What};
use crate::acquirer::{AcquirerClient, Mode};
use crate::lab::{self, Lab, Line};
use crate::load::{self, Plan};
use crate::part::{Instance, Part};
use crate::up;

/// How long the acquirer is given to hear what it is told.
const ACQUIRER_WITHIN: Duration = Duration::from_secs(2);
/// How often a part may fail to start until it is given up.
const STARTS_MAX: u32 = 10;
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How long the cluster may take after the last fault to say who has a role, in milliseconds.
const HOLDER_MS_MAX: u64 = 30_000;

/// A torturer. Clones work on the same lab.
#[derive(Clone)]
pub(super) struct Torture {
    pub(super) lab: Arc<Lab>,
    pub(super) diary: Arc<Diary>,
    /// The load outside of bursts.
    pub(super) plan: Plan,
    pub(super) duration_ms: u64,
}

impl Torture {
    /// Does everything that the schedule says. When it returns, everything runs and every line is open.
    pub(super) async fn run(&self, schedule: &Schedule) {
        let mut lanes = JoinSet::new();
        for (lane, faults) in schedule.lanes() {
            let torture = self.clone();
            lanes.spawn(async move {
                match lane {
                    Lane::Process(instance) => torture.process(instance, faults).await,
                    Lane::Line(line) => torture.line(line, faults).await,
                    Lane::Acquirer => torture.acquirer(faults).await,
                    Lane::Poison => torture.poison(faults).await,
                    Lane::Load => torture.bursts(faults).await,
                    Lane::Brokers => torture.several(Part::Broker, faults).await,
                    Lane::Nats => torture.several(Part::Nats, faults).await,
                }
            });
        }
        while lanes.join_next().await.is_some() {}
    }

    async fn process(&self, instance: Instance, faults: Vec<Fault>) {
        for fault in faults {
            self.attend(instance, fault.from_ms).await;
            let from_ms = self.diary.now_ms();
            let ended = match fault.what {
                What::Frozen(_) => self.freeze(instance, fault.until_ms).await,
                What::Stopped(_) => {
                    let stopped = self.lab.stop(instance).await;
                    time::sleep_until(self.diary.at(fault.until_ms)).await;
                    stopped.err().map(|error| error.to_string()).unwrap_or_default()
                }
                What::Armed { point, passing, .. } => self.arm(instance, point, passing, fault.until_ms).await,
                _ => {
                    self.kill(instance).await;
                    time::sleep_until(self.diary.at(fault.until_ms)).await;
                    String::new()
                }
            };
            let started = self.revive(instance).await;
            let ended = [ended, started].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ");
            self.diary.happened(from_ms, &fault.what, ended);
        }
        self.attend(instance, self.duration_ms).await;
    }

    /// Hurts those of a part by the role that they have when the fault comes. No role is spared in all of its kills: the run
    /// would prove less than its history says.
    async fn several(&self, part: Part, faults: Vec<Fault>) {
        let mut is_spared: BTreeMap<Role, bool> = BTreeMap::new();
        for fault in faults {
            self.attend_all(part, fault.from_ms).await;
            let has_hurt = self.hurt(part, &fault).await;
            if let What::RoleKilled(role) = fault.what {
                *is_spared.entry(role).or_insert(true) &= !has_hurt;
            }
        }
        self.attend_all(part, self.duration_ms).await;
        for (role, _) in is_spared.into_iter().filter(|(_, is_spared)| *is_spared) {
            self.kill_late(part, role).await;
        }
    }

    /// Does one fault to those of a part, and says whether there was somebody to do it to.
    async fn hurt(&self, part: Part, fault: &Fault) -> bool {
        let from_ms = self.diary.now_ms();
        let (victims, is_freeze): (Vec<Instance>, bool) = match fault.what {
            What::RoleKilled(role) => (self.holder(role, fault.until_ms).await.into_iter().collect(), false),
            What::RoleFrozen(role) => (self.holder(role, fault.until_ms).await.into_iter().collect(), true),
            _ => (self.all(part), false),
        };
        let mut ended = Vec::new();
        for &victim in &victims {
            if is_freeze {
                ended.push(format!("{victim}: {}", self.freeze(victim, fault.until_ms).await));
            } else {
                self.kill(victim).await;
            }
        }
        time::sleep_until(self.diary.at(fault.until_ms)).await;
        for instance in self.all(part) {
            let is_dead = self.lab.process(instance).is_none();
            if is_dead && !victims.contains(&instance) {
                self.diary.surprised(from_ms, format!("{instance} ended by itself"), "");
            }
        }
        ended.extend(self.revive_all(part).await);
        if victims.is_empty() {
            ended.push("nobody could be hurt without harm to all".to_owned());
        }
        self.diary.happened(from_ms, &fault.what, ended.join(", "));
        !victims.is_empty()
    }

    /// Kills whoever has the role and starts it again, after the last fault: while they lasted nobody was found who had it.
    /// A fault may be over before a slow cluster has said who that is.
    async fn kill_late(&self, part: Part, role: Role) {
        let (from_ms, what) = (self.diary.now_ms(), What::RoleKilled(role));
        let victim = self.holder(role, from_ms + HOLDER_MS_MAX).await;
        if let Some(victim) = victim {
            self.kill(victim).await;
        }
        let started = self.revive_all(part).await.join(", ");
        match victim {
            Some(_) => self.diary.happened(from_ms, what, started),
            None => self.diary.surprised(from_ms, format!("{what}: nobody was found who could be"), started),
        }
    }

    fn all(&self, part: Part) -> Vec<Instance> {
        self.lab.instances().into_iter().filter(|instance| instance.part == part).collect()
    }

    /// Starts those that were killed side by side: one may wait for another.
    async fn revive_all(&self, part: Part) -> Vec<String> {
        let mut starts = JoinSet::new();
        for instance in self.all(part) {
            let torture = self.clone();
            starts.spawn(async move { (instance, torture.revive(instance).await) });
        }
        let told = starts.join_all().await;
        told.into_iter().filter(|(_, said)| !said.is_empty()).map(|(who, said)| format!("{who}: {said}")).collect()
    }

    async fn attend_all(&self, part: Part, until_ms: u64) {
        let mut all = JoinSet::new();
        for instance in self.all(part) {
            let torture = self.clone();
            all.spawn(async move { torture.attend(instance, until_ms).await });
        }
        all.join_all().await;
    }

    /// Who has a role, as soon as somebody does. A NATS server is named only when the others have everything that it has:
    /// a majority has to stay.
    async fn holder(&self, role: Role, until_ms: u64) -> Option<Instance> {
        let look = async {
            loop {
                if let Some(found) = self.lab.journal().await.ok().and_then(|journal| self.named(role, &journal)) {
                    return found;
                }
                time::sleep(RETRY_PAUSE).await;
            }
        };
        time::timeout_at(self.diary.at(until_ms), look).await.ok()
    }

    fn named(&self, role: Role, journal: &JournalState) -> Option<Instance> {
        let stream = journal.stream.as_ref().filter(|stream| stream.is_whole);
        let leads = |instance: &Instance| stream.is_some_and(|stream| stream.leader == Some(instance.to_string()));
        let owns = |instance: &Instance| journal.owner == Some(self.lab.address(*instance).to_string());
        let (servers, brokers) = (self.all(Part::Nats), self.all(Part::Broker));
        match role {
            Role::Leader => servers.into_iter().find(leads),
            Role::Replica => servers.into_iter().find(|instance| stream.is_some() && !leads(instance)),
            Role::Owner => brokers.into_iter().find(owns),
            Role::Follower => brokers.into_iter().find(|instance| journal.owner.is_some() && !owns(instance)),
        }
    }

    /// Watches a process until then: one that ends now was not asked to.
    async fn attend(&self, instance: Instance, until_ms: u64) {
        loop {
            tokio::select! {
                () = time::sleep_until(self.diary.at(until_ms)) => return,
                Some(status) = self.lab.ended(instance) => {
                    let started = self.revive(instance).await;
                    self.surprise(instance, status, started);
                }
            }
        }
    }

    fn surprise(&self, instance: Instance, status: ExitStatus, ended: impl Into<String>) {
        self.diary.surprised(self.diary.now_ms(), format!("{instance} ended by itself ({status})"), ended);
    }

    async fn kill(&self, instance: Instance) {
        if self.lab.kill(instance).await.is_ok() {
            self.diary.pages().kills += 1;
        }
    }

    async fn freeze(&self, instance: Instance, until_ms: u64) -> String {
        let paused = self.lab.pause(instance);
        time::sleep_until(self.diary.at(until_ms)).await;
        match paused.and_then(|()| self.lab.resume(instance)) {
            Ok(()) => "it goes on".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// Starts a process that dies at a fail point, and waits for its death.
    async fn arm(&self, instance: Instance, point: Point, passing: u64, until_ms: u64) -> String {
        self.kill(instance).await;
        let armed = [("FAIL_POINTS".to_owned(), format!("{}=kill@{passing}", point.name()))];
        let status = match self.lab.start_with(instance, &armed).await {
            Ok(_) => {
                let ended = self.lab.ended(instance);
                time::timeout_at(self.diary.at(until_ms), ended).await.ok().flatten()
            }
            Err(up::Error::EndedEarly { status, .. }) => Some(status),
            Err(error) => return error.to_string(),
        };
        match status {
            Some(status) if status.signal() == Some(Signal::KILL.as_raw()) => {
                self.diary.pages().kills += 1;
                "it died there".to_owned()
            }
            Some(status) => {
                self.surprise(instance, status, "");
                String::new()
            }
            None => {
                self.kill(instance).await;
                "it never came there".to_owned()
            }
        }
    }

    /// Starts a process unless it runs, and says how that went.
    async fn revive(&self, instance: Instance) -> String {
        let begun = time::Instant::now();
        for _ in 0..STARTS_MAX {
            if self.lab.process(instance).is_some() {
                return String::new();
            }
            match self.lab.start_part(instance).await {
                Ok(_) => return format!("it is back after {} ms", begun.elapsed().as_millis()),
                Err(up::Error::EndedEarly { status, .. }) => self.surprise(instance, status, "while it started"),
                Err(error) => {
                    self.diary.surprised(self.diary.now_ms(), error, "");
                    // It does not answer: the next one may.
                    self.lab.kill(instance).await.ok();
                }
            }
            time::sleep(RETRY_PAUSE).await;
        }
        "it does not start any more".to_owned()
    }

    async fn line(&self, line: Line, faults: Vec<Fault>) {
        let Some(proxy) = self.lab.line(line) else { return };
        for fault in faults {
            time::sleep_until(self.diary.at(fault.from_ms)).await;
            let from_ms = self.diary.now_ms();
            match fault.what {
                What::FrozenLine(_) => proxy.set(lab::Mode::Frozen),
                What::Refusing(_) => {
                    proxy.set(lab::Mode::Refusing);
                    proxy.cut();
                }
                _ => proxy.cut(),
            }
            time::sleep_until(self.diary.at(fault.until_ms)).await;
            proxy.set(lab::Mode::Open);
            self.diary.happened(from_ms, &fault.what, "");
        }
    }

    async fn acquirer(&self, faults: Vec<Fault>) {
        for fault in faults {
            let What::Acquirer(mode) = fault.what else { continue };
            time::sleep_until(self.diary.at(fault.from_ms)).await;
            let from_ms = self.diary.now_ms();
            // It may be dead itself, and is well when it comes back.
            let told = time::timeout_at(self.diary.at(fault.until_ms), self.tell_acquirer(mode)).await;
            time::sleep_until(self.diary.at(fault.until_ms)).await;
            self.tell_acquirer(Mode::Normal).await;
            let ended = if told.is_ok() { "it is well again" } else { "it could not be told" };
            self.diary.happened(from_ms, &fault.what, ended);
        }
    }

    async fn tell_acquirer(&self, mode: Mode) {
        let client = AcquirerClient::new(&self.lab.addresses().acquirer, ACQUIRER_WITHIN);
        while client.behave(mode).await.is_err() {
            time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn poison(&self, faults: Vec<Fault>) {
        for (number, fault) in faults.into_iter().enumerate() {
            let What::Poison { topic } = fault.what else { continue };
            time::sleep_until(self.diary.at(fault.from_ms)).await;
            let from_ms = self.diary.now_ms();
            match Poison::publish(&self.lab.addresses().broker, topic, number).await {
                Ok(poison) => {
                    self.diary.pages().poison.push(poison);
                    self.diary.happened(from_ms, &fault.what, "");
                }
                Err(error) => self.diary.surprised(from_ms, &fault.what, error.to_string()),
            }
        }
    }

    async fn bursts(&self, faults: Vec<Fault>) {
        for (number, fault) in (1..).zip(faults) {
            time::sleep_until(self.diary.at(fault.from_ms)).await;
            let from_ms = self.diary.now_ms();
            let plan = Plan {
                rate_per_s: (self.plan.rate_per_s * (BURST_TIMES - 1.0)).min(load::RATE_PER_S_MAX),
                duration: Some(Duration::from_millis(fault.until_ms - fault.from_ms)),
                seed: self.plan.seed.wrapping_add(number),
                ..self.plan.clone()
            };
            let observe = |outcome: &load::Outcome<'_>| self.diary.answered(outcome);
            let ended = match load::run(&self.lab.entrance(), &plan, CancellationToken::new(), observe).await {
                Ok(tally) => format!("{} orders more were accepted", tally.accepted),
                Err(error) => error.to_string(),
            };
            self.diary.happened(from_ms, &fault.what, ended);
        }
    }
}
