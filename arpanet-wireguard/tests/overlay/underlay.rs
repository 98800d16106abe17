//! Peers whose underlay addresses are in 10/8 themselves, behind the default route.

use std::net::{TcpListener, TcpStream};

use arpanet_core::Overlay;
use arpanet_netlink::Netlink;
use arpanet_wireguard::UNDERLAY_MARK;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use crate::site::{Fate, Host, LIMIT, PORT, behind, connect, ip, namespace, probe};

/// A host behind the gateway.
async fn host(gateway: &Netlink, number: u8, address: &str, filter: &str) -> Host {
    let namespace = behind(gateway, number, ip(address), filter).await;
    Host::new(number, ip(address), &namespace).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_inside_the_range_is_reached_on_the_underlay() {
    for filter in ["0", "1", "2"] {
        let Some(gateway) = namespace() else {
            return;
        };
        gateway.set_sysctl("net.ipv4.ip_forward", "1").unwrap();
        let gateway = gateway.handle().unwrap();
        let one = host(&gateway, 1, "10.128.0.2", filter).await;
        let two = host(&gateway, 2, "10.130.0.5", filter).await;
        assert_eq!(probe(one.namespace(), two.underlay), Fate::Reached);
        for host in [&one, &two] {
            host.overlay.preflight(host.node).await.unwrap();
        }
        connect(&one, &two).await;
        assert_eq!(probe(one.namespace(), ip("10.255.0.2")), Fate::Reached);
        let peers = one.overlay.peers().await.unwrap();
        assert_eq!(peers[0].endpoint, Some(two.tunnel_endpoint()));
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
