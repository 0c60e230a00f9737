//! A look at a database file that changes nothing, neither the file nor what lies beside it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, Connection as _};

use super::Error;
use super::server::{CONNECT_MS_MAX, STATEMENT_MS_MAX, Server, within};

/// A database with unfinished writes beside it is copied before it is looked at, unless it is larger, in bytes.
pub const COPY_BYTES_MAX: u64 = 1 << 30;

/// How a file is opened so that nothing is made beside it: as if nobody ever changed it.
const UNCHANGED: &str = "mode=ro&immutable=1";

/// What a look at a database has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The newest migration that it has had; zero if none.
    pub version: i64,
    /// What is wrong with its pages, if anything is.
    pub damage: Option<String>,
}

/// Looks at a database that no process works on. `version_known` is the newest migration of this binary.
///
/// What was committed last may stand only in the file beside it. Reading that in place would change it, so that a copy is
/// read then.
pub async fn inspect(path: &Path, version_known: i64) -> Result<Inspection, Error> {
    let unreadable = |source| Error::Folder { url: path.display().to_string(), source };
    let beside = with_suffix(path, "-wal");
    let beside_bytes = fs::metadata(&beside).map_or(0, |metadata| metadata.len());
    if beside_bytes == 0 {
        return look(path, UNCHANGED, version_known).await;
    }
    let bytes = beside_bytes + fs::metadata(path).map_err(unreadable)?.len();
    if bytes > COPY_BYTES_MAX {
        return Err(Error::TooLarge { what: "a copy", bytes: usize::try_from(bytes).unwrap_or(usize::MAX) });
    }
    let copy = Copy::make(path, &beside).map_err(unreadable)?;
    look(&copy.0.join("copy.db"), "mode=rw", version_known).await
}

/// Looks at a database on a PostgreSQL server, which processes may work on meanwhile. Its pages are the server's to check.
pub async fn inspect_server(url: &str, version_known: i64) -> Result<Inspection, Error> {
    super::install_drivers();
    let mut connection = Server::look(url).await?;
    let looking = async {
        let tables =
            "SELECT COUNT(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = '_sqlx_migrations'";
        let tables: i64 = sqlx::query_scalar(tables).fetch_one(&mut connection).await?;
        version(&mut connection, tables).await
    };
    let version = within(STATEMENT_MS_MAX, looking).await?;
    drop(within(CONNECT_MS_MAX, connection.close()).await);
    if version > version_known { Err(Error::Newer { version }) } else { Ok(Inspection { version, damage: None }) }
}

/// The newest migration, where there is a table of them.
async fn version(connection: &mut AnyConnection, tables: i64) -> Result<i64, sqlx::Error> {
    if tables == 0 {
        return Ok(0);
    }
    sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations").fetch_one(connection).await
}

/// A copy in a folder of its own, which goes with it.
struct Copy(PathBuf);

impl Copy {
    fn make(path: &Path, beside: &Path) -> io::Result<Self> {
        let copy = Self(std::env::temp_dir().join(format!("inspect-{}", uuid::Uuid::now_v7().simple())));
        fs::create_dir(&copy.0)?;
        fs::copy(path, copy.0.join("copy.db"))?;
        fs::copy(beside, copy.0.join("copy.db-wal"))?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn look(path: &Path, access: &str, version_known: i64) -> Result<Inspection, Error> {
    super::install_drivers();
    // In a URL these three would end the path or start an escape.
    let escaped = path.to_string_lossy().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
    let url = format!("sqlite://{escaped}?{access}");
    let fail = |source| Error::Open { url: url.clone(), source };
    let options: AnyConnectOptions = url.parse().map_err(fail)?;
    let mut connection = AnyConnection::connect_with(&options).await.map_err(fail)?;
    let tables: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_master WHERE name = '_sqlx_migrations'")
        .fetch_one(&mut connection)
        .await?;
    let version = version(&mut connection, tables).await?;
    if version > version_known {
        return Err(Error::Newer { version });
    }
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(Inspection { version, damage: Some(verdict).filter(|verdict| verdict != "ok") })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
