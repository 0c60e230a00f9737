//! Versions, as servers tell them.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Error;

/// The first two numbers of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number, zero if there is none.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { major, minor: 0 } => write!(f, "{major}"),
            Self { major, minor } => write!(f, "{major}.{minor}"),
        }
    }
}

impl Version {
    /// Asks a program with `--version`.
    pub(crate) fn of(program: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Run { program: program.to_owned(), source };
        let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().map_err(failed)?;
        let text = String::from_utf8_lossy(&output.stdout);
        Self::read(&text).ok_or_else(|| failed(io::Error::other("it does not tell its version")))
    }

    /// `nats-server: v2.15.1`, `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`, `postgres (PostgreSQL) 19beta1`
    fn read(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(|word| {
            let mut numbers = word.trim_start_matches('v').split('.').map(|part| {
                let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
                part[..digits].parse::<u32>().ok()
            });
            Some(Self { major: numbers.next()??, minor: numbers.next().flatten().unwrap_or(0) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_servers_tell_them() {
        for (text, major, minor) in [
            ("nats-server: v2.15.1\n", 2, 15),
            ("nats-server: v2.14.0-RC.1", 2, 14),
            ("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n", 15, 14),
            ("postgres (PostgreSQL) 19beta1", 19, 0),
            ("postgres (PostgreSQL) 18", 18, 0),
        ] {
            assert_eq!(Version::read(text), Some(Version { major, minor }), "{text}");
        }
        for text in ["", "version", "v", "the newest"] {
            assert_eq!(Version::read(text), None, "{text}");
        }
    }

    #[test]
    fn a_minor_version_counts() {
        let version = |major, minor| Version { major, minor };
        assert!(version(2, 13) < version(2, 14) && version(2, 14) < version(2, 15) && version(2, 99) < version(3, 0));
    }
}
