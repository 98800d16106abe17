//! Links, addresses, routes, rules and settings in namespaces of the test's own.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use arpanet_core::ErrorKind;
use arpanet_core::conformance::live;
use arpanet_netlink::{MacAddr, Namespace, Netlink, Route, Rule, RuleAction, TABLE_LOCAL, VethEnd};
use ipnet::Ipv4Net;

/// A new namespace, or `None` where this process may not make one and the test is to be skipped.
fn namespace() -> Option<Namespace> {
    live::found_or_skip("root", Namespace::create())
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

/// Two namespaces joined by a veth pair `a` to `b` without a link layer, 10.7.0.1 and 10.7.0.2.
async fn pair() -> Option<(Netlink, Netlink)> {
    let (left, right) = (namespace()?, namespace()?);
    let (left, right) = (left.handle().unwrap(), right.handle().unwrap());
    let mac = MacAddr::new([2, 0, 0, 0, 0, 1]);
    let end = |name: &str, at: &Netlink| {
        VethEnd::new(name, at.namespace())
            .mac(mac)
            .mtu(1420)
            .no_arp()
    };
    left.add_veth(&end("a", &left), &end("b", &right))
        .await
        .unwrap();
    for (side, link, address) in [(&left, "a", "10.7.0.1/24"), (&right, "b", "10.7.0.2/24")] {
        side.add_address(link, net(address)).await.unwrap();
        side.set_up(link, true).await.unwrap();
        side.set_up("lo", true).await.unwrap();
    }
    left.wait_until_carrying("a", Duration::from_secs(5))
        .await
        .unwrap();
    right
        .wait_until_carrying("b", Duration::from_secs(5))
        .await
        .unwrap();
    Some((left, right))
}

#[tokio::test]
async fn a_pair_without_a_link_layer_carries_packets() {
    let Some((left, right)) = pair().await else {
        return;
    };
    let link = left.require_link("a").await.unwrap();
    assert_eq!((link.mtu, link.up, link.arp), (1420, true, false));
    assert_eq!(
        link.peer,
        Some(right.require_link("b").await.unwrap().index)
    );
    let server = right
        .namespace()
        .run(|| UdpSocket::bind("10.7.0.2:0"))
        .unwrap()
        .unwrap();
    let client = left
        .namespace()
        .run(|| UdpSocket::bind("10.7.0.1:0"))
        .unwrap()
        .unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    client
        .send_to(b"hello", server.local_addr().unwrap())
        .unwrap();
    let mut buffer = [0; 16];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(
        (&buffer[..length], from),
        (&b"hello"[..], client.local_addr().unwrap())
    );
}

#[tokio::test]
async fn links_are_changed_renamed_moved_and_removed() {
    let Some((left, right)) = pair().await else {
        return;
    };
    left.set_mtu("a", 1300).await.unwrap();
    left.set_alias("a", "10.7.0.1/24").await.unwrap();
    let link = left.require_link("a").await.unwrap();
    assert_eq!(
        (link.mtu, link.alias.as_deref()),
        (1300, Some("10.7.0.1/24"))
    );
    left.set_up("a", false).await.unwrap();
    let waited = right
        .wait_until_carrying("b", Duration::from_millis(20))
        .await;
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::Timeout);
    left.rename_link("a", "c").await.unwrap();
    assert_eq!(left.link("a").await.unwrap(), None);
    left.move_link("c", right.namespace()).await.unwrap();
    assert!(!right.require_link("c").await.unwrap().up);
    assert_eq!(
        left.require_link("c").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    right.delete_link("c").await.unwrap();
    assert_eq!(
        right.link("b").await.unwrap(),
        None,
        "the other end goes with it"
    );
    right.delete_link("c").await.unwrap();
}

#[tokio::test]
async fn addresses_are_added_and_removed_any_number_of_times() {
    let Some((left, _right)) = pair().await else {
        return;
    };
    let shown = async || {
        let all = left.addresses().await.unwrap();
        let on_link = all
            .into_iter()
            .filter(|address| address.link == "a" && address.address.addr().is_ipv4());
        on_link
            .map(|address| address.address.to_string())
            .collect::<Vec<_>>()
    };
    for _ in 0..2 {
        left.add_address("a", net("10.9.0.1/32")).await.unwrap();
        assert_eq!(shown().await, ["10.7.0.1/24", "10.9.0.1/32"]);
    }
    for _ in 0..2 {
        left.delete_address("a", net("10.9.0.1/32")).await.unwrap();
        assert_eq!(shown().await, ["10.7.0.1/24"]);
    }
    left.delete_address("nothing", net("10.9.0.1/32"))
        .await
        .unwrap();
    assert_eq!(
        left.add_address("nothing", net("10.9.0.1/32"))
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn a_route_reads_back_as_it_was_written() {
    let Some((left, _right)) = pair().await else {
        return;
    };
    let routes = [
        Route::new(net("10.8.0.0/24"))
            .link("a")
            .source(Ipv4Addr::new(10, 7, 0, 1))
            .mtu(1200),
        Route::new(net("10.8.1.0/24"))
            .link("a")
            .via(Ipv4Addr::new(10, 7, 0, 2))
            .metric(7),
        Route::new(net("0.0.0.0/0"))
            .link("a")
            .via(Ipv4Addr::new(169, 254, 1, 1))
            .onlink()
            .table(1010),
        Route::prohibit(net("10.253.0.0/16")).table(1010),
    ];
    for _ in 0..2 {
        left.set_routes(&routes).await.unwrap();
        let all = left.routes().await.unwrap();
        for route in &routes {
            assert_eq!(
                all.iter().filter(|other| *other == route).count(),
                1,
                "{route} in {all:#?}"
            );
        }
    }
    let replaced = routes[0].clone().mtu(1100);
    left.set_route(&replaced).await.unwrap();
    let all = left.routes().await.unwrap();
    assert!(all.contains(&replaced) && !all.contains(&routes[0]));
    left.delete_route(&replaced).await.unwrap();
    for _ in 0..2 {
        left.delete_routes(&routes).await.unwrap();
    }
    assert!(
        left.routes()
            .await
            .unwrap()
            .iter()
            .all(|route| route.table != 1010 && !route.to_string().contains("10.8."))
    );
}

#[tokio::test]
async fn a_rule_reads_back_as_it_was_written() {
    let Some(namespace) = namespace() else { return };
    let netlink = namespace.handle().unwrap();
    let before = netlink.rules().await.unwrap();
    let rules = [
        Rule::new(100, RuleAction::Lookup(TABLE_LOCAL))
            .iif("lo")
            .to(net("10.255.0.1/32")),
        Rule::new(101, RuleAction::Prohibit)
            .iif("lo")
            .uids(1, 4_294_967_294)
            .to(net("10.254.0.0/16")),
        Rule::new(102, RuleAction::Lookup(254))
            .iif("lo")
            .suppress_prefixlength(0),
        Rule::new(102, RuleAction::Unreachable).iif("lo").mark(0xA2),
        Rule::new(102, RuleAction::Lookup(254))
            .iif("lo")
            .ip_protocol(17)
            .source_port(51820),
        Rule::new(103, RuleAction::Lookup(1010)).from(net("10.0.0.0/8")),
        Rule::new(103, RuleAction::Lookup(1010)),
    ];
    let [.., narrow, wide] = &rules;
    for _ in 0..2 {
        for rule in &rules {
            netlink.add_rule(rule).await.unwrap();
        }
        let all = netlink.rules().await.unwrap();
        assert_eq!(all[1..=rules.len()], rules, "in order, each once");
    }
    // The wider of the two at 103: the kernel alone would have removed the first that matches.
    netlink.delete_rule(wide).await.unwrap();
    let all = netlink.rules().await.unwrap();
    assert!(all.contains(narrow) && !all.contains(wide));
    for _ in 0..2 {
        for rule in &rules {
            netlink.delete_rule(rule).await.unwrap();
        }
        assert_eq!(netlink.rules().await.unwrap(), before);
    }
}

#[tokio::test]
async fn settings_are_those_of_the_namespace() {
    let Some(namespace) = namespace() else { return };
    let before = Namespace::current()
        .unwrap()
        .sysctl("net.ipv4.ip_default_ttl")
        .unwrap();
    namespace
        .set_sysctl("net.ipv4.ip_default_ttl", "77")
        .unwrap();
    assert_eq!(namespace.sysctl("net.ipv4.ip_default_ttl").unwrap(), "77");
    assert_eq!(
        Namespace::current()
            .unwrap()
            .sysctl("net.ipv4.ip_default_ttl")
            .unwrap(),
        before
    );
    assert_eq!(
        namespace.sysctl("net.ipv4.nothing").unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn a_pin_outlives_its_holder_and_can_be_taken_away() {
    let Some(namespace) = namespace() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("netns/router");
    struct Unpin<'a>(&'a std::path::Path);
    impl Drop for Unpin<'_> {
        fn drop(&mut self) {
            Namespace::unpin(self.0).unwrap();
        }
    }
    let _guard = Unpin(&path);
    namespace
        .set_sysctl("net.ipv4.ip_default_ttl", "78")
        .unwrap();
    for _ in 0..2 {
        namespace.pin(&path).unwrap();
    }
    let other = Namespace::create().unwrap();
    assert_eq!(
        other.pin(&path).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    drop(namespace);
    let found = Namespace::open(&path).unwrap();
    assert_eq!(found.sysctl("net.ipv4.ip_default_ttl").unwrap(), "78");
    for _ in 0..2 {
        Namespace::unpin(&path).unwrap();
        assert!(!path.exists());
    }
    let file = folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    assert_eq!(
        other.pin(&file).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(
        Namespace::open(&file).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    Namespace::unpin(&file).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[tokio::test]
async fn a_panic_inside_goes_on_outside() {
    let Some(namespace) = namespace() else { return };
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        namespace.run(|| panic!("inside"))
    }));
    assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"inside"));
}

#[tokio::test]
async fn lists_that_are_read_side_by_side_and_those_that_nobody_waits_for_are_in_nobody_s_way() {
    let Some(namespace) = namespace() else { return };
    let net = namespace.handle().unwrap();
    // More than the kernel answers at once.
    for number in 0..100 {
        net.add_bridge(&format!("bridge{number}")).await.unwrap();
    }
    let lists = futures_util::future::join_all((0..4).map(|_| net.links())).await;
    for links in lists {
        assert!(links.unwrap().len() > 100);
    }
    for _ in 0..20 {
        let given_up = tokio::time::timeout(Duration::ZERO, net.links()).await;
        assert!(given_up.is_err() || given_up.is_ok_and(|links| links.is_ok()));
        assert!(net.links().await.unwrap().len() > 100);
    }
}
