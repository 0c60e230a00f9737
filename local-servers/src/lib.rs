//! PostgreSQL and NATS as this machine has them installed, to be run as child processes of ours.
//!
//! - [`Nats`] and [`Postgres`] find the programs, in a place that was named, in the `PATH` or where packages put them, and
//!   look whether they are new enough.
//! - PostgreSQL refuses to run as root. Where we do, it runs as somebody else, who is given its folder.
//!
//! Leaf: it knows no crate of ours, and starts no server. Who does also ends it.

mod find;
mod nats;
mod owner;
mod postgres;
mod version;

use std::io;
use std::path::PathBuf;

pub use nats::Nats;
pub use owner::Owner;
pub use postgres::{Database, Postgres};
pub use version::Version;

/// Why a server can't be run here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its programs are nowhere.
    #[error("{server} is not found on this machine: {remedy}")]
    Missing {
        /// Which server.
        server: &'static str,
        /// How to get it.
        remedy: String,
    },
    /// Its programs are not where they were said to be.
    #[error("{server} is not at `{}` ({setting}): there is no `{program}`", path.display())]
    NotThere {
        /// Which server.
        server: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// What named the place.
        setting: &'static str,
        /// The first program that is missing.
        program: &'static str,
    },
    /// It is older than what is needed.
    #[error("{server} at `{}` has version {found}; {needed} or newer is needed: {remedy}", program.display())]
    Old {
        /// Which server.
        server: &'static str,
        /// Its program.
        program: PathBuf,
        /// Its version.
        found: Version,
        /// The oldest that will do.
        needed: Version,
        /// How to get another one.
        remedy: String,
    },
    /// A program can't be run, or does not say what it is.
    #[error("`{}` can't be run: {source}", program.display())]
    Run {
        /// Which program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// We are root, and there is nobody else.
    #[error("PostgreSQL refuses to run as root, and this machine has neither a user `postgres` nor `nobody`")]
    NoOwner,
    /// A folder for it can't be prepared.
    #[error("the folder `{}` can't be prepared for PostgreSQL{}: {source}", path.display(), owner.as_deref().map(|name| format!(", which runs as user `{name}` here")).unwrap_or_default())]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Who has to be able to use it, if that is not us.
        owner: Option<String>,
        /// What the system, or PostgreSQL, said.
        source: io::Error,
    },
}
