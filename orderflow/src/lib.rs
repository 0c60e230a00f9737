//! The runner: starts the suite as child processes of one binary, ends parts of it on request, and proves by counting
//! that nothing was lost and nobody was charged twice.
//!
//! - [`main()`] is the command line; each command has its module.
//! - [`up`] runs the stack; [`acquirer`] is the simulated card processor outside it.
//! - [`load`] places orders as many customers do.
//! - [`place`] orders, [`queues`] looks at the broker, [`audit`] checks the books, [`health`] asks one part,
//!   [`dead_letters`] looks at, mends and sends back what nobody could handle.
//! - [`doctor`] says what is wrong.
//! - [`proxy`] stands in front of servers: as the one address of several, and to be cut.
//! - [`report`] writes HTML files that people can keep.
//! - [`compare`] shows the same outage with and without a queue.
//! - [`lab`] is a stack in a folder of its own, to be tortured; [`chaos`] tortures one and judges.

pub mod acquirer;
pub mod audit;
pub mod chaos;
mod cli;
pub mod compare;
pub mod dashboard;
pub mod dead_letters;
pub mod doctor;
pub mod health;
pub mod lab;
pub mod load;
mod parent;
mod part;
pub mod place;
pub mod proxy;
pub mod queues;
pub mod report;
mod terminal;
pub mod up;
mod whereabouts;

pub use cli::main;
pub use part::{INSTANCES_MAX, Instance, Part, UnknownInstance};
