//! Writing to the terminal, which may be gone: a closed pipe must not end the stack.

use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Writes one line, or several, to the standard output.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// How far something has come: one line on the standard error, if that is a terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
}

impl Progress {
    /// With a bar that fills within a time, or without a bar.
    pub(crate) fn new(fills_within: Option<Duration>) -> Self {
        let (bar, template) = match fills_within {
            Some(time) => (ProgressBar::new(millis(time)), "{elapsed:>4} [{bar:30}] {msg}"),
            None => (ProgressBar::new_spinner(), "{elapsed:>4} {msg}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, started: Instant::now() }
    }

    /// Replaces the line.
    pub(crate) fn say(&self, text: String) {
        if !self.bar.is_hidden() {
            self.bar.set_position(millis(self.started.elapsed()));
            self.bar.set_message(text);
        }
    }

    /// Takes the line away.
    pub(crate) fn done(&self) {
        self.bar.finish_and_clear();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
