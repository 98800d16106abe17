//! The cluster logic on in-memory backends: three nodes, containers, cuts, conflicts, and the ways down.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arpanet_core::admission::{Password, Seed};
use arpanet_core::cluster::ClusterEvent;
use arpanet_core::memory::World;
use arpanet_core::overlay::Overlay;
use arpanet_core::roster::Role;
use arpanet_core::runtime::{ContainerSpec, ContainerState};
use arpanet_core::{Cluster, ContainerName, ErrorKind, NodeAddr};

fn password(text: &str) -> Password {
    Password::new(text).unwrap()
}

fn seed(world: &World) -> Seed {
    Seed::new("0.1".parse().unwrap(), world.endpoint("0.1"))
}

/// `0.1` boots, `0.2` joins as a server, `0.3` as a client.
async fn three() -> (World, [Cluster; 3]) {
    let world = World::new(7);
    let nodes = ["0.1", "0.2", "0.3"].map(|addr| world.cluster(addr));
    nodes[0].boot(&password("Apples")).await.unwrap();
    nodes[1]
        .join(&password("Apples"), Role::Server, seed(&world), false)
        .await
        .unwrap();
    nodes[2]
        .join(&password("Apples"), Role::Client, seed(&world), false)
        .await
        .unwrap();
    world.settle().await;
    (world, nodes)
}

fn web(name: &str) -> ContainerSpec {
    ContainerSpec::command(["httpd"])
        .named(name.parse().unwrap())
        .net("10.1.0.0/16".parse().unwrap())
        .service("web".parse().unwrap(), 80)
}

#[tokio::test(start_paused = true)]
async fn three_nodes_see_the_same_cluster() {
    let (_world, nodes) = three().await;
    let seen = |nodes: Vec<arpanet_core::cluster::NodeStatus>| {
        nodes
            .into_iter()
            .map(|node| (node.address.to_string(), node.role))
            .collect::<Vec<_>>()
    };
    let wanted = [
        ("0.1", Role::Boot),
        ("0.2", Role::Server),
        ("0.3", Role::Client),
    ]
    .map(|(addr, role)| (addr.to_owned(), role));
    for cluster in &nodes {
        assert_eq!(seen(cluster.nodes().await.unwrap()), wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_refused_and_leaves_nothing() {
    let world = World::new(7);
    let boot = world.cluster("0.1");
    boot.boot(&password("Apples")).await.unwrap();
    let joiner = world.cluster("0.2");
    let joined = joiner
        .join(&password("Pears"), Role::Server, seed(&world), false)
        .await;
    assert_eq!(joined.unwrap_err().kind(), ErrorKind::Unauthenticated);
    assert!(joiner.membership().await.is_none());
    assert!(world.store("0.2").load().unwrap().is_none());
    assert_eq!(
        world.overlay("0.2").peers().await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    // And then it works with the right one.
    joiner
        .join(&password("Apples"), Role::Server, seed(&world), false)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn containers_are_found_everywhere_and_reach_their_own_network() {
    let (world, nodes) = three().await;
    nodes[2].run(&web("w1")).await.unwrap();
    nodes[1].run(&web("w2")).await.unwrap();
    world.settle().await;
    for addr in ["0.1", "0.2", "0.3"] {
        assert_eq!(world.lookup(addr, "web").len(), 2, "at {addr}");
    }
    // The same again is the same; another spec of that name is refused.
    nodes[2].run(&web("w1")).await.unwrap();
    let other = ContainerSpec::command(["nginx"]).named("w1".parse().unwrap());
    assert_eq!(
        nodes[2].run(&other).await.unwrap_err().kind(),
        ErrorKind::Conflict
    );

    let name: ContainerName = "w1".parse().unwrap();
    nodes[2].remove(&name).await.unwrap();
    nodes[2].remove(&name).await.unwrap();
    world.settle().await;
    assert_eq!(world.lookup("0.1", "web").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ends_leaves_the_catalogue() {
    let (world, nodes) = three().await;
    nodes[1].run(&web("w1")).await.unwrap();
    let name: ContainerName = "w1".parse().unwrap();
    world.end_container("0.2", &name, 3).unwrap();
    world.settle().await;
    assert!(world.lookup("0.1", "web").is_empty());
    let state = nodes[1]
        .runtime()
        .unwrap()
        .inspect(&name)
        .await
        .unwrap()
        .state;
    assert_eq!(state, ContainerState::Exited { code: 3 });
}

#[tokio::test(start_paused = true)]
async fn a_cut_node_leaves_the_catalogue_and_is_back_by_itself() {
    let (world, nodes) = three().await;
    nodes[2].run(&web("w1")).await.unwrap();
    world.settle().await;
    world.cut("0.3");
    world.settle().await;
    assert!(world.lookup("0.1", "web").is_empty());
    world.heal("0.3");
    world.settle().await;
    assert_eq!(world.lookup("0.1", "web").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_older_claim_to_an_address_wins_after_a_partition() {
    let (world, nodes) = three().await;
    world.cut("0.3");
    world.settle().await;
    let at = |name: &str| {
        ContainerSpec::command(["httpd"])
            .named(name.parse().unwrap())
            .addr("10.1.0.5/16".parse().unwrap())
            .service("web".parse().unwrap(), 80)
    };
    nodes[1].run(&at("older")).await.unwrap();
    let mut events = nodes[2].events();
    nodes[2].run(&at("younger")).await.unwrap();
    world.heal("0.3");
    world.settle().await;
    for addr in ["0.1", "0.2", "0.3"] {
        let web = world.lookup(addr, "web");
        assert_eq!(web.len(), 1, "at {addr}");
        assert_eq!(web[0].node, nodes[1].me(), "at {addr}");
    }
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        told.push(event);
    }
    let lost = |event: &ClusterEvent| matches!(event, ClusterEvent::AddressLost { to, .. } if *to == nodes[1].me());
    assert_eq!(
        told.iter().filter(|event| lost(event)).count(),
        1,
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_tells_its_steps_while_it_comes_up() {
    let world = World::new(7);
    let [boot, server] = ["0.1", "0.2"].map(|addr| world.cluster(addr));
    boot.boot(&password("Apples")).await.unwrap();
    let mut events = server.events();
    server
        .join(&password("Apples"), Role::Server, seed(&world), false)
        .await
        .unwrap();
    let steps: Vec<String> = std::iter::from_fn(|| events.try_recv().ok())
        .filter_map(|event| match event {
            ClusterEvent::Step { what } => Some(what),
            _ => None,
        })
        .collect();
    assert_eq!(
        steps,
        [
            "checking this host",
            "proving the password to the seed",
            "launching the overlay",
            "starting discovery",
            "reaching the seed over the overlay",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn networks_are_known_everywhere_and_outlive_their_maker() {
    let (world, nodes) = three().await;
    let shop = nodes[2]
        .create_network("shop".parse().unwrap(), None)
        .await
        .unwrap();
    world.settle().await;
    let clash = nodes[0]
        .create_network("other".parse().unwrap(), Some(shop.net))
        .await;
    assert_eq!(clash.unwrap_err().kind(), ErrorKind::Conflict);
    nodes[2].resign().await.unwrap();
    world.settle().await;
    assert_eq!(nodes[0].networks(), std::slice::from_ref(&shop));
    nodes[0].remove_network(&shop.name).await.unwrap();
    world.settle().await;
    assert!(nodes[1].networks().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stopped_node_comes_back_without_a_password() {
    let (world, nodes) = three().await;
    nodes[1].run(&web("w1")).await.unwrap();
    nodes[1].stop().await.unwrap();
    nodes[1].stop().await.unwrap();
    world.settle().await;
    assert!(world.lookup("0.1", "web").is_empty());
    let membership = world.store("0.2").load().unwrap().unwrap();
    nodes[1].resume(membership).await.unwrap();
    world.settle().await;
    assert_eq!(world.lookup("0.1", "web").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_living_node_may_come_again_under_another_name_and_role() {
    let (world, nodes) = three().await;
    nodes[1].stop().await.unwrap();
    // The others have not noticed yet that it is gone.
    let addr: NodeAddr = "0.2".parse().unwrap();
    let anew = Cluster::builder()
        .node(addr)
        .name("renamed".parse().unwrap())
        .overlay(Arc::new(world.overlay(addr)))
        .discovery(Arc::new(world.discovery(addr)))
        .admission(Arc::new(world.admission(addr)))
        .build()
        .unwrap();
    anew.join(&password("Apples"), Role::Client, seed(&world), false)
        .await
        .unwrap();
    world.settle().await;
    for node in [&nodes[0], &nodes[2], &anew] {
        let seen = node.nodes().await.unwrap();
        let found = seen.iter().find(|node| node.address == addr).unwrap();
        assert_eq!((found.name.as_str(), found.role), ("renamed", Role::Client));
        assert_eq!(seen.len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_resigned_leaves_its_address_to_others() {
    let (world, nodes) = three().await;
    nodes[1].resign().await.unwrap();
    world.settle().await;
    assert!(world.store("0.2").load().unwrap().is_none());
    assert_eq!(nodes[0].nodes().await.unwrap().len(), 2);
    world.reinstall("0.2");
    world
        .cluster("0.2")
        .join(&password("Apples"), Role::Client, seed(&world), false)
        .await
        .unwrap();
}
