//! How the PaaS tests itself: in the simulated world, without root, docker or a network, in milliseconds.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use arpanet_core::ServiceName;
use arpanet_core::memory::World;
use arpanet_core::runtime::ContainerSpec;
use examples::paas::{Paas, Step};
use examples::rolling;

fn web() -> ServiceName {
    "web".parse().unwrap()
}

fn spec() -> ContainerSpec {
    ContainerSpec::image("nginx:1").net("10.1.0.0/16".parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn ten_replicas_survive_a_cut() {
    let (world, nodes) = World::with_clusters(8).await;
    let paas = Paas::new(nodes);
    paas.deploy(&web(), 80, spec(), 10).await.unwrap();
    world.settle().await;
    assert_eq!(world.lookup("0.1", "web").len(), 10);

    world.cut("0.7");
    world.settle().await;
    let lost = 10 - world.lookup("0.1", "web").len();
    assert!(lost > 0);
    let done = paas.mend().await.unwrap();
    assert_eq!(done.len(), lost);
    world.settle().await;
    assert_eq!(world.lookup("0.1", "web").len(), 10);

    // The node comes back with what it ran, and the surplus goes; no two ever had one address.
    world.heal("0.7");
    world.settle().await;
    let all = world.lookup("0.1", "web");
    let ips: BTreeSet<_> = all.iter().map(|instance| instance.ip).collect();
    assert_eq!((all.len(), ips.len()), (10 + lost, 10 + lost));
    let done = paas.mend().await.unwrap();
    assert!(done.iter().all(|step| matches!(step, Step::Remove(..))));
    world.settle().await;
    assert_eq!(world.lookup("0.5", "web").len(), 10);
    assert!(paas.mend().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn scaling_spreads_and_shrinks() {
    let (world, nodes) = World::with_clusters(4).await;
    let paas = Paas::new(nodes);
    paas.deploy(&web(), 80, spec(), 2).await.unwrap();
    paas.scale(&web(), 8).await.unwrap();
    world.settle().await;
    for node in ["0.1", "0.2", "0.3", "0.4"] {
        let found = world.lookup("0.1", "web");
        let here = found.iter().filter(|one| one.node.to_string() == node);
        assert_eq!(here.count(), 2, "on {node}");
    }
    paas.scale(&web(), 1).await.unwrap();
    world.settle().await;
    assert_eq!(world.lookup("0.4", "web").len(), 1);
    paas.scale(&"unknown".parse().unwrap(), 3).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rolling_restart_leaves_no_gap() {
    let (world, nodes) = World::with_clusters(2).await;
    let paas = Paas::new(nodes.clone());
    paas.deploy(&web(), 80, spec(), 6).await.unwrap();
    world.settle().await;
    let before = world.lookup("0.2", "web");
    let watching = {
        let world = world.clone();
        tokio::spawn(async move {
            let mut least = usize::MAX;
            loop {
                least = least.min(world.lookup("0.2", "web").len());
                if least < 5 {
                    return least;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    let (discovery, runtime) = (nodes[0].discovery(), nodes[0].runtime().unwrap());
    let limit = Duration::from_secs(30);
    let done = rolling::restart(&**discovery, &**runtime, &web(), limit)
        .await
        .unwrap();
    assert_eq!(done.len(), 3);
    world.settle().await;
    assert!(!watching.is_finished(), "fewer than five were up at once");
    watching.abort();
    assert_eq!(world.lookup("0.2", "web"), before);
}
