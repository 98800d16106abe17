//! The discovery layer: who is in the cluster, and which services run where.

mod layered;
mod merging;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::admission::{Credential, Keys, Membership};
use crate::roster::{Role, Roster, RosterEntry};
use crate::watch::Watch;
use crate::{AppNet, Error, InstanceId, NodeAddr, NodeName, Result, ServiceName, Tag};

pub use self::layered::LayeredDiscovery;

/// What a discovery backend can do. What it can't do answers [`Unsupported`](crate::ErrorKind::Unsupported), at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DiscoveryCapabilities {
    /// Publishes records of nodes: what overlays that need announcements, claims and networks travel by.
    pub records: bool,
    /// Can take in a new node by itself ([`Discovery::admit`]).
    pub admits: bool,
    /// Can turn the cluster's key over while it runs ([`Discovery::turn_over`]).
    #[serde(default)]
    pub turns_keys: bool,
}

impl DiscoveryCapabilities {
    /// Everything but turning keys over, which only those can that speak under the cluster's key themselves.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            records: true,
            admits: true,
            turns_keys: false,
        }
    }

    /// With keys that turn over.
    #[must_use]
    pub const fn with_turning_keys(mut self) -> Self {
        self.turns_keys = true;
        self
    }

    /// Without records.
    #[must_use]
    pub const fn without_records(mut self) -> Self {
        self.records = false;
        self
    }

    /// Without admission.
    #[must_use]
    pub const fn without_admission(mut self) -> Self {
        self.admits = false;
        self
    }
}

/// Whether an instance should get traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Health {
    /// It answers its checks, or has none.
    Passing,
    /// It fails them: not in DNS.
    Critical,
    /// Its node is out of reach: not in DNS, back at once when the node is.
    Suspended,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passing => "passing",
            Self::Critical => "critical",
            Self::Suspended => "suspended",
        })
    }
}

/// One address that provides a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Instance {
    /// Its id, alone in the cluster.
    pub id: InstanceId,
    /// What it provides.
    pub service: ServiceName,
    /// Where.
    pub ip: Ipv4Addr,
    /// The port, 0 when it has none of interest.
    pub port: u16,
    /// The node it runs on.
    pub node: NodeAddr,
    /// Its application network; `None` for /8 addresses and system parts.
    pub net: Option<AppNet>,
    /// Names within the service.
    pub tags: BTreeSet<Tag>,
    /// Whether it should get traffic.
    pub health: Health,
}

impl Instance {
    /// A passing instance without tags or network.
    #[must_use]
    pub fn new(
        id: InstanceId,
        service: ServiceName,
        ip: Ipv4Addr,
        port: u16,
        node: NodeAddr,
    ) -> Self {
        Self {
            id,
            service,
            ip,
            port,
            node,
            net: None,
            tags: BTreeSet::new(),
            health: Health::Passing,
        }
    }

    /// In this application network.
    #[must_use]
    pub fn in_net(mut self, net: Option<AppNet>) -> Self {
        self.net = net;
        self
    }

    /// With these tags.
    #[must_use]
    pub fn tagged(mut self, tags: impl IntoIterator<Item = Tag>) -> Self {
        self.tags.extend(tags);
        self
    }

    /// With this health.
    #[must_use]
    pub fn health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }
}

/// Which instances to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selector {
    /// Every instance of every service, whatever its health.
    All,
    /// The instances of one service, whatever their health.
    Service(ServiceName),
}

impl Selector {
    /// Whether it selects this instance.
    #[must_use]
    pub fn matches(&self, instance: &Instance) -> bool {
        match self {
            Self::All => true,
            Self::Service(service) => instance.service == *service,
        }
    }
}

/// Whether a member takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It has not answered lately; still counted as alive.
    Suspect,
    /// It is out of reach: its records are suspended.
    Down,
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
        })
    }
}

/// A node as discovery sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Member {
    /// Its address.
    pub node: NodeAddr,
    /// Its name.
    pub name: NodeName,
    /// Its role.
    pub role: Role,
    /// Whether it takes part.
    pub state: MemberState,
    /// Where it is on the underlay.
    pub endpoint: Option<SocketAddr>,
    /// Whether this node reaches it itself; two nodes that are cut only from each other both look alive to all others.
    pub reachable: bool,
}

impl Member {
    /// A living member.
    #[must_use]
    pub const fn new(node: NodeAddr, name: NodeName, role: Role) -> Self {
        Self {
            node,
            name,
            role,
            state: MemberState::Alive,
            endpoint: None,
            reachable: true,
        }
    }

    /// In this state.
    #[must_use]
    pub const fn state(mut self, state: MemberState) -> Self {
        self.state = state;
        self
    }

    /// At this endpoint.
    #[must_use]
    pub const fn at(mut self, endpoint: Option<SocketAddr>) -> Self {
        self.endpoint = endpoint;
        self
    }

    /// Reached by this node itself, or not.
    #[must_use]
    pub const fn reachable(mut self, reachable: bool) -> Self {
        self.reachable = reachable;
        self
    }
}

/// The key of a record among its owner's: a path of names and addresses with `/`, at most 128 bytes.
pub type RecordKey = String;

/// Something a node says of itself to all others: an announcement, a claim, a network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Its bytes, at most 16 KiB.
    pub value: Bytes,
    /// Its owner is out of reach.
    pub suspended: bool,
}

impl Record {
    /// A record of a living owner.
    #[must_use]
    pub const fn new(value: Bytes) -> Self {
        Self {
            value,
            suspended: false,
        }
    }

    /// With its owner in or out of reach.
    #[must_use]
    pub const fn suspended(mut self, suspended: bool) -> Self {
        self.suspended = suspended;
        self
    }
}

/// How far a change has spread when the call returns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spread {
    /// Living members that had not confirmed it in time; they get it as soon as they can.
    pub unconfirmed: BTreeSet<NodeAddr>,
}

impl Spread {
    /// Confirmed by all but these.
    #[must_use]
    pub const fn unconfirmed_by(unconfirmed: BTreeSet<NodeAddr>) -> Self {
        Self { unconfirmed }
    }
}

/// A service and how many instances it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceSummary {
    /// Its name.
    pub service: ServiceName,
    /// Its instances that get traffic.
    pub passing: usize,
    /// All its instances.
    pub total: usize,
}

/// Counts instances by service.
#[must_use]
pub fn summarize<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> Vec<ServiceSummary> {
    let mut counts: BTreeMap<&ServiceName, (usize, usize)> = BTreeMap::new();
    for instance in instances {
        let count = counts.entry(&instance.service).or_default();
        count.0 += usize::from(instance.health == Health::Passing);
        count.1 += 1;
    }
    counts
        .into_iter()
        .map(|(service, (passing, total))| ServiceSummary {
            service: service.clone(),
            passing,
            total,
        })
        .collect()
}

/// The network whose instances somebody hears of who asks for a service from this one, among instances that are in these;
/// `None`: of all. Whoever asks from a network with instances of the service hears of those alone, and everybody else of all.
///
/// ```
/// use arpanet_core::discovery::heard_of;
/// let [red, blue] = ["10.1.0.0/16", "10.2.0.0/16"].map(|net| net.parse().ok());
/// assert_eq!(heard_of(red, [blue, red, None]), red);
/// assert_eq!(heard_of(red, [blue, None]), None);
/// assert_eq!(heard_of(None, [blue, red]), None);
/// ```
#[must_use]
pub fn heard_of(
    from: Option<AppNet>,
    instances: impl IntoIterator<Item = Option<AppNet>>,
) -> Option<AppNet> {
    from.filter(|_| instances.into_iter().any(|net| net == from))
}

/// Service discovery and membership.
///
/// The contract, for every backend:
/// - Every call is idempotent; what a second call does is said at each. Removing what is not there succeeds.
/// - Dropping a call's future at any point leaves nothing behind, or something that the same call finishes.
/// - Calls before [`start`](Discovery::start) and after [`stop`](Discovery::stop) or [`leave`](Discovery::leave) answer
///   [`Unavailable`](crate::ErrorKind::Unavailable), except `start`, `stop`, `leave` and `capabilities`.
/// - Instances and records belong to the node that made them. When it is out of reach they are suspended, not
///   forgotten, and are back at once when it returns; when it leaves they are gone.
/// - A node that restarts brings what it registers anew and loses what it does not: the cluster logic registers all of
///   a node's instances again after each start.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Discovery: fmt::Debug + Send + Sync + 'static {
    /// The backend's name: `gossip`, `consul`, `memory`.
    fn name(&self) -> &'static str;

    /// What it can do. Constant for one backend in one configuration.
    fn capabilities(&self) -> DiscoveryCapabilities;

    /// Takes part as this member; the role decides how. Returns when this node's own catalogue answers, and, where
    /// others are in the roster and reachable, has been filled from one of them. A second call with the same membership
    /// does nothing.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when its port or engine can't be had; nothing is left behind then.
    async fn start(&self, membership: &Membership) -> Result<()>;

    /// Brings up what of this backend lives on the overlay: called after [`start`](Discovery::start), as soon as the
    /// overlay reaches others. A backend on the underlay has nothing to do. A node that is `returning` comes up though
    /// nobody else may be there: what can't be brought up yet is tried again in the background then, and watches say
    /// `Stale` meanwhile. A second call does nothing.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when its engine can't be had, on a node that is not returning.
    async fn start_on_overlay(&self, returning: bool) -> Result<()> {
        let _ = returning;
        Ok(())
    }

    /// Puts an instance into the catalogue, or replaces the one with its id. Telling the same again is cheap.
    /// Returns when all living members know, or did not confirm in time.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an instance of another node.
    async fn register(&self, instance: Instance) -> Result<Spread>;

    /// Takes an instance of this node out of the catalogue. A second call does nothing.
    ///
    /// # Errors
    /// None of its own.
    async fn deregister(&self, id: &InstanceId) -> Result<()>;

    /// The instances of a service that get traffic, sorted by id; an unknown service has none.
    ///
    /// # Errors
    /// None of its own.
    async fn lookup(&self, service: &ServiceName) -> Result<Vec<Instance>>;

    /// All services, sorted by name.
    ///
    /// # Errors
    /// None of its own.
    async fn services(&self) -> Result<Vec<ServiceSummary>>;

    /// All members, this node included, sorted by address.
    ///
    /// # Errors
    /// None of its own.
    async fn members(&self) -> Result<Vec<Member>>;

    /// Watches instances of any health: first a snapshot, then changes, `Stale` while the source is unreachable.
    /// Survives reconnects of the source.
    ///
    /// # Errors
    /// None of its own.
    async fn watch(&self, selector: Selector) -> Result<Watch<InstanceId, Instance>>;

    /// Watches members.
    ///
    /// # Errors
    /// None of its own.
    async fn watch_members(&self) -> Result<Watch<NodeAddr, Member>>;

    /// Says something of this node to all others, or replaces what was said under this key. Returns when all living
    /// members know, or did not confirm in time.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a value over 16 KiB or a bad key.
    async fn publish(&self, key: &str, value: Bytes) -> Result<Spread> {
        let _ = (key, value);
        Err(Error::unsupported(self.name(), "publish records"))
    }

    /// Takes back what was said under this key. A second call does nothing.
    ///
    /// # Errors
    /// None of its own.
    async fn retract(&self, key: &str) -> Result<()> {
        let _ = key;
        Err(Error::unsupported(self.name(), "retract records"))
    }

    /// Watches all nodes' records, this node's included, whose keys start with `prefix`.
    ///
    /// # Errors
    /// None of its own.
    async fn watch_records(&self, prefix: &str) -> Result<Watch<(NodeAddr, RecordKey), Record>> {
        let _ = prefix;
        Err(Error::unsupported(self.name(), "watch records"))
    }

    /// Takes a new node into the roster once every living member has agreed. The same entry again is taken again.
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) names who holds the address or the name;
    /// [`Conflict`](crate::ErrorKind::Conflict) when another member admitted somebody else at the same moment.
    async fn admit(&self, entry: RosterEntry) -> Result<()> {
        let _ = entry;
        Err(Error::unsupported(self.name(), "admit nodes"))
    }

    /// The roster as it stands: what newcomers are given and what a node keeps for its return.
    ///
    /// # Errors
    /// None of its own.
    async fn roster(&self) -> Result<Roster> {
        Err(Error::unsupported(self.name(), "tell the roster"))
    }

    /// Removes a dead member for good: its address is free, its identity is refused from then on. A second call does
    /// nothing. A node may forget itself: it gives its address up, and leaves after that.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) while the member is alive and another node;
    /// [`NotFound`](crate::ErrorKind::NotFound) for one that was never there.
    async fn forget(&self, node: NodeAddr) -> Result<()>;

    /// Gives the cluster a new key, and with a credential a new password; returns who of the living has not confirmed it in
    /// time. What members say to each other goes on meanwhile.
    ///
    /// Members that are not there get the key when they are back, from any member that admits others. Of keys that were
    /// made apart from each other, one stands in the end. After a departure (a node was forgotten, has left for good, or
    /// its address has another holder) the members that are left turn the key over by themselves.
    ///
    /// # Errors
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) on a node that admits nobody;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where the key stays; nothing is changed then.
    async fn turn_over(&self, credential: Option<Credential>) -> Result<Spread> {
        let _ = credential;
        Err(Error::unsupported(
            self.name(),
            "turn the cluster's key over",
        ))
    }

    /// The keys as they stand, now and whenever they are others: what newcomers are given and what a node keeps for its
    /// return. It ends when discovery stops.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where the key stays.
    async fn watch_keys(&self) -> Result<tokio::sync::watch::Receiver<Keys>> {
        Err(Error::unsupported(self.name(), "tell the cluster's key"))
    }

    /// Takes this node out in order: its instances and records are gone everywhere. A second call does nothing. Gives up
    /// telling others after `limit`, and that is no error.
    ///
    /// # Errors
    /// The first failure, after everything was tried.
    async fn leave(&self, limit: Duration) -> Result<()>;

    /// Stops without a word, as a crash would, so that the node comes back as it was. A second call does nothing.
    ///
    /// # Errors
    /// The first failure, after everything was tried.
    async fn stop(&self) -> Result<()>;
}
