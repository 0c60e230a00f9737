//! E-mail: what is queued in the database leaves here, at least once, in the order of each customer.

mod config;
mod message;
mod sender;
mod transport;

pub use config::EmailConfig;
pub(crate) use sender::Sender;
#[cfg(test)]
pub(crate) use sender::Settings;
#[cfg(test)]
pub(crate) use transport::SEND_MS_MAX;
