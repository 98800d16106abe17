//! What can be set.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use arpanet_core::addr::UNDERLAY_PORT;
use serde::{Deserialize, Serialize};

use crate::KdfParams;

/// Where this node admits others, and how long it waits for a seed.
///
/// ```
/// use arpanet_join::JoinConfig;
/// let config = JoinConfig::default();
/// assert_eq!(config.listen.port(), 51820);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct JoinConfig {
    /// The TCP address of the underlay on which this node admits others. Default `0.0.0.0:51820`.
    pub listen: SocketAddr,
    /// The UDP port of this node's tunnel, which the seed tells the others together with the address it sees. Default:
    /// the port of `listen`.
    pub udp_port: Option<u16>,
    /// How long a whole join may take, connecting included. Default 9 s.
    pub timeout: Duration,
    /// How long to wait for the connection alone. Default 4 s.
    pub connect_timeout: Duration,
    /// How long a founder listens first whether a living cluster takes this host for a member, and then refuses. While the
    /// password is hashed it costs nothing. Members ask for a lost one about twice a second. Default 0: it doesn't listen.
    pub listen_before_founding: Duration,
    /// The cost of guessing a password, which a founder decides for its cluster.
    pub kdf: KdfParams,
}

impl Default for JoinConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, UNDERLAY_PORT)),
            udp_port: None,
            timeout: Duration::from_secs(9),
            connect_timeout: Duration::from_secs(4),
            listen_before_founding: Duration::ZERO,
            kdf: KdfParams::default(),
        }
    }
}

impl JoinConfig {
    /// Admitting others on this TCP address.
    #[must_use]
    pub fn listen(mut self, listen: SocketAddr) -> Self {
        self.listen = listen;
        self
    }

    /// With the tunnel on this UDP port.
    #[must_use]
    pub fn udp_port(mut self, port: u16) -> Self {
        self.udp_port = Some(port);
        self
    }

    /// Waiting this long for a whole join, and at most this long for the connection.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self.connect_timeout = self.connect_timeout.min(timeout);
        self
    }

    /// Founding no cluster before having listened this long whether one takes this host for a member.
    #[must_use]
    pub fn listen_before_founding(mut self, limit: Duration) -> Self {
        self.listen_before_founding = limit;
        self
    }

    /// Founding clusters with this cost of a guess.
    #[must_use]
    pub fn kdf(mut self, kdf: KdfParams) -> Self {
        self.kdf = kdf;
        self
    }
}
