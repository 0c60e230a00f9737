//! Children must not outlive their runner, however it ends.

use std::io::{self, Read};
use std::process;
use std::thread;

/// Ends this process as soon as its standard input closes, which the runner holds open for as long as it lives.
///
/// There is no drain: whoever holds data keeps it safe against sudden ends anyway, and the next runner wants the ports.
pub(crate) fn exit_with_parent() -> io::Result<()> {
    thread::Builder::new().name("parent watch".to_owned()).spawn(|| {
        let mut input = io::stdin().lock();
        let mut buffer = [0; 64];
        loop {
            match input.read(&mut buffer) {
                Ok(0) | Err(_) => process::exit(1),
                Ok(_) => {}
            }
        }
    })?;
    Ok(())
}
