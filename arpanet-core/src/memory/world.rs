//! The world itself: its hosts, and what a test does to them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::admission::{MemoryAdmission, MemoryStore};
use super::catalogue::DiscoveryProcess;
use super::discovery::MemoryDiscovery;
use super::network::HostIndex;
use super::overlay::MemoryOverlay;
use super::place::{Origin, Place};
use super::runtime::MemoryRuntime;
use super::state::{Seat, Shared, State};
use crate::admission::{Admission, Membership, NodeInfo, Password};
use crate::discovery::{Discovery, Instance};
use crate::overlay::{NetNamespace, Overlay, PeerSpec};
use crate::roster::{Role, RosterEntry};
use crate::{ContainerName, Error, ErrorKind, NodeAddr, Result, ServiceName};

/// How long nothing must happen before a world counts as settled.
const QUIET: Duration = Duration::from_millis(100);

/// The longest that a world is given to settle.
const RESTLESS: Duration = Duration::from_secs(120);

/// How often and how long a ping is tried.
const PINGS: u32 = 6;
const PING_INTERVAL: Duration = Duration::from_millis(200);

/// A simulated world. Clones are the same world.
///
/// Hosts come into being when they are first named: `world.overlay("0.1")` is the overlay of the host whose node address
/// is to be 0.1. Handles belong to the agent's process at the time they are taken: after [`kill`](World::kill) or
/// [`crash`](World::crash) they answer [`Unavailable`](ErrorKind::Unavailable) for ever, and new ones are to be taken.
#[derive(Debug, Clone)]
pub struct World {
    shared: Arc<Shared>,
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

    /// Its admission.
    #[must_use]
    pub fn admission(&self) -> MemoryAdmission {
        self.world.admission(self)
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

    /// A world of one cluster with the nodes 0.1, 0.2 and so on: all in the roster, with overlay and discovery running
    /// and everybody connected; the first one is the boot node, the others are servers.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn with_nodes(count: u16) -> Self {
        let world = Self::new(1);
        if let Err(error) = world.form(count).await {
            unreachable!("a whole world forms a cluster: {error}");
        }
        world
    }

    /// A founded cluster of the nodes 0.1, 0.2 and so on: the membership of each, with all of them in the roster. Nothing is
    /// started. The first one is the boot node, the others are servers.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) when the first one's host has no power.
    pub async fn memberships(&self, count: u16) -> Result<Vec<Membership>> {
        let nodes: Vec<NodeAddr> = (1..=count).filter_map(NodeAddr::from_index).collect();
        let Some(first) = nodes.first() else {
            return Ok(Vec::new());
        };
        let password = Password::new("simulated")?;
        let founder = self.info(*first, Role::Boot);
        let mut founded = self.admission(*first).found(&password, &founder).await?;
        for node in &nodes[1..] {
            let info = self.info(*node, Role::Server);
            founded.roster.merge(self.entry(*node, &info));
        }
        let memberships = nodes.iter().map(|node| {
            let role = if node == first {
                Role::Boot
            } else {
                Role::Server
            };
            Membership::new(
                self.info(*node, role),
                self.entry(*node, &founder).identity,
                founded.cluster,
                founded.key.clone(),
                founded.roster.clone(),
            )
        });
        Ok(memberships.collect())
    }

    async fn form(&self, count: u16) -> Result<()> {
        let mut nodes = Vec::new();
        for membership in self.memberships(count).await? {
            let node = membership.me.node;
            self.overlay(node).launch(&membership).await?;
            self.discovery(node).start(&membership).await?;
            nodes.push(node);
        }
        let peers = self.peer_specs();
        for node in &nodes {
            let overlay = self.overlay(*node);
            for peer in peers.iter().filter(|peer| peer.node != *node) {
                overlay.connect(peer.clone()).await?;
            }
        }
        self.settle().await;
        Ok(())
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

    fn entry(&self, place: impl Place, info: &NodeInfo) -> RosterEntry {
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

    /// The host is installed anew: an empty disk and another identity at the same endpoint. Handles of before are dead.
    pub fn reinstall(&self, place: impl Place) {
        let index = place.host(self);
        self.act(|state, now| {
            power_off(state, index, now);
            let host = &state.hosts[index];
            let (label, name, endpoint) = (host.label, host.name.clone(), host.endpoint);
            let anew = state.add_host(label, Some(endpoint));
            state.hosts[anew].name = name;
        });
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

    /// The admission of a host.
    #[must_use]
    pub fn admission(&self, place: impl Place) -> MemoryAdmission {
        MemoryAdmission::new(self.seat(place))
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

    /// The host gets another underlay address, as by DHCP; tells which.
    pub fn readdress(&self, place: impl Place) -> SocketAddr {
        let index = place.host(self);
        self.act(|state, now| {
            let taken: Vec<SocketAddr> = state.hosts.iter().map(|host| host.endpoint).collect();
            let mut endpoint = state.hosts[index].endpoint;
            while let SocketAddr::V4(old) = endpoint
                && taken.contains(&endpoint)
            {
                // 198.19.0.0/16: beyond all addresses that hosts begin with.
                let ip = Ipv4Addr::from_bits(old.ip().to_bits() | 0x0001_0000);
                let ip = if ip == *old.ip() {
                    Ipv4Addr::from_bits(ip.to_bits() + 256)
                } else {
                    ip
                };
                endpoint = (ip, old.port()).into();
            }
            state.hosts[index].endpoint = endpoint;
            let word = state.hosts[index].discovery.as_mut().and_then(|process| {
                process.say(now, |own| own.endpoint.replace(endpoint) != Some(endpoint))
            });
            if let Some(word) = word {
                state.broadcast(index, &word, now);
            }
            state.activity += 1;
            endpoint
        })
    }

    fn act<R>(&self, act: impl FnOnce(&mut State, Instant) -> R) -> R {
        self.shared.with(|state| act(state, Instant::now()))
    }

    /// Takes a host off the underlay.
    pub fn cut(&self, place: impl Place) {
        let index = place.host(self);
        self.act(|state, now| {
            state.network.cut(index);
            state.reassess(now);
        });
    }

    /// Cuts two hosts from each other only.
    pub fn cut_between(&self, a: impl Place, b: impl Place) {
        let (a, b) = (a.host(self), b.host(self));
        self.act(|state, now| {
            state.network.cut_between(a, b);
            state.reassess(now);
        });
    }

    /// Cuts the hosts of one group from all others; inside of both sides all goes on.
    pub fn partition<P: Place>(&self, group: impl IntoIterator<Item = P>) {
        let group: Vec<HostIndex> = group.into_iter().map(|place| place.host(self)).collect();
        self.act(|state, now| {
            for inside in &group {
                for outside in (0..state.hosts.len()).filter(|host| !group.contains(host)) {
                    state.network.cut_between(*inside, outside);
                }
            }
            state.reassess(now);
        });
    }

    /// Mends every cut of a host.
    pub fn heal(&self, place: impl Place) {
        let index = place.host(self);
        self.act(|state, now| {
            state.network.heal(index, now);
            state.reassess(now);
        });
    }

    /// Mends the cut between two hosts; one that is cut off as a whole stays so.
    pub fn heal_between(&self, a: impl Place, b: impl Place) {
        let (a, b) = (a.host(self), b.host(self));
        self.act(|state, now| {
            state.network.heal_between(a, b, now);
            state.reassess(now);
        });
    }

    /// Mends everything.
    pub fn heal_all(&self) {
        self.act(|state, now| {
            for host in 0..state.hosts.len() {
                state.network.heal(host, now);
            }
            state.reassess(now);
        });
    }

    /// How long every datagram travels, one way. 1 ms at first.
    pub fn delay(&self, delay: Duration) {
        self.act(|state, _| state.network.set_delay(delay));
    }

    /// How long a datagram travels between two hosts, one way.
    pub fn delay_between(&self, a: impl Place, b: impl Place, delay: Duration) {
        let (a, b) = (a.host(self), b.host(self));
        self.act(|state, _| state.network.set_delay_between(a, b, delay));
    }

    /// Which part of all datagrams is lost, 0 to 1; what is lost is sent again after 200 ms.
    pub fn loss(&self, loss: f64) {
        self.act(|state, _| state.network.set_loss(loss));
    }

    /// Which part of the datagrams between two hosts is lost.
    pub fn loss_between(&self, a: impl Place, b: impl Place, loss: f64) {
        let (a, b) = (a.host(self), b.host(self));
        self.act(|state, _| state.network.set_loss_between(a, b, loss));
    }

    /// Takes the power from a host: agent and containers are gone, the disk stays. A second call does nothing.
    pub fn kill(&self, place: impl Place) {
        let index = place.host(self);
        self.act(|state, now| power_off(state, index, now));
    }

    /// Kills the agent alone, as `kill -9`: containers and what is attached stay.
    pub fn crash(&self, place: impl Place) {
        let index = place.host(self);
        self.act(|state, now| end_process(state, index, now));
    }

    /// Gives a host its power back; the agent is the test's to start. A second call does nothing.
    pub fn start(&self, place: impl Place) {
        let index = place.host(self);
        self.act(|state, now| {
            let clock = state.wall_clock(now);
            let host = &mut state.hosts[index];
            if !std::mem::replace(&mut host.powered, true) {
                host.engine.regain_power(index, &mut host.router, clock);
                state.activity += 1;
            }
        });
    }

    /// A container ends by itself with this exit code, and is started again where its policy says so.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for one that is not there.
    pub fn end_container(&self, place: impl Place, name: &ContainerName, code: i32) -> Result<()> {
        let index = place.host(self);
        self.act(|state, now| {
            let clock = state.wall_clock(now);
            let host = &mut state.hosts[index];
            host.engine.get(name)?;
            if host.engine.end(&mut host.router, name, code) {
                state.activity += 1;
                let host = &mut state.hosts[index];
                host.engine
                    .restart_by_policy(index, &mut host.router, name, code, clock)?;
            }
            Ok(())
        })
    }

    /// All nodes whose overlay runs, as others would connect with them now; they hold no container addresses.
    #[must_use]
    pub fn peer_specs(&self) -> Vec<PeerSpec> {
        self.shared.with(|state| {
            (0..state.hosts.len())
                .filter_map(|host| {
                    let overlay = state.overlay(host)?;
                    let endpoint = Some(state.hosts[host].endpoint);
                    Some(PeerSpec::new(
                        overlay.node,
                        endpoint,
                        overlay.announcement.clone(),
                    ))
                })
                .collect()
        })
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

    /// Waits until nothing more happens by itself: every word has arrived, and every death has been noticed. Calls that
    /// wait for something that may never come, such as [`Overlay::wait_reachable`], don't count.
    pub async fn settle(&self) {
        let limit = Instant::now() + RESTLESS;
        loop {
            let before = self.shared.with(|state| state.activity);
            let due = self.shared.with(|state| state.next_due());
            let wake = (Instant::now() + QUIET).max(due.unwrap_or_else(Instant::now));
            tokio::time::sleep_until(wake).await;
            let settled = self.shared.with(|state| {
                state.activity == before && state.next_due().is_none() && state.busy == 0
            });
            if settled || Instant::now() >= limit {
                return;
            }
        }
    }

    /// What a node answers for a service, now: the instances that get traffic. Empty where discovery does not run.
    ///
    /// # Panics
    /// For text that is no service name.
    #[must_use]
    #[track_caller]
    pub fn lookup(&self, place: impl Place, service: &str) -> Vec<Instance> {
        let service: ServiceName = match service.parse() {
            Ok(service) => service,
            Err(error) => panic!("{error}"),
        };
        let index = place.host(self);
        self.act(|state, now| {
            let process: Option<&DiscoveryProcess> = state.discovery(index);
            process.map_or_else(Vec::new, |process| {
                process
                    .passing(now, |instance| instance.service == service)
                    .into_values()
                    .collect()
            })
        })
    }

    /// Sends packets to an overlay address, over the overlay's routes and past its isolation rules; the round trip of
    /// the first that is answered.
    ///
    /// # Errors
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) when a router refuses it;
    /// [`NotFound`](ErrorKind::NotFound) when there is no route, or nothing to send from;
    /// [`Timeout`](ErrorKind::Timeout) when nothing answers within 1.2 s.
    pub async fn ping(&self, from: impl Origin, to: Ipv4Addr) -> Result<Duration> {
        let (index, container) = from.origin(self);
        for _ in 0..PINGS {
            let answer = self.act(|state, _| {
                if !state.hosts[index].powered {
                    return Err(Error::new(ErrorKind::Timeout, "the host has no power"));
                }
                let (target, time) = state.trace(index, container.as_ref(), to)?;
                let lost = state.network.loses(index, target, &mut state.random)
                    || state.network.loses(target, index, &mut state.random);
                Ok((!lost).then_some(time))
            });
            match answer {
                Ok(Some(time)) => {
                    tokio::time::sleep(time).await;
                    return Ok(time);
                }
                Err(error) if error.kind() != ErrorKind::Timeout => return Err(error),
                Ok(None) | Err(_) => tokio::time::sleep(PING_INTERVAL).await,
            }
        }
        let message = format!("no answer from {to} in {:?}", PING_INTERVAL * PINGS);
        Err(Error::new(ErrorKind::Timeout, message))
    }
}

/// The agent's process ends, and all handles of it with it.
fn end_process(state: &mut State, index: HostIndex, now: Instant) {
    let host = &mut state.hosts[index];
    host.process += 1;
    host.admission = None;
    host.overlay = None;
    host.engine.disconnect();
    host.discovery = None;
    state.reassess(now);
}

fn power_off(state: &mut State, index: HostIndex, now: Instant) {
    if !state.hosts[index].powered {
        return;
    }
    end_process(state, index, now);
    let host = &mut state.hosts[index];
    host.powered = false;
    host.router.lose_all();
    host.engine.lose_power();
}
