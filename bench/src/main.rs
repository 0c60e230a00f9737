//! Measures the broker beside its peers on this machine: all sides in turn, several rounds, medians and ratios.

mod aims;
mod args;
mod cases;
mod chart;
mod error;
mod markdown;
mod orders;
mod process;
mod report;
mod run;
mod sides;
mod stats;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Args, Role};
use cases::{CASES, Extent};
use orders::{Rush, SETUPS};
use report::Results;
use sides::SIDES;

/// Rounds of a whole run.
const ROUNDS_DEFAULT: u32 = 3;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match args.role {
        None => bench(&args).await.map_err(|error| error.to_string()),
        Some(Role::Noop { listen, answer }) => sides::serve(listen, answer).await.map_err(|error| error.to_string()),
        Some(Role::Broker { command }) => command.execute(Args::command()).await.map_err(|error| error.to_string()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("orderflow-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(args: &Args) -> error::Outcome {
    if args.list {
        report::list();
        return Ok(());
    }
    let extent = if args.quick { Extent::QUICK } else { Extent::FULL };
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { ROUNDS_DEFAULT });
    let mut results = Results::default();
    for round in 1..=rounds {
        for case in CASES {
            for side in SIDES.into_iter().filter(|side| side.is_for(case) && args.takes(case, *side)) {
                if results.is_hopeless(case, side) || (case.runs_once() && round > 1) {
                    continue;
                }
                eprintln!("round {round} of {rounds}: {case}, {side}");
                results.add(case, side, run::run(side, case, extent).await);
            }
        }
        for setup in SETUPS.into_iter().filter(|setup| args.takes_orders(*setup)) {
            if !results.orders.is_hopeless(setup) {
                eprintln!("round {round} of {rounds}: {}, {setup}", orders::NAME);
                results.orders.add(setup, setup.run(if args.quick { Rush::QUICK } else { Rush::FULL }).await);
            }
        }
    }
    results.print();
    print!("\n{}", markdown::tables(&results));
    results.write(&args.out)
}
