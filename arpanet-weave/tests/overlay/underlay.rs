//! Routers whose underlay addresses are in 10/8 themselves, behind the default route.

use arpanet_core::Overlay;
use arpanet_netlink::Netlink;
use ipnet::Ipv4Net;

use crate::site::{Fate, Host, LIMIT, behind, connect, ip, namespace, probe};

/// A host behind the gateway.
async fn host(gateway: &Netlink, number: u8, address: &str, filter: &str) -> Host {
    let namespace = behind(gateway, number, ip(address), filter).await;
    Host::new(number, ip(address), &namespace, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_inside_the_range_is_reached_on_the_underlay() {
    for filter in ["1", "2"] {
        let Some(gateway) = namespace() else {
            return;
        };
        gateway.set_sysctl("net.ipv4.ip_forward", "1").unwrap();
        let gateway = gateway.handle().unwrap();
        let one = host(&gateway, 1, "10.128.0.2", filter).await;
        let two = host(&gateway, 2, "10.130.0.5", filter).await;
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
