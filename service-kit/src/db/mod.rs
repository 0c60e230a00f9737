//! The database: one writer whose commits are shared, and a small pool for reads.

mod bulk;
mod error;
mod inspect;
mod link;
mod role;
mod schema;
mod server;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, Connection as _, Executor as _, Pool};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use bulk::{Bulk, BulkWork, Item, STATEMENT_ROWS_MAX, list, pieces, query, rows};
pub use error::{Error, Kind};
pub use inspect::{COPY_BYTES_MAX, Inspection, inspect, inspect_server};
pub use link::PAUSE_MS_MAX;
pub use role::{Held, ROLE_IDLE_MS_MAX, Role};
pub use schema::{KIT_VERSION_MAX, Migration};
pub use server::{
    ANSWER_MS_MAX, BATCH_MS_MAX, CONNECT_MS_MAX, OPEN_MS_MAX, SERVER_VERSION_MIN, STALL_MS_MAX, STATEMENT_MS_MAX,
    TURN_MS_MAX, redacted,
};
pub use writer::{BATCH_JOBS_MAX, QUEUE_JOBS_MAX};

use crate::status::root;
use link::Link;
use schema::Dialect;
use server::Server;
use writer::{Queue, start_reader, start_writer};

/// The database driver of every service, named here and nowhere else.
///
/// `Any` finds the driver by the URL. It carries what we need: `$1` placeholders, `BIGINT`, `TEXT` and `BLOB`, nested
/// transactions and migrations. What it cannot do is left out of the SQL on purpose: no booleans, no native times.
pub type Db = sqlx::Any;

/// A connection inside a transaction.
pub type Connection = AnyConnection;

/// A future that borrows a connection.
pub type JobFuture<'c, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'c>>;

/// How many reads run at the same time; more wait.
pub const READ_CONNECTIONS_MAX: u32 = 4;

/// How long a read waits for a connection before it fails, in milliseconds.
pub const READ_WAIT_MS_MAX: u64 = 10_000;

/// An open database. Clones share it.
#[derive(Clone, Debug)]
pub struct Database {
    reads: Pool<Db>,
    writer: Queue,
    commits: watch::Receiver<u64>,
    reader: Queue,
    home: Home,
    /// Why the database cannot be used any more, once that is so.
    unfit: Arc<watch::Sender<Option<String>>>,
}

/// Where a database is.
#[derive(Clone, Debug)]
enum Home {
    /// A file of SQLite, if it is one at all.
    File(Option<PathBuf>),
    /// A PostgreSQL server.
    Server(Server),
}

impl Database {
    /// Opens the database and brings its tables to the version of this binary. A file is made if it is not there; a
    /// database on a server has to be there.
    ///
    /// `migrations` are the service's own, numbered from [`KIT_VERSION_MAX`]` + 1`; the kit adds the tables of the
    /// outbox and the inbox.
    pub async fn open(url: &str, migrations: &[Migration]) -> Result<Self, Error> {
        install_drivers();
        if is_server(url) { open_server(url, migrations).await } else { open_file(url, migrations).await }
    }

    fn start(reads: Pool<Db>, writing: Link, reading: Link, home: Home) -> Self {
        let ((writer, commits), reader) = (start_writer(writing), start_reader(reading));
        Self { reads, writer, commits, reader, home, unfit: Arc::new(watch::Sender::new(None)) }
    }

    /// Runs `job` in a transaction and answers when it is committed, which means: on disk.
    ///
    /// Writes that arrive together share one transaction and so one fsync; each has its own savepoint, so that a job
    /// that fails undoes only itself. When the caller goes away before the answer, the job is done all the same.
    ///
    /// ```text
    /// let id = db.write(move |conn| Box::pin(async move {
    ///     sqlx::query("INSERT INTO orders (id) VALUES ($1)").bind(&id).execute(&mut *conn).await?;
    ///     outbox::enqueue(conn, "order-service", event).await?;
    ///     Ok::<_, db::Error>(id)
    /// })).await?;
    /// ```
    pub async fn write<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut Connection) -> JobFuture<'c, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.writer.run(job, false).await
    }

    /// As [`Self::write`], but whoever waits for commits does not hear of it.
    pub(crate) async fn write_quietly<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut Connection) -> JobFuture<'c, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.writer.run(job, true).await
    }

    /// A read on a connection that always stands: for one that comes so often that the pool would cost more than it
    /// does itself. It waits for those before it.
    pub(crate) async fn read<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut Connection) -> JobFuture<'c, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.reader.run(job, false).await
    }

    /// Writes of one kind, which `work` does for all callers whose writes share a commit.
    pub fn bulk<T, R, E>(&self, work: BulkWork<T, R, E>) -> Bulk<T, R, E>
    where
        T: Send + Sync + 'static,
        R: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        Bulk::new(self.writer.clone(), work)
    }

    /// Reads of one kind, which `work` does for all callers that wait at the same time: for one that comes often.
    pub fn bulk_reads<T, R, E>(&self, work: BulkWork<T, R, E>) -> Bulk<T, R, E>
    where
        T: Send + Sync + 'static,
        R: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        Bulk::new(self.reader.clone(), work)
    }

    /// The pool for reads. Its connections refuse writes.
    pub fn reads(&self) -> &Pool<Db> {
        &self.reads
    }

    /// Does `work` on this database and looks at its error: one that lasts makes the database [`Self::poisoned`], so
    /// that the service ends with a message rather than wait for what does not come.
    ///
    /// A server that does not answer is waited for no longer than [`ANSWER_MS_MAX`].
    pub async fn judged<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let result = match self.home {
            Home::File(_) => work.await,
            Home::Server(_) => tokio::time::timeout(Duration::from_millis(ANSWER_MS_MAX), work)
                .await
                .unwrap_or(Err(Error::Late { limit_ms: ANSWER_MS_MAX })),
        };
        if let Err(error) = &result
            && error.kind() == Kind::Lasting
        {
            self.unfit
                .send_if_modified(|cause| cause.is_none().then(|| *cause = Some(root(error).to_string())).is_some());
        }
        result
    }

    /// Waits until the database can no longer be used: a commit failed, or [`Self::judged`] saw an error that lasts.
    /// A service ends then.
    pub async fn poisoned(&self) -> Error {
        let mut unfit = self.unfit.subscribe();
        let unfit = async {
            let cause = unfit.wait_for(Option::is_some).await.map(|cause| cause.clone());
            Error::Unfit { cause: cause.ok().flatten().unwrap_or_default() }
        };
        tokio::select! {
            error = self.writer.poisoned() => error,
            error = unfit => error,
        }
    }

    /// What one process at a time does for this database, however many share it.
    pub fn role(&self, name: &str) -> Role {
        match &self.home {
            Home::File(file) => Role::of_file(file.as_deref(), name),
            Home::Server(server) => Role::of_server(server, name),
        }
    }

    /// Told after every commit: what changes are the commits since it was last looked at.
    pub(crate) fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }
}

/// `synchronous = FULL` makes a commit wait for the disk also in WAL mode, where the default would not. Writers of several
/// processes take turns; whoever waits longer than this asks again.
const WRITER_PRAGMAS: &str = "PRAGMA busy_timeout = 1000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
     PRAGMA foreign_keys = ON;";

const READER_PRAGMAS: &str = "PRAGMA busy_timeout = 5000; PRAGMA query_only = ON;";

async fn open_file(url: &str, migrations: &[Migration]) -> Result<Database, Error> {
    make_folder(url)?;
    let fail = |source| Error::Open { url: url.to_owned(), source };
    let options: AnyConnectOptions = with_create(url).parse().map_err(fail)?;
    let file = file_path(url).map(PathBuf::from);
    // Processes that start at the same time would all see the tables missing; and only one at a time can turn a new
    // file to its journal mode, for which SQLite does not wait.
    let role = Role::of_file(file.as_deref(), "tables").take(&CancellationToken::new()).await;
    let _held = role.map_err(|source| Error::Folder { url: url.to_owned(), source })?;
    let mut writing = AnyConnection::connect_with(&options).await.map_err(fail)?;
    writing.execute(WRITER_PRAGMAS).await.map_err(fail)?;
    schema::migrate(&mut writing, migrations, Dialect::Sqlite).await?;
    let mut reading = AnyConnection::connect_with(&options).await.map_err(fail)?;
    reading.execute(READER_PRAGMAS).await.map_err(fail)?;
    let reads = read_pool()
        // A file does not hang up.
        .test_before_acquire(false)
        .after_connect(|connection, _| Box::pin(async move { connection.execute(READER_PRAGMAS).await.map(drop) }))
        .connect_with(options)
        .await
        .map_err(fail)?;
    Ok(Database::start(reads, Link::to_file(writing), Link::to_file(reading), Home::File(file)))
}

async fn open_server(url: &str, migrations: &[Migration]) -> Result<Database, Error> {
    let until = Instant::now() + Duration::from_millis(OPEN_MS_MAX);
    loop {
        match open_server_once(url, migrations).await {
            // It was there a moment ago.
            Err(error) if error.passes_at_the_start() && Instant::now() < until => {
                tracing::info!(%error, "the database went away meanwhile; waiting for it");
                tokio::time::sleep(Duration::from_millis(PAUSE_MS_MAX)).await;
            }
            outcome => return outcome,
        }
    }
}

async fn open_server_once(url: &str, migrations: &[Migration]) -> Result<Database, Error> {
    let server = Server::open(url, migrations).await?;
    let fail = |source| Error::Open { url: server.name().to_owned(), source };
    let writing = Link::to_server(server.clone(), server::writer_settings()).await.map_err(fail)?;
    let reading = Link::to_server(server.clone(), server::reader_settings()).await.map_err(fail)?;
    let reads = read_pool()
        // Asking costs a way to the server and back, so only a connection that was not used for a while is asked.
        .test_before_acquire(false)
        .before_acquire(|connection, unused| {
            Box::pin(async move {
                Ok(unused.idle_for < Duration::from_millis(link::UNUSED_MS_MAX) || link::stands(connection).await)
            })
        })
        // The pool asks whoever comes back, and keeps its place for as long as a machine that is gone does not answer.
        .after_release(|connection, _| {
            let asked = server::within(server::CONNECT_MS_MAX, connection.ping());
            Box::pin(async move { asked.await.map(|()| true) })
        })
        .after_connect(|connection, _| Box::pin(server::apply(connection, server::reader_settings())))
        .connect_with(server.options())
        .await
        .map_err(fail)?;
    Ok(Database::start(reads, writing, reading, Home::Server(server)))
}

fn read_pool() -> AnyPoolOptions {
    AnyPoolOptions::new().max_connections(READ_CONNECTIONS_MAX).acquire_timeout(Duration::from_millis(READ_WAIT_MS_MAX))
}

fn is_server(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

fn install_drivers() {
    static DRIVERS: Once = Once::new();
    DRIVERS.call_once(sqlx::any::install_default_drivers);
}

/// The path of a SQLite URL.
fn file_path(url: &str) -> Option<&str> {
    let path = url.strip_prefix("sqlite://")?;
    Some(path.split('?').next().unwrap_or(path))
}

fn make_folder(url: &str) -> Result<(), Error> {
    let folder = file_path(url).and_then(|path| Path::new(path).parent());
    match folder {
        Some(folder) if !folder.as_os_str().is_empty() => {
            std::fs::create_dir_all(folder).map_err(|source| Error::Folder { url: url.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn with_create(url: &str) -> String {
    match file_path(url) {
        Some(_) if !url.contains("mode=") => format!("{url}{}mode=rwc", if url.contains('?') { '&' } else { '?' }),
        _ => url.to_owned(),
    }
}
