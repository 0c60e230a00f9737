//! Renders invoices: takes jobs from a queue, makes a PDF of each, and publishes it. It has no database; any number of
//! workers share the queue.
//!
//! - [`Cli`] is the command line, [`Config`] what it can be told, [`run`] the worker as a process.
//! - [`Service`] is the worker as a component: opened, then run until its token is cancelled.
//!
//! Inside, `domain` knows nothing of ours and `render` only the domain; `consumer` sits at the edge.

mod cli;
mod config;
mod consumer;
mod domain;
mod render;
mod service;

pub use cli::Cli;
pub use config::Config;
pub use service::{Error, Service, run};
