//! A hundred nodes in the simulated world: partitions, deaths and returns, with all the cluster logic on each.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use arpanet_core::discovery::MemberState;
use arpanet_core::memory::World;
use arpanet_core::runtime::ContainerSpec;
use arpanet_core::{Cluster, NodeAddr};

const NODES: u16 = 100;

/// What this thread has had of a processor, where the system tells it: a busy machine makes no difference.
fn cpu_time() -> Option<Duration> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = told.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

fn node(index: u16) -> NodeAddr {
    NodeAddr::from_index(index).unwrap()
}

fn web(number: usize) -> ContainerSpec {
    ContainerSpec::command(["httpd"])
        .named(format!("w{number}").parse().unwrap())
        .net("10.1.0.0/16".parse().unwrap())
        .service("web".parse().unwrap(), 80)
}

fn found(world: &World, at: u16) -> usize {
    world.lookup(node(at), "web").len()
}

async fn alive(at: &Cluster) -> usize {
    let nodes = at.nodes().await.unwrap();
    nodes
        .iter()
        .filter(|node| node.state == MemberState::Alive)
        .count()
}

#[tokio::test(start_paused = true)]
async fn a_hundred_nodes_live_through_partitions() {
    let begun = cpu_time();
    let (world, nodes) = World::with_clusters(NODES).await;
    for (number, node) in nodes.iter().enumerate() {
        node.run(&web(number)).await.unwrap();
    }
    world.settle().await;
    for at in [1, 50, 100] {
        assert_eq!(found(&world, at), 100, "at {at}");
    }

    // Forty on one side, sixty on the other: each goes on with what it has.
    world.partition((1..=40).map(node));
    world.settle().await;
    for (at, count) in [(1, 40), (40, 40), (41, 60), (100, 60)] {
        assert_eq!(found(&world, at), count, "at {at}");
        assert_eq!(alive(&nodes[usize::from(at) - 1]).await, count, "at {at}");
    }
    for number in [10, 20, 50, 60] {
        nodes[number].run(&web(1000 + number)).await.unwrap();
    }
    world.settle().await;
    assert_eq!((found(&world, 1), found(&world, 100)), (42, 62));
    world.heal_all();
    world.settle().await;
    for at in [1, 40, 41, 100] {
        assert_eq!(found(&world, at), 104, "at {at}");
        assert_eq!(alive(&nodes[usize::from(at) - 1]).await, 100, "at {at}");
    }
    let ips: BTreeSet<_> = world
        .lookup("0.1", "web")
        .iter()
        .map(|one| one.ip)
        .collect();
    assert_eq!(ips.len(), 104);

    // Ten lose their power and come back.
    for dead in 91..=100 {
        world.kill(node(dead));
    }
    world.settle().await;
    assert_eq!(found(&world, 1), 94);
    for index in 91..=100 {
        world.start(node(index));
        let membership = world.store(node(index)).load().unwrap().unwrap();
        let back = world.cluster(node(index));
        back.resume(membership).await.unwrap();
        back.run(&web(usize::from(index) - 1)).await.unwrap();
    }
    world.settle().await;
    for at in [1, 91, 100] {
        assert_eq!(found(&world, at), 104, "at {at}");
    }
    let took = begun.zip(cpu_time()).map(|(from, to)| to - from);
    assert!(
        took.is_none_or(|took| took < Duration::from_secs(20)),
        "{took:?}"
    );
}
