//! The programs of PostgreSQL.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Error, Owner, Version, find};

const SERVER: &str = "PostgreSQL";
const PROGRAM: &str = "postgres";
/// The first that ends an idle session by itself.
const NEEDED: Version = Version { major: 14, minor: 0 };

/// An installed PostgreSQL.
#[derive(Clone, Debug)]
pub struct Postgres {
    folder: PathBuf,
    owner: Option<Owner>,
}

/// How the databases of a new server are made.
#[derive(Clone, Debug)]
pub struct Database<'a> {
    /// Who owns everything.
    pub user: &'a str,
    /// A file with the password of that user, which the server's [owner](Postgres::owner) can read. Without one everybody
    /// on this machine is let in.
    pub password_file: Option<&'a Path>,
    /// Whether the files are on the disk before the server is started: what is given up with a crash can do without.
    pub is_synced: bool,
}

impl Postgres {
    /// Finds a folder with these programs and `postgres`: `told`, if it is said, which `setting` names for people.
    pub fn find(told: Option<&Path>, setting: &'static str, programs: &[&'static str]) -> Result<Self, Error> {
        let wanted: Vec<&'static str> = programs.iter().copied().chain([PROGRAM]).collect();
        let folder = match told {
            Some(folder) => match find::missing(folder, &wanted) {
                None => folder.to_owned(),
                Some(program) => {
                    return Err(Error::NotThere { server: SERVER, path: folder.to_owned(), setting, program });
                }
            },
            None => {
                let folder = find::folder(&wanted, packaged());
                folder.ok_or_else(|| Error::Missing { server: SERVER, remedy: remedy(setting) })?
            }
        };
        let program = folder.join(PROGRAM);
        let found = Version::of(&program)?;
        if found < NEEDED {
            return Err(Error::Old { server: SERVER, program, found, needed: NEEDED, remedy: remedy(setting) });
        }
        Ok(Self { folder, owner: Owner::wanted()? })
    }

    /// Who runs it, if that is not us.
    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// A call of one of its programs, as its owner.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.folder.join(program));
        if let Some(Owner { uid, gid, .. }) = self.owner {
            // The groups of root go with this as well.
            command.uid(uid).gid(gid);
        }
        command.env("LC_ALL", "C").env_remove("PGDATA");
        command
    }

    /// Gives a file or folder to whoever runs the server.
    pub fn hand_over(&self, path: &Path) -> Result<(), Error> {
        let taken = self.owner.as_ref().map_or(Ok(()), |owner| owner.take(path));
        taken.map_err(|source| self.folder_error(path, source))
    }

    /// Makes the files of a new server in `data`, a folder that is not there yet, below one that was [handed
    /// over](Self::hand_over). Either all of it is there afterwards or nothing.
    pub fn create(&self, data: &Path, database: &Database<'_>) -> Result<(), Error> {
        let unfinished = data.with_extension("unfinished");
        let failed = |source| self.folder_error(data, source);
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut command = self.command("initdb");
        command.args(["--encoding=UTF8", "--locale=C", "--username", database.user]);
        match database.password_file {
            Some(file) => command.arg("--auth=scram-sha-256").arg("--pwfile").arg(file),
            None => command.arg("--auth=trust"),
        };
        if !database.is_synced {
            command.arg("--no-sync");
        }
        command.arg("--pgdata").arg(&unfinished).stdin(Stdio::null());
        command.current_dir(data.parent().unwrap_or(data));
        let output = command.output().map_err(failed)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
            return Err(failed(io::Error::other(said)));
        }
        fs::rename(&unfinished, data).map_err(failed)?;
        if database.is_synced {
            // Under its other name it would be thrown away by the next one who comes, with all that is in it by then.
            let parent = data.parent().unwrap_or(data);
            fs::File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        Ok(())
    }

    fn folder_error(&self, path: &Path, source: io::Error) -> Error {
        let owner = self.owner.as_ref().map(|owner| owner.name.to_owned());
        Error::Folder { path: path.to_owned(), owner, source }
    }
}

/// Where Debian, Red Hat and Homebrew put it, the newest of each first.
fn packaged() -> impl Iterator<Item = PathBuf> {
    [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql@"),
        ("/usr/local/opt", "postgresql@"),
    ]
    .into_iter()
    .flat_map(|(parent, prefix)| find::numbered(parent, prefix))
}

fn remedy(setting: &str) -> String {
    format!(
        "`apt-get install postgresql` has it for Debian, `brew install postgresql@18` for macOS; {setting} names the \
         folder of its programs if it is elsewhere"
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_old_server_and_a_folder_without_one_are_refused_with_the_way_to_get_one() {
        let folder = tempfile::tempdir().unwrap();
        let find = || Postgres::find(Some(folder.path()), "--postgres-bin", &["initdb"]);
        let missing = find().unwrap_err().to_string();
        assert!(missing.contains("--postgres-bin") && missing.contains("`initdb`"), "{missing}");
        fs::write(folder.path().join("initdb"), "").unwrap();
        let program = folder.path().join("postgres");
        let say = |version: &str| {
            fs::write(&program, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        };
        say("13.22");
        let old = find().unwrap_err().to_string();
        assert!(old.contains("13.22") && old.contains("14 or newer") && old.contains("apt-get"), "{old}");
        say("14.0 (Debian)");
        assert_eq!(find().unwrap().folder, folder.path());
    }
}
