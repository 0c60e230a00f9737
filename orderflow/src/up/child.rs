//! One child process: started, written down, signalled, and waited for.

use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time;

use super::layout::Layout;
use crate::part::{Instance, Part};
use crate::terminal;

/// A longer line of a child's log is cut into pieces of this size.
const LOG_LINE_BYTES_MAX: u64 = 64 * 1024;
/// Signals that wait for one child: more than a person can type before they are delivered.
const SIGNALS_MAX: usize = 8;
/// What a child does not inherit of our environment. One address can't be that of every part: the arguments say which is
/// whose. And they say what keeps the journal; a broker of a stack is not to join a cluster that somebody works with.
const NOT_INHERITED: [&str; 6] = [
    "METRICS_LISTEN",
    "BROKER_METRICS_LISTEN",
    "BROKER_ADVERTISE",
    "BROKER_ENGINE",
    "BROKER_ENGINE_NAME",
    "BROKER_ENGINE_REPLICAS",
];

/// A variable of the environment.
pub(crate) type Variable = (String, String);

/// How children are started.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// What runs as a part.
    pub(crate) executable: PathBuf,
    pub(crate) voice: Voice,
}

/// What of the children's logs, and of their ends, is said on the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// Every line.
    Verbose,
    /// What is worth a look.
    Warnings,
    /// Nothing.
    Quiet,
}

/// A handle on a started child. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) pid: u32,
    signals: mpsc::Sender<Signal>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Running {
    /// Starts the executable as the part, with these variables more than our own. Its output goes to its log file, and to
    /// the terminal as far as the launch says.
    pub(crate) fn spawn(part: Instance, layout: &Layout, launch: &Launch, env: &[Variable]) -> io::Result<Self> {
        let path = layout.log_file(part);
        let log = File::options().create(true).append(true).open(&path)?;
        let (output, output_end) = io::pipe()?;
        let mut command = Command::from(layout.command(part, &launch.executable)?);
        for variable in NOT_INHERITED {
            command.env_remove(variable);
        }
        command
            // Colours belong on a terminal; the log is a file.
            .env("NO_COLOR", "1")
            .envs(env.iter().map(|(name, value)| (name, value)))
            // A child of ours ends itself when this pipe closes, and it closes with the runner, however the runner ends.
            .stdin(Stdio::piped())
            .stdout(output_end.try_clone()?)
            .stderr(output_end)
            // ctrl-c is for the runner alone: it ends its children in order.
            .process_group(0);
        // Before the child: it ends with the last writing end of the pipe, and nothing is left of either if this fails.
        let voice = launch.voice;
        thread::Builder::new().name(format!("{part} log")).spawn(move || copy_output(part, output, log, voice))?;
        let mut child = command.spawn()?;
        drop(command);

        let pid = child.id().ok_or_else(|| io::Error::other("the child was gone at once"))?;
        // A server that nobody watches would outlive us.
        let watch = Watch::over(part.part, pid).inspect_err(|_| drop(child.start_kill()))?;
        let (signals, signals_rx) = mpsc::channel(SIGNALS_MAX);
        let (exit_tx, exit) = watch::channel(None);
        // `Child::wait` would close the pipe before it waits.
        let stdin = child.stdin.take();
        tokio::spawn(async move {
            let status = attend(child, signals_rx).await;
            drop(stdin);
            if let Some(watch) = watch {
                watch.end().await;
            }
            exit_tx.send_replace(Some(status));
        });
        Ok(Self { pid, signals, exit })
    }

    /// Sends a signal; a child that has ended is left alone, even when its number belongs to somebody else by now.
    pub(crate) fn signal(&self, signal: Signal) {
        // Full: so many signals are on their way that one more changes nothing.
        let _ = self.signals.try_send(signal);
    }

    /// How the child ended, or nothing while it runs.
    pub(crate) fn exit_status(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits until the child has ended.
    pub(crate) async fn exited(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or_default(),
            // The task that attends the child ends only after it has sent the status, unless the runtime is ending.
            Err(_) => ExitStatus::default(),
        }
    }

    /// Waits for the end of the child, at most so long. Says whether it has ended.
    pub(crate) async fn exited_within(&self, limit: Duration) -> bool {
        time::timeout(limit, self.exited()).await.is_ok()
    }
}

/// Ends a server that knows nothing of its runner when the runner is gone: a shell that waits for the end of its input.
struct Watch(Child);

impl Watch {
    /// Waits for the pipe to close, then signals the process. `read` is a part of the shell, so that nothing is left of it
    /// when it is killed.
    const SCRIPT: &str = r#"read -r line; kill -"$1" "$2""#;

    fn over(part: Part, pid: u32) -> io::Result<Option<Self>> {
        let signal = match part.end_signal() {
            _ if !matches!(part, Part::Nats | Part::Postgres) => return Ok(None),
            Signal::QUIT => "QUIT",
            _ => "KILL",
        };
        let mut shell = Command::new("sh");
        shell.args(["-c", Self::SCRIPT, "sh", signal, &pid.to_string()]).process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Some(Self(shell.spawn()?)))
    }

    /// The server is gone, and its number may soon be that of another process.
    async fn end(mut self) {
        // It has ended before if this fails.
        let _ = self.0.kill().await;
    }
}

/// Delivers signals until the child has ended. The only owner of the child sends them, so that none can go to a
/// process that got the same number afterwards.
async fn attend(mut child: Child, mut signals: mpsc::Receiver<Signal>) -> ExitStatus {
    loop {
        let signal = tokio::select! {
            status = child.wait() => match status {
                Ok(status) => return status,
                Err(error) => {
                    terminal::say(&format!("a child can't be waited for: {error}"));
                    return ExitStatus::default();
                }
            },
            Some(signal) = signals.recv() => signal,
        };
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, signal)
        {
            terminal::say(&format!("process {pid} can't be signalled: {error}"));
        }
    }
}

/// Copies a child's output line by line until the child and all that it started have ended.
fn copy_output(part: Instance, output: PipeReader, mut log: File, voice: Voice) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match output.by_ref().take(LOG_LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        // A full disk must not stop the child, which would wait on a full pipe; the terminal still shows warnings.
        let _ = log.write_all(&line);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if voice == Voice::Verbose || (voice == Voice::Warnings && worth_a_look(part.part, text)) {
            terminal::say(&format!("{part} | {text}"));
        }
    }
}

/// Whether a line of a log is for people at the terminal: warnings, errors, and whatever is no log line (a panic).
/// Servers that others wrote warn of every client that goes; of theirs it is what ends them.
fn worth_a_look(part: Part, line: &str) -> bool {
    match part {
        Part::Nats => return line.contains("[FTL]"),
        Part::Postgres => return line.contains("PANIC:"),
        _ => {}
    }
    let routine = ["INFO", "DEBUG", "TRACE"];
    if line.starts_with('{') {
        return !routine.iter().any(|level| line.contains(&format!(r#""level":"{level}""#)));
    }
    // A log line is `TIME LEVEL MODULE: …`.
    line.split_whitespace().nth(1).is_some_and(|level| !routine.contains(&level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_shows_warnings_and_panics_but_no_routine() {
        let worth_a_look = |line| super::worth_a_look(Part::Broker, line);
        assert!(worth_a_look("2026-01-02T03:04:05Z  WARN broker::edge: a stream broke"));
        assert!(worth_a_look("2026-01-02T03:04:05Z ERROR broker::engine: the disk is full"));
        assert!(worth_a_look("thread 'main' panicked at src/main.rs:1:1:"));
        assert!(worth_a_look("error: --listen (BROKER_LISTEN): the port is taken"));
        assert!(!worth_a_look("2026-01-02T03:04:05Z  INFO broker::edge: listening"));
        assert!(!worth_a_look(""));
        assert!(worth_a_look(r#"{"timestamp":"2026-01-02","level":"WARN","message":"a stream broke"}"#));
        assert!(!worth_a_look(r#"{"timestamp":"2026-01-02","level":"INFO","message":"listening"}"#));
    }

    #[test]
    fn of_servers_of_others_it_shows_what_ends_them() {
        assert!(worth_a_look(Part::Nats, "[7] 2026/01/02 03:04:05.006 [FTL] Can't open the store"));
        assert!(!worth_a_look(Part::Nats, "[7] 2026/01/02 03:04:05.006 [WRN] JetStream has no leader"));
        assert!(worth_a_look(Part::Postgres, "2026-01-02 03:04:05.006 UTC [7] PANIC:  could not write"));
        assert!(!worth_a_look(Part::Postgres, "2026-01-02 03:04:05.006 UTC [7] FATAL:  terminating connection"));
    }
}
