//! Tells customers.

use std::process::ExitCode;

use clap::Parser;
use notification_service::Cli;

/// Tells customers what happened to their orders.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    cli: Cli,
}

#[tokio::main]
async fn main() -> ExitCode {
    Args::parse().cli.run().await
}
