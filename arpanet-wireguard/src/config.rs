//! What the overlay of one host is made of.

use std::net::IpAddr;
use std::path::PathBuf;

use arpanet_core::AppNet;
use arpanet_core::addr::UNDERLAY_PORT;

/// Where the router's namespace is pinned unless told. Under `/run`: it goes with the kernel.
const PIN: &str = "/run/arpanet2/router";

/// What a [`WireGuardOverlay`](crate::WireGuardOverlay) is made of.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WireGuardConfig {
    /// The file in which all changes to the host stand, to be undone.
    pub ledger: PathBuf,
    /// Where the router's namespace is pinned. `/run/arpanet2/router` unless told.
    pub pin: PathBuf,
    /// The UDP port on the underlay. 51820 unless told.
    pub port: u16,
    /// The MTU of the underlay, in bytes. That of the link with the default route unless told.
    pub underlay_mtu: Option<u16>,
    /// Application networks that the host must not have on a link of its own: preflight looks for them.
    pub networks: Vec<AppNet>,
    /// The DNS servers that the host asks: preflight looks whether the overlay would hide them.
    pub resolvers: Vec<IpAddr>,
    /// Whether all users of the host, not only root, may open the docker APIs of the cluster.
    pub open_docker_plane: bool,
}

impl WireGuardConfig {
    /// The overlay whose changes to the host stand in this file.
    #[must_use]
    pub fn new(ledger: impl Into<PathBuf>) -> Self {
        Self {
            ledger: ledger.into(),
            pin: PathBuf::from(PIN),
            port: UNDERLAY_PORT,
            underlay_mtu: None,
            networks: Vec::new(),
            resolvers: Vec::new(),
            open_docker_plane: false,
        }
    }

    /// With the router's namespace pinned elsewhere.
    #[must_use]
    pub fn pin(mut self, path: impl Into<PathBuf>) -> Self {
        self.pin = path.into();
        self
    }

    /// On another UDP port.
    #[must_use]
    pub const fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Over an underlay with this MTU, in bytes.
    #[must_use]
    pub const fn underlay_mtu(mut self, mtu: u16) -> Self {
        self.underlay_mtu = Some(mtu);
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
