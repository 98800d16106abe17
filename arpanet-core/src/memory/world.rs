//! The world itself, its hosts, and the backends of each.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::admission::{MemoryAdmission, MemoryStore};
use super::discovery::MemoryDiscovery;
use super::key_value::MemoryKeyValue;
use super::network::HostIndex;
use super::overlay::MemoryOverlay;
use super::place::Place;
use super::prober::MemoryProber;
use super::runtime::MemoryRuntime;
use super::state::{Seat, Shared, State};
use crate::NodeAddr;
use crate::admission::NodeInfo;
use crate::overlay::NetNamespace;
use crate::roster::{Role, RosterEntry};

/// A simulated world. Clones are the same world.
///
/// Hosts come into being when they are first named: `world.overlay("0.1")` is the overlay of the host whose node address
/// is to be 0.1. Handles belong to the agent's process at the time they are taken: after [`kill`](World::kill) or
/// [`crash`](World::crash) they answer [`Unavailable`](crate::ErrorKind::Unavailable) for ever, and new ones are to be taken.
#[derive(Debug, Clone)]
pub struct World {
    pub(super) shared: Arc<Shared>,
}

/// One host of a world: named by its node address, or made by [`World::another_host`].
#[derive(Debug, Clone)]
pub struct Host {
    world: World,
    index: HostIndex,
}

impl Host {
    pub(super) const fn index(&self) -> HostIndex {
        self.index
    }

    /// Its overlay.
    #[must_use]
    pub fn overlay(&self) -> MemoryOverlay {
        self.world.overlay(self)
    }

    /// Its discovery.
    #[must_use]
    pub fn discovery(&self) -> MemoryDiscovery {
        self.world.discovery(self)
    }

    /// Its containers.
    #[must_use]
    pub fn runtime(&self) -> MemoryRuntime {
        self.world.runtime(self)
    }

    /// What asks its containers.
    #[must_use]
    pub fn prober(&self) -> MemoryProber {
        self.world.prober(self)
    }

    /// Its admission.
    #[must_use]
    pub fn admission(&self) -> MemoryAdmission {
        self.world.admission(self)
    }

    /// Its part in what the world agrees on.
    #[must_use]
    pub fn key_value(&self) -> MemoryKeyValue {
        self.world.key_value(self)
    }

    /// Its disk.
    #[must_use]
    pub fn store(&self) -> MemoryStore {
        self.world.store(self)
    }
}

impl World {
    /// An empty world; the seed decides all that chance decides.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            shared: Shared::start(seed),
        }
    }

    /// What the host says of itself when it boots or joins under its label.
    #[must_use]
    pub fn info(&self, place: impl Place, role: Role) -> NodeInfo {
        let index = place.host(self);
        self.shared.with(|state| {
            let host = &state.hosts[index];
            NodeInfo::new(host.label, host.name.clone(), role)
        })
    }

    pub(super) fn entry(&self, place: impl Place, info: &NodeInfo) -> RosterEntry {
        let index = place.host(self);
        self.shared.with(|state| {
            let host = &state.hosts[index];
            RosterEntry::new(info.node, info.name.clone(), info.role, host.identity, 0)
                .at(Some(host.endpoint))
        })
    }

    pub(super) fn labelled(&self, label: NodeAddr) -> HostIndex {
        self.shared.with(|state| {
            let known = state.labels.get(&label).copied();
            known.unwrap_or_else(|| state.add_host(label, None))
        })
    }

    /// A host by its node address.
    #[must_use]
    pub fn host(&self, place: impl Place) -> Host {
        Host {
            world: self.clone(),
            index: place.host(self),
        }
    }

    /// One more host that wants this node address, as when two halves of a cluster admit the same one. The address goes
    /// on naming the first.
    #[must_use]
    pub fn another_host(&self, label: NodeAddr) -> Host {
        let index = self.shared.with(|state| {
            let first = state.labels.get(&label).copied();
            let index = state.add_host(label, None);
            state.labels.insert(label, first.unwrap_or(index));
            index
        });
        Host {
            world: self.clone(),
            index,
        }
    }

    fn seat(&self, place: impl Place) -> Seat {
        let host = place.host(self);
        let process = self.shared.with(|state| state.hosts[host].process);
        Seat {
            shared: Arc::clone(&self.shared),
            host,
            process,
        }
    }

    /// The overlay of a host.
    #[must_use]
    pub fn overlay(&self, place: impl Place) -> MemoryOverlay {
        MemoryOverlay::new(self.seat(place))
    }

    /// The discovery of a host.
    #[must_use]
    pub fn discovery(&self, place: impl Place) -> MemoryDiscovery {
        MemoryDiscovery::new(self.seat(place))
    }

    /// The containers of a host.
    #[must_use]
    pub fn runtime(&self, place: impl Place) -> MemoryRuntime {
        MemoryRuntime::new(self.seat(place))
    }

    /// What asks the containers of a host.
    #[must_use]
    pub fn prober(&self, place: impl Place) -> MemoryProber {
        MemoryProber::new(self.seat(place))
    }

    /// The admission of a host.
    #[must_use]
    pub fn admission(&self, place: impl Place) -> MemoryAdmission {
        MemoryAdmission::new(self.seat(place))
    }

    /// The part of a host in what the world agrees on.
    #[must_use]
    pub fn key_value(&self, place: impl Place) -> MemoryKeyValue {
        MemoryKeyValue::new(self.seat(place))
    }

    /// The disk of a host, where an embedder keeps its membership.
    #[must_use]
    pub fn store(&self, place: impl Place) -> MemoryStore {
        MemoryStore::new(self.seat(place))
    }

    /// Where a host is on the underlay.
    #[must_use]
    pub fn endpoint(&self, place: impl Place) -> SocketAddr {
        let index = place.host(self);
        self.shared.with(|state| state.hosts[index].endpoint)
    }

    pub(super) fn act<R>(&self, act: impl FnOnce(&mut State, Instant) -> R) -> R {
        self.shared.with(|state| act(state, Instant::now()))
    }

    /// A bare namespace on a host, for tests that attach without a runtime.
    #[must_use]
    pub fn namespace(&self, place: impl Place) -> NetNamespace {
        let index = place.host(self);
        self.act(|state, _| state.hosts[index].router.make_namespace(index))
    }

    /// Removes such a namespace; what was attached in it is gone. A second call does nothing.
    pub fn remove_namespace(&self, place: impl Place, namespace: &NetNamespace) {
        let index = place.host(self);
        self.act(|state, _| {
            if state.hosts[index].router.remove_namespace(namespace) {
                state.activity += 1;
            }
        });
    }
}
