//! Who must not reach whom, whatever a container does to its own namespace.
//!
//! A probe repeats itself, since the kernel answers five refused packets of one source at once and then one a second.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use arpanet_core::{Overlay, Plane};
use arpanet_netlink::{Namespace, Netlink, Route, VethEnd};
use ipnet::Ipv4Net;

use crate::site::{Container, Fate, Host, LIMIT, becomes, connect, ip, probe, probe_as, two_hosts};

/// What an answer may take when the kernel has answered often before.
const AT_LATEST: Duration = Duration::from_millis(1200);
const BRIDGE: &str = "docker0";
const BRIDGE_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);

/// The name of a container's link with this address.
fn link_of(addr: &str) -> String {
    format!("ap{:08x}", u32::from(ip(addr)))
}

fn single(addr: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::from(addr)
}

fn refuses(from: &Namespace, to: &str, what: &str) {
    let start = Instant::now();
    assert_eq!(probe(from, ip(to)), Fate::Refused, "{to}, {what}");
    assert!(
        start.elapsed() <= AT_LATEST,
        "{to}, {what}: {:?}",
        start.elapsed()
    );
}

/// A bridge as docker's on a host that forwards.
async fn add_bridge(host: &Host) {
    host.net.add_bridge(BRIDGE).await.unwrap();
    let address = Ipv4Net::new(BRIDGE_ADDRESS, 16).unwrap();
    host.net.add_address(BRIDGE, address).await.unwrap();
    host.net.set_up(BRIDGE, true).await.unwrap();
    let settings = [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.icmp_ratemask", "0"),
    ];
    host.namespace().set_sysctls(&settings).unwrap();
}

/// Puts a container on that bridge, with the default route there.
async fn join_bridge(host: &Host, container: &Container, last: u8) {
    let port = format!("bridge{last}");
    let near = VethEnd::new("eth0", container.namespace());
    let far = VethEnd::new(&port, host.namespace());
    container.net.add_veth(&near, &far).await.unwrap();
    host.net.set_master(&port, Some(BRIDGE)).await.unwrap();
    host.net.set_up(&port, true).await.unwrap();
    let address = Ipv4Net::new(Ipv4Addr::new(172, 17, 0, last), 16).unwrap();
    container.net.add_address("eth0", address).await.unwrap();
    container.net.set_up("eth0", true).await.unwrap();
    container
        .net
        .wait_until_carrying("eth0", LIMIT)
        .await
        .unwrap();
    let default = Route::new(Ipv4Net::default())
        .via(BRIDGE_ADDRESS)
        .link("eth0");
    container.net.set_route(&default).await.unwrap();
    // The bridge lets a new port forward at some time after that.
    becomes(container.namespace(), BRIDGE_ADDRESS, Fate::Reached);
}

/// Two connected hosts with exposed planes: the first has a network 10.2 and the second 10.1 and 10.2, and a /8 address.
struct Scene {
    one: Host,
    two: Host,
    inside: Container,
    others: Vec<Container>,
}

impl Scene {
    async fn new() -> Option<Self> {
        let (mut one, mut two) = two_hosts().await?;
        one.launch().await;
        two.launch().await;
        let mut containers = Vec::new();
        for (is_first, name, addr) in [
            (true, "inside", "10.1.0.5/16"),
            (true, "near", "10.2.0.5/16"),
            (false, "same", "10.1.0.9/16"),
            (false, "far", "10.2.0.9/16"),
            (false, "wide", "10.3.0.1/8"),
        ] {
            let container = Container::new(name).await;
            let host = if is_first { &mut one } else { &mut two };
            host.attach(&container, addr).await;
            containers.push(container);
        }
        for host in [&one, &two] {
            for plane in [Plane::Docker, Plane::Discovery] {
                host.overlay.expose(plane).await.unwrap();
            }
            let wide = ["10.3.0.1/8".parse().unwrap()];
            host.overlay.allow_wide(&wide).await.unwrap();
        }
        connect(&one, &two).await;
        let others = containers.split_off(1);
        let inside = containers.remove(0);
        Some(Self {
            one,
            two,
            inside,
            others,
        })
    }

    /// What it is that must not be reached: it can be, by those who may.
    fn forbidden(&self) -> [&'static str; 9] {
        for to in [
            "10.255.0.1",
            "10.255.0.2",
            "10.254.0.1",
            "10.254.0.2",
            "10.253.0.2",
            "10.3.0.1",
        ] {
            becomes(self.one.namespace(), ip(to), Fate::Reached);
        }
        let [near, same, far, _] = &self.others[..] else {
            unreachable!()
        };
        becomes(near.namespace(), ip("10.2.0.9"), Fate::Reached);
        becomes(far.namespace(), ip("10.2.0.5"), Fate::Reached);
        becomes(self.inside.namespace(), ip("10.1.0.9"), Fate::Reached);
        becomes(same.namespace(), ip("10.1.0.5"), Fate::Reached);
        [
            "10.2.0.5",
            "10.2.0.9",
            "10.255.0.1",
            "10.255.0.2",
            "10.254.0.1",
            "10.254.0.2",
            "10.253.0.1",
            "10.253.0.2",
            "10.3.0.1",
        ]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_reaches_nothing_else_by_routes_of_its_own_over_the_overlay() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let inside = &scene.inside;
    let link = link_of("10.1.0.5");
    let forbidden = scene.forbidden();
    let start = Instant::now();
    for to in &forbidden[..5] {
        refuses(inside.namespace(), to, "at first");
    }
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
    for to in forbidden {
        refuses(inside.namespace(), to, "as it is attached");
        let own = Route::new(single(ip(to))).link(&link);
        inside.net.set_route(&own).await.unwrap();
        refuses(inside.namespace(), to, "by a route of its own");
    }
    assert_eq!(probe(inside.namespace(), ip("10.1.0.9")), Fate::Reached);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_reaches_nothing_else_through_a_bridge_of_its_host() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let (one, inside) = (&scene.one, &scene.inside);
    add_bridge(one).await;
    join_bridge(one, inside, 3).await;
    let outside = Container::new("outside").await;
    join_bridge(one, &outside, 2).await;
    let mut forbidden = scene.forbidden().to_vec();
    forbidden.extend(["10.1.0.5", "10.1.0.9"]);
    for to in forbidden {
        refuses(outside.namespace(), to, "from the bridge alone");
    }
    for to in scene.forbidden() {
        let own = Route::new(single(ip(to))).via(BRIDGE_ADDRESS).link("eth0");
        inside.net.set_route(&own).await.unwrap();
        refuses(inside.namespace(), to, "over the bridge");
        assert_ne!(
            probe_as(inside.namespace(), ip("10.1.0.5"), ip(to)),
            Fate::Reached,
            "{to}, over the bridge from the overlay's address"
        );
    }
}

/// What a service at `at` hears of senders that pretend to be others, until somebody who may sends the last word.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_not_the_containers_own_gets_nowhere() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    scene.forbidden();
    let inside = &scene.inside;
    let [near, _, far, _] = &scene.others[..] else {
        unreachable!()
    };
    let link = link_of("10.1.0.5");
    let listen = |namespace: &Namespace, at: &str| {
        let socket = namespace
            .run(|| UdpSocket::bind((ip(at), 7777)))
            .unwrap()
            .unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket
    };
    let send = |from: &Namespace, source: &str, to: &str, text: &[u8]| {
        let socket = from
            .run(|| UdpSocket::bind((ip(source), 0)))
            .unwrap()
            .unwrap();
        // What is refused here is not sent, which is as good.
        let _ = socket.send_to(text, (ip(to), 7777));
    };
    let there = [
        (
            listen(near.namespace(), "10.2.0.5"),
            near.namespace(),
            "10.2.0.9",
            far.namespace(),
            "10.2.0.5",
        ),
        (
            listen(far.namespace(), "10.2.0.9"),
            far.namespace(),
            "10.2.0.5",
            near.namespace(),
            "10.2.0.9",
        ),
        (
            listen(scene.one.namespace(), "10.255.0.1"),
            near.namespace(),
            "10.255.0.2",
            scene.two.namespace(),
            "10.255.0.1",
        ),
        (
            listen(scene.two.namespace(), "10.255.0.2"),
            near.namespace(),
            "10.255.0.1",
            scene.one.namespace(),
            "10.255.0.2",
        ),
    ];
    for source in [
        "10.2.0.77",
        "10.2.0.9",
        "10.3.0.1",
        "10.255.0.2",
        "10.254.0.2",
        "10.253.0.1",
        "10.241.0.1",
        "169.254.1.1",
    ] {
        inside
            .net
            .add_address(&link, single(ip(source)))
            .await
            .unwrap();
        for (_, _, _, _, to) in &there {
            let own = Route::new(single(ip(to))).link(&link);
            inside.net.set_route(&own).await.unwrap();
            send(inside.namespace(), source, to, b"false");
        }
    }
    for (socket, _, source, from, to) in &there {
        send(from, source, to, b"true");
        let mut text = [0; 8];
        let (length, heard) = socket.recv_from(&mut text).unwrap();
        assert_eq!(
            (&text[..length], heard.ip()),
            (&b"true"[..], ip(source).into()),
            "{to}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_in_two_networks_reaches_both_and_joins_them_for_nobody() {
    let Some(mut scene) = Scene::new().await else {
        return;
    };
    let both = Container::new("both").await;
    scene.one.attach(&both, "10.1.0.7/16").await;
    scene.one.attach(&both, "10.2.0.7/16").await;
    connect(&scene.one, &scene.two).await;
    scene.forbidden();
    both.namespace()
        .set_sysctl("net.ipv4.ip_forward", "1")
        .unwrap();
    for to in ["10.1.0.5", "10.1.0.9", "10.2.0.5", "10.2.0.9"] {
        becomes(both.namespace(), ip(to), Fate::Reached);
    }
    let [near, same, far, _] = &scene.others[..] else {
        unreachable!()
    };
    for (from, to) in [
        (near, "10.2.0.7"),
        (far, "10.2.0.7"),
        (same, "10.1.0.7"),
        (&scene.inside, "10.1.0.7"),
    ] {
        becomes(from.namespace(), ip(to), Fate::Reached);
    }
    refuses(
        scene.inside.namespace(),
        "10.2.0.7",
        "from its other network",
    );
    refuses(near.namespace(), "10.1.0.7", "from its other network");
    // Also if it offers to forward.
    let by = Route::new(single(ip("10.2.0.5")))
        .via(ip("10.1.0.7"))
        .link(link_of("10.1.0.5"))
        .onlink();
    scene.inside.net.set_route(&by).await.unwrap();
    refuses(
        scene.inside.namespace(),
        "10.2.0.5",
        "through one that is in both",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_reaches_no_other_address_of_its_host() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    add_bridge(&scene.one).await;
    scene.forbidden();
    let wide = &scene.others[3];
    for (from, link) in [
        (&scene.inside, link_of("10.1.0.5")),
        (wide, link_of("10.3.0.1")),
    ] {
        for to in ["192.168.9.1", "192.168.9.2", "172.17.0.1"] {
            refuses(from.namespace(), to, "as it is attached");
            let own = Route::new(single(ip(to)))
                .via(ip("169.254.1.1"))
                .link(&link)
                .onlink();
            from.net.set_route(&own).await.unwrap();
            refuses(from.namespace(), to, "by a route of its own");
        }
        assert_eq!(probe(from.namespace(), ip("169.254.1.1")), Fate::Reached);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_router_has_no_ipv6() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let router = scene.one.overlay.router_namespace().await.unwrap();
    let inside = router.handle().unwrap();
    let addresses = inside.addresses().await.unwrap();
    let v6: Vec<_> = addresses
        .iter()
        .filter(|address| address.address.addr().is_ipv6())
        .collect();
    assert!(v6.is_empty(), "{v6:?}");
    for link in ["all", "host0", "wg0", &link_of("10.1.0.5")] {
        let setting = format!("net.ipv6.conf.{link}.disable_ipv6");
        assert_eq!(router.sysctl(&setting).unwrap(), "1", "{link}");
    }
}

/// Whether a program of this user may open a socket to the address.
fn may_connect(from: &Namespace, user: u32, to: &str) -> bool {
    let status = from.run(|| {
        Command::new("bash")
            .args(["-c", &format!("exec 3<>/dev/udp/{to}/2375")])
            .uid(user)
            .gid(user)
            .stderr(Stdio::null())
            .status()
    });
    status.unwrap().unwrap().success()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_root_opens_the_docker_plane() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    scene.forbidden();
    for user in [1, 1000, 65534] {
        for to in ["10.254.0.1", "10.254.0.2", "10.254.7.7"] {
            assert!(
                !may_connect(scene.one.namespace(), user, to),
                "{user} to {to}"
            );
        }
        assert!(may_connect(scene.one.namespace(), user, "10.253.0.2"));
    }
    for to in ["10.254.0.1", "10.254.0.2"] {
        assert!(may_connect(scene.one.namespace(), 0, to), "root to {to}");
    }
}

/// A machine behind the link `lan0` of a host, on a network inside 10/8.
async fn add_lan(host: &Host) -> Netlink {
    let machine = Namespace::create().unwrap();
    let net = machine.handle().unwrap();
    net.set_up("lo", true).await.unwrap();
    let end = |namespace: &Namespace| VethEnd::new("lan0", namespace);
    net.add_veth(&end(&machine), &end(host.namespace()))
        .await
        .unwrap();
    for (net, last) in [(&net, 9), (&host.net, 2)] {
        let address = Ipv4Net::new(Ipv4Addr::new(10, 128, 0, last), 20).unwrap();
        net.add_address("lan0", address).await.unwrap();
        net.set_up("lan0", true).await.unwrap();
    }
    for net in [&net, &host.net] {
        net.wait_until_carrying("lan0", LIMIT).await.unwrap();
    }
    net
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_keeps_its_lan_inside_the_range_and_lends_it_to_nobody() {
    let Some((one, two)) = two_hosts().await else {
        return;
    };
    let lan = add_lan(&one).await;
    let forward = [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.icmp_ratemask", "0"),
    ];
    one.namespace().set_sysctls(&forward).unwrap();
    one.overlay.preflight(one.node).await.unwrap();
    connect(&one, &two).await;
    assert_eq!(probe(one.namespace(), ip("10.128.0.9")), Fate::Reached);
    assert_eq!(probe(lan.namespace(), ip("10.128.0.2")), Fate::Reached);
    assert_eq!(probe(one.namespace(), ip("10.255.0.2")), Fate::Reached);
    let all = Route::new("10.0.0.0/8".parse().unwrap())
        .via(ip("10.128.0.2"))
        .link("lan0");
    lan.set_route(&all).await.unwrap();
    for to in [
        "10.255.0.1",
        "10.255.0.2",
        "10.254.0.1",
        "10.254.0.2",
        "10.253.0.1",
        "10.241.0.2",
    ] {
        refuses(lan.namespace(), to, "from the LAN");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_may_filter_sources_as_it_likes() {
    for filter in ["1", "2"] {
        let Some((mut one, mut two)) = two_hosts().await else {
            return;
        };
        for host in [&one, &two] {
            for link in ["all", "default", "eth0"] {
                let setting = format!("net.ipv4.conf.{link}.rp_filter");
                host.namespace().set_sysctl(&setting, filter).unwrap();
            }
        }
        one.launch().await;
        two.launch().await;
        let (a, b) = (Container::new("a").await, Container::new("b").await);
        for container in [&a, &b] {
            for link in ["all", "default"] {
                let setting = format!("net.ipv4.conf.{link}.rp_filter");
                container.namespace().set_sysctl(&setting, filter).unwrap();
            }
        }
        one.attach(&a, "10.1.0.5/16").await;
        two.attach(&b, "10.1.0.9/16").await;
        one.attach(&a, "10.2.0.5/16").await;
        two.attach(&b, "10.2.0.9/16").await;
        two.overlay.expose(Plane::Docker).await.unwrap();
        connect(&one, &two).await;
        for (from, to) in [
            (one.namespace(), "10.255.0.2"),
            (two.namespace(), "10.255.0.1"),
            (one.namespace(), "10.254.0.2"),
            (a.namespace(), "10.1.0.9"),
            (a.namespace(), "10.2.0.9"),
            (b.namespace(), "10.1.0.5"),
            (b.namespace(), "10.2.0.5"),
            (a.namespace(), "169.254.1.1"),
        ] {
            becomes(from, ip(to), Fate::Reached);
        }
        refuses(a.namespace(), "10.255.0.1", "with its host's filter");
        refuses(a.namespace(), "10.254.0.2", "with its host's filter");
        one.leave_nothing_behind().await;
        two.leave_nothing_behind().await;
    }
}
