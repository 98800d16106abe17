//! All there is in the simulated world, behind one lock, and the clock that moves it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::admission::AdmissionProcess;
use super::catalogue::{DiscoveryProcess, OwnerState};
use super::containers::Engine;
use super::key_value::Agreed;
use super::network::{HostIndex, Network};
use super::overlay::OverlayProcess;
use super::router::Router;
use crate::addr::UNDERLAY_PORT;
use crate::admission::{Membership, Password};
use crate::random::Random;
use crate::roster::{Identity, Roster};
use crate::{Error, ErrorKind, NodeAddr, NodeName, Result};

/// The hosts' underlay addresses: 198.18.0.0/15 is set aside for tests of networks (RFC 2544).
const UNDERLAY: u32 = u32::from_be_bytes([198, 18, 0, 0]);

/// What the simulated clock shows when a world begins: 2026-01-01 00:00 UTC.
const BEGINNING: Duration = Duration::from_secs(1_767_225_600);

/// What is to happen later.
#[derive(Debug)]
pub(super) enum Event {
    /// A node's word about itself arrives at others.
    Deliver {
        from: HostIndex,
        to: Vec<HostIndex>,
        owner: HostIndex,
        state: Arc<OwnerState>,
    },
    /// A roster arrives at others.
    Roster {
        from: HostIndex,
        to: Vec<HostIndex>,
        roster: Arc<Roster>,
    },
    /// A node's keys arrive at others.
    Keys { from: HostIndex, to: Vec<HostIndex> },
    /// Two nodes that had lost each other, or had not met, tell each other all they know.
    Sync(HostIndex, HostIndex),
    /// A node looks who has been out of reach for too long.
    Review(HostIndex),
}

/// One host: what is on its disk, what runs on it.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) label: NodeAddr,
    pub(super) name: NodeName,
    pub(super) endpoint: SocketAddr,
    pub(super) identity: Identity,
    pub(super) powered: bool,
    /// Counts the agent's processes; a handle of an earlier one is dead.
    pub(super) process: u64,
    /// On disk: counts the starts of discovery.
    pub(super) boots: u64,
    /// On disk: what admission keeps to prove applicants with.
    pub(super) password: Option<Password>,
    /// On disk: what the embedder keeps.
    pub(super) stored: Option<Membership>,
    pub(super) admission: Option<AdmissionProcess>,
    pub(super) discovery: Option<DiscoveryProcess>,
    pub(super) overlay: Option<OverlayProcess>,
    /// In the kernel: outlives the agent, not the power.
    pub(super) router: Router,
    pub(super) engine: Engine,
}

/// How fast nodes notice that one is gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Detection {
    pub(super) suspect: Duration,
    pub(super) down: Duration,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) random: Random,
    pub(super) hosts: Vec<Host>,
    pub(super) labels: BTreeMap<NodeAddr, HostIndex>,
    pub(super) network: Network,
    pub(super) detection: Detection,
    pub(super) agreed: Agreed,
    /// Which part of what is asked of engines and overlays, and said to discovery, fails.
    pub(super) faltering: f64,
    queue: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    /// Counts what happened: a world in which it stands still has settled.
    pub(super) activity: u64,
    /// Calls that are under way and end by themselves.
    pub(super) busy: usize,
    beginning: Instant,
}

impl State {
    fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            hosts: Vec::new(),
            labels: BTreeMap::new(),
            network: Network::new(),
            detection: Detection {
                suspect: Duration::from_millis(500),
                down: Duration::from_millis(1_500),
            },
            agreed: Agreed::default(),
            faltering: 0.0,
            queue: BTreeMap::new(),
            sequence: 0,
            activity: 0,
            busy: 0,
            beginning: Instant::now(),
        }
    }

    /// Acts, unless this is a call that [fails](super::World::falter): one of two such is made all the same.
    pub(super) fn faltering<R>(&mut self, act: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        if !self.random.chance(self.faltering) {
            return act(self);
        }
        if self.random.chance(0.5) {
            act(self)?;
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "this call fails because the world falters",
        ))
    }

    /// A new host with power and an empty disk; the label finds it from now on.
    pub(super) fn add_host(&mut self, label: NodeAddr, at: Option<SocketAddr>) -> HostIndex {
        let index = self.hosts.len();
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let endpoint = at.unwrap_or_else(|| {
            let ip = Ipv4Addr::from_bits(UNDERLAY + 1 + number);
            SocketAddr::V4(SocketAddrV4::new(ip, UNDERLAY_PORT))
        });
        let mut identity = self.random.bytes::<32>();
        identity[28..].copy_from_slice(&number.to_be_bytes());
        let namesakes = self.hosts.iter().filter(|host| host.label == label).count();
        let [a, b] = label.octets();
        let name = match namesakes {
            0 => format!("node-{a}-{b}"),
            others => format!("node-{a}-{b}-{}", others + 1),
        };
        self.hosts.push(Host {
            label,
            // Digits, letters and hyphens only: always a label.
            name: name
                .parse()
                .unwrap_or_else(|_| unreachable!("{name} is a DNS label")),
            endpoint,
            identity: Identity::from_bytes(identity),
            powered: true,
            process: 0,
            boots: 0,
            password: None,
            stored: None,
            admission: None,
            discovery: None,
            overlay: None,
            router: Router::default(),
            engine: Engine::default(),
        });
        self.labels.insert(label, index);
        self.activity += 1;
        index
    }

    /// The host that holds this identity.
    pub(super) fn by_identity(&self, identity: Identity) -> Option<HostIndex> {
        let mut number = [0; 4];
        number.copy_from_slice(&identity.as_bytes()[28..]);
        let index = usize::try_from(u32::from_be_bytes(number)).ok()?;
        (self.hosts.get(index)?.identity == identity).then_some(index)
    }

    pub(super) fn by_endpoint(&self, endpoint: SocketAddr) -> Option<HostIndex> {
        self.hosts
            .iter()
            .position(|host| host.endpoint == endpoint && host.powered)
    }

    /// What the clocks on the walls show.
    pub(super) fn wall_clock(&self, now: Instant) -> SystemTime {
        SystemTime::UNIX_EPOCH + BEGINNING + now.saturating_duration_since(self.beginning)
    }

    pub(super) fn schedule(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.activity += 1;
        self.queue.insert((at, self.sequence), event);
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.queue.keys().next().map(|(at, _)| *at)
    }

    pub(super) fn run_due(&mut self, now: Instant) {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > now {
                break;
            }
            self.activity += 1;
            match entry.remove() {
                Event::Deliver {
                    from,
                    to,
                    owner,
                    state,
                } => self.deliver(from, &to, owner, &state, now),
                Event::Roster { from, to, roster } => self.deliver_roster(from, &to, &roster, now),
                Event::Keys { from, to } => self.deliver_keys(from, &to, now),
                Event::Sync(a, b) => self.sync(a, b, now),
                Event::Review(host) => self.review(host, now),
            }
        }
    }

    /// Hosts on which discovery runs, with what they can exchange with: groups of hosts that reach each other, also by
    /// way of third ones. The same number, the same group.
    pub(super) fn groups(&self) -> BTreeMap<HostIndex, usize> {
        let running: BTreeSet<HostIndex> = (0..self.hosts.len())
            .filter(|host| self.hosts[*host].discovery.is_some())
            .collect();
        if self.network.whole() {
            return running.into_iter().map(|host| (host, 0)).collect();
        }
        let mut groups = BTreeMap::new();
        let mut rest = running;
        let mut group = 0;
        while let Some(first) = rest.pop_first() {
            let mut frontier = vec![first];
            while let Some(host) = frontier.pop() {
                groups.insert(host, group);
                let near: Vec<HostIndex> = rest
                    .iter()
                    .copied()
                    .filter(|other| self.network.linked(host, *other))
                    .collect();
                for other in near {
                    rest.remove(&other);
                    frontier.push(other);
                }
            }
            group += 1;
        }
        groups
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes the clock when something is to happen earlier than it thought.
    wake: Arc<Notify>,
    /// Tells those who wait for the world to change.
    pub(super) changed: Notify,
}

impl Shared {
    /// A world, and the task that moves it for as long as it is held.
    pub(super) fn start(seed: u64) -> Arc<Self> {
        let shared = Arc::new(Self {
            state: Mutex::new(State::new(seed)),
            wake: Arc::new(Notify::new()),
            changed: Notify::new(),
        });
        tokio::spawn(run(Arc::downgrade(&shared), Arc::clone(&shared.wake)));
        shared
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let before = state.activity;
        let result = act(&mut state);
        let changed = state.activity != before;
        drop(state);
        if changed {
            self.wake.notify_one();
            self.changed.notify_waiters();
        }
        result
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

/// The clock: sleeps until the next event, and ends with the world.
async fn run(world: Weak<Shared>, wake: Arc<Notify>) {
    loop {
        let due = {
            let Some(world) = world.upgrade() else { return };
            let now = Instant::now();
            let due = world.lock().next_due();
            if due.is_some_and(|due| due <= now) {
                world.with(|state| state.run_due(now));
                continue;
            }
            due
        };
        match due {
            Some(due) => {
                tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = wake.notified() => {}
                }
            }
            None => wake.notified().await,
        }
    }
}

/// What every backend of the world holds: a host, and the process on it that this handle belongs to.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) shared: Arc<Shared>,
    pub(super) host: HostIndex,
    pub(super) process: u64,
}

impl Seat {
    /// Acts on the world, if the host has power and this process still runs.
    pub(super) fn enter<R>(
        &self,
        act: impl FnOnce(&mut State, HostIndex) -> Result<R>,
    ) -> Result<R> {
        self.shared.with(|state| {
            let host = &state.hosts[self.host];
            if !host.powered {
                let message = format!("the host of {} has no power", host.label);
                return Err(Error::new(ErrorKind::Unavailable, message).backend("memory"));
            }
            if host.process != self.process {
                let message = format!("this process on the host of {} has ended", host.label);
                return Err(Error::new(ErrorKind::Unavailable, message).backend("memory"));
            }
            act(state, self.host)
        })
    }

    /// Counts a call that ends by itself, for as long as the guard lives.
    pub(super) fn busy(&self) -> Busy {
        self.shared.with(|state| state.busy += 1);
        Busy(Arc::clone(&self.shared))
    }

    /// Waits until the predicate holds; it is asked again whenever the world changes.
    pub(super) async fn until<R>(
        &self,
        mut ask: impl FnMut(&mut State, HostIndex) -> Result<Option<R>>,
    ) -> Result<R> {
        loop {
            let changed = self.shared.changed.notified();
            if let Some(result) = self.enter(&mut ask)? {
                return Ok(result);
            }
            changed.await;
        }
    }
}

#[derive(Debug)]
pub(super) struct Busy(Arc<Shared>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.with(|state| state.busy -= 1);
    }
}
