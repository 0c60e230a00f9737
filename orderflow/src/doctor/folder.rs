//! The data folder: whether it can be used, and whether somebody does.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::process::geteuid;

use super::Finding;
use crate::up::quoted;

const CHOOSE: &str = "choose another with --data-dir (ORDERFLOW_DATA_DIR)";

/// What became of the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is not there yet.
    Absent,
    /// It can't be used.
    Unusable,
    /// It is there, and no runner has it.
    Free,
    /// A runner has it.
    Running,
}

/// Looks at the folder.
pub(super) fn check(data_dir: &Path) -> (State, Vec<Finding>) {
    let about = format!("folder `{}`", data_dir.display());
    let unusable = |says: String, remedy: &str| (State::Unusable, vec![Finding::problem(&about, says, remedy)]);
    let metadata = match fs::metadata(data_dir) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return absent(data_dir, &about),
        Err(error) => return unusable(error.to_string(), CHOOSE),
    };
    if !metadata.is_dir() {
        return unusable("it is no folder".to_owned(), CHOOSE);
    }
    if let Err(error) = access(data_dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        let remedy = format!("change who may write there, or {CHOOSE}");
        return unusable(format!("it can't be written: {error}"), &remedy);
    }
    let mut findings = vec![owner(data_dir, metadata.uid(), geteuid().as_raw(), &about)];
    match is_locked(data_dir) {
        Ok(true) => {
            findings.push(Finding::ok("runner", "an `orderflow up` runs on the folder"));
            (State::Running, findings)
        }
        Ok(false) => (State::Free, findings),
        Err(error) => unusable(format!("its lock can't be looked at: {error}"), CHOOSE),
    }
}

/// Whether a folder that is not there could be made.
fn absent(data_dir: &Path, about: &str) -> (State, Vec<Finding>) {
    let above =
        data_dir.ancestors().skip(1).map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
    let above = above.into_iter().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if above.is_dir() && access(above, Access::WRITE_OK | Access::EXEC_OK).is_ok() {
        return (State::Absent, vec![Finding::ok(about, "it is not there yet; `orderflow up` makes it")]);
    }
    let says = format!("it is not there, and can't be made in `{}`", above.display());
    (State::Unusable, vec![Finding::problem(about, says, CHOOSE)])
}

fn owner(data_dir: &Path, uid: u32, ours: u32, about: &str) -> Finding {
    if uid == ours {
        return Finding::ok(about, "it can be written");
    }
    let says = format!("it belongs to user {uid}, and this is user {ours}");
    let remedy = format!("`chown -R {ours} {}`, or {CHOOSE}", quoted(&data_dir.to_string_lossy()));
    Finding::warning(about, says, remedy)
}

/// Whether a runner holds the folder. The lock is looked at through a file that is open for reading only.
fn is_locked(data_dir: &Path) -> std::io::Result<bool> {
    let file = match File::open(data_dir.join("runner.lock")) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_folder_is_absent_free_held_or_none_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        assert_eq!(check(&path).0, State::Absent);
        fs::create_dir(&path).unwrap();
        assert_eq!(check(&path).0, State::Free);
        let lock = File::create(path.join("runner.lock")).unwrap();
        assert_eq!(check(&path).0, State::Free, "a lock that nobody holds is a leftover");
        lock.try_lock().unwrap();
        assert_eq!(check(&path).0, State::Running);
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for no_folder in [&file, &file.join("below")] {
            let (state, findings) = check(no_folder);
            assert_eq!((state, findings[0].level), (State::Unusable, Level::Problem), "{no_folder:?}");
        }
    }

    #[test]
    fn a_folder_of_another_user_is_told_with_both() {
        let finding = owner(Path::new("/data"), 1_000, 0, "folder");
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.says.contains("user 1000") && finding.remedy.unwrap().starts_with("`chown -R 0 /data`"));
        assert_eq!(owner(Path::new("/data"), 7, 7, "folder").level, Level::Ok);
        let odd = owner(Path::new("/my data"), 1_000, 0, "folder").remedy.unwrap();
        assert!(odd.starts_with("`chown -R 0 '/my data'`"), "{odd}");
    }
}
