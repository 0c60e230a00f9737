//! Servers as processes: started in folders of their own, measured by `/proc`, ended by their id.

use std::fs;
use std::iter::Sum;
use std::net::{SocketAddr, TcpListener};
use std::ops::Add;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::error::{Error, Outcome};

/// How long a server may take until it accepts connections.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long a server may take to end by itself.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// How often it is tried.
const START_PERIOD: Duration = Duration::from_millis(5);

/// What processes have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time.
    pub(crate) cpu: Duration,
    /// The most memory that was resident, of all together.
    pub(crate) peak_rss_bytes: u64,
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, peak_rss_bytes: self.peak_rss_bytes + other.peak_rss_bytes }
    }
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// A server and everything that it has started, in a process group of its own. Ends with this value.
#[derive(Debug)]
pub(crate) struct Server {
    command: Command,
    child: Child,
    address: SocketAddr,
    dir: TempDir,
    /// Ends what the server has put into the background.
    epilogue: Option<Command>,
}

impl Server {
    /// Starts a server and waits until it accepts connections. `command` is told a folder and a free port on loopback.
    pub(crate) async fn start(command: impl FnOnce(&Path, SocketAddr) -> Outcome<Command>) -> Outcome<Self> {
        Self::start_at(free_address()?, command).await
    }

    /// The same on an address that the caller has chosen.
    pub(crate) async fn start_at(
        address: SocketAddr,
        command: impl FnOnce(&Path, SocketAddr) -> Outcome<Command>,
    ) -> Outcome<Self> {
        let dir = folder()?;
        let mut command = command(dir.path(), address)?;
        let log = fs::File::create(dir.path().join("bench-server.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().map_err(|error| Error::Start(error.to_string()))?;
        let mut server = Self { command, child, address, dir, epilogue: None };
        server.accepts().await?;
        Ok(server)
    }

    /// Has a command run once the server has ended.
    pub(crate) fn ends_with(mut self, epilogue: Command) -> Self {
        self.epilogue = Some(epilogue);
        self
    }

    /// Kills the server and starts it again in the same folder; what it has used begins again as well.
    pub(crate) async fn restart(&mut self) -> Outcome {
        self.kill();
        self.child = self.command.spawn().map_err(|error| Error::Start(error.to_string()))?;
        self.accepts().await
    }

    /// Waits until it accepts connections.
    async fn accepts(&mut self) -> Outcome {
        let begun = Instant::now();
        while TcpStream::connect(self.address).await.is_err() {
            let ended = self.child.try_wait()?.is_some();
            if ended || begun.elapsed() > START_PATIENCE {
                let log = fs::read_to_string(self.dir.path().join("bench-server.log")).unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(3).collect();
                return Err(Error::Start(end.into_iter().rev().collect::<Vec<_>>().join(" / ")));
            }
            tokio::time::sleep(START_PERIOD).await;
        }
        Ok(())
    }

    /// Lets the server end by itself what it has started; what takes too long is killed.
    pub(crate) async fn stop(mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // It fails only when it has ended.
        pid.map(|pid| kill_process(pid, Signal::TERM).ok());
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < STOP_PATIENCE {
            tokio::time::sleep(START_PERIOD).await;
        }
    }

    fn kill(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // It fails only when all have ended.
        group.map(|group| kill_process_group(group, Signal::KILL).ok());
        self.child.wait().ok();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the server and its children have used.
    pub(crate) fn usage(&self) -> Usage {
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let stats =
            pids.filter_map(|pid| Some((pid, Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)));
        let own = stats.filter(|(_, stat)| stat.group == self.child.id());
        own.map(|(pid, stat)| Usage { cpu: stat.cpu(), peak_rss_bytes: peak_rss_bytes(pid) }).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing that it wrote is needed any more.
        self.kill();
        if let Some(epilogue) = &mut self.epilogue {
            epilogue.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
        }
    }
}

/// What this process has used.
pub(crate) fn own_usage() -> Usage {
    let stat = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::parse(&text));
    Usage { cpu: stat.map(|stat| stat.cpu()).unwrap_or_default(), peak_rss_bytes: peak_rss_bytes(std::process::id()) }
}

/// A folder on the disk that is measured: below `BENCH_DIR`, or in the build folder. `/tmp` may be memory.
pub(crate) fn folder() -> Outcome<TempDir> {
    let parent = match std::env::var_os("BENCH_DIR") {
        Some(dir) => dir.into(),
        None => std::env::current_exe()?.with_file_name("bench-data"),
    };
    fs::create_dir_all(&parent)?;
    Ok(tempfile::Builder::new().prefix("run-").tempdir_in(parent)?)
}

/// A port that nobody listens on.
pub(crate) fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The program of this name: the one that the variable names, or one in `PATH`.
pub(crate) fn program(name: &'static str, variable: &str, hint: &'static str) -> Outcome<std::path::PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    // Debian's own RabbitMQ comes with a wrapper in `PATH` that changes the user, who may not write into our folder.
    let places = std::iter::once("/usr/lib/rabbitmq/bin".into()).chain(places);
    let mut found = places.map(|dir| dir.join(name)).filter(|file| file.is_file());
    found.next().ok_or(Error::Missing { program: name, hint })
}

/// Of `/proc/PID/stat` what is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    group: u32,
    ticks: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name of the program stands in parentheses and may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let group = u32::try_from(number(2)?).ok()?;
        Some(Self { group, ticks: number(11)? + number(12)? })
    }

    fn cpu(self) -> Duration {
        Duration::from_secs(1) * u32::try_from(self.ticks).unwrap_or(u32::MAX)
            / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100)
    }
}

fn peak_rss_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_its_program_is_called() {
        let text = "77 (a) b (c) S 1 42 42 0 -1 4194560 9 0 0 0 150 25 0 0 20 0 3 0 100 1 2";
        assert_eq!(Stat::parse(text), Some(Stat { group: 42, ticks: 175 }));
        assert_eq!(Stat::parse("77 (a"), None);
    }

    #[test]
    fn this_process_has_used_memory() {
        assert!(own_usage().peak_rss_bytes > 0);
    }

    #[test]
    fn a_program_that_nobody_has_is_missing_by_name() {
        let error = program("no-such-server", "NO_SUCH_SERVER", "nowhere").unwrap_err();
        assert_eq!(error.to_string(), "`no-such-server` is not installed (nowhere)");
    }
}
