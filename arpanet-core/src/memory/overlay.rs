//! The overlay in the simulated world.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::network::HostIndex;
use super::state::{Seat, State};
use crate::admission::Membership;
use crate::overlay::{
    Announcement, AttachAddr, Attachment, Overlay, OverlayCapabilities, PeerSpec, PeerState,
    PeerStatus,
};
use crate::{AppAddr, ContainerName, Error, ErrorKind, NodeAddr, Plane, Result};

const BACKEND: &str = "memory";

/// What an announcement of this backend begins with; a number of this launch follows.
const ANNOUNCED: &[u8] = b"memory:";

/// A peer as it is wanted, and since when.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) spec: PeerSpec,
    since: Instant,
}

/// The overlay backend's process on one host.
#[derive(Debug)]
pub(super) struct OverlayProcess {
    pub(super) node: NodeAddr,
    membership: Membership,
    pub(super) announcement: Announcement,
    launched: Instant,
    pub(super) peers: BTreeMap<NodeAddr, Wish>,
    pub(super) exposed: BTreeSet<Plane>,
    pub(super) wide: BTreeSet<Ipv4Addr>,
}

impl State {
    pub(super) fn overlay(&self, host: HostIndex) -> Option<&OverlayProcess> {
        self.hosts[host].overlay.as_ref()
    }

    /// The host behind a wanted peer, and since when traffic flows; `None` while it does not.
    pub(super) fn tunnel(&self, host: HostIndex, node: NodeAddr) -> Option<(HostIndex, Instant)> {
        let mine = self.overlay(host)?;
        let wish = mine.peers.get(&node)?;
        let peer = (0..self.hosts.len()).find(|other| {
            self.overlay(*other).is_some_and(|overlay| {
                overlay.node == node && overlay.announcement == wish.spec.announcement
            })
        })?;
        let theirs = self.overlay(peer)?;
        let back = theirs.peers.get(&mine.node)?;
        let knows = |spec: &PeerSpec, other: HostIndex, overlay: &OverlayProcess| {
            spec.endpoint.is_some_and(|endpoint| {
                endpoint == self.hosts[other].endpoint
                    || Some(endpoint) == overlay.membership.me.advertise
            })
        };
        let met = back.spec.announcement == mine.announcement
            && self.network.linked(host, peer)
            && (knows(&wish.spec, peer, theirs) || knows(&back.spec, host, mine));
        let since = [mine.launched, theirs.launched, wish.since, back.since];
        let since = since
            .into_iter()
            .chain(self.network.linked_since(host, peer))
            .max()?;
        met.then_some((peer, since))
    }
}

/// [`Overlay`] of one host of a [`World`](super::World): packets go where its routes and isolation rules let them, as
/// [`World::ping`](super::World::ping) shows.
#[derive(Debug, Clone)]
pub struct MemoryOverlay {
    seat: Seat,
    capabilities: OverlayCapabilities,
}

impl MemoryOverlay {
    pub(super) const fn new(seat: Seat) -> Self {
        Self {
            seat,
            capabilities: OverlayCapabilities::all().without_plug(),
        }
    }

    /// The same, with less that it can do.
    #[must_use]
    pub const fn with_capabilities(mut self, capabilities: OverlayCapabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    fn launched<R>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&mut State, HostIndex) -> Result<R>,
    ) -> Result<R> {
        self.seat
            .enter(|state, host| {
                process(state, host)?;
                state.faltering(|state| act(state, host))
            })
            .map_err(|error| error.operation(operation).backend(BACKEND))
    }

    /// Acts on the wishes of this process; the world changes only when they do.
    fn alter(
        &self,
        operation: &'static str,
        act: impl FnOnce(&mut OverlayProcess) -> bool,
    ) -> Result<()> {
        self.launched(operation, |state, host| {
            if act(process(state, host)?) {
                state.activity += 1;
            }
            Ok(())
        })
    }

    fn unattachable(&self, operation: &'static str) -> Result<()> {
        if self.capabilities.attach {
            return Ok(());
        }
        Err(Error::unsupported(BACKEND, operation))
    }
}

fn process(state: &mut State, host: HostIndex) -> Result<&mut OverlayProcess> {
    let label = state.hosts[host].label;
    state.hosts[host].overlay.as_mut().ok_or_else(|| {
        let message = format!("the overlay of {label} is not launched");
        Error::new(ErrorKind::Unavailable, message)
    })
}

#[async_trait]
impl Overlay for MemoryOverlay {
    fn name(&self) -> &'static str {
        BACKEND
    }

    fn capabilities(&self) -> OverlayCapabilities {
        self.capabilities
    }

    async fn launch(&self, membership: &Membership) -> Result<Announcement> {
        let _busy = self.seat.busy();
        tokio::task::yield_now().await;
        self.seat.enter(|state, host| {
            if let Some(running) = &mut state.hosts[host].overlay
                && running.node == membership.me.node
                && running.membership.cluster == membership.cluster
            {
                running.membership = membership.clone();
                return Ok(running.announcement.clone());
            }
            let number: [u8; 8] = state.random.bytes();
            let announcement = Announcement(Bytes::from([ANNOUNCED, &number].concat()));
            state.hosts[host].overlay = Some(OverlayProcess {
                node: membership.me.node,
                membership: membership.clone(),
                announcement: announcement.clone(),
                launched: Instant::now(),
                peers: BTreeMap::new(),
                exposed: BTreeSet::new(),
                wide: BTreeSet::new(),
            });
            state.activity += 1;
            Ok(announcement)
        })
    }

    async fn connect(&self, peer: PeerSpec) -> Result<()> {
        let announced = &peer.announcement.0;
        let readable = announced.len() == ANNOUNCED.len() + 8 && announced.starts_with(ANNOUNCED);
        self.launched("connect", |state, host| {
            if !readable {
                let message = format!("the announcement of {} can't be read", peer.node);
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
            let now = Instant::now();
            let process = process(state, host)?;
            let since = match process.peers.get(&peer.node) {
                Some(wish) if wish.spec == peer => return Ok(()),
                Some(wish)
                    if wish.spec.announcement == peer.announcement
                        && wish.spec.endpoint == peer.endpoint =>
                {
                    wish.since
                }
                _ => now,
            };
            process.peers.insert(peer.node, Wish { spec: peer, since });
            state.activity += 1;
            Ok(())
        })
    }

    async fn nudge(&self, _: NodeAddr) -> Result<()> {
        self.launched("nudge", |_, _| Ok(()))
    }

    async fn forget(&self, node: NodeAddr) -> Result<()> {
        self.alter("forget", |process| process.peers.remove(&node).is_some())
    }

    async fn expose(&self, plane: Plane) -> Result<()> {
        self.alter("expose", |process| process.exposed.insert(plane))
    }

    async fn hide(&self, plane: Plane) -> Result<()> {
        self.alter("hide", |process| process.exposed.remove(&plane))
    }

    async fn attach(&self, attachment: &Attachment) -> Result<()> {
        self.unattachable("attach containers")?;
        let _busy = self.seat.busy();
        self.launched("attach", |_, _| Ok(()))?;
        tokio::task::yield_now().await;
        self.launched("attach", |state, host| {
            let node = process(state, host)?.node;
            if state.hosts[host].router.attach(node, attachment)? {
                state.activity += 1;
            }
            Ok(())
        })
    }

    async fn detach(&self, container: &ContainerName, addr: AttachAddr) -> Result<()> {
        self.unattachable("detach containers")?;
        self.launched("detach", |state, host| {
            if state.hosts[host].router.detach(container, addr) {
                state.activity += 1;
            }
            Ok(())
        })
    }

    async fn attached(&self) -> Result<Vec<(ContainerName, AttachAddr)>> {
        self.unattachable("list attached containers")?;
        self.launched("list attached containers", |state, host| {
            let attached = state.hosts[host].router.attached().iter();
            Ok(attached
                .map(|attached| (attached.container.clone(), attached.addr))
                .collect())
        })
    }

    async fn allow_wide(&self, addrs: &[AppAddr]) -> Result<()> {
        let addrs: BTreeSet<Ipv4Addr> = addrs.iter().map(|addr| addr.ip()).collect();
        self.alter("allow wide addresses", |process| {
            let changed = process.wide != addrs;
            process.wide = addrs;
            changed
        })
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>> {
        self.launched("list peers", |state, host| {
            let now = Instant::now();
            let peers = process(state, host)?.peers.clone();
            Ok(peers
                .into_iter()
                .map(|(node, wish)| match state.tunnel(host, node) {
                    Some((peer, since)) => {
                        let mut status = PeerStatus::new(node, PeerState::Up);
                        status.endpoint = Some(state.hosts[peer].endpoint);
                        status.last_handshake = Some(now.saturating_duration_since(since));
                        status.round_trip = Some(state.network.delay(host, peer) * 2);
                        status
                    }
                    None => {
                        let mut status = PeerStatus::new(node, PeerState::Connecting);
                        status.endpoint = wish.spec.endpoint;
                        status
                    }
                })
                .collect())
        })
    }

    async fn wait_reachable(&self, node: NodeAddr, limit: Duration) -> Result<()> {
        let named = |error: Error| error.operation("wait for a peer").backend(BACKEND);
        let reached = self.seat.until(|state, host| {
            if !process(state, host)?.peers.contains_key(&node) {
                let message = format!("{node} is no peer of this node");
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            Ok(state
                .tunnel(host, node)
                .map(|(peer, _)| state.network.delay(host, peer) * 2))
        });
        match tokio::time::timeout(limit, reached).await {
            Ok(reached) => {
                tokio::time::sleep(reached.map_err(named)?).await;
                Ok(())
            }
            Err(_) => {
                let message = format!("no packet came back from {node} in {limit:?}");
                Err(named(Error::new(ErrorKind::Timeout, message)))
            }
        }
    }

    async fn stop(&self) -> Result<()> {
        self.seat.enter(|state, host| {
            state.hosts[host].router.detach_all();
            if state.hosts[host].overlay.take().is_some() {
                state.activity += 1;
            }
            Ok(())
        })
    }

    async fn reset(&self) -> Result<()> {
        self.stop().await
    }
}
