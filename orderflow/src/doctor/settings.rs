//! The environment: every setting is a variable, and a wrong one ends a part before it opens a port.

use std::collections::BTreeSet;

use clap::{Args, FromArgMatches};

use super::Finding;
use crate::{acquirer, up};

/// What the names of our settings begin with.
const PREFIXES: [&str; 7] = ["ORDERFLOW_", "BROKER_", "ACQUIRER_", "ORDER_", "PAYMENT_", "NOTIFICATION_", "INVOICE_"];

/// What the environment says, as far as it can be read.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// What `orderflow up` would run with.
    pub(super) up: Option<up::Config>,
    /// Databases of services that run alone: whose, where, and the newest tables that this program knows.
    pub(super) databases: Vec<(&'static str, String, i64)>,
    /// Where a broker that runs alone has its journal, if that is not a folder.
    pub(super) engine: Option<(broker::EngineAddress, broker::EngineName)>,
}

/// Checks what the environment says as each part would.
pub(super) fn check(command: &clap::Command) -> (Vec<Finding>, Settings) {
    let mut known = BTreeSet::new();
    variables(command, &mut known);
    let set = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.is_empty())));
    let mut findings = odd(set, &known);
    let up = parsed::<up::Config>("orderflow up", |_| Ok(()), &mut findings);
    let broker = parsed::<broker::Config>("broker", |_| Ok(()), &mut findings);
    parsed::<acquirer::Config>("acquirer", |config| config.validate().map_err(|e| e.to_string()), &mut findings);
    let order = parsed::<order_service::Config>(
        "order-service",
        |config| config.validate().map_err(|e| e.to_string()),
        &mut findings,
    );
    let payment = parsed::<payment_service::Config>(
        "payment-service",
        |config| config.validate().map_err(|e| e.to_string()),
        &mut findings,
    );
    let notification = parsed::<notification_service::Config>(
        "notification-service",
        |config| config.validate().map_err(|e| e.to_string()),
        &mut findings,
    );
    parsed::<invoice_worker::Config>(
        "invoice-worker",
        |config| config.validate().map_err(|e| e.to_string()),
        &mut findings,
    );
    if findings.is_empty() {
        findings.push(Finding::ok("settings", "every part can read the environment"));
    }
    let databases = [
        order.map(|config| ("order-service", config.database_url, order_service::SCHEMA_VERSION)),
        payment.map(|config| ("payment-service", config.database_url, payment_service::SCHEMA_VERSION)),
        notification.map(|config| ("notification-service", config.database_url, notification_service::SCHEMA_VERSION)),
    ];
    let engine = broker.and_then(|config| Some((config.engine?, config.engine_name)));
    (findings, Settings { up, databases: databases.into_iter().flatten().collect(), engine })
}

/// The configuration that the environment alone makes, or a finding about what is wrong with it.
fn parsed<C: Args + FromArgMatches>(
    part: &str,
    validate: impl Fn(&C) -> Result<(), String>,
    findings: &mut Vec<Finding>,
) -> Option<C> {
    let command = C::augment_args(clap::Command::new("settings"));
    let parsed = command.try_get_matches_from(["settings"]).and_then(|matches| C::from_arg_matches(&matches));
    let problem = match parsed {
        Ok(config) => match validate(&config) {
            Ok(()) => return Some(config),
            Err(error) => error,
        },
        // The first line says it; what follows is about the command line.
        Err(error) => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    findings.push(Finding::problem("settings", format!("{part}: {problem}"), "correct the variable, or unset it"));
    None
}

/// Every variable that a command or one of its subcommands reads.
fn variables(command: &clap::Command, known: &mut BTreeSet<String>) {
    known.extend(command.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_str()?.to_owned())));
    command.get_subcommands().for_each(|command| variables(command, known));
}

/// Variables that look like settings and are none, and settings that are set to nothing.
fn odd(set: impl Iterator<Item = (String, bool)>, known: &BTreeSet<String>) -> Vec<Finding> {
    let ours = set.filter(|(name, _)| PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
    let finding = |(name, is_empty): (String, bool)| {
        if !known.contains(&name) {
            let says = format!("{name} is set, and no part reads it");
            Some(Finding::warning("settings", says, "`orderflow COMMAND --help` lists the variables"))
        } else if is_empty {
            Some(Finding::warning("settings", format!("{name} is set to nothing"), "give it a value, or unset it"))
        } else {
            None
        }
    };
    ours.filter_map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_nobody_reads_and_empty_ones_are_named() {
        let known = BTreeSet::from(["BROKER_LISTEN".to_owned(), "ORDER_LISTEN".to_owned()]);
        let set = [("BROKER_LISTN", false), ("ORDER_LISTEN", true), ("BROKER_LISTEN", false), ("PATH", true)];
        let findings = odd(set.map(|(name, empty)| (name.to_owned(), empty)).into_iter(), &known);
        let says: Vec<&str> = findings.iter().map(|finding| finding.says.as_str()).collect();
        assert_eq!(says, ["BROKER_LISTN is set, and no part reads it", "ORDER_LISTEN is set to nothing"]);
    }
}
