//! What came of a run, for people and for scripts.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::diary::{Happening, Pages, Sample};
use super::run::Task;
use super::settle::Judgement;
use crate::audit::Sums;

/// More of what is wrong is counted, not printed.
const WRONG_PRINTED_MAX: usize = 20;

/// What came of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Account {
    /// The seed of the schedule and of the load.
    pub seed: u64,
    /// How long orders came in and things went wrong.
    pub duration_ms: u64,
    /// The command that repeats the run.
    pub command: String,
    /// Orders that customers were told are accepted.
    pub accepted: usize,
    /// Orders for which customers got no, or no answer, however long they asked. One order may take several tries;
    /// those that were refused are in `sums.refused_tries`.
    pub refused: usize,
    /// Processes that were killed.
    pub kills: usize,
    /// How many faults there were.
    pub faults: usize,
    /// Unreadable messages that were published.
    pub poison: usize,
    /// Dead letters of these that were discarded.
    pub discarded: usize,
    /// How long it took after the last fault until everything had come to its end.
    pub drained_ms: u64,
    /// The books' figures at the end.
    pub sums: Sums,
    /// Everything that is wrong. Nothing when all is well.
    pub wrong: Vec<String>,
    /// What happened.
    pub history: Vec<Happening>,
    /// Second by second.
    pub samples: Vec<Sample>,
    /// Where the data and logs are, if they were kept.
    pub folder: Option<PathBuf>,
}

impl Account {
    pub(super) fn new(task: &Task, pages: &mut Pages, judgement: Judgement, drained: Duration) -> Self {
        let mut history = std::mem::take(&mut pages.history);
        history.sort_by_key(|entry| entry.from_ms);
        Self {
            seed: task.seed,
            duration_ms: ms(task.duration),
            command: task.command(),
            accepted: pages.accepted.len(),
            refused: pages.refused,
            kills: pages.kills,
            faults: history.iter().filter(|entry| !entry.unexpected).count(),
            poison: pages.poison.len(),
            discarded: judgement.discarded,
            drained_ms: ms(drained),
            sums: judgement.sums,
            wrong: judgement.wrong,
            history,
            samples: std::mem::take(&mut pages.samples),
            folder: None,
        }
    }

    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.wrong.is_empty()
    }

    /// The run in one line.
    pub fn line(&self) -> String {
        let Sums { paid, declined, cancelled, refunded, refused_tries, .. } = &self.sums;
        let verdict = if self.is_good() { "good".to_owned() } else { format!("BAD: {}", self.wrong[0]) };
        format!(
            "seed {:>4}  {} faults, {} kills  {} accepted, {} refused: {paid} paid, {declined} declined, {cancelled} \
             cancelled, {refunded} refunded, {refused_tries} synchronous tries refused  settled after {:.1} s  {verdict}",
            self.seed,
            self.faults,
            self.kills,
            self.accepted,
            self.refused,
            Duration::from_millis(self.drained_ms).as_secs_f64(),
        )
    }

    /// The history, and then the verdict.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Happening { from_ms, until_ms, what, ended, unexpected } in &self.history {
            let mark = if *unexpected { "!" } else { " " };
            let ended = if ended.is_empty() { String::new() } else { format!(": {ended}") };
            let _ = writeln!(text, "{mark}{} to {}  {what}{ended}", seconds(*from_ms), seconds(*until_ms));
        }
        let _ = writeln!(text, "\n{}", self.line());
        if self.is_good() {
            text.push_str("the books balance, every accepted order is there, and every event came in order");
            return text;
        }
        for wrong in self.wrong.iter().take(WRONG_PRINTED_MAX) {
            let _ = writeln!(text, "wrong: {wrong}");
        }
        let _ = write!(text, "{} thing(s) are wrong; once more: {}", self.wrong.len(), self.command);
        text
    }
}

fn seconds(ms: u64) -> String {
    format!("{:>4}.{:03} s", ms / 1_000, ms % 1_000)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
