//! What a stack past one machine stands on: three NATS servers that keep the broker's journal, and a PostgreSQL server with
//! the books of the services. All of it is below the stack's folder.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use local_servers::{Database, Nats, Postgres};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use super::Error;
use crate::part::{Instance, Part};

/// How many NATS servers there are: one may die.
pub(crate) const NATS_SERVERS: u16 = 3;
/// How many there are of each other part, unless it is said.
pub(crate) const REPLICAS: u16 = 2;
/// How far above its port for clients a NATS server listens for the other servers.
pub(super) const ROUTE_ABOVE: u16 = 1;
/// Who owns the databases.
const USER: &str = "orderflow";
/// The databases, one for each service that keeps books.
const DATABASES: [&str; 3] = ["order", "payment", "notification"];
/// How long the server may take to make them; with a slow disk one alone takes seconds.
const DATABASES_WITHIN: Duration = Duration::from_secs(60);
/// Sessions that the server takes: each replica of a service has seven.
const SESSIONS_MAX: u32 = 400;
/// Random bytes of the password.
const PASSWORD_BYTES: usize = 16;

/// Whether a stack goes past one machine, and with which programs.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Scale {
    /// Run as past one machine: three NATS servers keep the journal of two brokers, PostgreSQL the books of two of each
    /// service. It needs nats-server 2.14 and PostgreSQL 14, or newer
    #[arg(long, env = "ORDERFLOW_SCALE")]
    pub scale: bool,
    /// The program nats-server, if it is not in the PATH
    #[arg(long, env = "ORDERFLOW_NATS_SERVER", value_name = "FILE")]
    pub nats_server: Option<PathBuf>,
    /// The folder of PostgreSQL's programs, if they are neither in the PATH nor where packages put them
    #[arg(long, env = "ORDERFLOW_POSTGRES_BIN", value_name = "FOLDER")]
    pub postgres_bin: Option<PathBuf>,
}

impl Scale {
    /// Finds the programs.
    pub(crate) fn find(&self) -> Result<(Nats, Postgres), local_servers::Error> {
        let nats = Nats::find(self.nats_server.as_deref(), "--nats-server (ORDERFLOW_NATS_SERVER)")?;
        let setting = "--postgres-bin (ORDERFLOW_POSTGRES_BIN)";
        Ok((nats, Postgres::find(self.postgres_bin.as_deref(), setting, &["initdb"])?))
    }
}

/// The servers of one stack, ready to be started.
#[derive(Debug)]
pub(super) struct Foundation {
    nats: Nats,
    postgres: Postgres,
    password: String,
    folder: PathBuf,
}

impl Foundation {
    /// Finds the programs and makes what the servers need in `folder`, or takes what is there from another time.
    pub(super) fn create(scale: &Scale, folder: &Path) -> Result<Self, Error> {
        let (nats, postgres) = scale.find()?;
        let home = folder.join("postgres");
        let failed = |source| Error::DataDir { path: home.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&home).map_err(failed)?;
        postgres.hand_over(&home)?;
        let password_file = home.join("password");
        let password = password(&password_file).map_err(failed)?;
        postgres.hand_over(&password_file)?;
        // Once there are data, nobody gets at them without the password. And what a start before this one has put in its
        // place stays there, before anything is written into it.
        for path in [&password_file, &home, folder] {
            fs::File::open(path).and_then(|file| file.sync_all()).map_err(failed)?;
        }
        let data = home.join("data");
        if !data.exists() {
            let database = Database { user: USER, password_file: Some(&password_file), is_synced: true };
            postgres.create(&data, &database)?;
        }
        Ok(Self { nats, postgres, password, folder: folder.to_owned() })
    }

    /// The call of a NATS server. `listen` are the addresses of all of them.
    pub(super) fn nats(&self, instance: Instance, listen: &[(Instance, SocketAddr)]) -> io::Result<Command> {
        let home = self.folder.join("nats").join(instance.number.to_string());
        fs::create_dir_all(&home)?;
        let routes: Vec<String> = listen.iter().map(|(_, address)| format!("nats://{}", route(*address))).collect();
        let own = listen.iter().find(|(other, _)| *other == instance).map(|(_, address)| *address);
        let own = own.ok_or(io::ErrorKind::NotFound)?;
        // A message is confirmed when it is on the disk, and not some minutes later.
        let text = format!(
            "server_name: {instance}\nlisten: \"{own}\"\njetstream {{ store_dir: {:?}, sync_interval: always }}\n\
             cluster {{ name: orderflow, listen: \"{}\", routes: [{}] }}\n",
            home.join("store"),
            route(own),
            routes.join(", "),
        );
        let file = home.join("nats.conf");
        fs::write(&file, text)?;
        let mut command = self.nats.command();
        command.arg("--config").arg(file);
        Ok(command)
    }

    /// The call of the PostgreSQL server.
    pub(super) fn postgres(&self, listen: SocketAddr) -> Command {
        let home = self.folder.join("postgres");
        let mut command = self.postgres.command("postgres");
        command.arg("-D").arg(home.join("data")).current_dir(&home);
        for setting in [
            format!("listen_addresses={}", listen.ip()),
            format!("port={}", listen.port()),
            // Paths of sockets are short, and folders need not be.
            "unix_socket_directories=".to_owned(),
            format!("max_connections={SESSIONS_MAX}"),
            "fsync=on".to_owned(),
            "synchronous_commit=on".to_owned(),
        ] {
            command.arg("-c").arg(setting);
        }
        command
    }

    /// The variable with the URL of a part's database, for a part that has one there. It holds a password, so that it is no
    /// argument, which everybody on the machine could read.
    pub(super) fn database(&self, part: Part, server: SocketAddr) -> Option<(OsString, OsString)> {
        let (variable, name) = match part {
            Part::OrderService => ("ORDER_DATABASE_URL", "order"),
            Part::PaymentService => ("PAYMENT_DATABASE_URL", "payment"),
            Part::NotificationService => ("NOTIFICATION_DATABASE_URL", "notification"),
            Part::Nats | Part::Postgres | Part::Broker | Part::Acquirer | Part::InvoiceWorker => return None,
        };
        let url = format!("postgres://{USER}:{}@{server}/{name}", self.password);
        Some((variable.into(), url.into()))
    }

    /// Makes the databases that are not there yet on the server, which runs, within [`DATABASES_WITHIN`].
    pub(super) async fn make_databases(&self, server: SocketAddr) -> Result<(), sqlx::Error> {
        make_databases(server, &self.password).await
    }
}

async fn make_databases(server: SocketAddr, password: &str) -> Result<(), sqlx::Error> {
    let options = PgConnectOptions::new_without_pgpass().host(&server.ip().to_string()).port(server.port());
    let options = options.username(USER).password(password).database("postgres");
    let making = async {
        let mut connection = PgConnection::connect_with(&options).await?;
        for name in DATABASES {
            let known: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
                .bind(name)
                .fetch_optional(&mut connection)
                .await?;
            if known.is_none() {
                connection.execute(sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE \"{name}\"")))).await?;
            }
        }
        connection.close().await
    };
    tokio::time::timeout(DATABASES_WITHIN, making).await.unwrap_or_else(|_| {
        let message = format!("PostgreSQL did not make the databases within {} s", DATABASES_WITHIN.as_secs());
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, message)))
    })
}

/// Where a NATS server listens for the others.
pub(super) fn route(mut address: SocketAddr) -> SocketAddr {
    address.set_port(address.port().saturating_add(ROUTE_ABOVE));
    address
}

/// The password in the file, which is made if it is not there.
fn password(file: &Path) -> io::Result<String> {
    match fs::read_to_string(file) {
        Ok(password) if !password.is_empty() => return Ok(password),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut bytes = [0; PASSWORD_BYTES];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let password: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(file)?.write_all(password.as_bytes())?;
    Ok(password)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_does_not_keep_a_start_waiting_for_ever() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let making = make_databases(silent.local_addr().unwrap(), "password");
        let made = tokio::time::timeout(2 * DATABASES_WITHIN, making).await.expect("it is waited for");
        assert!(matches!(&made, Err(sqlx::Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut), "{made:?}");
    }

    #[test]
    fn a_password_is_made_once_and_nobody_else_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let first = password(&file).unwrap();
        assert_eq!(first.len(), 2 * PASSWORD_BYTES);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(password(&file).unwrap(), first);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(password(&other.path().join("password")).unwrap(), first);
    }
}
