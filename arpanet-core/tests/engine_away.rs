//! Agents that start while their container engine is away: what lives on keeps what it has.
#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::time::Duration;

use arpanet_core::cluster::ClusterEvent;
use arpanet_core::memory::World;
use arpanet_core::overlay::Overlay;
use arpanet_core::runtime::{ContainerSpec, RestartPolicy, Runtime};
use arpanet_core::{Cluster, ContainerName, ErrorKind};

fn name(text: &str) -> ContainerName {
    text.parse().unwrap()
}

fn web(text: &str) -> ContainerSpec {
    let mut spec = ContainerSpec::command(["httpd"])
        .named(name(text))
        .net("10.1.0.0/16".parse().unwrap())
        .service("web".parse().unwrap(), 80);
    spec.restart = RestartPolicy::Always;
    spec
}

async fn attached(world: &World, at: &str) -> Vec<String> {
    let attached = world.overlay(at).attached().await.unwrap();
    attached.iter().map(|(name, _)| name.to_string()).collect()
}

async fn bring_back(world: &World, at: &str) -> Cluster {
    let membership = world.store(at).load().unwrap().unwrap();
    let cluster = world.cluster(at);
    cluster.resume(membership).await.unwrap();
    world.settle().await;
    cluster
}

/// The address of the one instance that 0.1 finds on another node.
fn address(world: &World, on: &Cluster, container: &str) -> Ipv4Addr {
    let found = world.lookup("0.1", "web");
    let id = format!("{}:{container}:", on.me());
    let mut found = found.iter().filter(|one| one.id.as_str().starts_with(&id));
    found.next().unwrap().ip
}

#[tokio::test(start_paused = true)]
async fn what_lives_on_keeps_its_network_and_what_ended_meanwhile_is_taken_back() {
    let (world, mut nodes) = World::with_clusters(2).await;
    world.start_foreign("0.1", &web("c1")).unwrap();
    for name in ["w1", "w2"] {
        world.start_foreign("0.2", &web(name)).unwrap();
    }
    world.settle().await;
    assert_eq!(world.lookup("0.1", "web").len(), 3);
    let at = address(&world, &nodes[1], "w1");
    let ended = address(&world, &nodes[1], "w2");

    world.stop_engine("0.2");
    world.crash("0.2");
    nodes[1] = bring_back(&world, "0.2").await;
    let events = nodes[1].events();
    assert_eq!(attached(&world, "0.2").await, ["w1", "w2"]);
    // It is reached from other nodes, which need its claim, for as long as that takes.
    for _ in 0..5 {
        world.ping(("0.1", "c1"), at).await.unwrap();
        world.ping(("0.2", "w1"), ended).await.unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    // Nothing can be made meanwhile.
    let refused = nodes[1].run(&web("w3")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    world.remove_foreign("0.2", &name("w2"));
    assert_eq!(attached(&world, "0.2").await, ["w1"]);

    world.start_engine("0.2");
    world.settle().await;
    assert_eq!(world.lookup("0.1", "web").len(), 2);
    assert_eq!(address(&world, &nodes[1], "w1"), at);
    world.ping(("0.1", "c1"), at).await.unwrap();
    // What ended is nobody's any more.
    let gone = world.ping(("0.1", "c1"), ended).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone}");
    assert_eq!(events.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn it_is_told_once_and_an_engine_that_comes_later_is_followed() {
    let world = World::new(1);
    world.stop_engine("0.1");
    let cluster = world.cluster("0.1");
    let mut events = cluster.events();
    let password = arpanet_core::admission::Password::new("Apples").unwrap();
    cluster.boot(&password).await.unwrap();
    world.settle().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let told = std::iter::from_fn(|| events.try_recv().ok())
        .filter(|event| matches!(event, ClusterEvent::Trouble { what } if what.contains("engine")));
    assert_eq!(told.count(), 1);
    world.start_foreign("0.1", &web("w1")).unwrap();
    world.settle().await;
    assert!(world.lookup("0.1", "web").is_empty());
    world.start_engine("0.1");
    world.settle().await;
    assert_eq!(world.lookup("0.1", "web").len(), 1);
    // Away again, it is known what there was.
    world.stop_engine("0.1");
    let listed = world.runtime("0.1").list().await.unwrap_err();
    assert_eq!(listed.kind(), ErrorKind::Unavailable);
    world.settle().await;
    assert_eq!(world.lookup("0.1", "web").len(), 1);
    world.remove_foreign("0.1", &name("w1"));
    world.start_engine("0.1");
    world.settle().await;
    assert!(world.lookup("0.1", "web").is_empty());
    assert!(attached(&world, "0.1").await.is_empty());
}
