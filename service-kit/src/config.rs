//! Checks a configuration whole: every problem is named with its flag and its environment variable.

use std::fmt::Display;
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

use crate::db;

/// Everything that is wrong with a configuration, one line for each problem.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is refused: {}", problems.join("; "))]
pub struct Error {
    problems: Vec<String>,
}

impl Error {
    /// The problems, each of which names its flag and its environment variable.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

/// Gathers the problems of a configuration, so that one run shows them all.
#[derive(Debug, Default)]
pub struct Check {
    problems: Vec<String>,
}

impl Check {
    /// Nothing is wrong yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a problem with `flag` (such as `--listen`), which `variable` (such as `ORDER_LISTEN`) sets as well.
    pub fn problem(&mut self, flag: &str, variable: &str, problem: impl Display) {
        self.problems.push(format!("{flag} ({variable}): {problem}"));
    }

    /// `value` has to be a plain-text HTTP endpoint: `http://host:port`.
    pub fn http_url(&mut self, flag: &str, variable: &str, value: &str) {
        self.url(flag, variable, value, &["http"]);
    }

    /// `value` has to be an HTTP endpoint, in plain text or with TLS: `http://host:port` or `https://host`.
    pub fn endpoint(&mut self, flag: &str, variable: &str, value: &str) {
        self.url(flag, variable, value, &["http", "https"]);
    }

    fn url(&mut self, flag: &str, variable: &str, value: &str, schemes: &[&str]) {
        let uri = value.parse::<tonic::transport::Uri>();
        let is_right = |uri: tonic::transport::Uri| {
            uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme))
                && uri.host().is_some_and(|h| !h.is_empty())
        };
        if !uri.is_ok_and(is_right) {
            self.problem(flag, variable, format_args!("`{value}` is not an endpoint such as http://127.0.0.1:8085"));
        }
    }

    /// `value` has to be a database that this build can open: `sqlite://path/to/file`, or `postgres://user@host/database`.
    pub fn database_url(&mut self, flag: &str, variable: &str, value: &str) {
        let told = db::redacted(value);
        if let Some(place) = value.strip_prefix("postgres://").or_else(|| value.strip_prefix("postgresql://")) {
            let (place, settings) = place.split_once('?').unwrap_or((place, ""));
            let names_database = place.rsplit_once('/').is_some_and(|(_, name)| !name.is_empty());
            if let Err(error) = PgConnectOptions::from_str(value) {
                self.problem(flag, variable, format_args!("`{told}` is not a database's URL: {error}"));
            } else if !names_database && !settings.split('&').any(|setting| setting.starts_with("dbname=")) {
                self.problem(
                    flag,
                    variable,
                    format_args!("`{told}` names no database, as postgres://user@host/orders does"),
                );
            }
            return;
        }
        if !is_file(value) {
            let example = "sqlite://data/order.db or postgres://user@host/orders";
            self.problem(flag, variable, format_args!("`{told}` is not a database such as {example}"));
        }
    }

    /// `value` has to be a database file: `sqlite://path/to/file`.
    pub fn database_file(&mut self, flag: &str, variable: &str, value: &str) {
        if !is_file(value) {
            let told = db::redacted(value);
            self.problem(
                flag,
                variable,
                format_args!("`{told}` is not a database file such as sqlite://data/order.db"),
            );
        }
    }

    /// `value` has to lie between `least` and `most`, both included.
    pub fn range<T: PartialOrd + Display>(&mut self, flag: &str, variable: &str, value: T, least: T, most: T) {
        if value < least || value > most {
            self.problem(flag, variable, format_args!("{value} is not between {least} and {most}"));
        }
    }

    /// The verdict over everything that was checked.
    pub fn finish(self) -> Result<(), Error> {
        if self.problems.is_empty() { Ok(()) } else { Err(Error { problems: self.problems }) }
    }
}

/// Whether the URL is that of a file.
fn is_file(url: &str) -> bool {
    let path = url.strip_prefix("sqlite://").unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    !path.is_empty() && !path.contains(":memory:")
}

/// A clap value parser whose message names the environment variable as well, which clap leaves out:
/// `#[arg(long, env = "ORDER_LISTEN", value_parser = config::named::<SocketAddr>("ORDER_LISTEN"))]`.
pub fn named<T>(variable: &'static str) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr,
    T::Err: Display,
{
    move |text| {
        text.parse::<T>().map_err(|error| format!("{error} (the environment variable {variable} sets it as well)"))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn an_endpoint_may_have_tls_where_that_is_spoken() {
        let problems = |value| {
            let mut check = Check::new();
            check.endpoint("--broker", "BROKER_URL", value);
            check.finish().map_err(|error| error.problems().len())
        };
        for right in ["http://127.0.0.1:8085", "https://pubsub.googleapis.com"] {
            assert_eq!(problems(right), Ok(()), "{right}");
        }
        for wrong in ["pubsub.googleapis.com", "https://", "ftp://host", ""] {
            assert_eq!(problems(wrong), Err(1), "{wrong}");
        }
    }

    #[test]
    fn every_problem_is_told_with_flag_and_variable() {
        let mut check = Check::new();
        check.http_url("--broker", "BROKER_URL", "https://127.0.0.1:8085");
        check.http_url("--broker", "BROKER_URL", "127.0.0.1:8085");
        check.database_url("--database-url", "ORDER_DATABASE_URL", "sqlite://");
        check.database_url("--database-url", "ORDER_DATABASE_URL", "postgres://here");
        check.database_url("--database-url", "ORDER_DATABASE_URL", "sqlite://:memory:");
        check.database_url("--database-url", "ORDER_DATABASE_URL", "postgres://ada:secret@here:port/orders");
        check.database_url("--database-url", "ORDER_DATABASE_URL", "ada:secret@here/orders");
        check.database_file("--database-url", "ACQUIRER_DATABASE_URL", "postgres://here/charges");
        check.range("--grace-ms", "SHUTDOWN_GRACE_MS", 0, 1, 10);
        let error = check.finish().unwrap_err();
        assert_eq!(error.problems().len(), 9, "{error}");
        assert!(error.problems()[0].starts_with("--broker (BROKER_URL): "), "{error}");
        assert!(error.problems()[8].contains("0 is not between 1 and 10"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn a_right_configuration_passes() {
        let mut check = Check::new();
        check.http_url("--broker", "BROKER_URL", "http://broker:8085");
        check.database_url("--database-url", "ORDER_DATABASE_URL", "sqlite://data/order.db?cache=private");
        check.database_file("--database-url", "ACQUIRER_DATABASE_URL", "sqlite://data/order.db?cache=private");
        check.database_url(
            "--database-url",
            "ORDER_DATABASE_URL",
            "postgres://ada:secret@here:5432/orders?sslmode=require",
        );
        check.database_url("--database-url", "ORDER_DATABASE_URL", "postgresql:///orders?host=/run/postgresql");
        check.range("--grace-ms", "SHUTDOWN_GRACE_MS", 1, 1, 10);
        check.range("--grace-ms", "SHUTDOWN_GRACE_MS", 10, 1, 10);
        assert_eq!(check.finish(), Ok(()));
    }

    #[test]
    fn a_value_that_does_not_parse_names_the_variable() {
        let parse = named::<SocketAddr>("ORDER_LISTEN");
        assert!(parse("nowhere").unwrap_err().contains("ORDER_LISTEN"));
        assert_eq!(parse("127.0.0.1:0").unwrap().port(), 0);
    }
}
