//! Devices of the kernel's WireGuard in namespaces of the test's own. Where this machine's kernel has none, in a guest whose has.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::io::Write;
use std::net::UdpSocket;
use std::time::{Duration, SystemTime};

use arpanet_core::ErrorKind;
use arpanet_core::conformance::live;
use arpanet_lab::Guest;
use arpanet_netlink::{
    DeviceChange, Namespace, Netlink, PeerChange, WireGuard, WireGuardPeer, WireGuardSecret,
};
use ipnet::IpNet;

/// For what comes at once.
const LIMIT: Duration = Duration::from_secs(10);

/// All other tests here, once more, where they do not skip.
#[tokio::test]
async fn debians_kernel_keeps_all_of_this() {
    if live::promises("wireguard") {
        return;
    }
    let Some(kernel) = live::kernel() else {
        return;
    };
    let tests = std::env::current_exe().unwrap();
    let guest = Guest::new(kernel)
        .modules(["wireguard", "veth"])
        .program(&tests)
        .env("ARPANET_LIVE", "root,wireguard");
    let run = guest
        .run(&[tests.as_os_str()], Duration::from_secs(120))
        .await
        .unwrap();
    let closing = run.passed();
    // Not by the macro, whose words nobody sees of a test that passes.
    let _ = writeln!(std::io::stderr(), "{closing}");
}

/// A host and a namespace for devices. `None`, with a word why, where there can be none.
async fn host() -> Option<(Netlink, Netlink)> {
    let made = async {
        let host = Namespace::create()?.handle()?;
        host.set_up("lo", true).await?;
        let inside = Namespace::create()?.handle()?;
        host.add_wireguard("wg0", inside.namespace()).await?;
        Ok::<_, arpanet_core::Error>((host, inside))
    };
    live::found_or_skip("wireguard", made.await)
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn secret(byte: u8) -> WireGuardSecret {
    WireGuardSecret::from_bytes(&[byte; 32])
}

fn public_key(wireguard: &WireGuard) -> [u8; 32] {
    wireguard.device("wg0").unwrap().public_key.unwrap()
}

#[tokio::test]
async fn the_kernel_has_what_it_was_told() {
    let Some((host, inside)) = host().await else {
        return;
    };
    let wireguard = inside.namespace().wireguard().unwrap();
    let fresh = wireguard.device("wg0").unwrap();
    assert_eq!((fresh.private_key, fresh.public_key), (None, None));

    let endpoint = "192.0.2.7:51820".parse().unwrap();
    let nets = ["10.255.0.2/32", "10.1.0.0/16", "2001:db8::/64"].map(net);
    let first = PeerChange::new([1; 32])
        .endpoint(endpoint)
        .keepalive(25)
        .allow(nets);
    let other = "[2001:db8::7]:7".parse().unwrap();
    let change = DeviceChange::new()
        .private_key(secret(7))
        .listen_port(51821)
        .mark(0xA2)
        .peer(first)
        .peer(PeerChange::new([2; 32]).endpoint(other));
    // Twice: a second call changes nothing.
    for _ in 0..2 {
        wireguard.change("wg0", &change).unwrap();
        let device = wireguard.device("wg0").unwrap();
        // The kernel clears bits that no key has (RFC 7748).
        let mut key = [7; 32];
        key[0] &= 248;
        key[31] = (key[31] & 127) | 64;
        assert_eq!(device.private_key.unwrap().as_bytes(), &key);
        assert_eq!((device.listen_port, device.mark), (51821, 0xA2));
        let peer = |key| device.peers.iter().find(|peer| peer.public_key == key);
        let one = peer([1; 32]).unwrap();
        assert_eq!((one.endpoint, one.keepalive), (Some(endpoint), 25));
        assert_eq!((one.last_handshake, one.rx_bytes), (None, 0));
        let mut allowed = one.allowed_ips.clone();
        allowed.sort();
        assert_eq!(
            allowed,
            ["10.1.0.0/16", "10.255.0.2/32", "2001:db8::/64"].map(net)
        );
        assert_eq!(peer([2; 32]).unwrap().endpoint, Some(other));
        assert_eq!(device.peers.len(), 2);
    }

    // An address moves to who was last said to have it; a peer that goes takes its own along.
    let moves = DeviceChange::new()
        .peer(PeerChange::new([2; 32]).allow([nets[0]]))
        .peer(
            PeerChange::new([1; 32])
                .replace_allowed_ips()
                .allow([nets[1]]),
        )
        .peer(PeerChange::new([3; 32]).update_only().allow([nets[1]]));
    wireguard.change("wg0", &moves).unwrap();
    let allowed = |device: &[WireGuardPeer], key| {
        let found = device.iter().find(|peer| peer.public_key == key);
        found.map(|peer| peer.allowed_ips.clone())
    };
    let peers = wireguard.device("wg0").unwrap().peers;
    assert_eq!(allowed(&peers, [1; 32]), Some(vec![nets[1]]));
    assert_eq!(allowed(&peers, [2; 32]), Some(vec![nets[0]]));
    assert_eq!(allowed(&peers, [3; 32]), None);
    let goes = DeviceChange::new().peer(PeerChange::new([1; 32]).remove());
    wireguard.change("wg0", &goes).unwrap();
    assert_eq!(wireguard.device("wg0").unwrap().peers.len(), 1);
    wireguard
        .change("wg0", &DeviceChange::new().replace_peers())
        .unwrap();
    assert!(wireguard.device("wg0").unwrap().peers.is_empty());
    drop(host);
}

#[tokio::test]
async fn more_peers_and_addresses_than_a_message_holds_are_told_and_read() {
    let Some((_host, inside)) = host().await else {
        return;
    };
    let wireguard = inside.namespace().wireguard().unwrap();
    let peers = |key: u8| {
        let nets = (0..3_000_u32).map(move |number| {
            IpNet::from(std::net::IpAddr::from(
                (u32::from(key) << 24 | number).to_be_bytes(),
            ))
        });
        PeerChange::new([key; 32]).replace_allowed_ips().allow(nets)
    };
    let change = (1..=5)
        .map(peers)
        .fold(DeviceChange::new(), DeviceChange::peer);
    wireguard.change("wg0", &change).unwrap();
    let device = wireguard.device("wg0").unwrap();
    assert_eq!(device.peers.len(), 5);
    for peer in &device.peers {
        assert_eq!(peer.allowed_ips.len(), 3_000);
        let first_byte = |net: &IpNet| match net.addr() {
            std::net::IpAddr::V4(ip) => ip.octets()[0],
            std::net::IpAddr::V6(_) => 0,
        };
        assert!(
            peer.allowed_ips
                .iter()
                .all(|net| first_byte(net) == peer.public_key[0])
        );
    }
}

#[tokio::test]
async fn the_socket_stays_where_the_device_was_made() {
    let Some((host, inside)) = host().await else {
        return;
    };
    let wireguard = inside.namespace().wireguard().unwrap();
    let port = |port| DeviceChange::new().private_key(secret(7)).listen_port(port);
    let taken = host
        .namespace()
        .run(|| UdpSocket::bind("0.0.0.0:4711").unwrap())
        .unwrap();
    wireguard.change("wg0", &port(4711)).unwrap();
    let refused = inside.set_up("wg0", true).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    drop(taken);
    inside.set_up("wg0", true).await.unwrap();
    let bind = |namespace: &Netlink| {
        namespace
            .namespace()
            .run(|| UdpSocket::bind("0.0.0.0:4711").is_ok())
    };
    assert!(bind(&inside).unwrap(), "the port is free in there");
    assert!(!bind(&host).unwrap(), "the port is the device's");
    // And it speaks to another host's, which is made the same way.
    let other = Namespace::create().unwrap().handle().unwrap();
    host.add_wireguard("wg0", other.namespace()).await.unwrap();
    let others = other.namespace().wireguard().unwrap();
    others
        .change(
            "wg0",
            &DeviceChange::new().private_key(secret(9)).listen_port(4712),
        )
        .unwrap();
    let (one, two) = (public_key(&wireguard), public_key(&others));
    let peer = |key, port: u16, ip| {
        let there = PeerChange::new(key).endpoint(([127, 0, 0, 1], port).into());
        DeviceChange::new().peer(there.keepalive(1).allow([net(ip)]))
    };
    wireguard
        .change("wg0", &peer(two, 4712, "10.9.0.2/32"))
        .unwrap();
    others
        .change("wg0", &peer(one, 4711, "10.9.0.1/32"))
        .unwrap();
    other.set_up("wg0", true).await.unwrap();
    let began = SystemTime::now();
    loop {
        let device = wireguard.device("wg0").unwrap();
        let peer = &device.peers[0];
        if let Some(handshake) = peer.last_handshake
            && peer.rx_bytes > 0
            && peer.tx_bytes > 0
        {
            assert!(handshake.duration_since(began).unwrap_or_default() < LIMIT);
            break;
        }
        assert!(began.elapsed().unwrap() < LIMIT, "{device:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let Some((host, inside)) = host().await else {
        return;
    };
    let wireguard = inside.namespace().wireguard().unwrap();
    let nobody = wireguard.device("wg9").unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::NotFound, "{nobody}");
    let kind = wireguard.device("lo").unwrap_err();
    assert_eq!(kind.kind(), ErrorKind::Unsupported, "{kind}");
    let twice = host
        .add_wireguard("wg0", inside.namespace())
        .await
        .unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::AlreadyExists, "{twice}");
    let links = inside.links().await.unwrap();
    let link = links.iter().find(|link| link.name == "wg0").unwrap();
    assert_eq!(link.kind.as_deref(), Some("wireguard"));
}
