//! What every service shares: telemetry, configuration, shutdown, health, outbox, inbox, consumer.
