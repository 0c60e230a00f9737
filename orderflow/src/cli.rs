//! The command line.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use orderflow_proto::orderflow::order::v1::order_service_client::OrderServiceClient;

use crate::acquirer::{self, Acquirer};
use crate::part::{Instance, Part};
use crate::terminal::say;
use crate::up::{DATA_DIR_DEFAULT, Reply, Request};
use crate::whereabouts::{Told, Whereabouts};
use crate::{audit, chaos, compare, dashboard, dead_letters, doctor, health, load, parent, place, queues, up};

/// How long `health` waits for the answer.
const HEALTH_WITHIN: Duration = Duration::from_secs(3);

/// An order flow that keeps its promises while its parts die. Without a command: `up`.
#[derive(Debug, Parser)]
#[command(name = "orderflow", version, disable_help_subcommand = true)]
struct Cli {
    /// End when the standard input closes: set by the runner on its children
    #[arg(long, global = true, hide = true)]
    exit_with_parent: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run the whole stack until ctrl-c
    Up(up::Config),
    /// Show the parts of the running stack
    Status(Stack),
    /// End a part of the running stack at once (SIGKILL)
    Kill(StackPart),
    /// Let a part of the running stack finish its work and end (SIGTERM)
    Stop(StackPart),
    /// Start a part of the running stack again
    Start(StackPart),
    /// Place orders
    Place {
        /// order-service [default: as the running stack says, else its usual address]
        #[arg(long, env = "ORDER_URL")]
        order_service: Option<String>,
        /// What to order, and how often
        #[command(flatten)]
        config: place::Config,
        #[command(flatten)]
        stack: Stack,
    },
    /// Place orders as many customers do who do not wait for each other, and check the books; exits with 1 when they don't
    /// balance
    Load {
        /// How many, how fast, of what kinds
        #[command(flatten)]
        config: load::Config,
        /// Whom to ask; by default as the running stack says, else at the usual addresses
        #[command(flatten)]
        told: Told,
        /// How the figures look
        #[arg(long, value_enum, default_value_t)]
        output: Output,
        #[command(flatten)]
        stack: Stack,
    },
    /// Show the same outage of payment with and without a queue, in two stacks of its own; exits with 1 when books don't
    /// balance
    Compare {
        /// Which outage, and which load
        #[command(flatten)]
        config: compare::Config,
        /// How the figures look
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show how much waits in each queue
    Queues {
        /// The broker [default: as the running stack says, else its usual address]
        #[arg(long, env = "BROKER_URL")]
        broker: Option<String>,
        #[command(flatten)]
        stack: Stack,
    },
    /// Look at messages that nobody could handle, mend them, send them back
    DeadLetters {
        /// The broker [default: as the running stack says, else its usual address]
        #[arg(long, env = "BROKER_URL", global = true)]
        broker: Option<String>,
        /// What to do
        #[command(subcommand)]
        command: dead_letters::Command,
        #[command(flatten)]
        stack: Stack,
    },
    /// Check that all books balance; exits with 1 when they don't
    Audit {
        /// Whom to ask; by default as the running stack says, else at the usual addresses
        #[command(flatten)]
        told: Told,
        /// How long to wait for orders that are still on their way
        #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
        wait: Duration,
        /// How the verdict looks
        #[arg(long, value_enum, default_value_t)]
        output: Output,
        #[command(flatten)]
        stack: Stack,
    },
    /// Serve the page that shows the flow, for a stack that is not run by `orderflow up`
    Dashboard {
        /// What it shows, and where
        #[command(flatten)]
        config: dashboard::Config,
        #[command(flatten)]
        stack: Stack,
    },
    /// Say what is wrong with the folder, its stack and this machine, and what to do; exits with 1 on a problem
    Doctor {
        /// How the findings look
        #[arg(long, value_enum, default_value_t)]
        output: Output,
        #[command(flatten)]
        stack: Stack,
    },
    /// Kill, freeze and cut everything in a stack of its own, under load, and prove that nothing is lost; exits with 1
    /// when something is
    Chaos {
        /// What to run
        #[command(flatten)]
        config: chaos::Config,
        /// How the verdict looks
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Exit with 0 if a part, or the page, is ready to work
    Health {
        /// Which part, or `dashboard`
        part: health::Subject,
        /// Where it listens [default: as the running stack says, else its usual address]
        #[arg(long)]
        address: Option<SocketAddr>,
        #[command(flatten)]
        stack: Stack,
    },
    /// Run the broker alone, or ask a running one
    Broker {
        /// What to do
        #[command(subcommand)]
        command: broker::Command,
    },
    /// Run the simulated card acquirer alone
    Acquirer(acquirer::Config),
    /// Run order-service alone
    OrderService(order_service::Cli),
    /// Run payment-service alone
    PaymentService(payment_service::Cli),
    /// Run notification-service alone
    NotificationService(notification_service::Cli),
    /// Run invoice-worker alone
    InvoiceWorker(invoice_worker::Cli),
}

/// How an answer looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON document, for scripts.
    Json,
}

impl Output {
    fn say(self, text: impl FnOnce() -> String, json: impl FnOnce() -> serde_json::Value) {
        match self {
            Self::Text => say(&text()),
            Self::Json => say(&format!("{:#}", json())),
        }
    }
}

/// Names a running stack.
#[derive(Debug, clap::Args)]
struct Stack {
    /// The folder of the running stack
    #[arg(long, env = "ORDERFLOW_DATA_DIR", default_value = DATA_DIR_DEFAULT, global = true)]
    data_dir: PathBuf,
}

impl Stack {
    async fn whereabouts(&self) -> Whereabouts {
        Whereabouts::of(&self.data_dir).await
    }
}

/// Names a part of a running stack.
#[derive(Debug, clap::Args)]
struct StackPart {
    /// Which part, such as payment-service or payment-service-2
    part: Instance,
    #[command(flatten)]
    stack: Stack,
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.exit_with_parent
        && let Err(error) = parent::exit_with_parent()
    {
        return failed(&error);
    }
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(execute(cli.command.unwrap_or_else(default_command))),
        Err(error) => failed(&error),
    }
}

/// What runs without a command: the stack, as the environment says.
fn default_command() -> Command {
    Cli::parse_from(["orderflow", "up"]).command.expect("`up` is a command")
}

async fn execute(command: Command) -> ExitCode {
    match command {
        Command::Up(config) => exit(up::run(config).await),
        Command::Status(stack) => ask(stack, Request::Status).await,
        Command::Kill(StackPart { part, stack }) => ask(stack, Request::Kill { part }).await,
        Command::Stop(StackPart { part, stack }) => ask(stack, Request::Stop { part }).await,
        Command::Start(StackPart { part, stack }) => ask(stack, Request::Start { part }).await,
        Command::Place { order_service, config, stack } => {
            let url = stack.whereabouts().await.url(Part::OrderService, order_service);
            exit(place_orders(&url, &config).await)
        }
        Command::Load { config, told, output, stack } => {
            put_load(&stack.whereabouts().await.addresses(told), &config, output).await
        }
        Command::Compare { config, output } => match compare::run(&config).await {
            Ok((comparison, written)) => {
                output.say(|| comparison.table(), || comparison.json());
                written.map_or_else(|error| failed(&error), |()| balanced(comparison.is_balanced()))
            }
            Err(error) => failed(&error),
        },
        Command::Doctor { output, stack } => {
            let diagnosis = doctor::examine(&stack.data_dir, &Cli::command()).await;
            output.say(|| diagnosis.table(), || diagnosis.json());
            balanced(diagnosis.is_healthy())
        }
        Command::Queues { broker, stack } => {
            let url = stack.whereabouts().await.url(Part::Broker, broker);
            exit(queues::ask(&url).await.map(|queues| say(&queues::table(&queues))))
        }
        Command::DeadLetters { broker, command, stack } => {
            let url = stack.whereabouts().await.url(Part::Broker, broker);
            exit(dead_letters::execute(command, &url).await)
        }
        Command::Audit { told, wait, output, stack } => {
            check_books(&stack.whereabouts().await.addresses(told), wait, output).await
        }
        Command::Dashboard { config, stack } => {
            let whereabouts = stack.whereabouts().await;
            let (process, data_dir) = (config.process.clone(), stack.data_dir);
            let run = async |token| dashboard::run(config, whereabouts, &data_dir, token).await;
            service_kit::run("dashboard", &process, run).await
        }
        Command::Chaos { config, output } => exit(chaos::execute(config, output == Output::Json).await),
        Command::Health { part, address, stack } => {
            let address = match (address, part) {
                (Some(address), _) => address,
                (None, health::Subject::Part(part)) => stack.whereabouts().await.address(part),
                (None, health::Subject::Dashboard) => stack.whereabouts().await.page(),
            };
            exit(part.check(address, HEALTH_WITHIN).await)
        }
        Command::Broker { command } => exit(command.execute(Cli::command()).await),
        Command::Acquirer(config) => {
            let process = config.process.clone();
            service_kit::run("acquirer", &process, async |token| Acquirer::open(config).await?.run(token).await).await
        }
        Command::OrderService(service) => service.run().await,
        Command::PaymentService(service) => service.run().await,
        Command::NotificationService(service) => service.run().await,
        Command::InvoiceWorker(worker) => worker.run().await,
    }
}

async fn ask(stack: Stack, request: Request) -> ExitCode {
    match up::ask(&stack.data_dir, request).await {
        Ok(Reply::Done { message }) => {
            say(&message);
            ExitCode::SUCCESS
        }
        Ok(Reply::Refused { message }) => failed(&message),
        Ok(Reply::Status { parts, page: _, doors }) => {
            say(&format!("{:<21} {:<22}{:>8}  STATE", "PART", "ADDRESS", "PROCESS"));
            for (part, door) in &doors {
                say(&format!("{:<21} {:<22}{:>8}  the one address of all", part, door, "-"));
            }
            for status in &parts {
                let pid = status.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
                say(&format!("{:<21} {:<22}{pid:>8}  {}", status.part, status.address, status.state));
            }
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

async fn place_orders(url: &str, config: &place::Config) -> Result<(), audit::Error> {
    let client = OrderServiceClient::new(audit::channel(url)?);
    let mut accepted = 0;
    let placed = place::run(client, config, |order| {
        accepted += 1;
        let total = order.total.clone().unwrap_or_default();
        let status = order.status().as_str_name().trim_start_matches("ORDER_STATUS_").to_owned();
        say(&format!("{}  {:>9} {}  {status}", order.order_id, total.amount_minor, total.currency_code));
    })
    .await;
    say(&format!("{accepted} of {} orders accepted", config.orders));
    placed.map_err(audit::Error::grpc("order-service", url))
}

async fn put_load(addresses: &audit::Addresses, config: &load::Config, output: Output) -> ExitCode {
    match load::execute(config, addresses).await {
        Ok(summary) => {
            output.say(|| summary.table(), || summary.json());
            balanced(summary.is_balanced())
        }
        Err(error) => failed(&error),
    }
}

async fn check_books(addresses: &audit::Addresses, wait: Duration, output: Output) -> ExitCode {
    match audit::run(addresses, wait).await {
        Ok(verdict) => {
            output.say(|| verdict.table(), || verdict.json());
            balanced(verdict.is_balanced())
        }
        Err(error) => failed(&error),
    }
}

fn balanced(balanced: bool) -> ExitCode {
    if balanced { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn exit<E: Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn Display) -> ExitCode {
    eprintln!("orderflow: {error}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_has_no_contradiction() {
        Cli::command().debug_assert();
    }

    #[test]
    fn up_is_what_runs_without_a_command() {
        assert!(matches!(default_command(), Command::Up(_)));
    }
}
