//! Databases for tests, one for each test: a SQLite file, or a database on a private PostgreSQL server.
//!
//! [`VARIABLE`] says which: `sqlite` (the default) or `postgres`, for which PostgreSQL has to be installed. The same tests
//! run on both. A test that makes sense on one of them only asks [`only_on`], which says so where it is left out.
//!
//! Test code: of ours it knows `local-servers` alone, and it fails by panicking.

#![allow(clippy::expect_used, clippy::panic)]

mod server;

use std::env;
use std::io::Write as _;
use std::path::Path;

use tempfile::TempDir;

pub use server::Server;

/// The environment variable that chooses the database of tests.
pub const VARIABLE: &str = "ORDERFLOW_TEST_DATABASE";

/// Which database tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A file in a temporary folder.
    Sqlite,
    /// A server that the tests start for themselves.
    Postgres,
}

/// A database for one test, empty at first.
#[derive(Debug)]
pub struct TestDatabase {
    folder: TempDir,
    url: String,
}

impl TestDatabase {
    /// A database that nobody else uses.
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let url = match backend() {
            Backend::Sqlite => format!("sqlite://{}", folder.path().join("below/test.db").display()),
            Backend::Postgres => Server::shared().create_database(),
        };
        Self { folder, url }
    }

    /// Where it is, as `--database-url` takes it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A folder that goes with it; a SQLite file is `below/test.db` in it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Default for TestDatabase {
    fn default() -> Self {
        Self::new()
    }
}

/// Which database tests run on.
pub fn backend() -> Backend {
    match env::var(VARIABLE).as_deref() {
        Err(env::VarError::NotPresent) | Ok("" | "sqlite") => Backend::Sqlite,
        Ok("postgres") => Backend::Postgres,
        other => panic!("{VARIABLE} is {other:?}, which is neither `sqlite` nor `postgres`"),
    }
}

/// Whether this is the run for the only database on which a test makes sense. If not, it is told that the test is left out.
pub fn only_on(wanted: Backend) -> bool {
    if backend() == wanted {
        return true;
    }
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let value = if wanted == Backend::Sqlite { "sqlite" } else { "postgres" };
    // Around the test runner, which hides what a test that passes prints.
    let _ = writeln!(std::io::stderr(), "{name} is left out: it is for {VARIABLE}={value}");
    false
}
