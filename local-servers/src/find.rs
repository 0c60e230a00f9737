//! Where programs are.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Whether a folder has all of these programs.
pub(crate) fn is_complete(folder: &Path, programs: &[&str]) -> bool {
    missing(folder, programs).is_none()
}

/// The first of these programs that a folder does not have.
pub(crate) fn missing<'a>(folder: &Path, programs: &[&'a str]) -> Option<&'a str> {
    programs.iter().copied().find(|program| !folder.join(program).is_file())
}

/// The first folder of the `PATH`, and then of these, that has all of the programs.
pub(crate) fn folder(programs: &[&str], beside: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).chain(beside).collect();
    folders.into_iter().find(|folder| is_complete(folder, programs))
}

/// The folders `PARENT/PREFIX…NUMBER/bin` for each number that there is, the highest first.
pub(crate) fn numbered(parent: &str, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let number = |name: &str| name.strip_prefix(prefix)?.parse::<u32>().ok();
    let mut found: Vec<(u32, PathBuf)> =
        entries.filter_map(|entry| Some((number(entry.file_name().to_str()?)?, entry.path().join("bin")))).collect();
    found.sort_by(|one, other| other.cmp(one));
    found.into_iter().map(|(_, folder)| folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_number_comes_first_and_other_names_not_at_all() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["pg-9", "pg-14", "pg-18", "pg-old", "other-20"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        let found = numbered(parent.path().to_str().unwrap(), "pg-");
        assert_eq!(found, ["pg-18", "pg-14", "pg-9"].map(|name| parent.path().join(name).join("bin")));
    }

    #[test]
    fn a_folder_counts_when_it_has_every_program() {
        let parent = tempfile::tempdir().unwrap();
        let [half, whole] = ["half", "whole"].map(|name| parent.path().join(name));
        for (folder, programs) in [(&half, &["a-server-of-ours"][..]), (&whole, &["a-server-of-ours", "its-tool"])] {
            fs::create_dir(folder).unwrap();
            programs.iter().for_each(|program| fs::write(folder.join(program), "").unwrap());
        }
        let programs = ["a-server-of-ours", "its-tool"];
        assert_eq!(missing(&half, &programs), Some("its-tool"));
        assert_eq!(folder(&programs, [half.clone(), whole.clone()]), Some(whole));
        assert_eq!(folder(&programs, [half]), None);
    }
}
