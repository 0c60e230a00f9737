//! The `broker` binary.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

/// A durable message broker that speaks the Google Cloud Pub/Sub v1 gRPC API.
#[derive(Parser)]
#[command(name = "broker", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: broker::Command,
}

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().command.execute(Cli::command()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("broker: {error}");
            ExitCode::FAILURE
        }
    }
}
