//! The overlay while it runs: its peers, in the router's namespace and in weave, and how they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arpanet_core::admission::Membership;
use arpanet_core::overlay::{Announcement, PeerSpec, PeerState, PeerStatus};
use arpanet_core::{ErrorKind, NodeAddr, Result};
use arpanet_netlink::{Change, Ledger, Netlink};
use arpanet_router::{Pinger, Router};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::PeerName;
use crate::announcement::Called;
use crate::config::WeaveConfig;
use crate::detour::{detours, may_need_one};
use crate::diagnosis::{Observation, look, targets};
use crate::error::own;
use crate::launcher::{Carrier, Launcher};
use crate::port;

/// How often each peer is pinged, for the round trip and to see whether something has to be mended.
const ROUND: Duration = Duration::from_secs(2);
/// Unanswered pings after which a peer counts as out of reach.
const LOST: u32 = 3;
/// How often somebody who waits for a peer pings it.
const PINGING: Duration = Duration::from_millis(50);
/// How often somebody who waits for a peer asks the router why it takes so long.
const ASKING: Duration = Duration::from_millis(250);
/// How often somebody who waits for a peer has the router try again. By itself it does so after 2 s, and later every 6 minutes.
const AGAIN: Duration = Duration::from_secs(1);
/// How long an earlier process's routes may wait for their peers.
const STALE: Duration = Duration::from_secs(30);

/// A launched overlay.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) membership: Membership,
    pub(crate) carrier: Carrier,
    pub(crate) router: Router,
    host: Netlink,
    config: WeaveConfig,
    launcher: Arc<Launcher>,
    mtu: Mutex<u16>,
    pinger: Pinger,
    peers: Mutex<BTreeMap<NodeAddr, Peer>>,
    /// The router could not be told something.
    is_behind: AtomicBool,
    ledger: Arc<Ledger>,
    detours: tokio::sync::Mutex<Vec<Change>>,
}

#[derive(Debug, Clone)]
struct Peer {
    name: PeerName,
    /// Of its router.
    endpoint: Option<SocketAddr>,
    round_trip: Option<Duration>,
    answered: bool,
    unanswered: u32,
}

/// The parts of a launched overlay.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) membership: Membership,
    pub(crate) carrier: Carrier,
    pub(crate) router: Router,
    pub(crate) host: Netlink,
    pub(crate) config: WeaveConfig,
    pub(crate) launcher: Arc<Launcher>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) mtu: u16,
    pub(crate) pinger: Pinger,
}

impl Running {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            membership,
            carrier,
            router,
            host,
            config,
            launcher,
            ledger,
            mtu,
            pinger,
        } = parts;
        Self {
            membership,
            carrier,
            router,
            host,
            config,
            launcher,
            mtu: Mutex::new(mtu),
            pinger,
            peers: Mutex::default(),
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
    pub(crate) async fn settle_detours(&self) -> Result<()> {
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

    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeAddr, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peer(&self, node: NodeAddr) -> Option<Peer> {
        self.peers().get(&node).cloned()
    }

    pub(crate) fn announcement(&self) -> Announcement {
        Called {
            name: self.carrier.name,
            port: self.config.port,
        }
        .announce()
    }

    /// Puts the router's namespace on weave's network, or mends its way there.
    pub(crate) async fn plug_in(&self) -> Result<()> {
        let inside = self.router.namespace().handle()?;
        let mtu = *self.mtu.lock().unwrap_or_else(PoisonError::into_inner);
        let node = self.membership.me.node;
        port::plug_in(&self.host, &inside, &self.config.bridge, node, mtu).await?;
        self.router.trust_uplink().await
    }

    pub(crate) fn set_mtu(&self, mtu: u16) {
        *self.mtu.lock().unwrap_or_else(PoisonError::into_inner) = mtu;
    }

    /// Takes the node off weave's network. The router goes on, so that the next launch is back at once.
    pub(crate) async fn stop(&self) -> Result<()> {
        port::switch_off(&self.host).await
    }

    /// Takes back what a router was told that goes on, being somebody else's.
    pub(crate) async fn let_go(&self) -> Result<()> {
        if self.carrier.is_ours {
            return Ok(());
        }
        let wanted: Vec<SocketAddr> = self.wanted().into_iter().collect();
        self.launcher.client().forget(&wanted).await
    }

    pub(crate) async fn connect(&self, spec: PeerSpec) -> Result<()> {
        let called = Called::read(spec.node, &spec.announcement, self.config.port)?;
        if spec.node == self.membership.me.node {
            return Ok(());
        }
        let endpoint = spec
            .endpoint
            .map(|endpoint| SocketAddr::new(endpoint.ip(), called.port));
        self.router.set_peer(spec.node, &spec.holds).await?;
        let before = self.peer(spec.node);
        {
            let mut peers = self.peers();
            let peer = peers.entry(spec.node).or_insert(Peer {
                name: called.name,
                endpoint,
                round_trip: None,
                answered: false,
                unanswered: 0,
            });
            peer.name = called.name;
            peer.endpoint = endpoint;
        }
        match before {
            Some(before) if before.endpoint == endpoint => Ok(()),
            before => {
                self.tell(endpoint, before.and_then(|before| before.endpoint))
                    .await
            }
        }
    }

    pub(crate) async fn nudge(&self, node: NodeAddr) -> Result<()> {
        let endpoint = self.peer(node).and_then(|peer| peer.endpoint);
        self.tell(endpoint, None).await
    }

    pub(crate) async fn forget(&self, node: NodeAddr) -> Result<()> {
        let peer = self.peers().remove(&node);
        // The connection of the routers stands, and weave would go on by way of others without it: what counts is the route.
        self.router.remove_peer(node).await?;
        self.tell(None, peer.and_then(|peer| peer.endpoint)).await
    }

    fn wanted(&self) -> BTreeSet<SocketAddr> {
        self.peers()
            .values()
            .filter_map(|peer| peer.endpoint)
            .collect()
    }

    /// Pings all peers once; those that do not answer.
    async fn measure(&self) -> Vec<NodeAddr> {
        let nodes: Vec<NodeAddr> = self.peers().keys().copied().collect();
        let mut pings: FuturesUnordered<_> = nodes
            .into_iter()
            .map(|node| async move { (node, self.pinger.ping(node.overlay(), ROUND).await) })
            .collect();
        let mut silent = Vec::new();
        while let Some((node, round_trip)) = pings.next().await {
            if round_trip.is_none() {
                silent.push(node);
            }
            self.note(node, round_trip);
        }
        silent
    }

    /// One round of what goes on by itself.
    async fn tend(&self) -> Result<()> {
        let silent = self.measure().await;
        let is_well = !self.is_behind.load(Ordering::Relaxed) && !self.has_lost_its_router();
        if silent.is_empty() && is_well {
            return Ok(());
        }
        self.mend().await?;
        for node in silent {
            // Those that have been away for longer are tried when somebody hears of them.
            let is_new = |peer: Peer| peer.unanswered <= LOST;
            if self.peer(node).is_some_and(is_new) {
                self.nudge(node).await?;
            }
        }
        Ok(())
    }

    fn note(&self, node: NodeAddr, round_trip: Option<Duration>) {
        if let Some(peer) = self.peers().get_mut(&node) {
            match round_trip {
                Some(_) => {
                    peer.round_trip = round_trip;
                    peer.answered = true;
                    peer.unanswered = 0;
                }
                None => peer.unanswered = peer.unanswered.saturating_add(1),
            }
        }
    }

    fn has_lost_its_router(&self) -> bool {
        self.carrier.is_ours && self.launcher.has_died()
    }

    /// Makes good what happened to the router, to its bridge, or to what it was told.
    async fn mend(&self) -> Result<()> {
        let outcome = self.try_to_mend().await;
        self.is_behind.fetch_or(outcome.is_err(), Ordering::Relaxed);
        outcome
    }

    async fn try_to_mend(&self) -> Result<()> {
        if self.has_lost_its_router() {
            tracing::warn!("the weave router has ended, and is launched again");
            self.launcher.ensure(&self.membership).await?;
        }
        self.plug_in().await?;
        self.retell().await
    }

    /// Tells the router what it has not heard, or has forgotten.
    pub(crate) async fn retell(&self) -> Result<()> {
        let client = self.launcher.client();
        self.is_behind.store(false, Ordering::Relaxed);
        let router = client.report().await?.router;
        let (new, old) = targets(&router.targets, &self.wanted(), router.port);
        client.connect(&new).await?;
        // Those of a router that somebody else launched may be its own.
        if self.carrier.is_ours {
            client.forget(&old).await?;
        }
        Ok(())
    }

    pub(crate) async fn statuses(&self) -> Vec<PeerStatus> {
        let peers = self.peers().clone();
        let is_up = |peer: &Peer| peer.answered && peer.unanswered < LOST;
        // Only for the reasons of those that are not in reach; without them they count as being tried.
        let report = match peers.values().all(is_up) {
            true => None,
            false => self.launcher.client().report().await.ok(),
        };
        peers
            .iter()
            .map(|(node, peer)| {
                let trouble = report
                    .as_ref()
                    .and_then(|report| look(&report.router, peer.name, peer.endpoint).err());
                let state = if is_up(peer) {
                    PeerState::Up
                } else if trouble.is_some_and(|trouble| trouble.is_final()) {
                    PeerState::Down
                } else {
                    PeerState::Connecting
                };
                let mut status = PeerStatus::new(*node, state);
                status.endpoint = peer.endpoint;
                status.round_trip = peer.round_trip.filter(|_| state == PeerState::Up);
                status
            })
            .collect()
    }

    pub(crate) async fn wait_reachable(&self, node: NodeAddr, limit: Duration) -> Result<()> {
        let Some(peer) = self.peer(node) else {
            return Err(own(
                ErrorKind::NotFound,
                format!("node {node} is no peer of this node"),
            ));
        };
        let deadline = Instant::now() + limit;
        let mut ticks = interval(PINGING);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pings = FuturesUnordered::new();
        let mut watch = std::pin::pin!(self.watch(node, false));
        let mut tried = Instant::now();
        let mut seen = Observation::default();
        let mut unasked = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => pings.push(self.pinger.ping(node.overlay(), limit)),
                Some(Some(round_trip)) = pings.next() => {
                    self.note(node, Some(round_trip));
                    return Ok(());
                }
                report = &mut watch => {
                    match report {
                        Ok(router) => {
                            seen.add(&router, peer.name, peer.endpoint);
                            unasked = None;
                            if let Some(fault) = seen.fault(node, peer.endpoint) {
                                return Err(fault);
                            }
                        }
                        Err(error) => unasked = Some(error),
                    }
                    let is_due = tried.elapsed() >= AGAIN;
                    if is_due {
                        tried = Instant::now();
                    }
                    watch.set(self.watch(node, is_due));
                }
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        Err(match unasked {
            Some(error) => {
                let kind = ErrorKind::Timeout;
                own(kind, format!("node {node} did not answer in {limit:?}")).with_source(error)
            }
            None => seen.timeout(node, peer.endpoint, limit),
        })
    }

    /// The next report, after a pause, and after another attempt at the peer if that is due.
    async fn watch(&self, node: NodeAddr, is_due: bool) -> Result<crate::report::Router> {
        tokio::time::sleep(ASKING).await;
        if is_due {
            self.nudge(node).await?;
        }
        Ok(self.launcher.client().report().await?.router)
    }
}

/// What goes on by itself while the overlay runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Tasks(Vec<JoinHandle<()>>);

impl Tasks {
    pub(crate) fn spawn(running: &Arc<Running>) -> Self {
        Self(vec![
            tokio::spawn(keep_measuring(Arc::downgrade(running))),
            tokio::spawn(drop_stale(Arc::downgrade(running))),
        ])
    }
}

impl Tasks {
    /// Ends them, and returns when they have ended: none undoes what is done next.
    pub(crate) async fn end(&mut self) {
        while let Some(task) = self.0.last_mut() {
            task.abort();
            let _ = task.await;
            self.0.pop();
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

async fn keep_measuring(running: Weak<Running>) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let Some(running) = running.upgrade() else {
            return;
        };
        if let Err(error) = running.tend().await {
            tracing::warn!(%error, "weave can't be mended now");
        }
    }
}

async fn drop_stale(running: Weak<Running>) {
    tokio::time::sleep(STALE).await;
    if let Some(running) = running.upgrade()
        && let Err(error) = running.router.drop_stale().await
    {
        tracing::warn!(%error, "routes of an earlier start are left");
    }
}
