//! The overlay layer: an encrypted network between the nodes, and containers on it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::addr::PluginBlock;
use crate::admission::Membership;
use crate::{AppAddr, ContainerName, EndpointId, Error, NodeAddr, Plane, Result};

/// What an overlay can do. What it can't do answers [`Unsupported`](crate::ErrorKind::Unsupported), at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OverlayCapabilities {
    /// Peers need each other's announcement before they can talk.
    pub announcements: bool,
    /// Containers of one network can't reach another network, a plane or a host.
    pub isolation: bool,
    /// Containers can be attached.
    pub attach: bool,
    /// Traffic between nodes is encrypted.
    pub encryption: bool,
    /// Can make a link that a runtime moves into its container itself.
    pub plug: bool,
}

impl OverlayCapabilities {
    /// Everything.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            announcements: true,
            isolation: true,
            attach: true,
            encryption: true,
            plug: true,
        }
    }

    /// Without the need for announcements.
    #[must_use]
    pub const fn without_announcements(mut self) -> Self {
        self.announcements = false;
        self
    }

    /// Without isolation.
    #[must_use]
    pub const fn without_isolation(mut self) -> Self {
        self.isolation = false;
        self
    }

    /// Without attach.
    #[must_use]
    pub const fn without_attach(mut self) -> Self {
        self.attach = false;
        self
    }

    /// Without links that are left for a runtime to move.
    #[must_use]
    pub const fn without_plug(mut self) -> Self {
        self.plug = false;
        self
    }
}

/// What other nodes must know to reach this one, as their overlay backend reads it: a WireGuard public key, say. Opaque
/// to everybody else, at most 512 bytes, not secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement(pub Bytes);

/// A node to be connected with, as it is wanted: the whole truth about it, each time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerSpec {
    /// Which node.
    pub node: NodeAddr,
    /// Where it is on the underlay, if known; it may also call us.
    pub endpoint: Option<SocketAddr>,
    /// What it announced.
    pub announcement: Announcement,
    /// The container addresses it holds, and plugin addresses are always its own.
    pub holds: Vec<AppAddr>,
}

impl PeerSpec {
    /// A peer that holds no container address.
    #[must_use]
    pub const fn new(
        node: NodeAddr,
        endpoint: Option<SocketAddr>,
        announcement: Announcement,
    ) -> Self {
        Self {
            node,
            endpoint,
            announcement,
            holds: Vec::new(),
        }
    }

    /// With the container addresses it holds.
    #[must_use]
    pub fn holding(mut self, holds: Vec<AppAddr>) -> Self {
        self.holds = holds;
        self
    }
}

/// How the connection to a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PeerState {
    /// Traffic flows, or can at once.
    Up,
    /// Trying.
    Connecting,
    /// Given up for now, or refused.
    Down,
}

/// A peer as the overlay sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Which node.
    pub node: NodeAddr,
    /// How the connection is.
    pub state: PeerState,
    /// Where it was last heard from.
    pub endpoint: Option<SocketAddr>,
    /// How long ago the last handshake was.
    pub last_handshake: Option<Duration>,
    /// The last measured round trip.
    pub round_trip: Option<Duration>,
}

impl PeerStatus {
    /// A peer in this state, nothing else known.
    #[must_use]
    pub const fn new(node: NodeAddr, state: PeerState) -> Self {
        Self {
            node,
            state,
            endpoint: None,
            last_handshake: None,
            round_trip: None,
        }
    }
}

/// A container's network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum NetNamespace {
    /// A namespace file: `/proc/PID/ns/net`, or a bind mount of one.
    Path(PathBuf),
    /// A container of the simulated world, which has no namespace.
    Simulated(u64),
}

/// An address to give a container, or to take from it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attachment {
    /// The container.
    pub container: ContainerName,
    /// Its namespace.
    pub namespace: NetNamespace,
    /// The address.
    pub addr: AttachAddr,
}

impl Attachment {
    /// An address for a container.
    #[must_use]
    pub const fn new(container: ContainerName, namespace: NetNamespace, addr: AttachAddr) -> Self {
        Self {
            container,
            namespace,
            addr,
        }
    }
}

/// What kind of address a container is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AttachAddr {
    /// An application address: confined to its network, or /8.
    Application(AppAddr),
    /// This node's address in a plugin block, with the reach of a system part.
    Plugin(PluginBlock),
}

/// A link to be made for a container that is not there yet, for its runtime to move.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plug {
    /// What the runtime calls it.
    pub endpoint: EndpointId,
    /// The address that the container will have.
    pub addr: AppAddr,
    /// The Ethernet address that it asks for.
    pub mac: Option<[u8; 6]>,
}

impl Plug {
    /// A link for an address.
    #[must_use]
    pub const fn new(endpoint: EndpointId, addr: AppAddr) -> Self {
        Self {
            endpoint,
            addr,
            mac: None,
        }
    }

    /// With this Ethernet address.
    #[must_use]
    pub const fn mac(mut self, mac: Option<[u8; 6]>) -> Self {
        self.mac = mac;
        self
    }
}

/// A link that stands in the host's namespace, for a runtime to move.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plugged {
    /// Its name there.
    pub link: String,
    /// Its Ethernet address, which has to stay as it is.
    pub mac: [u8; 6],
}

impl Plugged {
    /// A link of this name, with this Ethernet address.
    #[must_use]
    pub const fn new(link: String, mac: [u8; 6]) -> Self {
        Self { link, mac }
    }
}

/// An overlay network.
///
/// The contract, for every backend:
/// - Every call is idempotent; what a second call does is said at each. Removing what is not there succeeds.
/// - Dropping a call's future at any point leaves nothing behind, or something that the same call finishes.
/// - Calls before [`launch`](Overlay::launch) and after [`stop`](Overlay::stop) answer
///   [`Unavailable`](crate::ErrorKind::Unavailable), except `launch`, `stop`, `reset` and `capabilities`.
/// - Routes to containers come only from [`PeerSpec::holds`] and from own attachments.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Overlay: fmt::Debug + Send + Sync + 'static {
    /// The backend's name: `wireguard`, `weave`, `memory`.
    fn name(&self) -> &'static str;

    /// What it can do. Constant for one backend in one configuration.
    fn capabilities(&self) -> OverlayCapabilities;

    /// Looks for what would make [`launch`](Overlay::launch) fail or break the host, and changes nothing.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) names the address, route, resolver or port that clashes and the way out;
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) when the process may not do it.
    async fn preflight(&self, node: NodeAddr) -> Result<()> {
        let _ = node;
        Ok(())
    }

    /// Brings the node onto the overlay as 10.255.A.B and says what others must know. A second call with the same
    /// membership mends what differs and answers with the present announcement; also after the process died at any
    /// moment. Connections through the overlay survive that.
    ///
    /// # Errors
    /// As [`preflight`](Overlay::preflight); nothing is left behind then.
    async fn launch(&self, membership: &Membership) -> Result<Announcement>;

    /// Wants this peer, so: a second call replaces the first's wishes and breaks no running connection. Returns before
    /// the peer is reachable.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an announcement that can't be read.
    async fn connect(&self, peer: PeerSpec) -> Result<()>;

    /// A sign of life of this peer was seen: try at once, not at the next retry. Unknown peers are ignored.
    ///
    /// # Errors
    /// None of its own.
    async fn nudge(&self, node: NodeAddr) -> Result<()> {
        let _ = node;
        Ok(())
    }

    /// Wants this peer no longer. A second call does nothing.
    ///
    /// # Errors
    /// None of its own.
    async fn forget(&self, node: NodeAddr) -> Result<()>;

    /// Gives this node its address in a plane. A second call does nothing.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a plane that this backend does not carry.
    async fn expose(&self, plane: Plane) -> Result<()>;

    /// Takes that address back. A second call does nothing.
    ///
    /// # Errors
    /// None of its own.
    async fn hide(&self, plane: Plane) -> Result<()>;

    /// Gives a container an address; when it returns, the address works inside it. A second call does nothing.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when the namespace is gone;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when it is the host's or a shared one;
    /// [`Conflict`](crate::ErrorKind::Conflict) when another container of this node has the address.
    async fn attach(&self, attachment: &Attachment) -> Result<()> {
        let _ = attachment;
        Err(Error::unsupported(self.name(), "attach containers"))
    }

    /// Takes the address from the container, whose namespace may be gone already. A second call does nothing.
    ///
    /// # Errors
    /// None of its own.
    async fn detach(&self, container: &ContainerName, addr: AttachAddr) -> Result<()> {
        let _ = (container, addr);
        Err(Error::unsupported(self.name(), "detach containers"))
    }

    /// What is attached now, also by an earlier process: what reconciling starts from.
    ///
    /// # Errors
    /// None of its own.
    async fn attached(&self) -> Result<Vec<(ContainerName, AttachAddr)>> {
        Err(Error::unsupported(self.name(), "list attached containers"))
    }

    /// Makes a link of which one end is left in the host's namespace under a name of its own. A runtime moves that end
    /// into its container, names it, and gives it the address, the way to 169.254.1.1 as connected, and those of
    /// [`system_range`](crate::addr::system_range) by that: not all of 10.0.0.0/8, since docker puts no address on a link
    /// to which a route leads already, and a container may be in several networks. A second call for an endpoint with the same address answers with the same link, wherever it is by then.
    ///
    /// Plugged, an address works, and is as isolated as any other. It is nobody's yet: [`attached`](Overlay::attached)
    /// does not list it, [`detach`](Overlay::detach) leaves it alone, and no process' end takes it away. Once the
    /// container runs, [`attach`](Overlay::attach) of the same address finds the link in its namespace and takes it over:
    /// nothing in it is made twice, and from then on it is attached as others are.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when the address is attached to a container of this node, or plugged for
    /// another endpoint.
    async fn plug(&self, plug: &Plug) -> Result<Plugged> {
        let _ = plug;
        Err(Error::unsupported(self.name(), "make links to be moved"))
    }

    /// Removes an endpoint's link, wherever it is now, and whether or not it was taken over. A second call does nothing.
    ///
    /// # Errors
    /// None of its own.
    async fn unplug(&self, endpoint: &EndpointId) -> Result<()> {
        let _ = endpoint;
        Err(Error::unsupported(self.name(), "remove links"))
    }

    /// The endpoints that have a link now, also by an earlier process, and also where it was taken over.
    ///
    /// # Errors
    /// None of its own.
    async fn plugged(&self) -> Result<Vec<(EndpointId, AppAddr)>> {
        Err(Error::unsupported(self.name(), "list links"))
    }

    /// The /8 container addresses of the whole cluster, which every node must let through. Replaces those told before.
    ///
    /// # Errors
    /// None of its own.
    async fn allow_wide(&self, addrs: &[AppAddr]) -> Result<()> {
        let _ = addrs;
        Ok(())
    }

    /// All peers.
    ///
    /// # Errors
    /// None of its own.
    async fn peers(&self) -> Result<Vec<PeerStatus>>;

    /// Returns once a packet has gone to the peer's overlay address and an answer has come back.
    ///
    /// # Errors
    /// [`Timeout`](crate::ErrorKind::Timeout) after `limit`, saying how far it came;
    /// [`NotFound`](crate::ErrorKind::NotFound) for a peer that was never wanted.
    async fn wait_reachable(&self, node: NodeAddr, limit: Duration) -> Result<()>;

    /// Leaves the overlay and gives the host back all but what [`launch`](Overlay::launch) finds again cheaply. A second
    /// call does nothing.
    ///
    /// # Errors
    /// The first failure, after everything was tried.
    async fn stop(&self) -> Result<()>;

    /// [`stop`](Overlay::stop), and leaves nothing at all behind, whatever state an earlier process left. A second call
    /// does nothing.
    ///
    /// # Errors
    /// The first failure, after everything was tried.
    async fn reset(&self) -> Result<()>;
}
