//! What carries packets to the routers of other nodes.

/// The link to other nodes' routers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Uplink {
    /// Its name, in the router's namespace. The caller makes it there.
    pub link: String,
    /// How a packet gets to the right one of them.
    pub way: Way,
}

/// How a packet on the uplink gets to the right router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Way {
    /// By its destination: the uplink knows who has which address.
    Tunnel,
    /// By the Ethernet address of that router, which is asked for (ARP, RFC 826).
    Ethernet,
}

impl Uplink {
    /// A device that tells peers apart by address.
    #[must_use]
    pub fn tunnel(link: impl Into<String>) -> Self {
        Self {
            link: link.into(),
            way: Way::Tunnel,
        }
    }

    /// A port of an Ethernet on which the routers of all nodes are.
    #[must_use]
    pub fn ethernet(link: impl Into<String>) -> Self {
        Self {
            link: link.into(),
            way: Way::Ethernet,
        }
    }
}
