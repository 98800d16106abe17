//! A node of a cluster: the logic that makes three layers one thing, written against their traits alone.

mod address;
mod attaching;
mod checking;
mod checkups;
mod containers;
mod draining;
mod event;
mod facility;
mod foreign;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gate;
mod given;
mod holding;
mod inherited;
mod keys;
mod network;
mod owning;
mod plan;
mod ranges;
mod reconcile;
mod record;
mod records;
mod registering;
mod reserve;
mod resolving;
mod startup;
mod status;
mod undo;
mod view;
mod watching;
mod why;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, broadcast, watch};

pub use self::event::ClusterEvent;
#[cfg(feature = "mock")]
pub use self::facility::MockFacility;
pub use self::facility::{Facility, FacilityContext};
pub use self::network::Network;
pub use self::ranges::{Deed, Owner};
pub use self::status::{Catalogue, NodeStatus};

use self::reconcile::Applied;
use self::startup::Lifecycle;
use self::view::View;
use crate::admission::{Admission, MembershipStore, NoStore};
use crate::{
    Discovery, Error, ErrorKind, KeyValue, NodeAddr, NodeName, Overlay, Prober, Result, Runtime,
};

/// A node of a cluster.
///
/// Cheap to clone; all clones are the same node. Dropping the last one stops its tasks without a word to the cluster,
/// as a crash would; [`stop`](Cluster::stop), [`leave`](Cluster::leave) and [`resign`](Cluster::resign) are the orderly ways.
#[derive(Debug, Clone)]
pub struct Cluster {
    node: Arc<Node>,
}

/// What all clones share.
#[derive(Debug)]
struct Node {
    me: NodeAddr,
    name: NodeName,
    advertise: Option<SocketAddr>,
    version: String,
    /// The domain of DNS.
    domain: String,
    overlay: Arc<dyn Overlay>,
    discovery: Arc<dyn Discovery>,
    runtime: Option<Arc<dyn Runtime>>,
    key_value: Option<Arc<dyn KeyValue>>,
    prober: Option<Arc<dyn Prober>>,
    admission: Arc<dyn Admission>,
    store: Arc<dyn MembershipStore>,
    facilities: Vec<Arc<dyn Facility>>,
    lifecycle: tokio::sync::Mutex<Lifecycle>,
    /// What is known of the cluster and of this host's containers.
    view: Mutex<View>,
    /// What the layers below have been told; its lock makes one reconciliation at a time.
    applied: tokio::sync::Mutex<Applied>,
    /// Whom containers were told to ask for names.
    resolving: resolving::Resolving,
    /// One change of what a container was given at a time.
    attaching: tokio::sync::Mutex<()>,
    /// Peers that the overlay has been told of.
    connected: watch::Sender<std::collections::BTreeSet<NodeAddr>>,
    kick: Arc<Notify>,
    /// The checks to be asked are others than before.
    checking: Arc<Notify>,
    /// A check was answered.
    answered: Notify,
    /// What chance is drawn from.
    seed: u64,
    /// Counts rounds: after each, what came of others is known here.
    rounds: watch::Sender<u64>,
    /// Whether the first list of containers was taken over.
    listed: watch::Sender<bool>,
    events: broadcast::Sender<ClusterEvent>,
}

impl Node {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn emit(&self, event: ClusterEvent) {
        tracing::info!(?event);
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }

    /// Tells what the node is doing while it comes up.
    fn step(&self, what: impl Into<String>) {
        self.emit(ClusterEvent::Step { what: what.into() });
    }

    fn runtime(&self) -> Result<&Arc<dyn Runtime>> {
        self.runtime.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!("node {} has no runtime", self.me),
            )
        })
    }
}

impl Cluster {
    /// Starts to put a node together.
    #[must_use]
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// This node's address.
    #[must_use]
    pub fn me(&self) -> NodeAddr {
        self.node.me
    }

    /// What happens from now on. A reader that falls more than 256 events behind misses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<ClusterEvent> {
        self.node.events.subscribe()
    }

    /// The discovery layer, for lookups and watches.
    #[must_use]
    pub fn discovery(&self) -> &Arc<dyn Discovery> {
        &self.node.discovery
    }

    /// The overlay layer.
    #[must_use]
    pub fn overlay(&self) -> &Arc<dyn Overlay> {
        &self.node.overlay
    }

    /// The runtime layer.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] on a node without one.
    pub fn runtime(&self) -> Result<&Arc<dyn Runtime>> {
        self.node.runtime()
    }

    /// The key-value store, with locks and leadership.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] on a node without one: it takes a consensus, which gossip does not have.
    pub fn key_value(&self) -> Result<&Arc<dyn KeyValue>> {
        self.node.key_value.as_ref().ok_or_else(|| {
            let discovery = self.node.discovery.name();
            let message =
                format!("this cluster has no key-value store: its discovery is {discovery}");
            Error::new(ErrorKind::Unsupported, message)
        })
    }
}

/// Puts a node together: an address, a name and three layers, with admission.
#[derive(Debug, Default)]
pub struct ClusterBuilder {
    node: Option<NodeAddr>,
    name: Option<NodeName>,
    advertise: Option<SocketAddr>,
    version: Option<String>,
    domain: Option<String>,
    overlay: Option<Arc<dyn Overlay>>,
    discovery: Option<Arc<dyn Discovery>>,
    runtime: Option<Arc<dyn Runtime>>,
    key_value: Option<Arc<dyn KeyValue>>,
    prober: Option<Arc<dyn Prober>>,
    seed: Option<u64>,
    admission: Option<Arc<dyn Admission>>,
    store: Option<Arc<dyn MembershipStore>>,
    facilities: Vec<Arc<dyn Facility>>,
}

impl ClusterBuilder {
    /// The node's address. Required.
    #[must_use]
    pub fn node(mut self, node: NodeAddr) -> Self {
        self.node = Some(node);
        self
    }

    /// The node's name; `node-A-B` unless given.
    #[must_use]
    pub fn name(mut self, name: NodeName) -> Self {
        self.name = Some(name);
        self
    }

    /// Where others reach it on the underlay, where its own address is not what they see.
    #[must_use]
    pub fn advertise(mut self, endpoint: SocketAddr) -> Self {
        self.advertise = Some(endpoint);
        self
    }

    /// The version of the software it runs; this crate's unless given.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// The domain of the cluster's DNS names; `consul` unless given. Attached containers look for short names in
    /// `service.DOMAIN`.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// The overlay layer. Required.
    #[must_use]
    pub fn overlay(mut self, overlay: Arc<dyn Overlay>) -> Self {
        self.overlay = Some(overlay);
        self
    }

    /// The discovery layer. Required.
    #[must_use]
    pub fn discovery(mut self, discovery: Arc<dyn Discovery>) -> Self {
        self.discovery = Some(discovery);
        self
    }

    /// The runtime layer; a node without one runs no containers.
    #[must_use]
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// The key-value store; a node without one has none.
    #[must_use]
    pub fn key_value(mut self, key_value: Arc<dyn KeyValue>) -> Self {
        self.key_value = Some(key_value);
        self
    }

    /// What asks this node's containers over the network. Without one, those with checks by HTTP or TCP get no traffic.
    #[must_use]
    pub fn prober(mut self, prober: Arc<dyn Prober>) -> Self {
        self.prober = Some(prober);
        self
    }

    /// What all that chance decides is drawn from, as when each check is asked; made of the node's address unless given.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How nodes get in. Required.
    #[must_use]
    pub fn admission(mut self, admission: Arc<dyn Admission>) -> Self {
        self.admission = Some(admission);
        self
    }

    /// Where the membership is kept between starts; nowhere unless given.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn MembershipStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// Something to serve while the node is up. Started in the order given.
    #[must_use]
    pub fn facility(mut self, facility: Arc<dyn Facility>) -> Self {
        self.facilities.push(facility);
        self
    }

    /// The node, not yet in any cluster.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] names what is missing.
    pub fn build(self) -> Result<Cluster> {
        fn required<T>(part: Option<T>, what: &str) -> Result<T> {
            part.ok_or_else(|| Error::new(ErrorKind::InvalidInput, format!("a node needs {what}")))
        }
        let me = required(self.node, "an address")?;
        let [a, b] = me.octets();
        let name = match self.name {
            Some(name) => name,
            None => format!("node-{a}-{b}").parse()?,
        };
        Ok(Cluster {
            node: Arc::new(Node {
                me,
                name,
                advertise: self.advertise,
                version: self
                    .version
                    .unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
                domain: self.domain.unwrap_or_else(|| "consul".to_owned()),
                overlay: required(self.overlay, "an overlay")?,
                discovery: required(self.discovery, "discovery")?,
                runtime: self.runtime,
                key_value: self.key_value,
                prober: self.prober,
                admission: required(self.admission, "admission")?,
                store: self.store.unwrap_or_else(|| Arc::new(NoStore)),
                facilities: self.facilities,
                lifecycle: tokio::sync::Mutex::default(),
                view: Mutex::default(),
                applied: tokio::sync::Mutex::default(),
                resolving: resolving::Resolving::default(),
                attaching: tokio::sync::Mutex::default(),
                connected: watch::Sender::default(),
                kick: Arc::new(Notify::new()),
                checking: Arc::new(Notify::new()),
                answered: Notify::new(),
                seed: self
                    .seed
                    .unwrap_or_else(|| u64::from(u16::from_be_bytes([a, b]))),
                rounds: watch::Sender::default(),
                listed: watch::Sender::default(),
                events: broadcast::Sender::new(256),
            }),
        })
    }
}
