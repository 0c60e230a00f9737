//! The machine: files that may be open, room on the disk, the clock.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::statvfs;
use rustix::process::{Resource, getrlimit};

use super::Finding;

/// With fewer open files connections are refused under load.
const OPEN_FILES_MIN: u64 = 1_024;
/// With less room the next journal segment may not fit, in bytes.
const DISK_BYTES_MIN: u64 = 256 << 20;
/// With less room it is time to make some, in bytes.
const DISK_BYTES_LOW: u64 = 2 << 30;
/// No clock can be right that shows less: this program is younger. In seconds since 1970: 2026-01-01.
const CLOCK_S_MIN: u64 = 1_767_225_600;
/// How far ahead of the clock a file may have been written, in seconds: file systems of other machines are not exact.
const AHEAD_S_MAX: u64 = 60;

/// Looks at what a stack in the folder would need.
pub(super) fn check(data_dir: &Path) -> Vec<Finding> {
    let open_files = getrlimit(Resource::Nofile).current;
    let newest = newest_file(data_dir);
    let mut findings = vec![files(open_files), clock(SystemTime::now(), newest)];
    // The folder may not be there yet: then it is made where the first folder above it is.
    let there = data_dir.ancestors().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
    if let Some(stat) = there.filter(|path| path.exists()).find_map(|path| statvfs(path).ok()) {
        findings.push(disk(stat.f_bavail.saturating_mul(stat.f_frsize)));
    }
    findings
}

fn files(open_files: Option<u64>) -> Finding {
    match open_files {
        None => Finding::ok("open files", "no limit"),
        Some(limit) if limit >= OPEN_FILES_MIN => Finding::ok("open files", format!("{limit} for each process")),
        Some(limit) => Finding::warning(
            "open files",
            format!("only {limit} for each process, each connection is one"),
            "raise the limit in this shell with `ulimit -n 4096`",
        ),
    }
}

fn disk(free_bytes: u64) -> Finding {
    let says = format!("{} MiB are free", free_bytes >> 20);
    if free_bytes < DISK_BYTES_MIN {
        Finding::problem("disk", says, "make room, or choose a folder elsewhere with --data-dir (ORDERFLOW_DATA_DIR)")
    } else if free_bytes < DISK_BYTES_LOW {
        Finding::warning("disk", says, "make room before it is full: a full disk stops broker and services")
    } else {
        Finding::ok("disk", says)
    }
}

fn clock(now: SystemTime, newest: Option<SystemTime>) -> Finding {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let ahead = newest.and_then(|newest| newest.duration_since(now).ok()).unwrap_or_default();
    let stamp = humantime::format_rfc3339_seconds(now);
    if since < Duration::from_secs(CLOCK_S_MIN) {
        Finding::problem("clock", format!("it shows {stamp}, which can't be"), "set the clock of this machine")
    } else if ahead > Duration::from_secs(AHEAD_S_MAX) {
        let says = format!("the folder was written {} s in the future: the clock was set back", ahead.as_secs());
        Finding::warning("clock", says, "set the clock of this machine; deadlines may come late until then")
    } else {
        Finding::ok("clock", format!("it shows {stamp}"))
    }
}

/// When anything in the folder or one below it was last written.
fn newest_file(data_dir: &Path) -> Option<SystemTime> {
    let files = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().collect::<Vec<_>>();
    let below = files(&data_dir.join("broker"));
    files(data_dir).iter().chain(&below).filter_map(|file| file.metadata().ok()?.modified().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn limits_of_the_machine_are_judged_at_their_edges() {
        assert_eq!(
            [None, Some(1_024), Some(1_023)].map(files).map(|f| f.level),
            [Level::Ok, Level::Ok, Level::Warning]
        );
        let levels = [DISK_BYTES_LOW, DISK_BYTES_LOW - 1, DISK_BYTES_MIN, DISK_BYTES_MIN - 1].map(|b| disk(b).level);
        assert_eq!(levels, [Level::Ok, Level::Warning, Level::Warning, Level::Problem]);
    }

    #[test]
    fn a_clock_that_is_wrong_or_was_set_back_is_told() {
        let at = |s: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        let now = CLOCK_S_MIN + 1_000;
        assert_eq!(clock(at(0), None).level, Level::Problem);
        assert_eq!(clock(at(CLOCK_S_MIN), None).level, Level::Ok);
        assert_eq!(clock(at(now), Some(at(now + AHEAD_S_MAX))).level, Level::Ok);
        assert_eq!(clock(at(now), Some(at(now + AHEAD_S_MAX + 1))).level, Level::Warning);
        assert_eq!(clock(at(now), Some(at(0))).level, Level::Ok);
    }
}
