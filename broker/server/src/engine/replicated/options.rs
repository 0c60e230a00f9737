//! What a front is told at its start.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use axum::http::uri::Authority;
use percent_encoding::percent_decode_str;

use crate::engine::embedded;

/// The name of an engine, unless the configuration says otherwise.
pub(crate) const NAME_DEFAULT: &str = "main";
/// The longest name of an engine, in characters.
const NAME_CHARS_MAX: usize = 32;
/// The most copies that JetStream keeps of a stream.
const REPLICAS_MAX: usize = 5;
/// What an address of a NATS server begins with.
const SCHEMES: [&str; 2] = ["nats://", "tls://"];

/// Servers of one NATS cluster, as `nats://host1:4222,host2:4222`.
#[derive(Clone, PartialEq, Eq)]
pub struct EngineAddress(Vec<async_nats::ServerAddr>);

/// Names a journal in its cluster; brokers with the same name share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineName(String);

/// Where other brokers reach this one, as `broker-1:8085`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvertiseAddress(String);

/// How many servers keep the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas(pub(super) usize);

/// A journal in a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) servers: EngineAddress,
    pub(crate) name: EngineName,
    /// None leaves it to the cluster: 3, or 1 when a server stands alone.
    pub(crate) replicas: Option<Replicas>,
}

/// What a front is told at its start.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) target: Target,
    pub(crate) advertise: AdvertiseAddress,
    /// How the engine runs; the directory is where the copy is kept.
    pub(crate) engine: embedded::Options,
}

/// What a cluster asks for before it talks.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    UserAndPassword(String, String),
    Token(String),
}

impl EngineAddress {
    pub(super) fn servers(&self) -> &[async_nats::ServerAddr] {
        &self.0
    }

    /// Whether all servers are on this machine. Then the brokers on them may all be, too.
    pub(crate) fn is_local(&self) -> bool {
        let is_here = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback());
        self.0.iter().all(|server| is_here(server.host().trim_matches(['[', ']'])))
    }

    /// Those of the first server that has any; no other has others.
    pub(super) fn credentials(&self) -> Option<Credentials> {
        self.0.iter().find_map(credentials)
    }
}

/// `user:password@`, or `token@`, as NATS writes it.
fn credentials(server: &async_nats::ServerAddr) -> Option<Credentials> {
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let user = plain(server.username()?);
    Some(match server.password() {
        Some(password) => Credentials::UserAndPassword(user, plain(password)),
        None => Credentials::Token(user),
    })
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for EngineName {
    fn default() -> Self {
        Self(NAME_DEFAULT.to_owned())
    }
}

impl EngineName {
    /// The stream that holds the journal.
    pub(super) fn stream(&self) -> String {
        format!("orderflow-{}", self.0)
    }

    /// The bucket that says who owns it.
    pub(super) fn bucket(&self) -> String {
        format!("orderflow-{}-owner", self.0)
    }

    /// What the subjects of the stream begin with.
    pub(super) fn subjects(&self) -> String {
        format!("orderflow.{}.", self.0)
    }
}

impl Options {
    /// The directory of the copy. It has its own place, since it is emptied at the start.
    pub(super) fn dir(&self) -> PathBuf {
        self.engine.dir.join(format!("copy-{}", self.target.name.0))
    }
}

impl FromStr for EngineAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let scheme = SCHEMES.iter().find(|scheme| text.starts_with(**scheme));
        let scheme = scheme.ok_or_else(|| "an engine is named like `nats://host1:4222,host2:4222`".to_owned())?;
        let server = |host: &str| {
            let host = host.trim();
            let url = if host.contains("://") { host.to_owned() } else { format!("{scheme}{host}") };
            match url.parse::<async_nats::ServerAddr>() {
                Ok(server) if server.host().is_empty() => Err("a NATS server has a host".to_owned()),
                Ok(server) => Ok(server),
                Err(error) => Err(format!("`{host}` is no NATS server: {error}")),
            }
        };
        let address = Self(text.split(',').map(server).collect::<Result<_, _>>()?);
        let known = address.credentials();
        if address.0.iter().filter_map(credentials).any(|other| Some(other) != known) {
            return Err("the NATS servers have different users or passwords; a cluster has one for all".to_owned());
        }
        Ok(address)
    }
}

// An address may carry a password.
impl fmt::Debug for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|server| format!("{}:{}", server.host(), server.port()))).finish()
    }
}

impl fmt::Display for AdvertiseAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<SocketAddr> for AdvertiseAddress {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string())
    }
}

impl FromStr for AdvertiseAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_good = |authority: &Authority| {
            !authority.host().is_empty() && authority.port_u16().is_some_and(|port| port > 0) && !text.contains('@')
        };
        match text.parse().ok().filter(is_good) {
            Some(_) => Ok(Self(text.to_owned())),
            None => Err("other brokers need a host and a port, as `broker-1:8085`".to_owned()),
        }
    }
}

impl FromStr for EngineName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.is_empty() || text.len() > NAME_CHARS_MAX || !text.chars().all(is_good) {
            return Err(format!("a name has 1 to {NAME_CHARS_MAX} of a to z, 0 to 9 and `-`"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Replicas {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(replicas) if (1..=REPLICAS_MAX).contains(&replicas) && replicas % 2 == 1 => Ok(Self(replicas)),
            _ => Err("it takes 1, 3 or 5 replicas: an even number survives no more".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_named_by_its_servers_and_shows_no_password() {
        let address: EngineAddress = "nats://user:secret@a:4222,b:4223".parse().unwrap();
        assert_eq!(format!("{address:?}"), r#"["a:4222", "b:4223"]"#);
        for bad in ["", "a:4222", "http://a", "nats://", "nats://a:x"] {
            assert!(bad.parse::<EngineAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn one_user_and_password_are_for_all_servers_of_a_cluster() {
        let of = |text: &str| text.parse::<EngineAddress>().map(|address| address.credentials());
        let ours = || Ok(Some(Credentials::UserAndPassword("u".to_owned(), "p@s:s".to_owned())));
        assert!(of("nats://u:p%40s%3As@a,b") == ours());
        assert!(of("nats://a,u:p%40s%3As@b,u:p%40s%3As@c") == ours());
        assert!(of("tls://token@a") == Ok(Some(Credentials::Token("token".to_owned()))));
        assert!(of("nats://a,b") == Ok(None));
        assert!(of("nats://u:p@a,u:q@b").is_err_and(|why| !why.contains("u:p")));
    }

    #[test]
    fn an_address_for_other_brokers_has_a_host_and_a_port() {
        for good in ["broker-1:8085", "10.0.0.1:1", "[::1]:8085"] {
            assert_eq!(good.parse::<AdvertiseAddress>().unwrap().to_string(), good);
        }
        for bad in
            ["", "broker-1", ":8085", "broker-1:", "broker-1:0", "broker-1:70000", "http://a:1", "me@a:1", "a b:1"]
        {
            assert!(bad.parse::<AdvertiseAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn servers_are_local_when_all_of_them_are() {
        let servers = [
            ("nats://127.0.0.1:4222,localhost:4223,[::1]:4224", true),
            ("nats://127.0.0.1:4222,n2", false),
            ("nats://10.0.0.1", false),
        ];
        for (servers, is_local) in servers {
            assert_eq!(servers.parse::<EngineAddress>().unwrap().is_local(), is_local, "{servers}");
        }
    }

    #[test]
    fn names_and_replicas_are_refused_beyond_their_limits() {
        assert!("a".repeat(NAME_CHARS_MAX).parse::<EngineName>().is_ok());
        for bad in ["", "a.b", "a b", "A", "*", &"a".repeat(NAME_CHARS_MAX + 1)] {
            assert!(bad.parse::<EngineName>().is_err(), "{bad}");
        }
        for (text, good) in [("0", false), ("1", true), ("2", false), ("3", true), ("5", true), ("7", false)] {
            assert_eq!(text.parse::<Replicas>().is_ok(), good, "{text}");
        }
    }
}
