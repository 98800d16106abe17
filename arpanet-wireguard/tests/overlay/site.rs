//! Hosts in namespaces of the test's own on one wire, each with the overlay; and containers, which are namespaces too.

use std::fs;
use std::io::ErrorKind as IoError;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arpanet_core::admission::{ClusterKey, Membership, NodeInfo, Secret};
use arpanet_core::overlay::{Announcement, AttachAddr, Attachment, NetNamespace, PeerSpec};
use arpanet_core::roster::{ClusterId, Identity, Role, Roster};
use arpanet_core::{AppAddr, NodeAddr, Overlay};
use arpanet_netlink::{HostSnapshot, Namespace, Netlink, VethEnd};
use arpanet_wireguard::{TunnelFactory, UserTunnels, WireGuardConfig, WireGuardOverlay};
use ipnet::Ipv4Net;
use tempfile::TempDir;

pub(crate) const LIMIT: Duration = Duration::from_secs(10);
pub(crate) const PORT: u16 = 51820;
const SWITCH: &str = "switch";

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

pub(crate) fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
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

/// Sends datagrams to a port on which nothing listens, and says what came back.
pub(crate) fn probe(from: &Namespace, to: Ipv4Addr) -> Fate {
    probe_as(from, Ipv4Addr::UNSPECIFIED, to)
}

/// The same from an address of the caller's choice, for less than 2 s.
pub(crate) fn probe_as(from: &Namespace, source: Ipv4Addr, to: Ipv4Addr) -> Fate {
    from.run(|| send_and_listen(source, to)).unwrap()
}

/// The same in the namespace of this thread.
pub(crate) fn send_and_listen(source: Ipv4Addr, to: Ipv4Addr) -> Fate {
    let socket = UdpSocket::bind((source, 0)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
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
    // A first packet can be lost while a tunnel agrees on its session, and so can an answer by the kernel's limit.
    for _ in 0..36 {
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
            self.path(),
            AttachAddr::Application(addr),
        )
    }

    pub(crate) fn path(&self) -> NetNamespace {
        NetNamespace::Path(self.path.clone())
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

/// A host on the wire.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) node: NodeAddr,
    pub(crate) net: Netlink,
    pub(crate) underlay: Ipv4Addr,
    pub(crate) overlay: Arc<WireGuardOverlay>,
    pub(crate) holds: Vec<AppAddr>,
    tunnels: Arc<dyn TunnelFactory>,
    before: HostSnapshot,
    folder: TempDir,
    /// It is there as long as one of its hosts.
    _switch: Netlink,
}

impl Host {
    /// On a namespace whose underlay works already.
    pub(crate) async fn new(
        number: u8,
        underlay: Ipv4Addr,
        namespace: &Namespace,
        switch: Netlink,
    ) -> Self {
        let net = namespace.handle().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let tunnels: Arc<dyn TunnelFactory> = Arc::new(UserTunnels::default());
        Self {
            node: NodeAddr::new(0, number).unwrap(),
            overlay: overlay(namespace, &folder, &tunnels),
            tunnels,
            underlay,
            before: net.snapshot().await.unwrap(),
            net,
            holds: Vec::new(),
            folder,
            _switch: switch,
        }
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        self.net.namespace()
    }

    /// A file that is its namespace.
    pub(crate) fn path(&self) -> NetNamespace {
        let path = self.folder.path().join("host");
        self.namespace().pin(&path).unwrap();
        NetNamespace::Path(path)
    }

    pub(crate) fn membership(&self) -> Membership {
        let number = self.node.octets()[1];
        let name = format!("node{number}").parse().unwrap();
        let me = NodeInfo::new(self.node, name, Role::Server).advertise(Some(self.endpoint()));
        Membership::new(
            me,
            Identity::from_bytes([number; 32]),
            ClusterId::from_bytes([7; 16]),
            ClusterKey::new(1, Secret::from_bytes([9; 32])),
            Roster::default(),
        )
    }

    pub(crate) async fn launch(&self) -> Announcement {
        self.overlay.launch(&self.membership()).await.unwrap()
    }

    pub(crate) fn endpoint(&self) -> SocketAddr {
        SocketAddr::from((self.underlay, PORT))
    }

    pub(crate) async fn attach(&mut self, container: &Container, addr: &str) {
        self.overlay.attach(&container.with(addr)).await.unwrap();
        self.holds.push(addr.parse().unwrap());
    }

    /// With another kind of tunnel from now on. Before the launch.
    pub(crate) fn run_over(&mut self, tunnels: Arc<dyn TunnelFactory>) {
        self.overlay = overlay(self.namespace(), &self.folder, &tunnels);
        self.tunnels = tunnels;
    }

    /// As if the agent had been killed and started again: nothing is stopped by hand.
    pub(crate) async fn kill(&mut self) {
        self.overlay = overlay(self.namespace(), &self.folder, &self.tunnels);
        // A call that still ran when it was dropped holds the port to its end; a process would take it along.
        let start = Instant::now();
        let port = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
        while self
            .namespace()
            .run(|| UdpSocket::bind(port))
            .unwrap()
            .is_err()
        {
            assert!(start.elapsed() < LIMIT, "the port is not free");
            tokio::task::yield_now().await;
        }
    }

    /// Where the router's namespace is pinned.
    pub(crate) fn pin(&self) -> PathBuf {
        self.folder.path().join("router")
    }

    /// What is different from what was there before.
    pub(crate) async fn traces(&self) -> Vec<String> {
        let mut traces = self.before.difference(&self.net.snapshot().await.unwrap());
        if self.pin().exists() {
            traces.push("+ the pin".to_owned());
        }
        let ledger = fs::metadata(self.folder.path().join("ledger"));
        if ledger.is_ok_and(|ledger| ledger.len() > 0) {
            traces.push("+ lines in the ledger".to_owned());
        }
        traces
    }

    /// Takes everything back and compares with what was there before.
    pub(crate) async fn leave_nothing_behind(&self) {
        self.overlay.reset().await.unwrap();
        assert_eq!(self.traces().await, Vec::<String>::new());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // For a test that failed.
        let _ = Namespace::unpin(self.pin());
        let _ = Namespace::unpin(self.folder.path().join("host"));
    }
}

fn overlay(
    namespace: &Namespace,
    folder: &TempDir,
    tunnels: &Arc<dyn TunnelFactory>,
) -> Arc<WireGuardOverlay> {
    let config =
        WireGuardConfig::new(folder.path().join("ledger")).pin(folder.path().join("router"));
    let overlay = namespace.run(|| WireGuardOverlay::with_tunnels(config, Arc::clone(tunnels)));
    Arc::new(overlay.unwrap().unwrap())
}

/// Hosts on one switch, not launched.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) switch: Netlink,
    pub(crate) hosts: Vec<Host>,
}

impl Site {
    /// `None` where this process may not make namespaces and the test is to be skipped.
    pub(crate) async fn new(hosts: u8) -> Option<Self> {
        let switch = namespace()?.handle().unwrap();
        switch.add_bridge(SWITCH).await.unwrap();
        switch.set_up(SWITCH, true).await.unwrap();
        let mut site = Self {
            switch,
            hosts: Vec::new(),
        };
        for number in 1..=hosts {
            let namespace = site.plug(number).await;
            let underlay = Ipv4Addr::new(192, 168, 9, number);
            site.hosts
                .push(Host::new(number, underlay, &namespace, site.switch.clone()).await);
        }
        Some(site)
    }

    /// A namespace with a link `eth0` to the switch, whose port is called after the number.
    async fn plug(&self, number: u8) -> Namespace {
        let namespace = Namespace::create().unwrap();
        // Its own address would come at some time, and make a difference between before and after.
        let setting = ("net.ipv6.conf.default.disable_ipv6", "1");
        namespace.set_sysctls(&[setting]).unwrap();
        let net = namespace.handle().unwrap();
        let port = port(usize::from(number) - 1);
        let near = VethEnd::new("eth0", &namespace);
        let far = VethEnd::new(&port, self.switch.namespace());
        net.add_veth(&near, &far).await.unwrap();
        self.switch.set_master(&port, Some(SWITCH)).await.unwrap();
        self.switch.set_up(&port, true).await.unwrap();
        let address = Ipv4Net::new(Ipv4Addr::new(192, 168, 9, number), 24).unwrap();
        net.set_up("lo", true).await.unwrap();
        net.add_address("eth0", address).await.unwrap();
        net.set_up("eth0", true).await.unwrap();
        net.wait_until_carrying("eth0", LIMIT).await.unwrap();
        namespace
    }

    /// Takes a host, by its place, off the switch, or puts it back.
    pub(crate) async fn plug_in(&self, host: usize, on: bool) {
        self.switch.set_up(&port(host), on).await.unwrap();
    }
}

/// Gives the underlay of these hosts another MTU, in bytes.
pub(crate) async fn resize(switch: &Netlink, hosts: &[&Host], mtu: u32) {
    for host in hosts {
        let port = port(usize::from(host.node.octets()[1]) - 1);
        switch.set_mtu(&port, mtu).await.unwrap();
        host.net.set_mtu("eth0", mtu).await.unwrap();
    }
}

fn port(host: usize) -> String {
    format!("port{host}")
}

/// Two hosts on one switch, not launched.
pub(crate) async fn two_hosts() -> Option<(Host, Host)> {
    let [one, two] = <[Host; 2]>::try_from(Site::new(2).await?.hosts).unwrap();
    Some((one, two))
}

/// Launches both, and tells each of the other what it holds.
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
