//! Renders invoices.

use std::process::ExitCode;

use clap::Parser;
use invoice_worker::Cli;

/// Renders the invoices of paid orders.
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
