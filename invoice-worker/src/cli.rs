use std::process::ExitCode;

use crate::config::Config;

/// The command line: runs a worker, or asks a running one whether it is well.
#[derive(Clone, Debug, clap::Args)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: Config,
}

#[derive(Clone, Copy, Debug, clap::Subcommand)]
enum Command {
    /// Asks the worker at the address of --listen whether it serves; exits with 0 if so
    Health,
}

impl Cli {
    /// Does what the command line says.
    pub async fn run(self) -> ExitCode {
        match self.command {
            None => crate::service::run(self.config).await,
            Some(Command::Health) => service_kit::health_check(self.config.listen).await,
        }
    }
}
