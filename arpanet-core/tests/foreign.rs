//! Containers of any client: attached, registered and taken back, whoever started them; addresses held before their
//! container is there; nodes that are drained.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use arpanet_core::addr::PluginBlock;
use arpanet_core::cluster::ClusterEvent;
use arpanet_core::memory::World;
use arpanet_core::overlay::{AttachAddr, Overlay};
use arpanet_core::runtime::{ContainerSpec, EngineHealth, NetRequest, RestartPolicy, Runtime};
use arpanet_core::{AppAddr, AppNet, Cluster, ContainerName, ErrorKind};

fn net() -> AppNet {
    "10.1.0.0/16".parse().unwrap()
}

fn name(text: &str) -> ContainerName {
    text.parse().unwrap()
}

fn web(text: &str) -> ContainerSpec {
    let mut spec = ContainerSpec::command(["httpd"])
        .named(name(text))
        .net(net())
        .service("web".parse().unwrap(), 80);
    spec.restart = RestartPolicy::Always;
    spec
}

fn found(world: &World, at: &str, service: &str) -> Vec<String> {
    let found = world.lookup(at, service);
    let mut ips: Vec<String> = found.iter().map(|one| one.ip.to_string()).collect();
    ips.sort();
    ips
}

async fn attached(world: &World, at: &str) -> Vec<(ContainerName, AttachAddr)> {
    world.overlay(at).attached().await.unwrap()
}

async fn bring_back(world: &World, at: &str) -> Cluster {
    world.start(at);
    let membership = world.store(at).load().unwrap().unwrap();
    let cluster = world.cluster(at);
    cluster.resume(membership).await.unwrap();
    world.settle().await;
    cluster
}

fn troubles(events: &mut tokio::sync::broadcast::Receiver<ClusterEvent>) -> Vec<String> {
    std::iter::from_fn(|| events.try_recv().ok())
        .filter_map(|event| match event {
            ClusterEvent::Trouble { what } => Some(what),
            _ => None,
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn is_attached_registered_and_taken_back() {
    let (world, nodes) = World::with_clusters(2).await;
    world.start_foreign("0.2", &web("shop_web_1")).unwrap();
    world.start_foreign("0.2", &web("shop_web_2")).unwrap();
    world.settle().await;
    let both = found(&world, "0.1", "web");
    assert_eq!(both.len(), 2, "{both:?}");
    assert_eq!(attached(&world, "0.2").await.len(), 2);
    world.remove_foreign("0.2", &name("shop_web_1"));
    world.settle().await;
    assert_eq!(found(&world, "0.1", "web").len(), 1);
    assert_eq!(attached(&world, "0.2").await.len(), 1);
    drop(nodes);
}

#[tokio::test(start_paused = true)]
async fn keeps_its_address_over_restarts_of_itself_the_agent_and_the_host() {
    let (world, mut nodes) = World::with_clusters(2).await;
    world.start_foreign("0.2", &web("w1")).unwrap();
    world.settle().await;
    let before = found(&world, "0.1", "web");
    assert_eq!(before.len(), 1);

    world.end_container("0.2", &name("w1"), 1).unwrap();
    world.settle().await;
    assert_eq!(found(&world, "0.1", "web"), before);

    world.crash("0.2");
    world.settle().await;
    // While nobody looks, another comes.
    world.start_foreign("0.2", &web("w2")).unwrap();
    nodes[1] = bring_back(&world, "0.2").await;
    let both = found(&world, "0.1", "web");
    assert!(both.len() == 2 && both.contains(&before[0]), "{both:?}");

    world.kill("0.2");
    world.settle().await;
    assert!(found(&world, "0.1", "web").is_empty());
    nodes[1] = bring_back(&world, "0.2").await;
    assert_eq!(found(&world, "0.1", "web"), both);
}

#[tokio::test(start_paused = true)]
async fn a_network_by_name_is_waited_for_and_told_of_once() {
    let (world, nodes) = World::with_clusters(1).await;
    let mut events = nodes[0].events();
    let mut spec = web("w1");
    spec.nets = vec![NetRequest::Named("shop".parse().unwrap())];
    world.start_foreign("0.1", &spec).unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let told = troubles(&mut events);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("w1") && told[0].contains("shop"),
        "{told:?}"
    );
    assert!(found(&world, "0.1", "web").is_empty());
    let made = nodes[0].create_network("shop".parse().unwrap(), None).await;
    world.settle().await;
    let found = world.lookup("0.1", "web");
    assert_eq!(found[0].net, Some(made.unwrap().net));
}

#[tokio::test(start_paused = true)]
async fn an_explicit_address_that_is_another_s_is_lost_and_told() {
    let (world, nodes) = World::with_clusters(2).await;
    let mut events = nodes[1].events();
    let wanting = |text: &str| {
        let mut spec = web(text);
        spec.nets = vec![NetRequest::Addr("10.1.0.5/16".parse().unwrap())];
        spec
    };
    world.start_foreign("0.1", &wanting("w1")).unwrap();
    world.settle().await;
    world.start_foreign("0.2", &wanting("w2")).unwrap();
    world.settle().await;
    let lost = std::iter::from_fn(|| events.try_recv().ok())
        .any(|event| matches!(event, ClusterEvent::AddressLost { .. }));
    assert!(lost);
    assert!(attached(&world, "0.2").await.is_empty());
    // The other goes, and it is this one's.
    world.remove_foreign("0.1", &name("w1"));
    world.settle().await;
    assert_eq!(attached(&world, "0.2").await.len(), 1);
    assert_eq!(found(&world, "0.1", "web"), ["10.1.0.5"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_away_by_hand_is_not_picked_again() {
    let (world, nodes) = World::with_clusters(1).await;
    world.start_foreign("0.1", &web("w1")).unwrap();
    world.settle().await;
    let ip = found(&world, "0.1", "web")[0].parse().unwrap();
    nodes[0].detach(&name("w1"), ip).await.unwrap();
    world.settle().await;
    assert!(found(&world, "0.1", "web").is_empty());
    let given = nodes[0].attach(&name("w1"), NetRequest::Net(net())).await;
    assert_eq!(
        found(&world, "0.1", "web"),
        [given.unwrap().ip().to_string()]
    );
}

#[tokio::test(start_paused = true)]
async fn a_plugin_has_this_node_s_address_in_its_block() {
    let (world, _nodes) = World::with_clusters(2).await;
    let mut spec = ContainerSpec::command(["proxy"])
        .named(name("p1"))
        .service("proxy".parse().unwrap(), 53);
    spec.plugin = PluginBlock::new(241);
    world.start_foreign("0.2", &spec).unwrap();
    world.settle().await;
    assert_eq!(found(&world, "0.1", "proxy"), ["10.241.0.2"]);
    let block = AttachAddr::Plugin(PluginBlock::new(241).unwrap());
    assert_eq!(attached(&world, "0.2").await, [(name("p1"), block)]);
    world.remove_foreign("0.2", &name("p1"));
    world.settle().await;
    assert!(attached(&world, "0.2").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn aliases_find_it_too() {
    let (world, _nodes) = World::with_clusters(2).await;
    let mut spec = web("w1").alias("shop".parse().unwrap());
    spec.aliases.push("web".parse().unwrap());
    world.start_foreign("0.2", &spec).unwrap();
    world.settle().await;
    assert_eq!(found(&world, "0.1", "shop"), found(&world, "0.1", "web"));
    assert_eq!(found(&world, "0.1", "shop").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_engine_finds_unhealthy_leaves_lookups_and_comes_back() {
    let (world, _nodes) = World::with_clusters(2).await;
    world.start_foreign("0.2", &web("w1")).unwrap();
    world.settle().await;
    for (health, serves) in [
        (EngineHealth::Starting, 0),
        (EngineHealth::Healthy, 1),
        (EngineHealth::Unhealthy, 0),
        (EngineHealth::Healthy, 1),
    ] {
        world.set_health("0.2", &name("w1"), Some(health)).unwrap();
        world.settle().await;
        assert_eq!(found(&world, "0.1", "web").len(), serves, "{health:?}");
        // It keeps its address all the while.
        assert_eq!(attached(&world, "0.2").await.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn labels_that_can_not_be_read_are_told_of() {
    let (world, nodes) = World::with_clusters(1).await;
    let mut events = nodes[0].events();
    let labels = [(arpanet_core::label::NET, "10.1.0.1/16")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let problems = arpanet_core::label::read(&labels.into(), None).problems;
    world
        .start_foreign_with("0.1", &web("w1"), problems)
        .unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let told = troubles(&mut events);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("w1") && told[0].contains("arpanet.net=10.1.0.1/16"));
}

#[tokio::test(start_paused = true)]
async fn a_reserved_address_passes_to_the_container_that_shows_up_with_it() {
    let (world, mut nodes) = World::with_clusters(2).await;
    let held = nodes[1].reserve(net(), None).await.unwrap();
    // The same again is the same, and nobody else gets it.
    assert_eq!(
        nodes[1].reserve(net(), Some(held.ip())).await.unwrap(),
        held
    );
    world.settle().await;
    let refused = nodes[0].reserve(net(), Some(held.ip())).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(nodes[0].reserved().is_empty());

    let mut spec = web("w1");
    spec.nets = vec![NetRequest::Addr(held)];
    world.start_foreign("0.2", &spec).unwrap();
    world.settle().await;
    assert_eq!(found(&world, "0.1", "web"), [held.ip().to_string()]);

    // What was reserved outlives the agent, and the container outlives both.
    world.crash("0.2");
    world.settle().await;
    nodes[1] = bring_back(&world, "0.2").await;
    assert_eq!(nodes[1].reserved(), [held]);
    assert_eq!(found(&world, "0.1", "web"), [held.ip().to_string()]);
    assert_eq!(
        nodes[1].reserve(net(), Some(held.ip())).await.unwrap(),
        held
    );

    world.remove_foreign("0.2", &name("w1"));
    for _ in 0..2 {
        nodes[1].release(held).await.unwrap();
    }
    world.settle().await;
    let taken: AppAddr = nodes[0].reserve(net(), Some(held.ip())).await.unwrap();
    assert_eq!(taken, held);
}

#[tokio::test(start_paused = true)]
async fn a_reservation_is_made_again_beside_the_container_that_has_the_address() {
    let (world, nodes) = World::with_clusters(2).await;
    let addr: AppAddr = "10.1.0.5/16".parse().unwrap();
    let mut spec = web("w1");
    spec.nets = vec![NetRequest::Addr(addr)];
    world.start_foreign("0.2", &spec).unwrap();
    world.settle().await;
    assert_eq!(
        nodes[1].reserve(net(), Some(addr.ip())).await.unwrap(),
        addr
    );
    world.settle().await;
    assert_eq!(found(&world, "0.1", "web"), ["10.1.0.5"]);
    nodes[1].release(addr).await.unwrap();
    world.settle().await;
    assert_eq!(found(&world, "0.1", "web"), ["10.1.0.5"]);
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_is_in_no_lookup_until_it_is_undrained() {
    let (world, mut nodes) = World::with_clusters(3).await;
    for at in ["0.1", "0.2"] {
        world.start_foreign(at, &web("w1")).unwrap();
    }
    world.settle().await;
    let both = found(&world, "0.3", "web");
    let two = nodes[1].me();
    for _ in 0..2 {
        nodes[0].drain(two).await.unwrap();
        world.settle().await;
        assert_eq!(found(&world, "0.3", "web").len(), 1);
        assert_eq!(attached(&world, "0.2").await.len(), 1);
    }
    let status = nodes[2].nodes().await.unwrap();
    let drained: Vec<bool> = status.iter().map(|node| node.drained).collect();
    assert_eq!(drained, [false, true, false]);
    // Also after a restart of the node, and of the one that said so.
    for (at, place) in [(1, "0.2"), (0, "0.1")] {
        world.crash(place);
        world.settle().await;
        nodes[at] = bring_back(&world, place).await;
        assert_eq!(found(&world, "0.3", "web").len(), 1);
    }
    for _ in 0..2 {
        nodes[2].undrain(two).await.unwrap();
        world.settle().await;
        assert_eq!(found(&world, "0.3", "web"), both);
    }
    let unknown = nodes[0].drain("9.9".parse().unwrap()).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_shares_the_host_s_network_is_left_alone() {
    let (world, nodes) = World::with_clusters(1).await;
    let spec = web("w1");
    world.runtime("0.1").create(&spec).await.unwrap();
    world.start_foreign("0.1", &spec).unwrap();
    world.without_namespace("0.1", &name("w1")).unwrap();
    world.settle().await;
    assert!(attached(&world, "0.1").await.is_empty());
    assert!(found(&world, "0.1", "web").is_empty());
    drop(nodes);
}
