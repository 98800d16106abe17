//! Addresses that nobody asked for by name, a thousand times: whatever is cut, restarted, forgotten or joins late, no two
//! containers are ever given one.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use arpanet_core::admission::{Password, Seed};
use arpanet_core::cluster::ClusterEvent;
use arpanet_core::conformance::seeds::Dice;
use arpanet_core::memory::World;
use arpanet_core::roster::Role;
use arpanet_core::runtime::{ContainerSpec, RestartPolicy};
use arpanet_core::{AppNet, Cluster, ErrorKind, NodeAddr};
use tokio::sync::broadcast::Receiver;

fn password() -> Password {
    Password::new("Apples").unwrap()
}

/// A container that starts again whenever its host does.
fn anywhere(name: String, net: AppNet) -> ContainerSpec {
    let mut spec = ContainerSpec::command(["httpd"])
        .named(name.parse().unwrap())
        .net(net)
        .service("web".parse().unwrap(), 80);
    spec.restart = RestartPolicy::Always;
    spec
}

/// A world with a cluster in it, and what happened there.
struct Case {
    seed: u64,
    world: World,
    net: AppNet,
    nodes: BTreeMap<NodeAddr, Cluster>,
    events: Vec<Receiver<ClusterEvent>>,
    dice: Dice,
    named: usize,
    given: usize,
}

impl Case {
    async fn begin(seed: u64) -> Self {
        let world = World::new(seed);
        let mut dice = Dice::new(seed);
        world.delay(Duration::from_millis(dice.roll(20)));
        // Narrow ones are fought for, wide ones are shared out.
        let prefix = [16, 24, 27, 28][dice.roll(4) as usize];
        let mut case = Self {
            seed,
            world,
            net: format!("10.1.0.0/{prefix}").parse().unwrap(),
            nodes: BTreeMap::new(),
            events: Vec::new(),
            dice,
            named: 0,
            given: 0,
        };
        for index in 1..=3 {
            case.join(index).await;
        }
        case
    }

    async fn join(&mut self, index: u16) {
        let node = NodeAddr::from_index(index).unwrap();
        let cluster = self.world.cluster(node);
        match self.nodes.keys().next().copied() {
            None => cluster.boot(&password()).await.unwrap(),
            Some(seed) => {
                let seed = Seed::new(seed, self.world.endpoint(seed));
                let joined = cluster.join(&password(), Role::Server, seed, false).await;
                joined.unwrap();
            }
        }
        self.events.push(cluster.events());
        self.nodes.insert(node, cluster);
    }

    fn any(&mut self) -> NodeAddr {
        let at = self.dice.roll(self.nodes.len() as u64) as usize;
        *self.nodes.keys().nth(at).unwrap()
    }

    fn spec(&mut self) -> ContainerSpec {
        self.named += 1;
        anywhere(format!("w{}", self.named), self.net)
    }

    /// Two nodes give addresses at the same moment.
    async fn two_at_once(&mut self) {
        let (one, two) = (self.any(), self.any());
        let (first, second) = (self.spec(), self.spec());
        let (one, two) = (&self.nodes[&one], &self.nodes[&two]);
        let (first, second) = tokio::join!(one.run(&first), two.run(&second));
        for outcome in [first, second] {
            match outcome {
                Ok(_) => self.given += 1,
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Exhausted),
                    "seed {}: {error:?}",
                    self.seed
                ),
            }
        }
    }

    /// The agent of a node ends as by `kill -9`, or with the power of its host, and comes back.
    async fn restart(&mut self) {
        let node = self.any();
        match self.dice.roll(2) {
            0 => self.world.crash(node),
            _ => self.world.kill(node),
        }
        let pause = self.dice.roll(3_000);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        self.world.start(node);
        let membership = self.world.store(node).load().unwrap().unwrap();
        let cluster = self.world.cluster(node);
        self.events.push(cluster.events());
        cluster.resume(membership).await.unwrap();
        self.nodes.insert(node, cluster);
    }

    async fn step(&mut self) {
        match self.dice.roll(10) {
            0 => {
                let node = self.any();
                self.world.partition([node]);
            }
            1 => self.world.heal_all(),
            2 => self.restart().await,
            3 => {
                // Another client of the engine.
                let (node, spec) = (self.any(), self.spec());
                self.world.start_foreign(node, &spec).unwrap();
            }
            4 => {
                let node = self.any();
                let held = self.nodes[&node].reserve(self.net, None).await;
                self.given += usize::from(held.is_ok());
            }
            _ => self.two_at_once().await,
        }
        let pause = self.dice.roll(500);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// A node dies for good, and another comes.
    async fn forget_and_join(&mut self) {
        self.world.heal_all();
        self.world.settle().await;
        let dead = self.any();
        self.world.kill(dead);
        self.nodes.remove(&dead);
        self.world.settle().await;
        let left = self.nodes.values().next().unwrap();
        left.discovery().forget(dead).await.unwrap();
        self.world.settle().await;
        self.join(4).await;
    }

    async fn end(mut self) -> usize {
        self.world.heal_all();
        self.world.settle().await;
        let mut holders: BTreeMap<Ipv4Addr, String> = BTreeMap::new();
        for (node, cluster) in &self.nodes {
            let containers = cluster.runtime().unwrap().list().await.unwrap();
            let of_containers = containers.iter().flat_map(|container| {
                let addrs = Cluster::addresses(container).into_iter();
                addrs.map(|addr| (addr.ip(), format!("{} on {node}", container.name)))
            });
            let reserved = cluster.reserved().into_iter();
            let reserved = reserved.map(|addr| (addr.ip(), format!("reserved on {node}")));
            for (ip, holder) in of_containers.chain(reserved) {
                let other = holders.insert(ip, holder.clone());
                assert_eq!(other, None, "seed {}: {ip} of {holder} too", self.seed);
            }
        }
        for events in &mut self.events {
            while let Ok(event) = events.try_recv() {
                let lost = matches!(event, ClusterEvent::AddressLost { .. });
                assert!(!lost, "seed {}: {event:?}", self.seed);
            }
        }
        // With everybody in reach, whoever asks gets what is left.
        let node = self.any();
        let spec = self.spec();
        let last = self.nodes[&node].run(&spec).await;
        assert!(
            last.as_ref().is_ok_and(|_| true)
                || last.as_ref().unwrap_err().kind() == ErrorKind::Exhausted,
            "seed {}: {last:?}",
            self.seed
        );
        self.given
    }
}

async fn seeds(from: u64) {
    let mut given = 0;
    for seed in from..from + 250 {
        let mut case = Case::begin(seed).await;
        for _ in 0..6 {
            case.step().await;
        }
        if seed % 3 == 0 {
            case.forget_and_join().await;
            for _ in 0..3 {
                case.step().await;
            }
        }
        given += case.end().await;
    }
    // A refusal is the exception.
    assert!(given > 250, "{given}");
}

#[tokio::test(start_paused = true)]
async fn no_address_is_given_twice_in_seeds_0_to_249() {
    seeds(0).await;
}

#[tokio::test(start_paused = true)]
async fn no_address_is_given_twice_in_seeds_250_to_499() {
    seeds(250).await;
}

#[tokio::test(start_paused = true)]
async fn no_address_is_given_twice_in_seeds_500_to_749() {
    seeds(500).await;
}

#[tokio::test(start_paused = true)]
async fn no_address_is_given_twice_in_seeds_750_to_999() {
    seeds(750).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_has_a_share_of_its_own_and_a_stranger_to_the_network_is_refused_while_the_owner_is_away()
 {
    let (world, nodes) = World::with_clusters(3).await;
    let shared: AppNet = "10.1.0.0/16".parse().unwrap();
    let made = nodes[1]
        .create_network("shop".parse().unwrap(), Some(shared))
        .await;
    made.unwrap();
    world.settle().await;
    world.cut("0.1");
    world.settle().await;
    // It was shared out as soon as it was known.
    let mut spec = anywhere("w1".to_owned(), shared);
    nodes[1].run(&spec).await.unwrap();
    // This one was not, and who it belongs to can't be asked.
    spec = anywhere("w2".to_owned(), "10.2.0.0/16".parse().unwrap());
    let refused = nodes[2].run(&spec).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.to_string().contains("0.1"), "{refused}");
    world.heal_all();
    world.settle().await;
    nodes[2].run(&spec).await.unwrap();
}
