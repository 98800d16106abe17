//! What is different where WireGuard is the kernel's: it outlives the agent. And where there is none.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arpanet_core::conformance::live;
use arpanet_core::overlay::PeerSpec;
use arpanet_core::{ErrorKind, Overlay};
use arpanet_netlink::{Namespace, WireGuardDevice};
use arpanet_wireguard::tunnel::kernel_has_wireguard;
use arpanet_wireguard::{KernelTunnels, RecordingTunnels, TunnelFactory, TunnelKind, UserTunnels};

use crate::site::{
    Beats, Container, Fate, Host, LIMIT, Site, becomes, connect, ip, probe, testing, two_hosts,
};

/// Says that a test is only for where the kernel's is promised.
fn is_promised() -> bool {
    let promised = live::promises("wireguard");
    live::have(
        "wireguard",
        promised,
        "the kernel's, promised by ARPANET_LIVE",
    )
}

/// The device as the kernel has it.
async fn device(host: &Host) -> WireGuardDevice {
    let router = host.overlay.router_namespace().await.unwrap();
    router.wireguard().unwrap().device("wg0").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn not_a_packet_is_lost_while_an_agent_is_dead_and_when_the_next_takes_over() {
    if !is_promised() {
        return;
    }
    let (mut one, mut two) = two_hosts().await.unwrap();
    let (first, _) = (one.launch().await, two.launch().await);
    let (a1, b1) = (Container::new("a1").await, Container::new("b1").await);
    one.attach(&a1, "10.1.0.5/16").await;
    two.attach(&b1, "10.1.0.9/16").await;
    connect(&one, &two).await;
    becomes(a1.namespace(), ip("10.1.0.9"), Fate::Reached);
    assert_eq!(
        one.overlay.carrier().tunnel_kind(),
        Some(TunnelKind::Kernel)
    );

    let beats = Beats::begin(a1.namespace(), b1.namespace(), ip("10.1.0.9"));
    let received = device(&two).await.peers[0].rx_bytes;
    for host in [&mut one, &mut two] {
        host.kill().await;
    }
    // Nobody is there, and it goes on.
    let router = Namespace::open(two.pin()).unwrap().wireguard().unwrap();
    testing::until("more came", async || {
        router.device("wg0").unwrap().peers[0].rx_bytes > received + 10_000
    })
    .await;
    assert_eq!(one.launch().await, first, "it has the key that it had");
    connect(&one, &two).await;
    // What is held elsewhere changes, and with it what a peer may send.
    let c1 = Container::new("c1").await;
    one.attach(&c1, "10.1.0.6/16").await;
    connect(&one, &two).await;
    becomes(c1.namespace(), ip("10.1.0.9"), Fate::Reached);
    one.holds.pop();
    connect(&one, &two).await;
    let (sent, came) = beats.end();
    assert!(sent > 100, "{sent}");
    assert_eq!(came, sent, "some of {sent} datagrams were lost");
    one.leave_nothing_behind().await;
    two.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_kinds_of_tunnel_reach_each_other_and_take_each_others_place() {
    if !is_promised() {
        return;
    }
    let (mut one, two) = two_hosts().await.unwrap();
    let kinds: [(Arc<dyn TunnelFactory>, TunnelKind); 2] = [
        (Arc::new(UserTunnels::default()), TunnelKind::User),
        (Arc::new(KernelTunnels::default()), TunnelKind::Kernel),
    ];
    two.launch().await;
    for (is_stopped, (tunnels, kind)) in [(true, &kinds[0]), (false, &kinds[1]), (false, &kinds[0])]
    {
        if is_stopped {
            one.overlay.stop().await.unwrap();
        }
        // In the place of what was killed, too.
        one.run_over(Arc::clone(tunnels));
        one.kill().await;
        connect(&one, &two).await;
        assert_eq!(one.overlay.carrier().tunnel_kind(), Some(*kind));
        becomes(one.namespace(), ip("10.255.0.2"), Fate::Reached);
        becomes(two.namespace(), ip("10.255.0.1"), Fate::Reached);
    }
    one.leave_nothing_behind().await;
    two.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_only_an_earlier_agent_wanted_are_let_go() {
    if !is_promised() {
        return;
    }
    let Some(mut site) = Site::new(3).await else {
        return;
    };
    let [one, two, three] = &mut site.hosts[..] else {
        unreachable!("there are three")
    };
    connect(one, two).await;
    connect(one, three).await;
    assert_eq!(device(one).await.peers.len(), 2);
    one.kill().await;
    connect(one, two).await;
    let start = Instant::now();
    assert_eq!(
        device(one).await.peers.len(),
        2,
        "the third may still be wanted"
    );
    while device(one).await.peers.len() > 1 {
        assert!(start.elapsed() < LIMIT * 3, "the third is still a peer");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(probe(one.namespace(), ip("10.255.0.2")), Fate::Reached);
    for host in &site.hosts {
        host.leave_nothing_behind().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_another_node_or_cluster_is_not_taken_over() {
    if !is_promised() {
        return;
    }
    let (mut one, two) = two_hosts().await.unwrap();
    connect(&one, &two).await;
    let before = device(&one).await.public_key;
    one.kill().await;
    one.node = "0.9".parse().unwrap();
    one.launch().await;
    let after = device(&one).await;
    assert_ne!(after.public_key, before);
    assert!(after.peers.is_empty(), "{after:?}");
    one.leave_nothing_behind().await;
    two.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_the_tunnel_that_is_taken_is_told_with_the_way_out() {
    if !is_promised() {
        return;
    }
    let (one, _two) = two_hosts().await.unwrap();
    let taken = one.namespace().run(|| UdpSocket::bind("0.0.0.0:51821"));
    let error = one.overlay.launch(&one.membership()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.hint().unwrap().contains("tunnel_port"), "{error:?}");
    drop(taken);
    one.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_kernel_has_none_it_is_told_with_the_way_out_and_nothing_is_left() {
    let Some(mut site) = Site::new(1).await else {
        return;
    };
    if kernel_has_wireguard().await.unwrap() {
        return;
    }
    let host = &mut site.hosts[0];
    host.run_over(Arc::new(KernelTunnels::default()));
    for error in [
        host.overlay.preflight(host.node).await.unwrap_err(),
        host.overlay.launch(&host.membership()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.hint().unwrap().contains("--tunnel user"), "{error:?}");
    }
    assert_eq!(host.traces().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_on_another_port_is_called_there() {
    let Some(mut site) = Site::new(1).await else {
        return;
    };
    let host = &mut site.hosts[0];
    let tunnels = Arc::new(RecordingTunnels::new());
    host.run_over(Arc::clone(&tunnels) as Arc<dyn TunnelFactory>);
    host.launch().await;
    let announcement = [&[7; 32][..], &51999_u16.to_be_bytes()].concat();
    let there = "192.168.9.2:51820".parse().unwrap();
    let announced = arpanet_core::overlay::Announcement(announcement.into());
    let spec = PeerSpec::new("0.2".parse().unwrap(), Some(there), announced);
    host.overlay.connect(spec).await.unwrap();
    let peers = host.overlay.peers().await.unwrap();
    assert_eq!(
        peers[0].endpoint,
        Some("192.168.9.2:51999".parse().unwrap())
    );
    host.leave_nothing_behind().await;
}
