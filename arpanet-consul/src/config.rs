//! What can be set, with its meaning and a sensible range.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arpanet_core::{ErrorKind, Result};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use crate::error::own;

/// The longest time that consul lets a blocking query wait
/// (<https://developer.hashicorp.com/consul/api-docs/features/blocking>).
const LONGEST_WAIT_MS: u32 = 600_000;

/// How fresh a read is, by consul's own names (<https://developer.hashicorp.com/consul/api-docs/features/consistency>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Consistency {
    /// The leader answers by its lease. A leader that has just been cut off may answer for a moment with what was.
    #[default]
    Default,
    /// The leader asks a majority whether it still is one: never stale, one more round trip.
    Consistent,
    /// Any server answers, with or without a leader.
    Stale,
}

/// An ACL token. It is shown nowhere, and wiped when dropped.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Token(SecretString);

impl Token {
    /// From its text, which consul calls the SecretID.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The token itself: never to be logged or shown.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Token {}

/// Into a configuration file, which then has to be kept secret too.
impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

/// Who is believed, and who this node is, where the address is `https`. Files are PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TlsConfig {
    /// The authorities that may have signed consul's certificate. Needed: no others are believed.
    pub ca: Option<PathBuf>,
    /// This node's certificate, where consul wants one (`verify_incoming`). Together with `key`.
    pub certificate: Option<PathBuf>,
    /// The key of the certificate.
    pub key: Option<PathBuf>,
    /// The name in consul's certificate, where it is not that of the address, as in `server.dc1.consul`.
    pub server_name: Option<String>,
}

impl TlsConfig {
    /// Believing these authorities.
    #[must_use]
    pub fn ca(mut self, file: impl AsRef<Path>) -> Self {
        self.ca = Some(file.as_ref().to_owned());
        self
    }

    /// Shown by this certificate, with its key.
    #[must_use]
    pub fn certificate(mut self, file: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.certificate = Some(file.as_ref().to_owned());
        self.key = Some(key.as_ref().to_owned());
        self
    }

    /// With this name in consul's certificate.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }
}

/// Which agent is asked, and how. Durations are in whole milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ConsulConfig {
    /// This node's own agent: `http://IP:PORT`, `https://IP:PORT` or `unix:/PATH`.
    pub address: String,
    /// The agent must be in this datacenter. `None`: whichever it is in.
    pub datacenter: Option<String>,
    /// The ACL token. `None`: consul's anonymous one.
    pub token: Option<Token>,
    /// For `https`.
    pub tls: TlsConfig,
    /// How fresh lookups, services, members and watches are. With `default`, reads are answered as with `stale` while
    /// there is no leader; with `consistent` they fail then.
    pub consistency: Consistency,
    /// Whether consul's own membership (its check `serfHealth`) suspends the instances of a node, and makes a member one that
    /// is down. Off where another backend says who lives: consul may take a minute to take a node back that was cut off.
    pub node_health: bool,
    /// How fresh reads of the key-value store are. `stale` would break its contract and is refused.
    pub kv_consistency: Consistency,
    /// How long an answer may take. More than consul's own `rpc_hold_timeout` (7 s), in which it waits for a new leader.
    pub request_ms: u32,
    /// How long a blocking query waits for a change. At most 10 minutes.
    pub wait_ms: u32,
    /// So many services are watched by a connection each; of those beyond, watches tell a second later, at more cost. Consul
    /// allows 200 connections from one address, unless its `limits.http_max_conns_per_client` says more.
    pub watch_connections: u32,
    /// How long a start, a registration or its end is tried until the catalogue has it.
    pub confirm_ms: u32,
    /// Without a sign of life from this process for so long, consul takes the node's instances out of lookups and DNS.
    /// The sign is given three times as often, to the local agent only: nothing is written to consul's log for it.
    pub heartbeat_ms: u32,
    /// How long what a process before this one had registered stays while it is registered anew.
    pub inherit_ms: u32,
    /// How long a lock can't be had by others after its holder's session ended. Fencing numbers make 0 safe; for holders
    /// that do without them, consul's own default is 15,000.
    pub lock_delay_ms: u32,
    /// Whether a session ends, before its time, when consul finds its node dead.
    pub sessions_follow_node: bool,
}

impl Default for ConsulConfig {
    fn default() -> Self {
        Self {
            address: "http://127.0.0.1:8500".to_owned(),
            datacenter: None,
            token: None,
            tls: TlsConfig::default(),
            consistency: Consistency::Default,
            node_health: true,
            kv_consistency: Consistency::Consistent,
            request_ms: 10_000,
            wait_ms: 60_000,
            watch_connections: 64,
            confirm_ms: 10_000,
            heartbeat_ms: 10_000,
            inherit_ms: 2_000,
            lock_delay_ms: 0,
            sessions_follow_node: true,
        }
    }
}

impl ConsulConfig {
    /// With the agent at this address.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = address.into();
        self
    }

    /// With this ACL token.
    #[must_use]
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// With this TLS.
    #[must_use]
    pub fn tls(mut self, tls: TlsConfig) -> Self {
        self.tls = tls;
        self
    }

    /// In this datacenter only.
    #[must_use]
    pub fn datacenter(mut self, datacenter: impl Into<String>) -> Self {
        self.datacenter = Some(datacenter.into());
        self
    }

    /// With this freshness of the catalogue's reads.
    #[must_use]
    pub const fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    /// With or without consul's own membership having a say.
    #[must_use]
    pub const fn node_health(mut self, node_health: bool) -> Self {
        self.node_health = node_health;
        self
    }

    /// Checks that the settings fit each other.
    ///
    /// # Errors
    /// [`InvalidInput`](arpanet_core::ErrorKind::InvalidInput) names the setting.
    pub fn validate(&self) -> Result<()> {
        let invalid = |message: &str| Err(own(ErrorKind::InvalidInput, message));
        if self.kv_consistency == Consistency::Stale {
            return invalid(
                "kv_consistency can't be stale: reads must see every write that returned",
            );
        }
        if self.request_ms == 0 || self.confirm_ms == 0 {
            return invalid("request_ms and confirm_ms must be above 0");
        }
        if !(1_000..=LONGEST_WAIT_MS).contains(&self.wait_ms) {
            return invalid("wait_ms must be from 1,000 to 600,000");
        }
        if self.heartbeat_ms < 1_000 {
            return invalid("heartbeat_ms must be at least 1,000");
        }
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            return invalid("tls.certificate and tls.key belong together");
        }
        Ok(())
    }
}

/// Milliseconds of a setting as a duration.
pub(crate) const fn ms(setting: u32) -> Duration {
    Duration::from_millis(setting as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_nowhere() {
        let config = ConsulConfig::default().token(Token::new("b1gs33cr3t"));
        assert!(!format!("{config:?}").contains("b1gs33cr3t"));
        assert_eq!(config.token.as_ref().unwrap().expose(), "b1gs33cr3t");
    }

    #[test]
    fn a_file_can_not_say_what_is_unknown_and_says_modes_as_consul_does() {
        let read = serde_json::from_str::<ConsulConfig>;
        let config = read(r#"{"consistency":"stale","token":"t","tls":{"ca":"/ca.pem"}}"#).unwrap();
        assert_eq!(config.consistency, Consistency::Stale);
        assert_eq!(config.tls.ca.as_deref(), Some(Path::new("/ca.pem")));
        assert!(read(r#"{"adress":"http://127.0.0.1:8500"}"#).is_err());
        assert!(read(r#"{"consistency":"eventual"}"#).is_err());
    }

    #[test]
    fn settings_that_do_not_fit_are_named() {
        assert!(ConsulConfig::default().validate().is_ok());
        for (config, named) in [
            (r#"{"kv_consistency":"stale"}"#, "kv_consistency"),
            (r#"{"wait_ms":900000}"#, "wait_ms"),
            (r#"{"heartbeat_ms":10}"#, "heartbeat_ms"),
            (r#"{"tls":{"key":"/key.pem"}}"#, "tls.key"),
        ] {
            let config: ConsulConfig = serde_json::from_str(config).unwrap();
            let error = config.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
