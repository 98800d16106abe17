//! The simulated world, as a test sees it.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use arpanet_core::discovery::{Discovery, Instance, MemberState};
use arpanet_core::memory::World;
use arpanet_core::overlay::{AttachAddr, Attachment, Overlay, PeerSpec};
use arpanet_core::watch::Change;
use arpanet_core::{ErrorKind, NodeAddr};

fn instance(node: u16, number: u16) -> Instance {
    let addr = NodeAddr::from_index(node).unwrap();
    Instance::new(
        format!("{addr}:s{number}").parse().unwrap(),
        format!("s{number}").parse().unwrap(),
        std::net::Ipv4Addr::new(10, 1, node as u8, number as u8),
        80,
        addr,
    )
}

/// What this thread has had of a processor, where the system tells it: a busy machine makes no difference.
fn cpu_time() -> Option<Duration> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = told.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

#[tokio::test(start_paused = true)]
async fn a_hundred_nodes_with_twenty_services_each() {
    let world = World::with_nodes(100).await;
    let started = cpu_time();
    let registrations = (1..=100).map(|node| {
        let discovery = world.discovery(NodeAddr::from_index(node).unwrap());
        async move {
            for number in 1..=20 {
                let spread = discovery.register(instance(node, number)).await.unwrap();
                assert!(spread.unconfirmed.is_empty());
            }
        }
    });
    futures_util::future::join_all(registrations).await;
    world.settle().await;
    let took = started.zip(cpu_time()).map(|(from, to)| to - from);
    for node in ["0.1", "0.50", "0.100"] {
        for number in 1..=20 {
            assert_eq!(world.lookup(node, &format!("s{number}")).len(), 100);
        }
    }
    assert!(
        took.is_none_or(|took| took < Duration::from_secs(5)),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cut_node_is_suspended_and_back_at_once() {
    let world = World::with_nodes(5).await;
    world
        .discovery("0.3")
        .register(instance(3, 1))
        .await
        .unwrap();
    world.cut("0.3");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(world.lookup("0.1", "s1").len(), 1);
    let state = |members: Vec<arpanet_core::discovery::Member>, node: &str| {
        let node = node.parse().unwrap();
        members.iter().find(|m| m.node == node).unwrap().state
    };
    let members = world.discovery("0.1").members().await.unwrap();
    assert_eq!(state(members, "0.3"), MemberState::Suspect);
    world.settle().await;
    assert!(world.lookup("0.1", "s1").is_empty());
    let members = world.discovery("0.3").members().await.unwrap();
    assert_eq!(state(members, "0.1"), MemberState::Down);
    world.heal("0.3");
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(world.lookup("0.1", "s1").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn packets_go_where_routes_and_rules_let_them() {
    let world = World::with_nodes(3).await;
    let mut homes = Vec::new();
    for (place, container, addr) in [
        ("0.1", "a", "10.1.0.1/16"),
        ("0.2", "b", "10.1.0.2/16"),
        ("0.2", "c", "10.2.0.3/16"),
        ("0.3", "w", "10.9.0.9/8"),
    ] {
        let addr: arpanet_core::AppAddr = addr.parse().unwrap();
        let namespace = world.namespace(place);
        world
            .overlay(place)
            .attach(&Attachment::new(
                container.parse().unwrap(),
                namespace,
                AttachAddr::Application(addr),
            ))
            .await
            .unwrap();
        homes.push((place.parse::<NodeAddr>().unwrap(), addr));
    }
    let kind = |result: arpanet_core::Result<Duration>| result.map_err(|error| error.kind());
    let ip = |text: &str| text.parse().unwrap();
    assert_eq!(
        kind(world.ping(("0.1", "a"), ip("10.1.0.2")).await),
        Err(ErrorKind::NotFound)
    );
    let peers = world.peer_specs();
    for node in ["0.1", "0.2", "0.3"] {
        for peer in &peers {
            if peer.node.to_string() == node {
                continue;
            }
            let holds = homes
                .iter()
                .filter(|(home, _)| *home == peer.node)
                .map(|(_, addr)| *addr)
                .collect();
            let peer: PeerSpec = peer.clone().holding(holds);
            world.overlay(node).connect(peer).await.unwrap();
        }
        world
            .overlay(node)
            .allow_wide(&["10.9.0.9/8".parse().unwrap()])
            .await
            .unwrap();
    }
    assert!(world.ping(("0.1", "a"), ip("10.1.0.2")).await.is_ok());
    assert!(world.ping(("0.3", "w"), ip("10.255.0.1")).await.is_ok());
    assert!(world.ping("0.1", ip("10.255.0.3")).await.is_ok());
    assert!(world.ping("0.1", ip("10.9.0.9")).await.is_ok());
    for refused in [
        "10.2.0.3",
        "10.255.0.1",
        "10.254.0.2",
        "10.253.0.1",
        "10.9.0.9",
    ] {
        assert_eq!(
            kind(world.ping(("0.2", "b"), ip(refused)).await),
            Err(ErrorKind::PermissionDenied),
            "{refused}"
        );
    }
    assert_eq!(
        kind(world.ping(("0.3", "w"), ip("10.1.0.2")).await),
        Err(ErrorKind::Timeout)
    );
    world.cut_between("0.1", "0.2");
    assert_eq!(
        kind(world.ping(("0.1", "a"), ip("10.1.0.2")).await),
        Err(ErrorKind::Timeout)
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_members_tells_what_members_answers() {
    let world = World::with_nodes(5).await;
    let observer = world.discovery("0.1");
    let mut watch = observer.watch_members().await.unwrap();
    let mut told = std::collections::BTreeMap::new();
    let steps: [(&str, &dyn Fn()); 8] = [
        ("nothing", &|| {}),
        ("a cut", &|| world.cut("0.2")),
        ("a cut between two", &|| world.cut_between("0.1", "0.3")),
        ("a heal", &|| world.heal_all()),
        ("another address", &|| {
            let _ = world.readdress("0.4");
        }),
        ("a crash", &|| world.crash("0.3")),
        ("a loss of power", &|| world.kill("0.5")),
        ("a cut of the rest", &|| world.cut("0.1")),
    ];
    for (what, step) in steps {
        step();
        world.settle().await;
        while let Some(Some(change)) = watch.try_next() {
            match change {
                Change::Snapshot(set) => told = set,
                Change::Upsert(node, member) => {
                    told.insert(node, member);
                }
                Change::Removed(node) => {
                    told.remove(&node);
                }
                _ => {}
            }
        }
        let members = observer.members().await.unwrap();
        let watched: Vec<_> = told.values().cloned().collect();
        assert_eq!(watched, members, "after {what}");
    }
    world.heal_all();
    world.settle().await;
    observer.forget("0.5".parse().unwrap()).await.unwrap();
    world.settle().await;
    assert!(matches!(watch.try_next(), Some(Some(_))));
    let members = observer.members().await.unwrap();
    assert_eq!(members.len(), 4);
}
