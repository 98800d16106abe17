//! The overlay between hosts in namespaces: who reaches whom, what a restart keeps, and what is left behind.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod contract;
mod guest;
mod isolation;
mod kernel;
mod leftovers;
mod logic;
mod plug;
mod site;
mod size;
mod underlay;

use arpanet_core::Overlay;
use arpanet_core::overlay::PeerState;

use site::{Container, Fate, becomes, connect, ip, probe, two_hosts};

#[tokio::test(flavor = "multi_thread")]
async fn hosts_and_containers_of_one_network_reach_each_other_and_nobody_else_does() {
    let Some((mut one, mut two)) = two_hosts().await else {
        return;
    };
    one.launch().await;
    two.launch().await;
    let (a1, a2) = (Container::new("a1").await, Container::new("a2").await);
    let (b1, wide) = (Container::new("b1").await, Container::new("wide").await);
    one.attach(&a1, "10.1.0.5/16").await;
    one.attach(&a2, "10.2.0.5/16").await;
    two.attach(&b1, "10.1.0.9/16").await;
    two.attach(&wide, "10.3.0.1/8").await;
    let allowed = ["10.3.0.1/8".parse().unwrap()];
    one.overlay.allow_wide(&allowed).await.unwrap();
    two.overlay.allow_wide(&allowed).await.unwrap();
    connect(&one, &two).await;

    let reached = [
        (one.namespace(), "10.255.0.2"),
        (two.namespace(), "10.255.0.1"),
        (one.namespace(), "10.255.0.1"),
        (a1.namespace(), "10.1.0.9"),
        (b1.namespace(), "10.1.0.5"),
        (a1.namespace(), "169.254.1.1"),
        (wide.namespace(), "10.255.0.1"),
        (wide.namespace(), "10.255.0.2"),
        (one.namespace(), "10.3.0.1"),
    ];
    for (from, to) in reached {
        assert_eq!(probe(from, ip(to)), Fate::Reached, "{to}");
    }
    let refused = [
        (a1.namespace(), "10.2.0.5"),
        (a1.namespace(), "10.2.0.77"),
        (a1.namespace(), "10.255.0.1"),
        (a1.namespace(), "10.255.0.2"),
        (a1.namespace(), "10.254.0.1"),
        (a1.namespace(), "10.254.0.2"),
        (a1.namespace(), "10.253.0.1"),
        (a1.namespace(), "10.253.0.2"),
        (a1.namespace(), "10.3.0.1"),
        (b1.namespace(), "10.2.0.5"),
        (b1.namespace(), "10.255.0.1"),
        (wide.namespace(), "10.1.0.5"),
        (wide.namespace(), "10.1.0.9"),
        (one.namespace(), "10.1.0.5"),
        (one.namespace(), "10.1.0.9"),
        (one.namespace(), "10.254.0.2"),
    ];
    for (from, to) in refused {
        assert_eq!(probe(from, ip(to)), Fate::Refused, "{to}");
    }
    let peers = one.overlay.peers().await.unwrap();
    assert_eq!(peers.len(), 1);
    assert_eq!(peers[0].state, PeerState::Up);
    assert_eq!(peers[0].endpoint, Some(two.tunnel_endpoint()));
    assert!(peers[0].round_trip.is_some());

    two.overlay
        .expose(arpanet_core::Plane::Docker)
        .await
        .unwrap();
    becomes(one.namespace(), ip("10.254.0.2"), Fate::Reached);
    one.leave_nothing_behind().await;
    two.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_overlay_finds_its_containers_again() {
    let Some((mut one, mut two)) = two_hosts().await else {
        return;
    };
    one.launch().await;
    two.launch().await;
    let (a1, b1) = (Container::new("a1").await, Container::new("b1").await);
    one.attach(&a1, "10.1.0.5/16").await;
    two.attach(&b1, "10.1.0.9/16").await;
    connect(&one, &two).await;
    assert_eq!(probe(a1.namespace(), ip("10.1.0.9")), Fate::Reached);
    let before = one.overlay.attached().await.unwrap();
    one.kill().await;
    one.launch().await;
    assert_eq!(one.overlay.attached().await.unwrap(), before);
    connect(&one, &two).await;
    becomes(a1.namespace(), ip("10.1.0.9"), Fate::Reached);
    becomes(b1.namespace(), ip("10.1.0.5"), Fate::Reached);
    one.leave_nothing_behind().await;
    two.leave_nothing_behind().await;
}
