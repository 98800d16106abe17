//! Containers that are given further addresses, and lose them, while they run.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arpanet_core::admission::{Password, Seed};
use arpanet_core::memory::World;
use arpanet_core::overlay::Overlay;
use arpanet_core::roster::Role;
use arpanet_core::runtime::{ContainerSpec, NetRequest, RuntimeCapabilities};
use arpanet_core::{AppAddr, Cluster, ContainerName, ErrorKind, NodeAddr};

fn node_with(world: &World, addr: &str, able: RuntimeCapabilities) -> Cluster {
    let addr: NodeAddr = addr.parse().unwrap();
    Cluster::builder()
        .node(addr)
        .overlay(Arc::new(world.overlay(addr)))
        .discovery(Arc::new(world.discovery(addr)))
        .runtime(Arc::new(world.runtime(addr).with_capabilities(able)))
        .admission(Arc::new(world.admission(addr)))
        .store(Arc::new(world.store(addr)))
        .build()
        .unwrap()
}

fn node(world: &World, addr: &str) -> Cluster {
    node_with(world, addr, RuntimeCapabilities::all())
}

async fn boot(world: &World, cluster: &Cluster) {
    cluster
        .boot(&Password::new("Apples").unwrap())
        .await
        .unwrap();
    world.settle().await;
}

fn web(name: &str) -> ContainerSpec {
    ContainerSpec::command(["httpd"])
        .named(name.parse().unwrap())
        .addr(addr("10.1.0.5/16"))
        .service("web".parse().unwrap(), 80)
}

fn addr(text: &str) -> AppAddr {
    text.parse().unwrap()
}

fn name(text: &str) -> ContainerName {
    text.parse().unwrap()
}

fn found(world: &World, at: &str) -> Vec<String> {
    let mut ips: Vec<String> = world
        .lookup(at, "web")
        .iter()
        .map(|instance| instance.ip.to_string())
        .collect();
    ips.sort();
    ips
}

async fn attached(world: &World, at: &str) -> usize {
    world.overlay(at).attached().await.unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn a_further_address_serves_and_goes_again() {
    let world = World::new(7);
    let cluster = node(&world, "0.1");
    boot(&world, &cluster).await;
    let w1 = name("w1");
    cluster.run(&web("w1")).await.unwrap();
    for _ in 0..2 {
        let given = cluster
            .attach(&w1, NetRequest::Addr(addr("10.3.0.9/16")))
            .await;
        assert_eq!(given.unwrap(), addr("10.3.0.9/16"));
        // A network that it is in already gives no other.
        let same = NetRequest::Net("10.3.0.0/16".parse().unwrap());
        assert_eq!(
            cluster.attach(&w1, same).await.unwrap(),
            addr("10.3.0.9/16")
        );
        assert_eq!(found(&world, "0.1"), ["10.1.0.5", "10.3.0.9"]);
        assert_eq!(attached(&world, "0.1").await, 2);
    }
    // It is the container that was asked for, all the same.
    cluster.run(&web("w1")).await.unwrap();
    for _ in 0..2 {
        cluster.detach(&w1, addr("10.1.0.5/16").ip()).await.unwrap();
        assert_eq!(found(&world, "0.1"), ["10.3.0.9"]);
        assert_eq!(attached(&world, "0.1").await, 1);
    }
    let container = cluster.runtime().unwrap().inspect(&w1).await.unwrap();
    assert_eq!(Cluster::addresses(&container), [addr("10.3.0.9/16")]);
    cluster.remove(&w1).await.unwrap();
    assert_eq!(attached(&world, "0.1").await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_given_outlives_the_agent() {
    let world = World::new(7);
    let cluster = node(&world, "0.1");
    boot(&world, &cluster).await;
    let w1 = name("w1");
    cluster.run(&web("w1")).await.unwrap();
    cluster
        .attach(&w1, NetRequest::Net("10.3.0.0/16".parse().unwrap()))
        .await
        .unwrap();
    cluster.detach(&w1, addr("10.1.0.5/16").ip()).await.unwrap();
    let before = found(&world, "0.1");
    assert!(
        before.len() == 1 && before[0].starts_with("10.3."),
        "{before:?}"
    );
    world.crash("0.1");
    drop(cluster);
    let kept = world.store("0.1").load().unwrap().unwrap();
    let cluster = node(&world, "0.1");
    cluster.resume(kept).await.unwrap();
    world.settle().await;
    assert_eq!(found(&world, "0.1"), before);
    assert_eq!(attached(&world, "0.1").await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_given_changes_nothing() {
    let world = World::new(7);
    let cluster = node(&world, "0.1");
    boot(&world, &cluster).await;
    let other = node(&world, "0.2");
    let seed = Seed::new("0.1".parse().unwrap(), world.endpoint("0.1"));
    other
        .join(&Password::new("Apples").unwrap(), Role::Server, seed, false)
        .await
        .unwrap();
    other.run(&web("w2")).await.unwrap();
    world.settle().await;
    let c1 = name("c1");
    let spec = ContainerSpec::command(["sleep"]).named(c1.clone());
    cluster.run(&spec).await.unwrap();
    let before = cluster.runtime().unwrap().inspect(&c1).await.unwrap();

    let taken = cluster
        .attach(&c1, NetRequest::Addr(addr("10.1.0.5/16")))
        .await;
    let error = taken.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("w2 on node 0.2"), "{error}");
    let unknown = cluster
        .attach(&name("c9"), NetRequest::Addr(addr("10.3.0.9/16")))
        .await;
    assert_eq!(unknown.unwrap_err().kind(), ErrorKind::NotFound);
    let after = cluster.runtime().unwrap().inspect(&c1).await.unwrap();
    assert_eq!(after, before);
    assert_eq!(attached(&world, "0.1").await, 0);

    world.end_container("0.1", &c1, 0).unwrap();
    world.settle().await;
    let ended = cluster
        .attach(&c1, NetRequest::Addr(addr("10.3.0.9/16")))
        .await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn an_overlay_that_refuses_leaves_the_container_as_it_was() {
    let world = World::new(7);
    let cluster = node(&world, "0.1");
    boot(&world, &cluster).await;
    let w1 = name("w1");
    cluster.run(&web("w1")).await.unwrap();
    let before = cluster.runtime().unwrap().inspect(&w1).await.unwrap();
    // The namespace is gone under the container's feet: attaching fails.
    world.remove_namespace("0.1", before.namespace.as_ref().unwrap());
    let refused = cluster
        .attach(&w1, NetRequest::Addr(addr("10.3.0.9/16")))
        .await;
    assert!(refused.is_err(), "{refused:?}");
    let after = cluster.runtime().unwrap().inspect(&w1).await.unwrap();
    assert_eq!(after, before);
    assert!(!found(&world, "0.1").contains(&"10.3.0.9".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_changes_no_labels_says_so() {
    let world = World::new(7);
    let able = RuntimeCapabilities::all().without_relabel();
    let cluster = node_with(&world, "0.1", able);
    boot(&world, &cluster).await;
    cluster.run(&web("w1")).await.unwrap();
    let refused = cluster
        .attach(&name("w1"), NetRequest::Addr(addr("10.3.0.9/16")))
        .await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(found(&world, "0.1"), ["10.1.0.5"]);
}
