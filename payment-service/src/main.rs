//! Charges orders.

use std::process::ExitCode;

use clap::Parser;
use payment_service::Cli;

/// Charges orders, once each.
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
