//! The runner: starts the suite, kills it, proves that nothing was lost.
