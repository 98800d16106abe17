//! What can be set of a router, whatever carries its packets.

use std::net::IpAddr;
use std::path::PathBuf;

use arpanet_core::AppNet;
use arpanet_core::addr::UNDERLAY_PORT;
use serde::{Deserialize, Serialize};

/// Where the namespace is pinned unless told. Under `/run`: it goes with the kernel.
const PIN: &str = "/run/arpanet2/router";

/// What the router of one host is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RouterConfig {
    /// The file in which all changes to the host stand, to be undone.
    pub ledger: PathBuf,
    /// Where the namespace between host, overlay and containers is pinned. `/run/arpanet2/router` unless told.
    #[serde(default = "pin")]
    pub pin: PathBuf,
    /// The port on the underlay, of joins (TCP) and of what goes beside them (UDP): packets from it never take the overlay.
    /// 51820 unless told.
    #[serde(default = "port")]
    pub port: u16,
    /// Another UDP port whose packets never take the overlay: of a tunnel that can't share the first.
    #[serde(default)]
    pub tunnel_port: Option<u16>,
    /// Application networks that the host must not have on a link of its own: preflight looks for them.
    #[serde(default)]
    pub networks: Vec<AppNet>,
    /// The DNS servers that the host asks: preflight looks whether the overlay would hide them.
    #[serde(default)]
    pub resolvers: Vec<IpAddr>,
    /// Whether all users of the host, not only root, may open the docker APIs of the cluster.
    #[serde(default)]
    pub open_docker_plane: bool,
}

fn pin() -> PathBuf {
    PathBuf::from(PIN)
}

const fn port() -> u16 {
    UNDERLAY_PORT
}

impl RouterConfig {
    /// The router whose changes to the host stand in this file.
    #[must_use]
    pub fn new(ledger: impl Into<PathBuf>) -> Self {
        Self {
            ledger: ledger.into(),
            pin: pin(),
            port: port(),
            tunnel_port: None,
            networks: Vec::new(),
            resolvers: Vec::new(),
            open_docker_plane: false,
        }
    }

    /// With the namespace pinned elsewhere.
    #[must_use]
    pub fn pin(mut self, path: impl Into<PathBuf>) -> Self {
        self.pin = path.into();
        self
    }

    /// On another port of the underlay.
    #[must_use]
    pub const fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// With these application networks declared.
    #[must_use]
    pub fn networks(mut self, networks: Vec<AppNet>) -> Self {
        self.networks = networks;
        self
    }

    /// On a host that asks these DNS servers.
    #[must_use]
    pub fn resolvers(mut self, resolvers: Vec<IpAddr>) -> Self {
        self.resolvers = resolvers;
        self
    }

    /// With the docker APIs of the cluster open to all users of the host.
    #[must_use]
    pub const fn open_docker_plane(mut self, open: bool) -> Self {
        self.open_docker_plane = open;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_the_usual_and_what_is_unknown_is_refused() {
        let read = |text: &str| serde_json::from_str::<RouterConfig>(text);
        assert_eq!(
            read(r#"{"ledger": "/l"}"#).unwrap(),
            RouterConfig::new("/l")
        );
        assert!(read(r#"{"ledger": "/l", "prot": 1}"#).is_err());
    }
}
