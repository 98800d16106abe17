//! Hosts in namespaces of the test's own on one wire, each with the overlay; and containers, which are namespaces too.

use std::io::ErrorKind as IoError;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use arpanet_core::admission::{ClusterKey, Membership, NodeInfo, Secret};
use arpanet_core::overlay::{Announcement, AttachAddr, Attachment, NetNamespace, PeerSpec};
use arpanet_core::roster::{ClusterId, Identity, Role, Roster};
use arpanet_core::{AppAddr, NodeAddr, Overlay};
use arpanet_netlink::{HostSnapshot, Namespace, Netlink, VethEnd};
use arpanet_wireguard::{WireGuardConfig, WireGuardOverlay};
use ipnet::Ipv4Net;
use tempfile::TempDir;

pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// A new namespace, or `None` where this process may not make one and the test is to be skipped.
pub(crate) fn namespace() -> Option<Namespace> {
    match Namespace::create() {
        Ok(namespace) => Some(namespace),
        Err(error) if std::env::var("ARPANET_LIVE").is_ok_and(|live| live.contains("root")) => {
            panic!("{error}")
        }
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The other side answered that nothing listens there.
    Reached,
    /// A router answered that it may not pass.
    Refused,
    /// No answer.
    Lost,
}

/// Sends a datagram to a port on which nothing listens, and says what came back.
pub(crate) fn probe(from: &Namespace, to: Ipv4Addr) -> Fate {
    probe_as(from, Ipv4Addr::UNSPECIFIED, to)
}

pub(crate) fn probe_as(from: &Namespace, source: Ipv4Addr, to: Ipv4Addr) -> Fate {
    let socket = from.run(|| UdpSocket::bind((source, 0))).unwrap().unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(1200)))
        .unwrap();
    let fate_of = |error: &std::io::Error| match error.kind() {
        IoError::ConnectionRefused => Some(Fate::Reached),
        IoError::HostUnreachable | IoError::NetworkUnreachable | IoError::PermissionDenied => {
            Some(Fate::Refused)
        }
        _ => None,
    };
    if let Err(error) = socket.connect((to, 9)) {
        return fate_of(&error).unwrap_or_else(|| panic!("{to}: {error}"));
    }
    // A first packet can be lost while a tunnel agrees on its session.
    for _ in 0..3 {
        if let Err(error) = socket.send(b"?")
            && let Some(fate) = fate_of(&error)
        {
            return fate;
        }
        if let Err(error) = socket.recv(&mut [0; 8])
            && let Some(fate) = fate_of(&error)
        {
            return fate;
        }
    }
    Fate::Lost
}

/// A pinned namespace in the place of a container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) net: Netlink,
    path: PathBuf,
    _folder: TempDir,
}

impl Container {
    pub(crate) async fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let namespace = Namespace::create().unwrap();
        namespace.pin(&path).unwrap();
        let net = namespace.handle().unwrap();
        net.set_up("lo", true).await.unwrap();
        Self {
            name: name.to_owned(),
            net,
            path,
            _folder: folder,
        }
    }

    pub(crate) fn with(&self, addr: &str) -> Attachment {
        let addr: AppAddr = addr.parse().unwrap();
        Attachment::new(
            self.name.parse().unwrap(),
            NetNamespace::Path(self.path.clone()),
            AttachAddr::Application(addr),
        )
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        self.net.namespace()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Namespace::unpin(&self.path);
    }
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) node: NodeAddr,
    pub(crate) net: Netlink,
    pub(crate) underlay: Ipv4Addr,
    pub(crate) overlay: WireGuardOverlay,
    pub(crate) holds: Vec<AppAddr>,
    before: HostSnapshot,
    folder: TempDir,
}

impl Host {
    async fn new(number: u8, namespace: Namespace) -> Self {
        let net = namespace.handle().unwrap();
        net.set_up("lo", true).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self {
            node: NodeAddr::new(0, number).unwrap(),
            overlay: overlay(&namespace, &folder),
            underlay: Ipv4Addr::new(192, 168, 9, number),
            before: net.snapshot().await.unwrap(),
            net,
            holds: Vec::new(),
            folder,
        }
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        self.net.namespace()
    }

    pub(crate) fn membership(&self) -> Membership {
        let name = format!("node{}", self.node.octets()[1]).parse().unwrap();
        Membership::new(
            NodeInfo::new(self.node, name, Role::Server),
            Identity::from_bytes([self.node.octets()[1]; 32]),
            ClusterId::from_bytes([7; 16]),
            ClusterKey::new(1, Secret::from_bytes([9; 32])),
            Roster::default(),
        )
    }

    pub(crate) async fn launch(&self) -> Announcement {
        self.overlay.launch(&self.membership()).await.unwrap()
    }

    pub(crate) fn endpoint(&self) -> SocketAddr {
        SocketAddr::from((self.underlay, 51820))
    }

    pub(crate) async fn attach(&mut self, container: &Container, addr: &str) {
        self.overlay.attach(&container.with(addr)).await.unwrap();
        self.holds.push(addr.parse().unwrap());
    }

    /// As if the agent had been killed and started again.
    pub(crate) fn kill(&mut self) {
        self.overlay = overlay(&self.net.namespace().clone(), &self.folder);
    }

    /// Takes everything back and compares with what was there before.
    pub(crate) async fn leave_nothing_behind(&self) {
        self.overlay.reset().await.unwrap();
        let after = self.net.snapshot().await.unwrap();
        let left = self.before.difference(&after);
        assert!(left.is_empty(), "{left:?}");
        assert!(!self.folder.path().join("router").exists());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // For a test that failed.
        let _ = Namespace::unpin(self.folder.path().join("router"));
    }
}

fn overlay(namespace: &Namespace, folder: &TempDir) -> WireGuardOverlay {
    let config =
        WireGuardConfig::new(folder.path().join("ledger")).pin(folder.path().join("router"));
    namespace
        .run(|| WireGuardOverlay::new(config))
        .unwrap()
        .unwrap()
}

/// Two hosts on one wire, not launched.
pub(crate) async fn two_hosts() -> Option<(Host, Host)> {
    let (one, two) = (namespace()?, namespace()?);
    let setup = one.handle().unwrap();
    let end = |namespace: &Namespace| VethEnd::new("eth0", namespace);
    setup.add_veth(&end(&one), &end(&two)).await.unwrap();
    for (namespace, number) in [(&one, 1), (&two, 2)] {
        let net = namespace.handle().unwrap();
        let address = Ipv4Net::new(Ipv4Addr::new(192, 168, 9, number), 24).unwrap();
        net.set_up("lo", true).await.unwrap();
        net.add_address("eth0", address).await.unwrap();
        net.set_up("eth0", true).await.unwrap();
    }
    for namespace in [&one, &two] {
        let net = namespace.handle().unwrap();
        net.wait_until_carrying("eth0", LIMIT).await.unwrap();
    }
    Some((Host::new(1, one).await, Host::new(2, two).await))
}

/// Tells each of the other what it holds.
pub(crate) async fn connect(one: &Host, two: &Host) {
    let (first, second) = (one.launch().await, two.launch().await);
    let spec = |host: &Host, announcement| {
        PeerSpec::new(host.node, Some(host.endpoint()), announcement).holding(host.holds.clone())
    };
    one.overlay.connect(spec(two, second)).await.unwrap();
    two.overlay.connect(spec(one, first)).await.unwrap();
    one.overlay.wait_reachable(two.node, LIMIT).await.unwrap();
    two.overlay.wait_reachable(one.node, LIMIT).await.unwrap();
}

/// Waits until a packet has this fate.
pub(crate) fn becomes(from: &Namespace, to: Ipv4Addr, fate: Fate) {
    let start = Instant::now();
    loop {
        let now = probe(from, to);
        if now == fate {
            return;
        }
        assert!(start.elapsed() < LIMIT, "{to} is {now:?}, not {fate:?}");
    }
}
