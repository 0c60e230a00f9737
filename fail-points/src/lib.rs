//! Named places where a process can be told to die or to stand still, and switches of deliberately broken builds. A leaf
//! crate: it knows nobody's types.
//!
//! - [`pass`] stands at such a place. `FAIL_POINTS` arms it: `payment.charged=kill@3` kills the process by SIGKILL at
//!   the third passing, `broker.synced=pause:200ms%1/50:7` lets it stand still at every fiftieth on average.
//! - [`broken`] asks whether a promise is to be broken. `SABOTAGE` says which. It is compiled out but for tests.
//! - [`check`] refuses what it does not know. Every process calls it before it does anything else.

mod plan;
mod point;
mod sabotage;

pub use plan::{Error, check, pass};
pub use point::Point;
pub use sabotage::{Fault, broken};
