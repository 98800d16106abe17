//! Hosts in namespaces of the test's own on one wire, each with the overlay on a router of its own; and containers.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use arpanet_core::admission::Membership;
use arpanet_core::overlay::{Announcement, NetNamespace, PeerSpec};
use arpanet_core::{NodeAddr, Overlay};
use arpanet_netlink::{HostSnapshot, Namespace, Netlink};
pub(crate) use arpanet_router::testing::{
    self, Container, Fate, LIMIT, Rig, Stationed, Switch, becomes, behind, ip, namespace, probe,
    until,
};
use arpanet_weave::{RouterConfig, WeaveConfig, WeaveOverlay};
use async_trait::async_trait;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

pub(crate) const PORT: u16 = 6783;
/// What names the program of the real router.
const REAL: &str = "ARPANET_WEAVER";

/// The program of the real router, where somebody says where it is. Then nothing that needs it is skipped.
pub(crate) fn real_router() -> Option<PathBuf> {
    let Some(program) = std::env::var_os(REAL) else {
        eprintln!("skipped: {REAL} names no program weaver");
        return None;
    };
    let program = PathBuf::from(program);
    assert!(program.is_file(), "{REAL} names {}", program.display());
    Some(program)
}

/// A host on the wire.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) node: NodeAddr,
    pub(crate) net: Netlink,
    pub(crate) underlay: Ipv4Addr,
    pub(crate) overlay: Arc<WeaveOverlay>,
    pub(crate) config: WeaveConfig,
    pub(crate) key: u8,
    before: (HostSnapshot, Vec<String>),
    pub(crate) folder: TempDir,
    /// It is there as long as one of its hosts.
    switch: Option<Switch>,
}

impl Host {
    /// On a namespace whose underlay works already.
    pub(crate) async fn new(
        number: u8,
        underlay: Ipv4Addr,
        namespace: &Namespace,
        program: Option<&Path>,
    ) -> Self {
        let net = namespace.handle().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake/weaver.sh");
        symlink(script, folder.path().join("weaver")).unwrap();
        symlink(
            std::env::current_exe().unwrap(),
            folder.path().join("program"),
        )
        .unwrap();
        let router =
            RouterConfig::new(folder.path().join("ledger")).pin(folder.path().join("router"));
        let config = WeaveConfig::new(router, folder.path().join("weave"))
            .http(folder.path().join("weave.sock").to_str().unwrap())
            .binary(program.map_or_else(|| folder.path().join("weaver"), Path::to_owned))
            .launch_ms(60_000);
        // The kernel makes them at the first look: they are no trace of anybody.
        firewall(namespace);
        Self {
            node: NodeAddr::new(0, number).unwrap(),
            overlay: overlay(namespace, &config),
            config,
            key: 9,
            underlay,
            before: (net.snapshot().await.unwrap(), firewall(namespace)),
            net,
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
        testing::membership(self.node, self.endpoint(), self.key)
    }

    pub(crate) async fn launch(&self) -> Announcement {
        self.overlay.launch(&self.membership()).await.unwrap()
    }

    /// Where it joined: another port than the router's.
    pub(crate) fn endpoint(&self) -> SocketAddr {
        SocketAddr::from((self.underlay, 51820))
    }

    pub(crate) fn peer(&self) -> PeerSpec {
        PeerSpec::new(self.node, Some(self.endpoint()), Announcement::default())
    }

    /// With another configuration from now on, as after the process was started again.
    pub(crate) fn configure(&mut self, config: WeaveConfig) {
        self.overlay = overlay(self.net.namespace(), &config);
        self.config = config;
    }

    /// As if the agent had been killed and started again: nothing is stopped by hand.
    pub(crate) async fn kill(&mut self) {
        self.configure(self.config.clone());
        // A call that still ran when it was dropped holds the ledger to its end; a process would take it along.
        let start = Instant::now();
        while let Ok(file) = fs::File::open(&self.config.router.ledger)
            && Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err()
        {
            assert!(start.elapsed() < LIMIT, "the ledger is not free");
            tokio::task::yield_now().await;
        }
    }

    /// Starts a router that is nobody's of arpanet2, by this name. Dropping it ends it.
    pub(crate) fn start_foreign(&self, name: &str, password: &str) -> Foreign {
        let folder = self.folder.path().join("foreign");
        fs::create_dir_all(&folder).unwrap();
        let database = folder.join("weave");
        let mut command = Command::new(self.folder.path().join("weaver"));
        command
            .args([
                "--port",
                "6783",
                "--name",
                name,
                "--nickname",
                "foreign",
                "--weave-bridge",
                "weave",
            ])
            .args([
                "--http-addr",
                &self.config.http,
                "--db-prefix",
                database.to_str().unwrap(),
                "--no-dns",
            ])
            .env("WEAVE_PASSWORD", password)
            .env("CHECKPOINT_DISABLE", "1")
            .stdout(Stdio::null())
            .current_dir(&folder);
        let child = self.namespace().run(|| command.spawn()).unwrap().unwrap();
        Foreign(child)
    }

    /// Tells the router something, by a file of its folder.
    pub(crate) fn wish(&self, file: &str, what: &str) {
        fs::write(self.folder.path().join(file), what).unwrap();
    }

    /// What the router was asked until now, a line each.
    pub(crate) fn requests(&self) -> Vec<String> {
        let requests = fs::read_to_string(self.folder.path().join("requests"));
        requests
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// An answer of the router: its first line and headers, and its body.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> (String, String) {
        let mut stream = UnixStream::connect(&self.config.http).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: weave\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    /// Whether a router is there.
    pub(crate) fn answers(&self) -> bool {
        UnixStream::connect(&self.config.http).is_ok()
    }

    /// What the router says of itself.
    pub(crate) fn report(&self) -> serde_json::Value {
        let (_, body) = self.ask("GET", "/report", "Accept: application/json\r\n", "");
        serde_json::from_str(&body).unwrap()
    }

    /// Where the router was told to connect to.
    pub(crate) fn targets(&self) -> Vec<String> {
        let report = self.report();
        let targets = report["Router"]["Targets"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        targets
            .iter()
            .map(|target| target.as_str().unwrap().to_owned())
            .collect()
    }

    /// The number of the router's process.
    pub(crate) fn router(&self) -> Option<i32> {
        let record = fs::read_to_string(self.config.folder.join("router.json")).ok()?;
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        record["process"]["id"].as_i64().map(|id| id as i32)
    }

    /// Whether the process with this number is this host's router.
    pub(crate) fn router_runs(&self, id: i32) -> bool {
        is_router(id, self.folder.path())
    }

    /// Ends the router's process, as a crash does; one that has ended already has crashed.
    pub(crate) fn crash_router(&self) {
        if let Some(router) = self.router().filter(|id| self.router_runs(*id)) {
            kill(Pid::from_raw(router), Signal::SIGKILL).unwrap();
        }
    }

    /// What is different from what was there before.
    pub(crate) async fn traces(&self) -> Vec<String> {
        let (snapshot, rules) = &self.before;
        let mut traces = snapshot.difference(&self.net.snapshot().await.unwrap());
        let now = firewall(self.namespace());
        traces.extend(now.iter().filter(|rule| !rules.contains(rule)).cloned());
        for file in ["router", "weave", "weave.sock"] {
            if self.folder.path().join(file).exists() {
                traces.push(format!("+ {file}"));
            }
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

/// A router that a test has started itself.
pub(crate) struct Foreign(Child);

impl Foreign {
    pub(crate) fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // For a test that failed.
        self.crash_router();
        let _ = Namespace::unpin(self.folder.path().join("router"));
        let _ = Namespace::unpin(self.folder.path().join("host"));
    }
}

/// Whether the process with this number is the router of that folder, and not a later one.
fn is_router(id: i32, folder: &Path) -> bool {
    let place = fs::read_link(format!("/proc/{id}/cwd"));
    place.is_ok_and(|place| place.starts_with(folder))
}

/// The firewall's rules, a line each.
fn firewall(namespace: &Namespace) -> Vec<String> {
    let list = |table: &str| {
        let mut command = Command::new("iptables");
        command.args(["-w", "5", "-t", table, "-S"]);
        let output = namespace.run(|| command.output()).unwrap();
        output.map_or_else(
            |_| String::new(),
            |output| String::from_utf8(output.stdout).unwrap(),
        )
    };
    let tables = [list("filter"), list("nat")].concat();
    tables.lines().map(str::to_owned).collect()
}

fn overlay(namespace: &Namespace, config: &WeaveConfig) -> Arc<WeaveOverlay> {
    let overlay = namespace.run(|| WeaveOverlay::new(config.clone()));
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
        Self::with(hosts, None).await
    }

    /// The same with this program as the routers, not the tests' own.
    pub(crate) async fn with(hosts: u8, program: Option<&Path>) -> Option<Self> {
        let switch = Switch::new().await?;
        let mut site = Self {
            switch,
            hosts: Vec::new(),
        };
        for number in 1..=hosts {
            let underlay = Ipv4Addr::new(192, 168, 9, number);
            let namespace = site.switch.plug(number, underlay).await;
            let mut host = Host::new(number, underlay, &namespace, program).await;
            host.switch = Some(site.switch.clone());
            site.hosts.push(host);
        }
        Some(site)
    }
}

/// One host, not launched.
pub(crate) async fn one_host() -> Option<Host> {
    Some(Site::new(1).await?.hosts.remove(0))
}

/// Two hosts on one switch, not launched.
pub(crate) async fn two_hosts() -> Option<(Host, Host)> {
    let [one, two] = <[Host; 2]>::try_from(Site::new(2).await?.hosts).unwrap();
    Some((one, two))
}

/// Launches both and connects them.
pub(crate) async fn connect(one: &Host, two: &Host) {
    one.launch().await;
    two.launch().await;
    one.overlay.connect(two.peer()).await.unwrap();
    two.overlay.connect(one.peer()).await.unwrap();
    one.overlay.wait_reachable(two.node, LIMIT).await.unwrap();
    two.overlay.wait_reachable(one.node, LIMIT).await.unwrap();
}
