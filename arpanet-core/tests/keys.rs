//! A cluster whose key and password become others, on in-memory backends.
#![allow(clippy::unwrap_used)]

use arpanet_core::admission::{Membership, Password, Seed};
use arpanet_core::memory::World;
use arpanet_core::roster::Role;
use arpanet_core::{Cluster, ErrorKind};

const NODES: [&str; 3] = ["0.1", "0.2", "0.3"];

fn password(text: &str) -> Password {
    Password::new(text).unwrap()
}

fn seed(world: &World, at: &str) -> Seed {
    Seed::new(at.parse().unwrap(), world.endpoint(at))
}

/// `0.1` boots, `0.2` joins as a server, `0.3` as a client.
async fn three() -> (World, [Cluster; 3]) {
    let world = World::new(7);
    let nodes = NODES.map(|addr| world.cluster(addr));
    let apples = password("Apples");
    nodes[0].boot(&apples).await.unwrap();
    for (node, role) in nodes[1..].iter().zip([Role::Server, Role::Client]) {
        let seed = seed(&world, "0.1");
        node.join(&apples, role, seed, false).await.unwrap();
    }
    world.settle().await;
    (world, nodes)
}

fn stored(world: &World, at: &str) -> Membership {
    world.store(at).load().unwrap().unwrap()
}

/// Lets the nodes' tasks do what the last words have them do.
async fn rest(world: &World) {
    world.settle().await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    world.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_kept_by_every_node_and_brings_it_back() {
    let (world, nodes) = three().await;
    let before = stored(&world, "0.1").key;
    let spread = nodes[1].rekey().await.unwrap();
    assert!(spread.unconfirmed.is_empty(), "{spread:?}");
    // Where it was asked for, it is kept when that returns.
    let key = stored(&world, "0.2").key;
    assert!(key.rank() > before.rank());
    rest(&world).await;
    for (at, node) in NODES.iter().zip(&nodes) {
        assert_eq!(stored(&world, at).key, key, "at {at}");
        assert_eq!(node.membership().await.unwrap(), stored(&world, at));
    }
    nodes[2].stop().await.unwrap();
    nodes[2].resume(stored(&world, "0.3")).await.unwrap();
    rest(&world).await;
    assert_eq!(stored(&world, "0.3").key, key);
}

#[tokio::test(start_paused = true)]
async fn only_members_that_admit_others_have_a_say_and_only_while_they_are_up() {
    let (_world, nodes) = three().await;
    let refused = nodes[2].rekey().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    assert_eq!(refused.hint(), Some("do it on a boot or server node"));
    let refused = nodes[2].change_password(&password("Pears")).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
    nodes[0].stop().await.unwrap();
    let refused = nodes[0].rekey().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn the_old_password_admits_nobody_and_the_new_one_does_everywhere() {
    let (world, nodes) = three().await;
    nodes[0].change_password(&password("Pears")).await.unwrap();
    rest(&world).await;
    assert!(stored(&world, "0.2").credential.is_some());
    assert!(
        stored(&world, "0.3").credential.is_none(),
        "a client can't admit"
    );
    // Also by one that was away since.
    nodes[1].stop().await.unwrap();
    nodes[1].resume(stored(&world, "0.2")).await.unwrap();
    for (at, new) in [("0.1", "0.4"), ("0.2", "0.5")] {
        let joiner = world.cluster(new);
        let old = joiner
            .join(&password("Apples"), Role::Server, seed(&world, at), false)
            .await;
        assert_eq!(old.unwrap_err().kind(), ErrorKind::Unauthenticated);
        joiner
            .join(&password("Pears"), Role::Server, seed(&world, at), false)
            .await
            .unwrap();
        assert_eq!(stored(&world, new).key, stored(&world, at).key);
        // And it admits by it.
        let next = world.cluster(format!("{new}0").as_str());
        next.join(&password("Pears"), Role::Client, seed(&world, new), false)
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_for_good_takes_an_old_key_along() {
    let (world, nodes) = three().await;
    let before = stored(&world, "0.3").key;
    nodes[2].resign().await.unwrap();
    rest(&world).await;
    let key = stored(&world, "0.1").key;
    assert!(key.rank() > before.rank());
    assert_eq!(stored(&world, "0.2").key, key);
}
