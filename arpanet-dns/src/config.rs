//! What can be set.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The domain, and who is asked about everything outside it.
///
/// ```
/// use arpanet_dns::DnsConfig;
/// let config = DnsConfig::default().upstreams(["192.168.8.1:53".parse().unwrap()]);
/// assert_eq!(config.domain, "consul");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DnsConfig {
    /// The domain of all names here. Default `consul`, so that names stay the same whichever discovery is behind them.
    pub domain: String,
    /// The resolvers that are asked about names outside the domain, the first first. Default: none.
    pub upstreams: Vec<SocketAddr>,
    /// A server that answers for the domain instead of this one, as consul's own. Nodes' names, and reverse names in the planes,
    /// are still answered here. Default: none.
    pub authority: Option<SocketAddr>,
    /// How long one resolver may take before the next is asked. Default 2 s.
    pub timeout: Duration,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            domain: "consul".to_owned(),
            upstreams: Vec::new(),
            authority: None,
            timeout: Duration::from_secs(2),
        }
    }
}

impl DnsConfig {
    /// Names end in this domain.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = domain.into();
        self
    }

    /// These resolvers are asked about everything else.
    #[must_use]
    pub fn upstreams(mut self, upstreams: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.upstreams = upstreams.into_iter().collect();
        self
    }

    /// That server answers for the domain.
    #[must_use]
    pub fn authority(mut self, authority: SocketAddr) -> Self {
        self.authority = Some(authority);
        self
    }

    /// The next resolver is asked after this.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}
