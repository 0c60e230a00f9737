//! Charges orders.
