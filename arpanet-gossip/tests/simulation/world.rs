//! A simulated network of engines in virtual time: delay, loss, cuts, restarts. The same seed does the same.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use arpanet_core::admission::{ClusterKey, Credential, Keys, Membership, NodeInfo, Secret};
use arpanet_core::discovery::{Member, MemberState, Record};
use arpanet_core::roster::{ClusterId, Identity, Role, Roster, RosterEntry};
use arpanet_core::{NodeAddr, NodeName};
use arpanet_gossip::engine::steady::Steady;
use arpanet_gossip::engine::{Event, Outcome, Ticket};
use arpanet_gossip::{Engine, GossipConfig, GossipState};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub const CLUSTER: ClusterId = ClusterId::from_bytes([9; 16]);

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub fn addr(index: u16) -> NodeAddr {
    NodeAddr::from_index(index).unwrap()
}

pub fn name(index: u16) -> NodeName {
    format!("node{index}").parse().unwrap()
}

pub fn signing_key(index: u16) -> Secret<32> {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&index.to_be_bytes());
    Secret::from_bytes(bytes)
}

pub fn identity(key: &Secret<32>) -> Identity {
    Identity::from_bytes(
        SigningKey::from_bytes(key.expose())
            .verifying_key()
            .to_bytes(),
    )
}

pub fn endpoint(index: u16) -> SocketAddr {
    let [a, b] = index.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(192, 168, a, b), 51820))
}

pub fn role(index: u16) -> Role {
    match index {
        1 => Role::Boot,
        index if index % 3 == 2 => Role::Client,
        _ => Role::Server,
    }
}

pub fn entry(index: u16) -> RosterEntry {
    RosterEntry::new(
        addr(index),
        name(index),
        role(index),
        identity(&signing_key(index)),
        index.into(),
    )
    .at(Some(endpoint(index)))
}

/// About what an instance of a service with an address and a tag takes.
fn instance(node: u16, service: u16) -> Bytes {
    let [a, b] = node.to_be_bytes();
    let text = format!(
        r#"{{"id":"{}:w{service}:10.1.{a}.{b}:80","service":"s{service}","ip":"10.1.{a}.{b}","port":80,"node":"{}","tags":["v1"],"health":"passing"}}"#,
        addr(node),
        addr(node)
    );
    Bytes::from(text)
}

pub fn cluster_key(byte: u8) -> ClusterKey {
    ClusterKey::new(1, Secret::from_bytes([byte; 32]))
}

pub fn membership(index: u16, roster: Roster) -> Membership {
    Membership::new(
        NodeInfo::new(addr(index), name(index), role(index)),
        identity(&signing_key(index)),
        CLUSTER,
        cluster_key(3),
        roster,
    )
}

#[derive(Debug)]
enum Happening {
    Arrive {
        to: SocketAddr,
        from: SocketAddr,
        datagram: Vec<u8>,
    },
    Wake {
        node: u16,
        life: u32,
    },
}

#[derive(Debug, Default)]
pub struct Host {
    pub engine: Option<Engine>,
    pub at: Option<SocketAddr>,
    pub state: GossipState,
    pub roster: Roster,
    /// The keys that it stored last.
    pub keys: Option<Keys>,
    life: u32,
    wake: Option<Duration>,
    /// Until when its process does not run.
    stalled: Duration,
    /// What its monotonic clock shows at the world's beginning.
    epoch: Duration,
    pub members: BTreeMap<NodeAddr, Member>,
    pub records: BTreeMap<(NodeAddr, String), Record>,
    pub outcomes: BTreeMap<Ticket, Outcome>,
    pub ready: Option<bool>,
    pub expelled: bool,
    pub foreign: usize,
    /// How many it sees alive, itself included.
    pub alive: usize,
    /// How often it took somebody who was alive for down.
    pub downs: usize,
    /// It began as one of so many that it knows alive, without a word.
    steady: u16,
    pub bytes: u64,
    pub datagrams: u64,
}

pub struct World {
    pub now: Duration,
    pub seed: u64,
    pub config: GossipConfig,
    pub hosts: BTreeMap<u16, Host>,
    pub loss: f64,
    pub delay: (Duration, Duration),
    pub cuts: BTreeSet<(SocketAddr, SocketAddr)>,
    /// Which of the datagrams on this way is lost, counted from here on.
    lost: Option<(SocketAddr, SocketAddr, usize)>,
    /// How often [`until`](Self::until) looks.
    pub step: Duration,
    pub captured: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    pub capture: bool,
    queue: BTreeMap<(Duration, u64), Happening>,
    next: u64,
    sites: HashMap<SocketAddr, u16>,
    rng: StdRng,
}

impl World {
    pub fn new(seed: u64) -> Self {
        // Shown when the test fails.
        eprintln!("seed {seed}");
        Self {
            now: secs(1),
            seed,
            config: GossipConfig::default(),
            hosts: BTreeMap::new(),
            loss: 0.0,
            delay: (Duration::from_micros(100), Duration::from_micros(900)),
            cuts: BTreeSet::new(),
            lost: None,
            step: ms(10),
            captured: Vec::new(),
            capture: false,
            queue: BTreeMap::new(),
            next: 0,
            sites: HashMap::new(),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Founds the cluster at node 1 and lets nodes 2 to `count` join it, each admitted by node 1.
    pub fn with_joined(seed: u64, count: u16) -> Self {
        let mut world = Self::new(seed);
        world.start(1, Roster::from_iter([entry(1)]));
        for index in 2..=count {
            world.join(index, 1);
        }
        world
    }

    /// Starts nodes 1 to `count`, which all know the whole roster, one each `every`.
    pub fn with_roster(seed: u64, count: u16, every: Duration) -> Self {
        let mut world = Self::new(seed);
        let roster: Roster = (1..=count).map(entry).collect();
        for index in 1..=count {
            world.start(index, roster.clone());
            world.run(every);
        }
        world
    }

    /// Nodes 1 to `count` as they are after a while, each with so many services, and their cluster for those who come
    /// later. What they know is told by no event.
    pub fn steady(seed: u64, count: u16, services: u16) -> (Self, Steady) {
        let steady = Self::cluster(count, services);
        (Self::of(seed, count, &steady), steady)
    }

    /// The same, but that no two of them have met.
    pub fn strangers(seed: u64, count: u16, services: u16) -> Self {
        Self::of(seed, count, &Self::cluster(count, services).strangers())
    }

    fn cluster(count: u16, services: u16) -> Steady {
        let records = |node| {
            (0..services)
                .map(move |service| (format!("i/{node}-{service}"), instance(node, service)))
        };
        let nodes = (1..=count).map(|node| (entry(node), signing_key(node), records(node)));
        Steady::new(CLUSTER, nodes)
    }

    fn of(seed: u64, count: u16, steady: &Steady) -> Self {
        let mut world = Self::new(seed);
        for index in 1..=count {
            world.settle_down(index, count, steady);
        }
        world
    }

    fn settle_down(&mut self, index: u16, count: u16, steady: &Steady) {
        let host = Host {
            at: Some(endpoint(index)),
            epoch: Duration::from_millis(self.rng.random_range(0..1_000_000_000)),
            ready: Some(true),
            alive: usize::from(count),
            steady: count,
            ..Host::default()
        };
        // Not all probe at the same moment.
        let now = host.epoch + self.now + Duration::from_micros(self.rng.random_range(0..150_000));
        let (config, key, seed) = (self.config.clone(), cluster_key(3), self.rng.random());
        let engine = steady.engine(config, addr(index), &key, &signing_key(index), now, seed);
        self.sites.insert(endpoint(index), index);
        let engine = Some(engine.unwrap());
        self.hosts.insert(index, Host { engine, ..host });
        self.drain(index);
    }

    pub fn join(&mut self, index: u16, seed: u16) {
        let ticket = self.call(seed, |engine, now| engine.admit(now, entry(index)).unwrap());
        let outcome = self.settle(seed, ticket);
        assert!(matches!(outcome, Outcome::Spread { .. }), "{outcome:?}");
        let roster = self.engine(seed).roster().clone();
        // As the seed's admission does.
        let mut keys = self.engine(seed).keys();
        keys.credential = keys.credential.filter(|_| role(index).admits());
        self.hosts.entry(index).or_default().keys = Some(keys);
        self.start(index, roster);
        self.until(secs(5), "ready", |world| {
            world.hosts[&index].ready.is_some()
        });
    }

    pub fn start(&mut self, index: u16, roster: Roster) {
        let seed = self.rng.random();
        let epoch = Duration::from_millis(self.rng.random_range(0..1_000_000_000));
        let host = self.hosts.entry(index).or_default();
        let at = *host.at.get_or_insert(endpoint(index));
        self.sites.insert(at, index);
        host.life += 1;
        host.steady = 0;
        host.epoch = epoch;
        host.wake = None;
        host.ready = None;
        host.members.clear();
        host.alive = 0;
        host.records.clear();
        host.roster = roster.clone();
        let mut membership = membership(index, roster);
        if let Some(keys) = host.keys.clone() {
            (membership.key, membership.credential) = (keys.key, keys.credential);
        }
        let engine = Engine::new(
            self.config.clone(),
            &membership,
            &signing_key(index),
            &host.state,
            epoch + self.now,
            seed,
        )
        .unwrap();
        host.engine = Some(engine);
        self.drain(index);
    }

    /// Power loss: what it would have stored is what it had stored last.
    pub fn kill(&mut self, index: u16) {
        let host = self.hosts.get_mut(&index).unwrap();
        let engine = host.engine.take().unwrap();
        host.state = engine.state();
        host.roster = engine.roster().clone();
    }

    /// Gives a host another address, while it is off.
    pub fn move_to(&mut self, index: u16, at: SocketAddr) {
        let before = self.hosts.get_mut(&index).unwrap().at.replace(at);
        before.map(|before| self.sites.remove(&before));
    }

    pub fn restart(&mut self, index: u16) {
        let roster = self.hosts[&index].roster.clone();
        self.start(index, roster);
    }

    pub fn engine(&self, index: u16) -> &Engine {
        self.hosts[&index].engine.as_ref().unwrap()
    }

    pub fn call<R>(&mut self, index: u16, act: impl FnOnce(&mut Engine, Duration) -> R) -> R {
        let host = self.hosts.get_mut(&index).unwrap();
        let now = host.epoch + self.now;
        let result = act(host.engine.as_mut().unwrap(), now);
        self.drain(index);
        result
    }

    /// As soon as the node is ready.
    pub fn publish(&mut self, index: u16, key: &str, value: &str) -> Ticket {
        self.until(secs(3), "ready", |world| {
            world.hosts[&index].ready.is_some()
        });
        let value = Bytes::copy_from_slice(value.as_bytes());
        self.call(index, |engine, now| {
            engine.publish(now, key, value).unwrap()
        })
    }

    /// Runs until a ticket is settled.
    pub fn settle(&mut self, index: u16, ticket: Ticket) -> Outcome {
        self.until(secs(10), "settled", |world| {
            world.hosts[&index].outcomes.contains_key(&ticket)
        });
        self.hosts
            .get_mut(&index)
            .unwrap()
            .outcomes
            .remove(&ticket)
            .unwrap()
    }

    /// Turns the key over there, with a new password where one is given.
    pub fn turn_over(&mut self, index: u16, password: Option<&str>) -> Ticket {
        let bytes = password.map(|password| password.as_bytes().to_vec());
        let credential = bytes.map(|bytes| Credential::from_bytes(bytes).unwrap());
        self.call(index, |engine, now| {
            engine.turn_over(now, credential).unwrap()
        })
    }

    /// Whether these have one key, and have stored it, and those that admit others one password.
    pub fn agree_on_keys(&self, nodes: &[u16]) -> bool {
        let keys = self.engine(nodes[0]).keys();
        nodes.iter().all(|at| {
            let theirs = self.engine(*at).keys();
            let stored = self.hosts[at].keys.as_ref();
            theirs.key == keys.key && stored.is_none_or(|stored| *stored == theirs)
        }) && self.password_at(nodes).is_some()
    }

    /// What passwords are checked by at all of these that admit others, if they agree.
    pub fn password_at(&self, nodes: &[u16]) -> Option<Option<Credential>> {
        let mut servers = nodes.iter().filter(|at| role(**at).admits());
        let credential = self.engine(*servers.next()?).keys().credential;
        servers
            .all(|at| self.engine(*at).keys().credential == credential)
            .then_some(credential)
    }

    pub fn cut_one_way(&mut self, from: u16, to: u16) {
        let pair = (self.hosts[&from].at.unwrap(), self.hosts[&to].at.unwrap());
        self.cuts.insert(pair);
    }

    pub fn cut(&mut self, one: u16, other: u16) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Cuts these off from all others.
    pub fn isolate(&mut self, inside: &[u16]) {
        let all: Vec<u16> = self.hosts.keys().copied().collect();
        for one in inside {
            for other in all.iter().filter(|other| !inside.contains(other)) {
                self.cut(*one, *other);
            }
        }
    }

    /// Of what the one sends to the other from now on this datagram gets lost, counted from 0, and nothing else.
    pub fn lose(&mut self, from: u16, to: u16, nth: usize) {
        let at = |node: u16| self.hosts[&node].at.unwrap();
        self.lost = Some((at(from), at(to), nth));
    }

    fn is_lost(&mut self, from: SocketAddr, to: SocketAddr) -> bool {
        let Some(lost) = &mut self.lost else {
            return false;
        };
        if (lost.0, lost.1) != (from, to) {
            return false;
        }
        if lost.2 == 0 {
            self.lost = None;
            return true;
        }
        lost.2 -= 1;
        false
    }

    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Its process does not run for a while; what arrives waits.
    pub fn stall(&mut self, index: u16, span: Duration) {
        let until = self.now + span;
        self.hosts.get_mut(&index).unwrap().stalled = until;
    }

    /// No process is stalled any more.
    pub fn wake(&mut self) {
        for host in self.hosts.values_mut() {
            host.stalled = Duration::ZERO;
        }
    }

    /// Its monotonic clock steps forward, as after a suspension that the clock counts.
    pub fn step_clock(&mut self, index: u16, by: Duration) {
        let host = self.hosts.get_mut(&index).unwrap();
        host.epoch += by;
        host.wake = None;
        self.call(index, |engine, now| engine.handle_timer(now));
    }

    pub fn value(&self, at: u16, owner: u16, key: &str) -> Option<&Record> {
        self.hosts[&at].records.get(&(addr(owner), key.to_owned()))
    }

    pub fn sees(&self, at: u16, member: u16) -> Option<MemberState> {
        self.hosts[&at]
            .members
            .get(&addr(member))
            .map(|member| member.state)
    }

    /// Whether all running nodes see all running nodes alive.
    pub fn all_alive(&self) -> bool {
        let running: Vec<u16> = self.running();
        let counts = |at: &u16| self.hosts[at].alive == running.len();
        running.iter().all(counts)
            && running.iter().all(|at| {
                running
                    .iter()
                    .all(|member| self.sees(*at, *member) == Some(MemberState::Alive))
            })
    }

    /// Whether all running nodes see as many alive as run: [`all_alive`](Self::all_alive) for those that were told little.
    pub fn alike(&self) -> bool {
        let running = self.running();
        running
            .iter()
            .all(|at| self.hosts[at].alive == running.len())
    }

    pub fn running(&self) -> Vec<u16> {
        self.hosts
            .iter()
            .filter(|(_, host)| host.engine.is_some())
            .map(|(index, _)| *index)
            .collect()
    }

    /// Whether all running nodes but the owner have this value of it.
    pub fn spread(&self, owner: u16, key: &str, value: &str) -> bool {
        self.running().iter().all(|at| {
            self.value(*at, owner, key)
                .is_some_and(|record| record.value == value.as_bytes())
        })
    }

    /// Runs until it holds, and returns how long that took.
    pub fn until(
        &mut self,
        bound: Duration,
        what: &str,
        holds: impl Fn(&Self) -> bool,
    ) -> Duration {
        let begin = self.now;
        while !holds(self) {
            assert!(
                self.now < begin + bound,
                "not {what} within {bound:?} (seed {})",
                self.seed
            );
            self.run(self.step);
        }
        self.now - begin
    }

    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > end {
                break;
            }
            self.now = entry.key().0;
            let happening = entry.remove();
            if let Some(until) = self.stalled(&happening) {
                self.push(until, happening);
                continue;
            }
            match happening {
                Happening::Wake { node, life } => {
                    let host = self.hosts.get_mut(&node).unwrap();
                    if host.life == life && host.engine.is_some() {
                        host.wake = None;
                        self.call(node, |engine, now| engine.handle_timer(now));
                    }
                }
                Happening::Arrive { to, from, datagram } => {
                    if let Some(node) = self.sites.get(&to).copied()
                        && self.hosts[&node].engine.is_some()
                    {
                        self.call(node, |engine, now| {
                            engine.handle_datagram(now, from, &datagram)
                        });
                    }
                }
            }
        }
        self.now = end;
    }

    /// Until when the one that this happens to does not run, if it does not.
    fn stalled(&self, happening: &Happening) -> Option<Duration> {
        let node = match happening {
            Happening::Wake { node, .. } => node,
            Happening::Arrive { to, .. } => self.sites.get(to)?,
        };
        let until = self.hosts[node].stalled;
        (until > self.now).then_some(until)
    }

    /// Lets a datagram arrive now, as an attacker would.
    pub fn inject(&mut self, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        self.push(self.now, Happening::Arrive { to, from, datagram });
    }

    fn push(&mut self, at: Duration, happening: Happening) {
        self.next += 1;
        self.queue.insert((at, self.next), happening);
    }

    fn drain(&mut self, index: u16) {
        let host = self.hosts.get_mut(&index).unwrap();
        let Some(mut engine) = host.engine.take() else {
            return;
        };
        let from = host.at.unwrap();
        let mut transmits = Vec::new();
        while let Some(transmit) = engine.poll_transmit() {
            host.bytes += transmit.datagram.len() as u64 + 28;
            host.datagrams += 1;
            assert!(transmit.datagram.len() <= 1_200);
            transmits.push(transmit);
        }
        while let Some(event) = engine.poll_event() {
            host.note(event);
        }
        let (life, epoch) = (host.life, host.epoch);
        let due = engine
            .next_deadline()
            .map(|at| at.saturating_sub(epoch).max(self.now));
        let wake = due.filter(|due| host.wake.is_none_or(|wake| *due < wake));
        host.wake = wake.or(host.wake);
        host.engine = Some(engine);
        if let Some(at) = wake {
            self.push(at, Happening::Wake { node: index, life });
        }
        for transmit in transmits {
            if self.capture {
                self.captured
                    .push((from, transmit.to, transmit.datagram.clone()));
            }
            if self.cuts.contains(&(from, transmit.to)) || self.rng.random_bool(self.loss) {
                continue;
            }
            if self.is_lost(from, transmit.to) {
                continue;
            }
            let at = self.now + self.rng.random_range(self.delay.0..=self.delay.1);
            let (to, datagram) = (transmit.to, transmit.datagram);
            self.push(at, Happening::Arrive { to, from, datagram });
        }
    }
}

impl Host {
    fn note(&mut self, event: Event) {
        match event {
            Event::Ready { filled } => self.ready = Some(filled),
            Event::Member(member) => {
                let lives = member.state != MemberState::Down;
                let known = member.node.index() <= self.steady;
                let before = self.members.insert(member.node, member);
                let lived = before.map_or(known, |before| before.state != MemberState::Down);
                self.downs += usize::from(lived && !lives);
                self.alive = self.alive + usize::from(lives) - usize::from(lived);
            }
            Event::MemberGone(node) => {
                let known = node.index() <= self.steady;
                let before = self.members.remove(&node);
                let lived = before.map_or(known, |before| before.state != MemberState::Down);
                self.alive -= usize::from(lived);
            }
            Event::Record { owner, key, record } => {
                match record {
                    Some(record) => self.records.insert((owner, key), record),
                    None => self.records.remove(&(owner, key)),
                };
            }
            Event::Settled { ticket, outcome } => {
                self.outcomes.insert(ticket, outcome);
            }
            Event::Keys(keys) => self.keys = Some(keys),
            Event::Expelled(_) => self.expelled = true,
            Event::Foreign { .. } => self.foreign += 1,
            _ => {}
        }
    }
}
