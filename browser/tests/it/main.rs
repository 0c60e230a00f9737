//! The dashboard in a real browser: what a visitor clicks, types and sees.
//!
//! `ORDERFLOW_BIN` names the program, for example `target/debug/orderflow`. Needs Debian's packages `chromium` and
//! `chromium-driver`; `CHROMIUM` and `CHROMEDRIVER` name others. With `SCREENSHOTS=FOLDER` the pictures of the README are
//! written there.

// A failed expectation of the harness is a failed test.
#![allow(clippy::unwrap_used)]

mod browser;
mod connection;
mod elsewhere;
mod flow;
mod letters;
mod looks;
mod orders;
mod reports;
mod stack;
