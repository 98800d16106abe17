//! Instances that no container provides.
#![allow(clippy::unwrap_used)]

use arpanet_core::ErrorKind;
use arpanet_core::discovery::Instance;
use arpanet_core::memory::World;
use arpanet_core::runtime::ContainerSpec;

fn instance(id: &str, node: &str, port: u16) -> Instance {
    let node: arpanet_core::NodeAddr = node.parse().unwrap();
    let ip = node.overlay();
    Instance::new(id.parse().unwrap(), "api".parse().unwrap(), ip, port, node)
}

fn ports(world: &World, at: &str) -> Vec<u16> {
    let found = world.lookup(at, "api");
    found.iter().map(|one| one.port).collect()
}

#[tokio::test(start_paused = true)]
async fn are_in_lookups_until_they_are_taken_back_and_not_while_their_node_is_drained() {
    let (world, nodes) = World::with_clusters(2).await;
    for _ in 0..2 {
        nodes[1].register(instance("a1", "0.2", 80)).await.unwrap();
        assert_eq!(ports(&world, "0.1"), [80]);
    }
    // Another of the same id takes its place.
    nodes[1].register(instance("a1", "0.2", 81)).await.unwrap();
    assert_eq!(ports(&world, "0.1"), [81]);

    nodes[0].drain(nodes[1].me()).await.unwrap();
    world.settle().await;
    assert!(ports(&world, "0.1").is_empty());
    // One that comes while it is drained waits, too; other nodes' are no matter.
    nodes[1].register(instance("a2", "0.2", 82)).await.unwrap();
    nodes[0].register(instance("a3", "0.1", 83)).await.unwrap();
    world.settle().await;
    assert_eq!(ports(&world, "0.2"), [83]);
    let all = nodes[0].instances().await.unwrap();
    assert_eq!(
        all.iter()
            .filter(|one| one.service.as_str() == "api")
            .count(),
        3
    );
    nodes[0].undrain(nodes[1].me()).await.unwrap();
    world.settle().await;
    assert_eq!(ports(&world, "0.1"), [81, 82, 83]);

    for _ in 0..2 {
        nodes[1].deregister(&"a1".parse().unwrap()).await.unwrap();
        world.settle().await;
        assert_eq!(ports(&world, "0.1"), [82, 83]);
    }
    let foreign = nodes[1].register(instance("a4", "0.1", 84)).await;
    assert_eq!(foreign.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_as_if_it_had_not_been_asked_for() {
    let world = World::new(1);
    let cluster = world.cluster("0.1");
    let down = cluster
        .register(instance("a1", "0.1", 80))
        .await
        .unwrap_err();
    assert_eq!(down.kind(), ErrorKind::Unavailable);
    let password = arpanet_core::admission::Password::new("Apples").unwrap();
    cluster.boot(&password).await.unwrap();
    world.settle().await;
    assert!(ports(&world, "0.1").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_container_s_comes_back_as_long_as_it_runs() {
    let (world, nodes) = World::with_clusters(1).await;
    let spec = ContainerSpec::command(["httpd"])
        .net("10.1.0.0/16".parse().unwrap())
        .service("api".parse().unwrap(), 80);
    nodes[0].run(&spec).await.unwrap();
    let id = world.lookup("0.1", "api").remove(0).id;
    nodes[0].deregister(&id).await.unwrap();
    world.settle().await;
    assert_eq!(ports(&world, "0.1"), [80]);
}
