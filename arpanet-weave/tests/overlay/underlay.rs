//! Routers whose underlay addresses are in 10/8 themselves, behind the default route.

use std::net::Ipv4Addr;

use arpanet_core::Overlay;
use arpanet_netlink::{Namespace, Netlink, Route, VethEnd};
use ipnet::Ipv4Net;

use crate::site::{Fate, Host, LIMIT, connect, ip, namespace, probe};

/// A host at this address whose default route is the gateway, the first address of its network.
async fn behind(gateway: &Netlink, number: u8, address: &str, filter: &str) -> Host {
    let host = Namespace::create().unwrap();
    let settings = [
        ("net.ipv6.conf.default.disable_ipv6", "1"),
        ("net.ipv4.conf.all.rp_filter", filter),
        ("net.ipv4.conf.default.rp_filter", filter),
    ];
    host.set_sysctls(&settings).unwrap();
    let net = host.handle().unwrap();
    let lan: Ipv4Net = address.parse().unwrap();
    let first: Ipv4Addr = lan.hosts().next().unwrap();
    let port = format!("lan{number}");
    let (near, far) = (
        VethEnd::new("eth0", &host),
        VethEnd::new(&port, gateway.namespace()),
    );
    net.add_veth(&near, &far).await.unwrap();
    net.set_up("lo", true).await.unwrap();
    net.add_address("eth0", lan).await.unwrap();
    gateway
        .add_address(&port, Ipv4Net::new(first, 20).unwrap())
        .await
        .unwrap();
    gateway.set_up(&port, true).await.unwrap();
    net.set_up("eth0", true).await.unwrap();
    net.wait_until_carrying("eth0", LIMIT).await.unwrap();
    let default = Route::new(Ipv4Net::default()).via(first).link("eth0");
    net.set_route(&default).await.unwrap();
    Host::new(number, lan.addr(), &host, gateway.clone(), None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_inside_the_range_is_reached_on_the_underlay() {
    for filter in ["1", "2"] {
        let Some(gateway) = namespace() else {
            return;
        };
        gateway.set_sysctl("net.ipv4.ip_forward", "1").unwrap();
        let gateway = gateway.handle().unwrap();
        let one = behind(&gateway, 1, "10.128.0.2/20", filter).await;
        let two = behind(&gateway, 2, "10.130.0.5/20", filter).await;
        for host in [&one, &two] {
            host.overlay.preflight(host.node).await.unwrap();
        }
        connect(&one, &two).await;
        assert_eq!(probe(one.namespace(), ip("10.255.0.2")), Fate::Reached);
        // Also after a second launch, which mends.
        one.launch().await;
        one.crash_router();
        one.launch().await;
        one.overlay.wait_reachable(two.node, LIMIT).await.unwrap();
        // The way goes with the peer.
        one.overlay.forget(two.node).await.unwrap();
        let detour: Ipv4Net = "10.130.0.5/32".parse().unwrap();
        let routes = one.net.routes().await.unwrap();
        assert!(!routes.iter().any(|route| route.destination == detour));
        one.leave_nothing_behind().await;
        two.leave_nothing_behind().await;
    }
}
