//! Peers whose underlay addresses are in 10/8 themselves, behind the default route.

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use arpanet_core::Overlay;
use arpanet_netlink::{Namespace, Netlink, Route, VethEnd};
use arpanet_wireguard::UNDERLAY_MARK;
use ipnet::Ipv4Net;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use crate::site::{Fate, Host, LIMIT, PORT, connect, ip, namespace, probe};

/// A host at this address whose default route is the gateway, the first address of its network.
async fn behind(gateway: &Netlink, number: u8, address: Ipv4Addr, filter: &str) -> Host {
    let host = Namespace::create().unwrap();
    let settings = [
        ("net.ipv6.conf.default.disable_ipv6", "1"),
        ("net.ipv4.conf.all.rp_filter", filter),
        ("net.ipv4.conf.default.rp_filter", filter),
    ];
    host.set_sysctls(&settings).unwrap();
    let net = host.handle().unwrap();
    net.set_up("lo", true).await.unwrap();
    let port = format!("lan{number}");
    let near = VethEnd::new("eth0", &host);
    let far = VethEnd::new(&port, gateway.namespace());
    net.add_veth(&near, &far).await.unwrap();
    let own = Ipv4Net::new(address, 20).unwrap();
    let first = own.hosts().next().unwrap();
    let ends = [
        (&net, "eth0", own),
        (gateway, port.as_str(), Ipv4Net::new(first, 20).unwrap()),
    ];
    for (net, link, address) in ends {
        net.add_address(link, address).await.unwrap();
        net.set_up(link, true).await.unwrap();
    }
    for (net, link, _) in ends {
        net.wait_until_carrying(link, LIMIT).await.unwrap();
    }
    let default = Route::new(Ipv4Net::default()).via(first).link("eth0");
    net.set_route(&default).await.unwrap();
    Host::new(number, address, &host, gateway.clone()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_inside_the_range_is_reached_on_the_underlay() {
    for filter in ["0", "1", "2"] {
        let Some(gateway) = namespace() else {
            return;
        };
        gateway.set_sysctl("net.ipv4.ip_forward", "1").unwrap();
        let gateway = gateway.handle().unwrap();
        let one = behind(&gateway, 1, ip("10.128.0.2"), filter).await;
        let two = behind(&gateway, 2, ip("10.130.0.5"), filter).await;
        assert_eq!(probe(one.namespace(), two.underlay), Fate::Reached);
        for host in [&one, &two] {
            host.overlay.preflight(host.node).await.unwrap();
        }
        connect(&one, &two).await;
        assert_eq!(probe(one.namespace(), ip("10.255.0.2")), Fate::Reached);
        let peers = one.overlay.peers().await.unwrap();
        assert_eq!(peers[0].endpoint, Some(two.endpoint()));
        // So does another connection that carries the mark, unless the way back is looked for without it.
        let listener = two
            .namespace()
            .run(|| TcpListener::bind((two.underlay, PORT)));
        let listener = listener.unwrap().unwrap();
        let socket = one
            .namespace()
            .run(|| Socket::new(Domain::IPV4, Type::STREAM, None));
        let socket = socket.unwrap().unwrap();
        setsockopt(&socket, sockopt::Mark, &UNDERLAY_MARK).unwrap();
        let to = listener.local_addr().unwrap();
        if filter != "1" {
            socket.connect_timeout(&to.into(), LIMIT).unwrap();
        }
        // Everything else that is meant for such an address takes the overlay, which has it not.
        assert_eq!(probe(one.namespace(), two.underlay), Fate::Refused);
        one.leave_nothing_behind().await;
        // And so does one that comes to join.
        let join = || TcpStream::connect_timeout(&to, LIMIT);
        one.namespace().run(join).unwrap().unwrap();
        two.leave_nothing_behind().await;
    }
}
