//! A private PostgreSQL server: found on this machine, made in a temporary folder, gone with the process.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use local_servers::{Database, Postgres};
use tempfile::TempDir;

/// The user of tests, who may do everything.
const OWNER: &str = "tester";

/// Who may log in with this password only.
const GUARDED: (&str, &str) = ("guarded", "open sesame");

/// How often another port is tried when somebody else was quicker.
const PORT_TRIES: usize = 5;

/// How many sessions the server takes.
const SESSIONS_MAX: u32 = 400;

/// Ends the server when the process that started it is gone, however that went, and removes its folder.
const WATCH: &str = "cat >/dev/null; pid=$(head -n 1 \"$1/data/postmaster.pid\" 2>/dev/null) && kill -QUIT $pid; \
     while [ -n \"$pid\" ] && kill -0 $pid 2>/dev/null; do sleep 0.1; done; rm -rf \"$1\"";

/// A server with databases of its own. It runs with `fsync`, as one that is served from does.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    postgres: Postgres,
    port: u16,
    databases: AtomicU32,
    /// Ends when its standard input does, which is with this process.
    watch: Child,
}

impl Server {
    /// The server that all tests of one program share.
    pub fn shared() -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        SERVER.get_or_init(Self::start)
    }

    /// Makes a server and starts it: for a test that crashes it.
    pub fn start() -> Self {
        let postgres = Postgres::find(None, "PATH", &["initdb", "pg_ctl", "psql"]);
        let postgres = postgres.unwrap_or_else(|error| panic!("{}=postgres: {error}", crate::VARIABLE));
        let folder = TempDir::with_prefix("test-database-").expect("a temporary folder can be made").keep();
        let mut watch = Command::new("sh");
        watch.args(["-c", WATCH, "sh"]).arg(&folder);
        watch.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // ctrl-c and time limits end the whole group of the program; who cleans up after it must not be in there.
        watch.process_group(0);
        let watch = watch.spawn().expect("a shell can be started");
        let mut server = Self { folder, postgres, port: 0, databases: AtomicU32::new(0), watch };
        let everybody = Database { user: OWNER, password_file: None, is_synced: false };
        let made = server.postgres.hand_over(&server.folder);
        made.and_then(|()| server.postgres.create(&server.data(), &everybody)).expect("a server can be made");
        let hba = format!("host all {} all scram-sha-256\nlocal all all trust\nhost all all all trust\n", GUARDED.0);
        fs::write(server.data().join("pg_hba.conf"), hba).expect("the server's folder can be written");
        server.start_on_free_port();
        let (name, password) = GUARDED;
        server.sql("postgres", &format!("CREATE ROLE {name} LOGIN PASSWORD '{password}'"));
        server
    }

    /// Makes a database and gives its URL. Text is ordered in it as English dictionaries do it, where the server can.
    pub fn create_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let version: u32 = self.sql("postgres", "SHOW server_version_num").parse().expect("a version is a number");
        let order = if version >= 150_000 { "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'" } else { "" };
        self.sql("postgres", &format!("CREATE DATABASE {name} {order}"));
        self.url(OWNER, &name)
    }

    /// The URL of a database for a user.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// The URL of a database for somebody who needs a password and gives this one.
    pub fn url_with_password(&self, password: &str, database: &str) -> String {
        self.url(&format!("{}:{}", GUARDED.0, password.replace(' ', "%20")), database)
    }

    /// The right one for [`Self::url_with_password`].
    pub fn password(&self) -> &'static str {
        GUARDED.1
    }

    /// Ends the server as a crash does: nothing is finished, and the next start recovers.
    pub fn crash(&self) {
        done(self.control().args(["stop", "--mode", "immediate"]));
    }

    /// Starts it again after [`Self::crash`], at the same address.
    pub fn start_again(&self) {
        assert!(self.started(self.port), "the server does not start again; {}", self.log());
    }

    /// Does something to a database behind everybody's back, and gives what came of it.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut psql = self.program("psql");
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"]);
        psql.args(["--dbname", &self.url(OWNER, database), "--command", sql]);
        let output = psql.stdin(Stdio::null()).output().expect("psql can be started");
        assert!(output.status.success(), "`{sql}` failed: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn start_on_free_port(&mut self) {
        for _ in 0..PORT_TRIES {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
            self.port = listener.local_addr().expect("a listener has an address").port();
            drop(listener);
            if self.started(self.port) {
                return;
            }
        }
        panic!("the server does not start; {}", self.log());
    }

    fn started(&self, port: u16) -> bool {
        let folder = self.folder.display();
        let settings = format!(
            "-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=on \
             -c max_connections={SESSIONS_MAX} -c shared_buffers=32MB -c max_wal_size=256MB"
        );
        let mut start = self.control();
        start.args(["start", "--wait", "--timeout", "60", "--options", &settings]);
        // It must not keep anything of this process open, or whoever waits for that to be closed waits for ever.
        let status = start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.expect("pg_ctl can be started").success()
    }

    fn control(&self) -> Command {
        let mut control = self.program("pg_ctl");
        control.arg("--pgdata").arg(self.data()).arg("--log").arg(self.folder.join("log"));
        control
    }

    fn program(&self, name: &str) -> Command {
        let mut command = self.postgres.command(name);
        command.current_dir(&self.folder);
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_else(|error| format!("it has no log: {error}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.watch.stdin.take());
        let _ = self.watch.wait();
    }
}

fn done(command: &mut Command) {
    let log = tempfile::tempfile().expect("a temporary file can be made");
    let error_log: File = log.try_clone().expect("a file can be shared");
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(error_log).status();
    let status = status.unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    assert!(status.success(), "{command:?} failed: {}", told(log));
}

fn told(mut log: File) -> String {
    use std::io::{Read as _, Seek as _};
    let mut text = String::new();
    let _ = log.rewind().and_then(|()| log.read_to_string(&mut text));
    text
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};
    use std::{env, thread};

    use super::*;
    use crate::{Backend, only_on};

    /// Set for a process of these tests that only has a server: the file in which it says where that is.
    const SERVER_TOLD_IN: &str = "TEST_DATABASE_TEST_SERVER_TOLD_IN";

    /// Whatever a test waits for has happened by then, or never will.
    const DEADLINE: Duration = Duration::from_secs(120);

    /// What is found once it is there.
    fn eventually<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = find() {
                return found;
            }
            assert!(Instant::now() < until, "it did not come true in time: {what}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A process of its own: it has a server until it is ended from outside.
    #[test]
    fn a_program_with_a_server() {
        let Some(file) = env::var_os(SERVER_TOLD_IN) else { return };
        let server = Server::start();
        fs::write(file, server.folder.to_str().unwrap()).unwrap();
        thread::sleep(DEADLINE);
    }

    #[test]
    fn nothing_is_left_of_a_server_when_the_whole_group_of_its_program_is_killed() {
        if !only_on(Backend::Postgres) {
            return;
        }
        let told = TempDir::new().unwrap();
        let file = told.path().join("server");
        let mut program = Command::new(env::current_exe().unwrap());
        program.args(["server::tests::a_program_with_a_server", "--exact", "--nocapture"]).env(SERVER_TOLD_IN, &file);
        program.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        let mut program = program.spawn().unwrap();
        let folder = eventually("there is a server", || {
            assert!(program.try_wait().unwrap().is_none(), "the program has ended");
            fs::read_to_string(&file).ok().filter(|folder| !folder.is_empty())
        });
        let group = format!("-{}", program.id());
        assert!(Command::new("kill").args(["-KILL", "--", &group]).status().unwrap().success());
        program.wait().unwrap();
        // The folder goes when the server is gone.
        eventually("the folder is gone", || (!PathBuf::from(&folder).exists()).then_some(()));
    }

    #[test]
    fn a_server_keeps_what_it_has_through_a_crash_and_is_gone_with_its_owner() {
        if !only_on(Backend::Postgres) {
            return;
        }
        let server = Server::start();
        let url = server.create_database();
        let name = url.rsplit('/').next().unwrap_or_default();
        server.sql(name, "CREATE TABLE kept AS SELECT 42 AS number");
        server.crash();
        server.start_again();
        assert_eq!(server.sql(name, "SELECT number FROM kept"), "42");
        let folder = server.folder.clone();
        drop(server);
        assert!(!folder.exists());
    }
}
