//! Two containers with one address, a thousand times: the older claim wins and the loser is detached with an event, on every
//! node alike, whatever was cut, suspended or restarted meanwhile.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use arpanet_core::cluster::ClusterEvent;
use arpanet_core::conformance::seeds::Dice;
use arpanet_core::memory::World;
use arpanet_core::overlay::{AttachAddr, Overlay};
use arpanet_core::runtime::{ContainerSpec, RestartPolicy};
use arpanet_core::{AppAddr, Cluster, ContainerName, NodeAddr};
use tokio::sync::broadcast::Receiver;

const NODES: u16 = 4;

fn contested() -> AppAddr {
    "10.1.0.5/16".parse().unwrap()
}

/// A container that wants the contested address, and starts again whenever its host does.
fn wanting(name: &str) -> ContainerSpec {
    let mut spec = ContainerSpec::command(["httpd"])
        .named(name.parse().unwrap())
        .addr(contested())
        .service("web".parse().unwrap(), 80);
    spec.restart = RestartPolicy::Always;
    spec
}

fn other(name: &str) -> ContainerSpec {
    ContainerSpec::command(["httpd"])
        .named(name.parse().unwrap())
        .net("10.1.0.0/16".parse().unwrap())
}

/// A world with a cluster in it, and what was run there.
struct Case {
    seed: u64,
    world: World,
    nodes: Vec<Cluster>,
    events: Vec<Receiver<ClusterEvent>>,
    claimants: Vec<(usize, ContainerName)>,
    dice: Dice,
}

impl Case {
    async fn begin(seed: u64) -> Self {
        let world = World::new(seed);
        let mut dice = Dice::new(seed);
        world.delay(Duration::from_millis(dice.roll(20)));
        let mut nodes = Vec::new();
        for membership in world.memberships(NODES).await.unwrap() {
            let node = world.cluster(membership.me.node);
            node.resume(membership).await.unwrap();
            nodes.push(node);
        }
        // One that routes to the address are looked at from, and that makes the cluster's logical time go on.
        nodes[3].run(&other("probe")).await.unwrap();
        world.settle().await;
        world.loss(dice.roll(3) as f64 / 10.0);
        Self {
            seed,
            events: nodes.iter().map(Cluster::events).collect(),
            world,
            nodes,
            claimants: Vec::new(),
            dice,
        }
    }

    fn place(&self, node: usize) -> NodeAddr {
        self.nodes[node].me()
    }

    /// Some time passes and some other containers are run, so that claims of different ages meet.
    async fn meanwhile(&mut self, node: usize) {
        for number in 0..self.dice.roll(3) {
            let name = format!("other-{node}-{number}");
            self.nodes[node].run(&other(&name)).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(self.dice.roll(400))).await;
    }

    async fn claim(&mut self, node: usize) {
        self.meanwhile(node).await;
        let name = format!("w{}", self.dice.roll(100));
        let container = self.nodes[node].run(&wanting(&name)).await.unwrap();
        self.claimants.push((node, container.name));
    }

    /// The agent of a node ends as by `kill -9`, or with the power of its host.
    fn lose(&mut self, node: usize, power: bool) {
        let place = self.place(node);
        match power {
            true => self.world.kill(place),
            false => self.world.crash(place),
        }
    }

    async fn bring_back(&mut self, node: usize) {
        let place = self.place(node);
        self.world.start(place);
        let membership = self.world.store(place).load().unwrap().unwrap();
        self.nodes[node] = self.world.cluster(place);
        self.events[node] = self.nodes[node].events();
        self.nodes[node].resume(membership).await.unwrap();
    }

    /// By the age that each claim was given when it was made.
    async fn oldest(&self) -> usize {
        let mut ages = Vec::new();
        for (node, name) in &self.claimants {
            let runtime = self.nodes[*node].runtime().unwrap();
            let container = runtime.inspect(name).await.unwrap();
            let epoch: u64 = container.spec.labels["arpanet.epoch"].parse().unwrap();
            ages.push((epoch, self.place(*node), name.clone(), *node));
        }
        ages.into_iter().min().unwrap().3
    }

    async fn end(mut self) {
        self.world.loss(0.0);
        self.world.heal_all();
        self.world.settle().await;
        let seed = self.seed;
        let winner = self.oldest().await;
        let place = self.place(winner);
        for node in 0..self.nodes.len() {
            let found = self.world.lookup(self.place(node), "web");
            let homes: Vec<NodeAddr> = found.iter().map(|one| one.node).collect();
            assert_eq!(homes, [place], "seed {seed}: what node {node} finds");

            let attached = self
                .world
                .overlay(self.place(node))
                .attached()
                .await
                .unwrap();
            let mut here = attached.iter().map(|(_, addr)| *addr);
            assert_eq!(
                here.any(|addr| addr == AttachAddr::Application(contested())),
                node == winner,
                "seed {seed}: whether it is attached on node {node}"
            );

            let mut told = 0;
            while let Ok(event) = self.events[node].try_recv() {
                if let ClusterEvent::AddressLost { addr, to, .. } = event {
                    assert_eq!(addr, contested(), "seed {seed}");
                    assert!(
                        self.claimants.len() > 2 || to == place,
                        "seed {seed}: to {to}"
                    );
                    told += 1;
                }
            }
            let lost = node != winner && self.claimants.iter().any(|(at, _)| *at == node);
            assert_eq!(
                told,
                usize::from(lost),
                "seed {seed}: events of node {node}"
            );
        }
        let ip = contested().ip();
        let ping = self.world.ping((self.place(3), "probe"), ip).await;
        assert!(ping.is_ok(), "seed {seed}: {ping:?}");
    }
}

/// Both sides of a cut give the address away, or all three.
async fn partition(seed: u64) {
    let mut case = Case::begin(seed).await;
    let sides = 2 + case.dice.roll(2) as usize;
    for node in 0..sides {
        let place = case.place(node);
        case.world.partition([place]);
    }
    // The one that cut them is not known to them yet, or is.
    if case.dice.roll(2) == 0 {
        case.world.settle().await;
    }
    let first = case.dice.roll(sides as u64) as usize;
    for step in 0..sides {
        case.claim((first + step) % sides).await;
    }
    case.end().await;
}

/// The owner is cut off and its claim rests; another takes the address; the owner returns.
async fn suspended_owner(seed: u64) {
    let mut case = Case::begin(seed).await;
    let owner = case.dice.roll(3) as usize;
    case.claim(owner).await;
    case.world.settle().await;
    let place = case.place(owner);
    case.world.cut(place);
    case.world.settle().await;
    case.claim((owner + 1) % 3).await;
    case.world.settle().await;
    assert_eq!(case.oldest().await, owner, "seed {seed}");
    case.end().await;
}

/// The same with an owner whose agent crashed, or whose host lost its power.
async fn restarted_owner(seed: u64) {
    let mut case = Case::begin(seed).await;
    let owner = case.dice.roll(3) as usize;
    case.claim(owner).await;
    case.world.settle().await;
    let power = case.dice.roll(2) == 0;
    case.lose(owner, power);
    case.world.settle().await;
    case.claim((owner + 1) % 3).await;
    case.bring_back(owner).await;
    assert_eq!(case.oldest().await, owner, "seed {seed}");
    case.end().await;
}

async fn seeds(from: u64) {
    for seed in from..from + 250 {
        match seed % 3 {
            0 => partition(seed).await,
            1 => suspended_owner(seed).await,
            _ => restarted_owner(seed).await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_older_claim_wins_in_seeds_0_to_249() {
    seeds(0).await;
}

#[tokio::test(start_paused = true)]
async fn the_older_claim_wins_in_seeds_250_to_499() {
    seeds(250).await;
}

#[tokio::test(start_paused = true)]
async fn the_older_claim_wins_in_seeds_500_to_749() {
    seeds(500).await;
}

#[tokio::test(start_paused = true)]
async fn the_older_claim_wins_in_seeds_750_to_999() {
    seeds(750).await;
}
