//! Tells customers.
