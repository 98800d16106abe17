//! Hosts in namespaces of the test's own on one wire, each with the overlay; and containers, which are namespaces too.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arpanet_core::admission::Membership;
use arpanet_core::conformance::live;
use arpanet_core::overlay::{Announcement, NetNamespace, PeerSpec};
use arpanet_core::{AppAddr, NodeAddr, Overlay};
use arpanet_netlink::{HostSnapshot, Namespace, Netlink};
pub(crate) use arpanet_router::testing::{
    self, Beats, Container, Fate, LIMIT, Rig, Stationed, Switch, becomes, behind, ip, namespace,
    probe, probe_as,
};
use arpanet_wireguard::{
    KernelTunnels, RouterConfig, TunnelFactory, UserTunnels, WireGuard, WireGuardConfig,
    WireGuardOverlay,
};
use async_trait::async_trait;
use tempfile::TempDir;

pub(crate) const PORT: u16 = 51820;
/// Of the kernel's tunnel.
const TUNNEL_PORT: u16 = 51821;

/// The kernel's WireGuard where it is promised, and otherwise that of this process.
pub(crate) fn tunnels() -> Arc<dyn TunnelFactory> {
    match live::promises("wireguard") {
        true => Arc::new(KernelTunnels::default()),
        false => Arc::new(UserTunnels::default()),
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
    switch: Option<Switch>,
}

impl Host {
    /// On a namespace whose underlay works already.
    pub(crate) async fn new(number: u8, underlay: Ipv4Addr, namespace: &Namespace) -> Self {
        let net = namespace.handle().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let tunnels = tunnels();
        Self {
            node: NodeAddr::new(0, number).unwrap(),
            overlay: overlay(namespace, &folder, &tunnels),
            tunnels,
            underlay,
            before: net.snapshot().await.unwrap(),
            net,
            holds: Vec::new(),
            folder,
            switch: None,
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
        testing::membership(self.node, self.endpoint(), 9)
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
        while self.bind(PORT).is_err() {
            assert!(start.elapsed() < LIMIT, "the port is not free");
            tokio::task::yield_now().await;
        }
    }

    fn bind(&self, port: u16) -> std::io::Result<UdpSocket> {
        let bind = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port));
        self.namespace().run(bind).unwrap()
    }

    /// Where others find its tunnel.
    pub(crate) fn tunnel_endpoint(&self) -> SocketAddr {
        let port = match live::promises("wireguard") {
            true => TUNNEL_PORT,
            false => PORT,
        };
        SocketAddr::from((self.underlay, port))
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
        if self.bind(TUNNEL_PORT).is_err() {
            traces.push("+ the port of the kernel's tunnel".to_owned());
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
    let router = RouterConfig::new(folder.path().join("ledger")).pin(folder.path().join("router"));
    let carrier = WireGuard::over(WireGuardConfig::new(router), Arc::clone(tunnels));
    let overlay = namespace.run(|| WireGuardOverlay::carried_by(carrier));
    Arc::new(overlay.unwrap().unwrap())
}

#[async_trait]
impl Stationed for Host {
    fn membership(&self) -> Membership {
        self.membership()
    }

    fn endpoint(&self) -> SocketAddr {
        self.endpoint()
    }

    fn namespace(&self) -> &Namespace {
        self.namespace()
    }

    fn path(&self) -> NetNamespace {
        self.path()
    }

    fn overlay(&self) -> Arc<dyn Overlay> {
        Arc::clone(&self.overlay) as Arc<dyn Overlay>
    }

    async fn kill(&mut self) {
        self.kill().await;
    }

    async fn traces(&self) -> Vec<String> {
        self.traces().await
    }
}

/// Hosts on one switch, not launched.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) switch: Switch,
    pub(crate) hosts: Vec<Host>,
}

impl Site {
    /// `None` where this process may not make namespaces and the test is to be skipped.
    pub(crate) async fn new(hosts: u8) -> Option<Self> {
        let switch = Switch::new().await?;
        let mut site = Self {
            switch,
            hosts: Vec::new(),
        };
        for number in 1..=hosts {
            let underlay = Ipv4Addr::new(192, 168, 9, number);
            let namespace = site.switch.plug(number, underlay).await;
            let mut host = Host::new(number, underlay, &namespace).await;
            host.switch = Some(site.switch.clone());
            site.hosts.push(host);
        }
        Some(site)
    }
}

/// Gives the underlay of these hosts another MTU, in bytes.
pub(crate) async fn resize(switch: &Switch, hosts: &[&Host], mtu: u32) {
    for host in hosts {
        switch.resize(host.node.octets()[1], mtu).await;
        host.net.set_mtu("eth0", mtu).await.unwrap();
    }
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
