//! Containers that don't come up: whatever ends their way, nothing of them stays.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use arpanet_core::memory::World;
use arpanet_core::overlay::Overlay;
use arpanet_core::runtime::{ContainerSpec, Runtime};
use arpanet_core::{Cluster, ErrorKind};

fn web() -> ContainerSpec {
    ContainerSpec::command(["httpd"])
        .net("10.1.0.0/16".parse().unwrap())
        .service("web".parse().unwrap(), 80)
}

async fn assert_nothing_stays(world: &World) {
    world.settle().await;
    assert_eq!(world.runtime("0.1").list().await.unwrap(), []);
    assert_eq!(world.overlay("0.1").attached().await.unwrap(), []);
    assert_eq!(world.lookup("0.1", "web"), []);
}

/// Has it run until it has made the container, and goes away.
async fn begin_to_run(world: &World, node: &Cluster) {
    let runtime = world.runtime("0.1");
    let made = async {
        while runtime.list().await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let spec = web();
    tokio::select! {
        biased;
        () = made => {}
        _ = node.run(&spec) => panic!("it is up before it is made"),
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_wants_a_container_goes_away() {
    let (world, nodes) = World::with_clusters(1).await;
    begin_to_run(&world, &nodes[0]).await;
    assert_nothing_stays(&world).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_of_the_engine_fails() {
    for seed in 0..50 {
        let world = World::new(seed);
        let node = world.cluster("0.1");
        let password = arpanet_core::admission::Password::new("Mulberries-are-ripe").unwrap();
        node.boot(&password).await.unwrap();
        world.falter(0.4);
        let ran = node.run(&web()).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.falter(0.0);
        match ran {
            Ok(container) => node.remove(&container.name).await.unwrap(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
        assert_nothing_stays(&world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_at_once_each_has_its_own_name() {
    let (_world, nodes) = World::with_clusters(1).await;
    let node = &nodes[0];
    let spec = web();
    let (one, other) = tokio::join!(node.run(&spec), node.run(&spec));
    assert_ne!(one.unwrap().name, other.unwrap().name);

    let named = web().named("db".parse().unwrap());
    let (one, other) = tokio::join!(node.run(&named), node.run(&named));
    let made = one.unwrap();
    let error = other.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("is being started"), "{error}");
    // Once it runs, the same again does nothing.
    assert_eq!(node.run(&named).await.unwrap().id, made.id);
}
