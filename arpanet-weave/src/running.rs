//! The overlay while it runs: its peers, in the router's namespace and in weave, and how they are.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use arpanet_core::admission::Membership;
use arpanet_core::overlay::{Announcement, PeerSpec, PeerState, PeerStatus};
use arpanet_core::{Error, ErrorKind, NodeAddr, Result};
use arpanet_netlink::{Change, Ledger, Netlink};
use arpanet_router::{Answers, Peers, Router, Session};
use async_trait::async_trait;
use tokio::time::Instant;

use crate::PeerName;
use crate::announcement::Called;
use crate::config::WeaveConfig;
use crate::detour::{detours, may_need_one};
use crate::diagnosis::{Observation, look, targets};
use crate::error::own;
use crate::launcher::{Launcher, Weaver};
use crate::port;

/// How often somebody who waits for a peer asks the router why it takes so long.
const ASKING: Duration = Duration::from_millis(250);
/// How often somebody who waits for a peer has the router try again. By itself it does so after 2 s, and later every 6 minutes.
const AGAIN: Duration = Duration::from_secs(1);
/// A launched overlay.
#[derive(Debug)]
pub struct Running {
    membership: Membership,
    weaver: Weaver,
    router: Router,
    host: Netlink,
    config: WeaveConfig,
    launcher: Arc<Launcher>,
    /// Inside, in bytes.
    mtu: AtomicU16,
    peers: Peers<Peer>,
    /// The router could not be told something.
    is_behind: AtomicBool,
    ledger: Arc<Ledger>,
    detours: tokio::sync::Mutex<Vec<Change>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Peer {
    name: PeerName,
    /// Of its router.
    endpoint: Option<SocketAddr>,
}

/// The parts of a launched overlay.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) membership: Membership,
    pub(crate) weaver: Weaver,
    pub(crate) router: Router,
    pub(crate) host: Netlink,
    pub(crate) config: WeaveConfig,
    pub(crate) launcher: Arc<Launcher>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) mtu: u16,
    pub(crate) peers: Peers<Peer>,
}

impl Running {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            membership,
            weaver,
            router,
            host,
            config,
            launcher,
            ledger,
            mtu,
            peers,
        } = parts;
        Self {
            membership,
            weaver,
            router,
            host,
            config,
            launcher,
            mtu: AtomicU16::new(mtu),
            peers,
            is_behind: AtomicBool::new(false),
            ledger,
            detours: tokio::sync::Mutex::default(),
        }
    }

    /// The router, which is told again later what it can't be told now.
    async fn tell(&self, new: Option<SocketAddr>, old: Option<SocketAddr>) -> Result<()> {
        self.settle_detours().await?;
        let client = self.launcher.client();
        let old = old.filter(|endpoint| !self.wanted().contains(endpoint));
        let forgotten = client.forget(old.as_slice()).await;
        let outcome = forgotten.and(client.connect(new.as_slice()).await);
        self.is_behind.fetch_or(outcome.is_err(), Ordering::Relaxed);
        outcome
    }

    /// Gives the routers that need it a way on the underlay, and takes it from those that nobody wants any more.
    async fn settle_detours(&self) -> Result<()> {
        let mut made = self.detours.lock().await;
        let endpoints = self.wanted();
        // The host may have very many routes, and most clusters need none of these.
        if made.is_empty() && !endpoints.iter().any(may_need_one) {
            return Ok(());
        }
        let wanted = detours(&self.host.routes().await?, &endpoints);
        self.ledger.apply_all(wanted.iter().cloned()).await?;
        for old in made.iter().filter(|old| !wanted.contains(old)) {
            self.ledger.undo(old).await?;
        }
        *made = wanted;
        Ok(())
    }

    /// Puts the router's namespace on weave's network, or mends its way there.
    pub(crate) async fn plug_in(&self) -> Result<()> {
        let inside = self.router.namespace().handle()?;
        let mtu = self.mtu.load(Ordering::Relaxed);
        let node = self.membership.me.node;
        port::plug_in(&self.host, &inside, &self.config.bridge, node, mtu).await?;
        self.router.trust_uplink().await
    }

    fn wanted(&self) -> BTreeSet<SocketAddr> {
        let peers = self.peers.all().into_values();
        peers.filter_map(|(peer, _)| peer.endpoint).collect()
    }

    /// Sees to what the last round of pings has shown.
    async fn follow_up(&self, silent: &[(Peer, Answers)]) -> Result<()> {
        let is_well = !self.is_behind.load(Ordering::Relaxed) && !self.has_lost_its_router();
        if silent.is_empty() && is_well {
            return Ok(());
        }
        self.make_good().await?;
        for (peer, answers) in silent {
            // Those that have been away for longer are tried when somebody hears of them.
            if answers.is_newly_silent() {
                self.tell(peer.endpoint, None).await?;
            }
        }
        Ok(())
    }

    fn has_lost_its_router(&self) -> bool {
        self.weaver.is_ours && self.launcher.has_died()
    }

    /// Makes good what happened to the router, to its bridge, or to what it was told.
    async fn make_good(&self) -> Result<()> {
        let outcome = self.try_to_make_good().await;
        self.is_behind.fetch_or(outcome.is_err(), Ordering::Relaxed);
        outcome
    }

    async fn try_to_make_good(&self) -> Result<()> {
        if self.has_lost_its_router() {
            tracing::warn!("the weave router has ended, and is launched again");
            self.launcher.ensure(&self.membership).await?;
        }
        self.plug_in().await?;
        self.retell().await
    }

    /// Tells the router what it has not heard, or has forgotten.
    async fn retell(&self) -> Result<()> {
        let client = self.launcher.client();
        self.is_behind.store(false, Ordering::Relaxed);
        let router = client.report().await?.router;
        let (new, old) = targets(&router.targets, &self.wanted(), router.port);
        client.connect(&new).await?;
        // Those of a router that somebody else launched may be its own.
        if self.weaver.is_ours {
            client.forget(&old).await?;
        }
        Ok(())
    }

    /// Asks the router why a peer takes so long, and has it try again, until there is no hope.
    async fn watch(
        &self,
        node: NodeAddr,
        peer: &Peer,
        seen: &mut Observation,
        unasked: &mut Option<Error>,
    ) -> Error {
        let mut tried = Instant::now();
        loop {
            tokio::time::sleep(ASKING).await;
            let asked = async {
                if tried.elapsed() >= AGAIN {
                    tried = Instant::now();
                    self.nudge(node).await?;
                }
                Ok(self.launcher.client().report().await?.router)
            };
            match asked.await {
                Ok(router) => {
                    seen.add(&router, peer.name, peer.endpoint);
                    *unasked = None;
                    if let Some(fault) = seen.fault(node, peer.endpoint) {
                        return fault;
                    }
                }
                Err(error) => *unasked = Some(error),
            }
        }
    }
}

#[async_trait]
impl Session for Running {
    fn membership(&self) -> &Membership {
        &self.membership
    }

    fn router(&self) -> &Router {
        &self.router
    }

    fn announcement(&self) -> Announcement {
        Called {
            name: self.weaver.name,
            port: self.config.port,
        }
        .announce()
    }

    async fn mend(&self, membership: &Membership, mtu: u16) -> Result<()> {
        self.launcher.ensure(membership).await?;
        self.mtu.store(mtu, Ordering::Relaxed);
        self.plug_in().await?;
        self.router.mend(mtu).await?;
        self.settle_detours().await?;
        self.retell().await
    }

    async fn connect(&self, spec: PeerSpec) -> Result<()> {
        let called = Called::read(spec.node, &spec.announcement, self.config.port)?;
        if spec.node == self.membership.me.node {
            return Ok(());
        }
        let endpoint = spec
            .endpoint
            .map(|endpoint| SocketAddr::new(endpoint.ip(), called.port));
        self.router.set_peer(spec.node, &spec.holds).await?;
        let name = called.name;
        match self.peers.set(spec.node, Peer { name, endpoint }) {
            Some(before) if before.endpoint == endpoint => Ok(()),
            before => {
                let old = before.and_then(|before| before.endpoint);
                self.tell(endpoint, old).await
            }
        }
    }

    async fn nudge(&self, node: NodeAddr) -> Result<()> {
        let endpoint = self.peers.get(node).and_then(|peer| peer.endpoint);
        self.tell(endpoint, None).await
    }

    async fn forget(&self, node: NodeAddr) -> Result<()> {
        let peer = self.peers.remove(node);
        // The connection of the routers stands, and weave would go on by way of others without it: what counts is the route.
        self.router.remove_peer(node).await?;
        self.tell(None, peer.and_then(|peer| peer.endpoint)).await
    }

    async fn peers(&self) -> Vec<PeerStatus> {
        let peers = self.peers.all();
        // Only for the reasons of those that are not in reach; without them they count as being tried.
        let report = match peers.values().all(|(_, answers)| answers.is_up()) {
            true => None,
            false => self.launcher.client().report().await.ok(),
        };
        peers
            .into_iter()
            .map(|(node, (peer, answers))| {
                let trouble = report
                    .as_ref()
                    .and_then(|report| look(&report.router, peer.name, peer.endpoint).err());
                let state = if answers.is_up() {
                    PeerState::Up
                } else if trouble.is_some_and(|trouble| trouble.is_final()) {
                    PeerState::Down
                } else {
                    PeerState::Connecting
                };
                let mut status = PeerStatus::new(node, state);
                status.endpoint = peer.endpoint;
                status.round_trip = answers.round_trip().filter(|_| state == PeerState::Up);
                status
            })
            .collect()
    }

    async fn wait_reachable(&self, node: NodeAddr, limit: Duration) -> Result<()> {
        let peer = self.peers.require(node)?;
        let mut seen = Observation::default();
        let mut unasked = None;
        let watch = self.watch(node, &peer, &mut seen, &mut unasked);
        if self.peers.wait(node, limit, watch).await? {
            return Ok(());
        }
        Err(match unasked {
            Some(error) => {
                let kind = ErrorKind::Timeout;
                own(kind, format!("node {node} did not answer in {limit:?}")).with_source(error)
            }
            None => seen.timeout(node, peer.endpoint, limit),
        })
    }

    async fn tend(&self) {
        let silent = self.peers.measure().await;
        if let Err(error) = self.follow_up(&silent).await {
            tracing::warn!(%error, "weave can't be mended now");
        }
        if let Err(error) = self.launcher.bound_log() {
            tracing::warn!(%error, "weave's log grows");
        }
    }

    /// Takes the node off weave's network. The router goes on, so that the next launch is back at once.
    async fn stop(&self) -> Result<()> {
        port::switch_off(&self.host).await
    }

    /// Takes back what a router was told that goes on, being somebody else's.
    async fn let_go(&self) -> Result<()> {
        if self.weaver.is_ours {
            return Ok(());
        }
        let wanted: Vec<SocketAddr> = self.wanted().into_iter().collect();
        self.launcher.client().forget(&wanted).await
    }
}
