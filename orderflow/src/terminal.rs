//! Writing to the terminal, which may be gone: a closed pipe must not end the stack.

use std::io::Write;

/// Writes one line, or several, to the standard output.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
