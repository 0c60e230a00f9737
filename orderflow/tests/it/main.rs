//! The runner and its stack from outside: real processes, real sockets.

mod acquirer;
mod harness;
mod runner;
