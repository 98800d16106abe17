//! Links that a runtime moves into its containers, here moved by hand.

use arpanet_core::addr::system_range;
use arpanet_core::overlay::{Plug, Plugged};
use arpanet_core::{EndpointId, ErrorKind, Overlay};
use arpanet_netlink::Route;
use ipnet::Ipv4Net;

use crate::site::{Container, Fate, Host, Site, becomes, connect, ip, probe, two_hosts};

const ADDR: &str = "10.1.0.5/16";

fn endpoint(id: &str) -> EndpointId {
    id.parse().unwrap()
}

fn plug(id: &str, addr: &str) -> Plug {
    Plug::new(endpoint(id), addr.parse().unwrap())
}

/// What an engine does with a link: moves it, names it, addresses it, and switches it on, with its routes.
async fn move_in(host: &Host, container: &Container, plugged: &Plugged, addr: &str) {
    host.net
        .move_link(&plugged.link, container.namespace())
        .await
        .unwrap();
    let inside = &container.net;
    inside.rename_link(&plugged.link, "eth0").await.unwrap();
    let address: Ipv4Net = addr.parse().unwrap();
    inside.add_address("eth0", address).await.unwrap();
    inside.set_up("eth0", true).await.unwrap();
    let router = Route::new(Ipv4Net::from(ip("169.254.1.1"))).link("eth0");
    let system = system_range().map(|range| Route::new(range).via(ip("169.254.1.1")).link("eth0"));
    inside.set_routes(&[router]).await.unwrap();
    inside.set_routes(&system).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugged_container_is_on_the_overlay_before_it_is_attached() {
    let Some((mut one, mut two)) = two_hosts().await else {
        return;
    };
    one.launch().await;
    two.launch().await;
    let (a1, b1) = (Container::new("a1").await, Container::new("b1").await);
    let plugged = one.overlay.plug(&plug("e1", ADDR)).await.unwrap();
    assert_eq!(
        plugged,
        one.overlay.plug(&plug("e1", ADDR)).await.unwrap(),
        "the same again"
    );
    assert!(plugged.link.len() <= 15);
    move_in(&one, &a1, &plugged, ADDR).await;
    one.holds.push(ADDR.parse().unwrap());
    two.attach(&b1, "10.1.0.9/16").await;
    connect(&one, &two).await;
    becomes(a1.namespace(), ip("10.1.0.9"), Fate::Reached);
    becomes(a1.namespace(), ip("169.254.1.1"), Fate::Reached);
    for to in ["10.255.0.1", "10.255.0.2", "10.254.0.1"] {
        assert_eq!(probe(a1.namespace(), ip(to)), Fate::Refused, "{to}");
    }
    assert_eq!(probe(one.namespace(), ip("10.1.0.5")), Fate::Refused);
    let links = a1.net.links().await.unwrap();
    let eth0 = links.iter().find(|link| link.name == "eth0").unwrap();
    assert_eq!(eth0.mac.unwrap().bytes(), plugged.mac);
    assert_eq!(
        eth0.mtu,
        one.net.require_link("arpanet0").await.unwrap().mtu
    );
    one.leave_nothing_behind().await;
    two.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_taken_over_by_the_container_that_it_was_moved_into() {
    let Some(mut site) = Site::new(1).await else {
        return;
    };
    let mut host = site.hosts.remove(0);
    host.launch().await;
    let (a1, other) = (Container::new("a1").await, Container::new("a2").await);
    let plugged = host.overlay.plug(&plug("e1", ADDR)).await.unwrap();
    // Nobody's yet, and for nobody else.
    assert_eq!(host.overlay.attached().await.unwrap(), []);
    let a = a1.with(ADDR);
    host.overlay.detach(&a.container, a.addr).await.unwrap();
    for refused in [
        host.overlay.attach(&other.with(ADDR)).await.unwrap_err(),
        host.overlay.plug(&plug("e2", ADDR)).await.unwrap_err(),
    ] {
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    }

    move_in(&host, &a1, &plugged, ADDR).await;
    let links = a1.net.links().await.unwrap();
    for killed in [false, true] {
        if killed {
            host.kill().await;
            host.launch().await;
        }
        for _ in 0..2 {
            host.overlay.attach(&a).await.unwrap();
        }
        let names = |links: &[arpanet_netlink::Link]| -> Vec<(String, u32)> {
            links
                .iter()
                .map(|link| (link.name.clone(), link.index))
                .collect()
        };
        assert_eq!(names(&a1.net.links().await.unwrap()), names(&links));
        assert_eq!(
            host.overlay.attached().await.unwrap(),
            [(a.container.clone(), a.addr)]
        );
        assert_eq!(
            host.overlay.plugged().await.unwrap(),
            [(endpoint("e1"), ADDR.parse().unwrap())]
        );
        becomes(a1.namespace(), ip("169.254.1.1"), Fate::Reached);
        // Another container in the same namespace would have its address too.
        let mut second = a1.with("10.2.0.5/16");
        second.container = "a3".parse().unwrap();
        let refused = host.overlay.attach(&second).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
        // A further address of its own is none of the engine's.
        host.overlay.attach(&a1.with("10.2.0.5/16")).await.unwrap();
        becomes(a1.namespace(), ip("10.2.0.5"), Fate::Reached);
        let further = a1.with("10.2.0.5/16");
        host.overlay
            .detach(&further.container, further.addr)
            .await
            .unwrap();
    }

    for _ in 0..2 {
        host.overlay.unplug(&endpoint("e1")).await.unwrap();
    }
    assert_eq!(host.overlay.attached().await.unwrap(), []);
    assert_eq!(host.overlay.plugged().await.unwrap(), []);
    assert!(a1.net.link("eth0").await.unwrap().is_none());
    // The next container has the address: what comes late of the last one's end does not matter.
    let again = host.overlay.plug(&plug("e2", ADDR)).await.unwrap();
    host.overlay.unplug(&endpoint("e1")).await.unwrap();
    host.overlay.detach(&a.container, a.addr).await.unwrap();
    assert!(host.net.link(&again.link).await.unwrap().is_some());
    host.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_nobody_moved_are_found_again_and_removed() {
    let Some(mut site) = Site::new(1).await else {
        return;
    };
    let mut host = site.hosts.remove(0);
    host.launch().await;
    let plain = host.traces().await;
    let mac = [2, 1, 1, 1, 1, 1];
    let first = plug("e1", ADDR).mac(Some(mac));
    let plugged = host.overlay.plug(&first).await.unwrap();
    assert_eq!(plugged.mac, mac);
    // The same endpoint with another address has only that.
    let moved = host.overlay.plug(&plug("e1", "10.2.0.5/16")).await.unwrap();
    assert!(host.net.link(&plugged.link).await.unwrap().is_none());
    host.kill().await;
    host.launch().await;
    assert_eq!(
        host.overlay.plugged().await.unwrap(),
        [(endpoint("e1"), "10.2.0.5/16".parse().unwrap())]
    );
    assert!(host.net.link(&moved.link).await.unwrap().is_some());
    host.overlay.unplug(&endpoint("e1")).await.unwrap();
    assert_eq!(host.traces().await, plain);
    host.overlay.plug(&first).await.unwrap();
    host.leave_nothing_behind().await;
}
