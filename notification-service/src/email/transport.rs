use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lettre::transport::smtp::{AsyncSmtpTransportBuilder, Error, PoolConfig};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use service_kit::breaker::Unavailable;
use service_kit::status::chain;

/// Connections to the mail server at most, and so mails that are sent at the same time.
pub(super) const CONNECTIONS_MAX: u32 = 8;

/// How long it may take to connect to the mail server, in milliseconds.
const CONNECT_MS_MAX: u64 = 10_000;

/// How long the mail server may take for a whole mail, in milliseconds. RFC 5321 (4.5.3.2.6) asks for patience: who gives
/// up early sends again what the server may have taken.
pub(crate) const SEND_MS_MAX: u64 = 60_000;

/// What takes e-mail.
#[derive(Clone, Debug)]
pub(crate) enum Transport {
    /// A mail server.
    Smtp(Box<Smtp>),
    /// A folder with one file for each mail.
    Folder(PathBuf),
}

/// A mail server with a pool of connections. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Smtp {
    builder: AsyncSmtpTransportBuilder,
    pool: Arc<Mutex<AsyncSmtpTransport<Tokio1Executor>>>,
}

/// What became of a mail that may have reached its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was taken.
    Taken,
    /// It will never be taken.
    Refused(String),
    /// This mail is not taken now; others may be.
    PutOff(String),
}

impl Transport {
    /// Hands a mail over; `id` is the same for every repeat of it.
    pub(super) async fn send(&self, mail: Message, id: &str, time_limit: Duration) -> Result<Answer, Unavailable> {
        match self {
            Self::Smtp(smtp) => smtp.send(mail, time_limit).await,
            Self::Folder(folder) => {
                let written = write(folder, id, &mail.formatted());
                written.map_err(|error| Unavailable(error.to_string())).map(|()| Answer::Taken)
            }
        }
    }
}

impl Smtp {
    /// Adds the limits to what the builder knows of the mail server.
    pub(super) fn new(builder: AsyncSmtpTransportBuilder) -> Self {
        let pool = PoolConfig::new().max_size(CONNECTIONS_MAX);
        let builder = builder.timeout(Some(Duration::from_millis(CONNECT_MS_MAX))).pool_config(pool);
        let pool = Arc::new(Mutex::new(builder.clone().build()));
        Self { builder, pool }
    }

    async fn send(&self, mail: Message, time_limit: Duration) -> Result<Answer, Unavailable> {
        let pool = self.pool().clone();
        let mut sending = pin!(pool.send(mail));
        match tokio::time::timeout(time_limit, &mut sending).await {
            Ok(Ok(_)) => Ok(Answer::Taken),
            Ok(Err(error)) => judge(&error),
            Err(_) => {
                // The connection goes back to its pool with an answer to come, which the next mail would take for its
                // own: nobody may use that pool again.
                *self.pool() = self.builder.clone().build();
                // The server may have taken the mail. Trying at once would send it over and over.
                Ok(Answer::PutOff("the mail server gave no answer in time".to_owned()))
            }
        }
    }

    fn pool(&self) -> MutexGuard<'_, AsyncSmtpTransport<Tokio1Executor>> {
        // Nothing in the critical sections panics halfway through a change.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an error of the mail server means: for this mail, or for all of them.
fn judge(error: &Error) -> Result<Answer, Unavailable> {
    let reason = chain(error);
    let code = error.status().map(u16::from);
    match code {
        // It closes, or serves no mail, or does not know us: no mail's fault. RFC 5321 and RFC 4954.
        // The reason is logged, and the server's words may repeat an address: its code has to do.
        Some(code @ (421 | 454 | 521 | 530 | 534 | 535 | 538)) => {
            Err(Unavailable(format!("the mail server answers with {code}")))
        }
        Some(_) if error.is_permanent() => Ok(Answer::Refused(reason)),
        Some(_) => Ok(Answer::PutOff(reason)),
        None => Err(Unavailable(reason)),
    }
}

/// Writes a mail whole or not at all. A repeat replaces the file of the first time.
fn write(folder: &Path, id: &str, mail: &[u8]) -> io::Result<()> {
    let part = folder.join(format!("{id}.part"));
    std::fs::write(&part, mail)?;
    std::fs::rename(part, folder.join(format!("{id}.eml")))
}
