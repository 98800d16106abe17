//! Two hosts in namespaces of the test's own, joined by a wire, and a tunnel on each.

// Tests and the benchmark use what they need of it.
#![allow(dead_code)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use arpanet_core::{Error, ErrorKind};
use arpanet_netlink::{MacAddr, Netlink, VethEnd};
pub(crate) use arpanet_router::testing::namespace;
use arpanet_wireguard::tunnel::{
    PeerConfig, PeerStatus, PrivateKey, PublicKey, Tunnel, UserTunnel, UserTunnelConfig,
};
use ipnet::Ipv4Net;

pub(crate) const LIMIT: Duration = Duration::from_secs(5);
pub(crate) const PORT: u16 = 51820;

pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

pub(crate) struct Host {
    pub(crate) net: Netlink,
    pub(crate) underlay: Ipv4Addr,
    pub(crate) overlay: Ipv4Addr,
    pub(crate) key: PrivateKey,
    pub(crate) threads: usize,
    tunnel: Option<UserTunnel>,
}

impl Host {
    async fn new(number: u8, threads: usize) -> Option<Self> {
        let net = namespace()?.handle().unwrap();
        net.set_up("lo", true).await.unwrap();
        let mut host = Self {
            net,
            underlay: Ipv4Addr::new(192, 168, 9, number),
            overlay: Ipv4Addr::new(10, 9, 0, number),
            key: PrivateKey::generate().unwrap(),
            threads,
            tunnel: None,
        };
        host.start(PORT);
        let overlay = Ipv4Net::new(host.overlay, 24).unwrap();
        host.net.add_address("wg0", overlay).await.unwrap();
        Some(host)
    }

    pub(crate) fn bind(&self, addr: Ipv4Addr, port: u16) -> UdpSocket {
        let socket = self.net.namespace().run(|| UdpSocket::bind((addr, port)));
        let socket = socket.unwrap().unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket
    }

    pub(crate) fn start(&mut self, port: u16) {
        let launch = || {
            let bind = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port));
            let namespace = self.net.namespace();
            let socket = namespace.run(bind)?.map_err(|error| {
                Error::new(ErrorKind::Conflict, "the port is taken").with_source(error)
            })?;
            let config = UserTunnelConfig::new(self.key.clone(), socket, namespace.clone());
            UserTunnel::launch(config.threads(namespace.clone(), self.threads))
        };
        let start = Instant::now();
        self.tunnel = Some(loop {
            match launch() {
                Ok(tunnel) => break tunnel,
                // Another test starts a program: until it runs, it has what this process had open, the device too.
                Err(error) if error.kind() == ErrorKind::Conflict && start.elapsed() < LIMIT => {
                    std::thread::park_timeout(Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        });
    }

    /// As if the process had died: nothing is stopped by hand.
    pub(crate) fn drop_tunnel(&mut self) {
        self.tunnel = None;
    }

    pub(crate) fn tunnel(&self) -> &UserTunnel {
        self.tunnel.as_ref().unwrap()
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    pub(crate) fn endpoint(&self) -> SocketAddr {
        (self.underlay, PORT).into()
    }

    pub(crate) fn knows(&self, peer: &Self, endpoint: Option<SocketAddr>, allowed: &[Ipv4Addr]) {
        let allowed = allowed.iter().map(|addr| (*addr).into()).collect();
        let config = PeerConfig::new(peer.public_key(), endpoint, allowed);
        self.tunnel().set_peer(config).unwrap();
    }

    pub(crate) fn sees(&self, peer: &Self) -> Option<PeerStatus> {
        let key = peer.public_key();
        self.tunnel()
            .peers()
            .into_iter()
            .find(|status| status.public_key == key)
    }
}

/// Two hosts that know each other.
pub(crate) async fn pair() -> Option<(Host, Host)> {
    pair_of(1).await
}

/// Two with so many threads each way.
pub(crate) async fn pair_of(threads: usize) -> Option<(Host, Host)> {
    let (a, b) = (Host::new(1, threads).await?, Host::new(2, threads).await?);
    let mac = |last| MacAddr::new([2, 0, 0, 0, 0, last]);
    let end = |host: &Host, last| VethEnd::new("eth0", host.net.namespace()).mac(mac(last));
    a.net.add_veth(&end(&a, 1), &end(&b, 2)).await.unwrap();
    for host in [&a, &b] {
        let underlay = Ipv4Net::new(host.underlay, 24).unwrap();
        host.net.add_address("eth0", underlay).await.unwrap();
        host.net.set_up("eth0", true).await.unwrap();
    }
    for host in [&a, &b] {
        host.net.wait_until_carrying("eth0", LIMIT).await.unwrap();
    }
    a.knows(&b, Some(b.endpoint()), &[b.overlay]);
    b.knows(&a, Some(a.endpoint()), &[a.overlay]);
    Some((a, b))
}

/// One datagram over the overlay, and its echo.
pub(crate) fn echo(from: &Host, to: &Host) {
    let (client, server) = (from.bind(from.overlay, 0), to.bind(to.overlay, 0));
    let mut buffer = [0; 16];
    client
        .send_to(b"ping", server.local_addr().unwrap())
        .unwrap();
    let (length, source) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(source.ip(), from.overlay);
    server.send_to(&buffer[..length], source).unwrap();
    assert_eq!(client.recv(&mut buffer).unwrap(), 4);
    assert_eq!(&buffer[..4], b"ping");
}

/// Both ends of a TCP connection over the overlay.
pub(crate) fn connection(from: &Host, to: &Host) -> (TcpStream, TcpStream) {
    connection_at(from, to, to.overlay)
}

/// Both ends of a TCP connection to one of the addresses of `to`.
pub(crate) fn connection_at(from: &Host, to: &Host, at: Ipv4Addr) -> (TcpStream, TcpStream) {
    let listener = to.net.namespace().run(|| TcpListener::bind((at, 0)));
    let listener = listener.unwrap().unwrap();
    let addr = listener.local_addr().unwrap();
    let connect = || TcpStream::connect_timeout(&addr, LIMIT);
    let client = from.net.namespace().run(connect).unwrap().unwrap();
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
    }
    (client, server)
}
