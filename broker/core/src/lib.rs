//! The delivery state machine: topics, subscriptions, leases. No I/O, no async, no clock.
