use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lettre::transport::smtp::{AsyncSmtpTransportBuilder, Error, PoolConfig};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use service_kit::breaker::Unavailable;
use service_kit::status::chain;

/// Connections to the mail server at most, and so mails that are sent at the same time.
pub(super) const CONNECTIONS_MAX: u32 = 8;

/// How long the mail server may take for one command, in milliseconds.
const COMMAND_MS_MAX: u64 = 10_000;

/// How long the mail server may take for a whole mail, in milliseconds.
pub(super) const SEND_MS_MAX: u64 = 20_000;

/// What takes e-mail.
#[derive(Clone, Debug)]
pub(crate) enum Transport {
    /// A mail server.
    Smtp(Box<AsyncSmtpTransport<Tokio1Executor>>),
    /// A folder with one file for each mail.
    Folder(PathBuf),
}

/// What became of a mail that got an answer.
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
    /// A mail server with a pool of connections and limits.
    pub(super) fn pooled(builder: AsyncSmtpTransportBuilder) -> AsyncSmtpTransport<Tokio1Executor> {
        let pool = PoolConfig::new().max_size(CONNECTIONS_MAX);
        builder.timeout(Some(Duration::from_millis(COMMAND_MS_MAX))).pool_config(pool).build()
    }

    /// Hands a mail over; `id` is the same for every repeat of it.
    pub(super) async fn send(&self, mail: Message, id: &str) -> Result<Answer, Unavailable> {
        match self {
            Self::Smtp(smtp) => {
                let sent = tokio::time::timeout(Duration::from_millis(SEND_MS_MAX), smtp.send(mail));
                match sent.await {
                    Ok(Ok(_)) => Ok(Answer::Taken),
                    Ok(Err(error)) => judge(&error),
                    Err(_) => Err(Unavailable("the mail server gave no answer in time".to_owned())),
                }
            }
            Self::Folder(folder) => {
                let written = write(folder, id, &mail.formatted());
                written.map_err(|error| Unavailable(error.to_string())).map(|()| Answer::Taken)
            }
        }
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
