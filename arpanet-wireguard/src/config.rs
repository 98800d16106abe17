//! What the overlay of one host is made of.

use arpanet_router::RouterConfig;
use serde::{Deserialize, Serialize};

/// The UDP port of the kernel's WireGuard on a node whose overlay has this one, unless it is told another: one above, or below
/// the last.
#[must_use]
pub const fn tunnel_port_beside(port: u16) -> u16 {
    match port.checked_add(1) {
        Some(beside) => beside,
        None => port - 1,
    }
}

/// Which WireGuard carries the packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TunnelKind {
    /// The kernel's where it is there, and that of this process where not.
    #[default]
    Auto,
    /// The kernel's: a launch fails where it is not there.
    Kernel,
    /// That of this process.
    User,
}

/// What a [`WireGuardOverlay`](crate::WireGuardOverlay) is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct WireGuardConfig {
    /// The router between host, overlay and containers. Its port is that of a WireGuard in this process too.
    pub router: RouterConfig,
    /// Which WireGuard carries the packets.
    #[serde(default)]
    pub tunnel: TunnelKind,
    /// The UDP port of the kernel's WireGuard, which can't share the router's. One above that unless told.
    #[serde(default)]
    pub tunnel_port: Option<u16>,
    /// The MTU of the underlay, in bytes. That of the link with the default route unless told.
    #[serde(default)]
    pub underlay_mtu: Option<u16>,
}

impl WireGuardConfig {
    /// The overlay with this router.
    #[must_use]
    pub const fn new(router: RouterConfig) -> Self {
        Self {
            router,
            tunnel: TunnelKind::Auto,
            tunnel_port: None,
            underlay_mtu: None,
        }
    }

    /// With this WireGuard.
    #[must_use]
    pub const fn tunnel(mut self, tunnel: TunnelKind) -> Self {
        self.tunnel = tunnel;
        self
    }

    /// With the kernel's WireGuard on this UDP port.
    #[must_use]
    pub const fn tunnel_port(mut self, port: u16) -> Self {
        self.tunnel_port = Some(port);
        self
    }

    /// The UDP port of the kernel's WireGuard.
    pub(crate) const fn own_port(&self) -> u16 {
        match self.tunnel_port {
            Some(port) => port,
            None => tunnel_port_beside(self.router.port),
        }
    }

    /// Over an underlay with this MTU, in bytes.
    #[must_use]
    pub const fn underlay_mtu(mut self, mtu: u16) -> Self {
        self.underlay_mtu = Some(mtu);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_port_is_beside_the_routers() {
        let config = |port| WireGuardConfig::new(RouterConfig::new("/l").port(port));
        assert_eq!(config(51820).own_port(), 51821);
        assert_eq!(config(u16::MAX).own_port(), u16::MAX - 1);
        assert_eq!(config(51820).tunnel_port(7).own_port(), 7);
    }
}
