//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, Subcommand};

use crate::cases::Case;
use crate::orders::{self, Setup};
use crate::sides::{Answer, Side};

/// Measures the broker beside its peers and writes what came out.
#[derive(Parser)]
#[command(name = "orderflow-bench", version, disable_help_subcommand = true, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// Short runs and one round, for a first look
    #[arg(long)]
    pub(crate) quick: bool,
    /// How often all sides take turns [default: 3, or 1 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: Option<u32>,
    /// Only these cases or sides: CASE, CASE/SIDE or /SIDE; may be repeated
    #[arg(long, value_name = "CASE/SIDE")]
    pub(crate) only: Vec<Only>,
    /// Name all cases and sides, and run nothing
    #[arg(long)]
    pub(crate) list: bool,
    /// Folder for bench.json and bench.svg
    #[arg(long, value_name = "DIR", default_value = "bench-results")]
    pub(crate) out: PathBuf,
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
}

/// Servers that this program starts itself as.
#[derive(Subcommand)]
pub(crate) enum Role {
    /// The broker
    #[command(hide = true)]
    Broker {
        #[command(subcommand)]
        command: Box<broker::Command>,
    },
    /// The server that does nothing
    #[command(hide = true)]
    Noop {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long, value_enum)]
        answer: Answer,
    },
}

/// A choice of cases and sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Only {
    case: Option<String>,
    side: Option<String>,
}

impl FromStr for Only {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (case, side) = text.split_once('/').unwrap_or((text, ""));
        let named = |name: &str| (!name.is_empty() && name != "*").then(|| name.to_owned());
        Ok(Self { case: named(case), side: named(side) })
    }
}

impl Only {
    fn takes(&self, case: &str, side: &str) -> bool {
        let is = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
        is(&self.case, case) && is(&self.side, side)
    }
}

impl Args {
    /// Whether a case is to be run with a side.
    pub(crate) fn takes(&self, case: Case, side: Side) -> bool {
        self.takes_named(&case.to_string(), &side.to_string())
    }

    /// Whether orders are to be put through a stack.
    pub(crate) fn takes_orders(&self, setup: Setup) -> bool {
        self.takes_named(orders::NAME, &setup.to_string())
    }

    fn takes_named(&self, case: &str, side: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only.takes(case, side))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::CASES;
    use crate::orders::SETUPS;
    use crate::sides::SIDES;

    fn taken(only: &[&str]) -> Vec<String> {
        let args = ["bench"].into_iter().chain(only.iter().flat_map(|only| ["--only", *only]));
        let args = Args::try_parse_from(args).unwrap();
        let all = CASES.iter().flat_map(|case| SIDES.iter().map(move |side| (*case, *side)));
        all.filter(|(case, side)| args.takes(*case, *side)).map(|(case, side)| format!("{case}/{side}")).collect()
    }

    #[test]
    fn a_choice_names_a_case_a_side_or_both() {
        assert_eq!(taken(&["publish-1/noop"]), ["publish-1/noop"]);
        assert_eq!(taken(&["deliver/noop", "publish-10/raw"]), ["publish-10/raw", "deliver/noop"]);
        assert_eq!(taken(&["deliver"]).len(), SIDES.len());
        assert_eq!(taken(&["/raw"]).len(), CASES.len());
        assert_eq!(taken(&[]).len(), SIDES.len() * CASES.len());
        assert!(taken(&["publish"]).is_empty(), "names are whole");
        assert!(taken(&["orders"]).is_empty(), "they are no case of the sides");
    }

    #[test]
    fn orders_are_a_case_of_their_own() {
        let taken = |only: &str| {
            let args = Args::try_parse_from(["bench", "--only", only]).unwrap();
            SETUPS.into_iter().filter(|setup| args.takes_orders(*setup)).count()
        };
        let counts = ["orders", "orders/scaled-2", "/scaled-1", "deliver", "/broker"].map(taken);
        assert_eq!(counts, [SETUPS.len(), 1, 1, 0, 0]);
    }
}
