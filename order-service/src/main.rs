//! Takes orders.

use std::process::ExitCode;

use clap::Parser;
use order_service::Cli;

/// Takes orders and knows how far they have come.
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
