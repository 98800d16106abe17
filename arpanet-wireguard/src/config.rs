//! What the overlay of one host is made of.

use arpanet_router::RouterConfig;
use serde::{Deserialize, Serialize};

/// What a [`WireGuardOverlay`](crate::WireGuardOverlay) is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct WireGuardConfig {
    /// The router between host, overlay and containers. Its port is WireGuard's too.
    pub router: RouterConfig,
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
            underlay_mtu: None,
        }
    }

    /// Over an underlay with this MTU, in bytes.
    #[must_use]
    pub const fn underlay_mtu(mut self, mtu: u16) -> Self {
        self.underlay_mtu = Some(mtu);
        self
    }
}
