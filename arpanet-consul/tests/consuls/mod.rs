//! Real consul agents, each in a network namespace of its own, on one switch. They end with the value.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arpanet_consul::ConsulConfig;
use arpanet_consul::agent::find_program;
use arpanet_core::Error;
use arpanet_core::admission::{ClusterKey, Membership, NodeInfo, Secret};
use arpanet_core::conformance::live;
use arpanet_core::roster::{ClusterId, Identity, Role, Roster, RosterEntry};
use arpanet_netlink::{Namespace, VethEnd};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

/// How long anything may take here: the machine may be busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The consul binary: what `ARPANET_CONSUL` names, or `consul` on the path.
pub(crate) fn binary() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("ARPANET_CONSUL") {
        return Some(named.into());
    }
    find_program("consul", &std::env::var_os("PATH")?)
}

/// Whether there is consul, and this is root.
pub(crate) fn have() -> bool {
    let is_there = nix::unistd::geteuid().is_root() && binary().is_some();
    let needs = "root, and consul on the path or in ARPANET_CONSUL";
    live::have("consul", is_there, needs)
}

/// Skips where consul can't be had, and fails instead where it is promised.
#[macro_export]
macro_rules! require_consul {
    () => {
        if !consuls::have() {
            return;
        }
    };
}

/// Awaits a condition.
pub(crate) async fn until_ok<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < end, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Awaits a condition that is asked for without waiting.
pub(crate) async fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < end, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) struct Consul {
    pub(crate) name: String,
    pub(crate) ip: Ipv4Addr,
    namespace: Namespace,
    folder: PathBuf,
    config: Value,
    /// An ACL token for what is asked here.
    token: String,
    child: Mutex<Option<Child>>,
}

impl Consul {
    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("http.sock")
    }

    /// A client's config for this agent.
    pub(crate) fn client(&self) -> ConsulConfig {
        ConsulConfig::default().address(format!("unix:{}", self.socket().display()))
    }

    /// Runs something in the agent's network, with a runtime of its own.
    pub(crate) fn inside<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(work())
        };
        self.namespace.run(run).unwrap()
    }

    /// Its disk, too.
    pub(crate) fn wipe(&self) {
        self.kill();
        std::fs::remove_dir_all(self.data()).unwrap();
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Runs lines of a shell as somebody at this agent would, and returns what they print.
    pub(crate) fn shell(&self, lines: &str) -> String {
        let output = self.try_shell(lines);
        assert!(output.status.success(), "{lines}\n{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs lines of a shell that may fail.
    pub(crate) fn try_shell(&self, lines: &str) -> Output {
        let consul = binary().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let folder = consul.parent().unwrap().display();
        Command::new("sh")
            .args(["-e", "-u", "-c", lines])
            .current_dir(&self.folder)
            .env("PATH", format!("{folder}:{path}"))
            .env(
                "CONSUL_HTTP_ADDR",
                format!("unix://{}", self.socket().display()),
            )
            .env("DATA", self.data())
            .env("IP", self.ip.to_string())
            .output()
            .unwrap()
    }

    pub(crate) fn is_up(&self) -> bool {
        self.child().is_some()
    }

    /// SIGKILL, as a loss of power.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it, with what it has on its disk. A second call does nothing while it runs.
    pub(crate) fn launch(&self) {
        let mut child = self.child();
        if child.is_some() {
            return;
        }
        let config = self.folder.join("config.json");
        std::fs::write(&config, self.config.to_string()).unwrap();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .unwrap();
        let mut command = Command::new(binary().unwrap());
        command
            .arg("agent")
            .arg("-config-file")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        *child = Some(self.namespace.run(|| command.spawn()).unwrap().unwrap());
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// One request to the agent, without the client that is tested. `None` without an answer.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let (status, _, body) = ask(&self.socket(), &self.token, method, path, body)?;
        Some((status, body))
    }

    /// The head of an answer.
    pub(crate) fn head(&self, path: &str) -> Option<(u16, String)> {
        let (status, head, _) = ask(&self.socket(), &self.token, "GET", path, "")?;
        Some((status, head))
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        let (status, body) = self.ask("GET", path, "")?;
        (status == 200).then(|| serde_json::from_str(&body).unwrap())
    }

    pub(crate) fn leader(&self) -> Option<String> {
        let leader = self.get("/v1/status/leader")?;
        leader
            .as_str()
            .filter(|leader| !leader.is_empty())
            .map(str::to_owned)
    }

    /// Whether the agent answers, and the leader has its node in the catalogue as alive.
    pub(crate) fn is_ready(&self) -> bool {
        let checks = self.get(&format!("/v1/health/node/{}", self.name));
        checks.is_some_and(|checks| {
            let mut checks = checks.as_array().unwrap().iter();
            checks.any(|check| check["CheckID"] == "serfHealth" && check["Status"] == "passing")
        })
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(30)..].join("\n");
            eprintln!("=== {}\n{last}", self.name);
        }
    }
}

/// An error with all that caused it, in one line.
pub(crate) fn told(error: &Error) -> String {
    let mut told = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        told.push_str(&format!(": {error}"));
        cause = error.source();
    }
    told
}

/// So many nodes' memberships of one cluster: `0.1` is `node1`, and boot.
pub(crate) fn memberships(nodes: u8) -> Vec<Membership> {
    let others = std::iter::repeat_n(Role::Server, usize::from(nodes.saturating_sub(1)));
    memberships_as(&[Role::Boot].into_iter().chain(others).collect::<Vec<_>>())
}

/// Memberships of one cluster by the roles of its nodes.
pub(crate) fn memberships_as(roles: &[Role]) -> Vec<Membership> {
    let entries: Vec<RosterEntry> = (1..)
        .zip(roles)
        .map(|(at, role)| entry(at, *role))
        .collect();
    let roster: Roster = entries.iter().cloned().collect();
    let of = |entry: RosterEntry| {
        Membership::new(
            NodeInfo::new(entry.node, entry.name, entry.role),
            entry.identity,
            ClusterId::from_bytes([5; 16]),
            ClusterKey::new(1, Secret::from_bytes([6; 32])),
            roster.clone(),
        )
    };
    entries.into_iter().map(of).collect()
}

fn entry(number: u8, role: Role) -> RosterEntry {
    RosterEntry::new(
        format!("0.{number}").parse().unwrap(),
        format!("node{number}").parse().unwrap(),
        role,
        Identity::from_bytes([number; 32]),
        number.into(),
    )
}

/// What an agent answers at a path, if it does.
pub(crate) fn get(socket: &Path, path: &str) -> Option<Value> {
    let (status, _, body) = ask(socket, "", "GET", path, "")?;
    (status == 200).then(|| serde_json::from_str(&body).unwrap())
}

/// HTTP/1.0 over a socket: the other side closes when all is said. Status, head and body.
fn ask(
    socket: &Path,
    token: &str,
    method: &str,
    path: &str,
    body: &str,
) -> Option<(u16, String, String)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nX-Consul-Token: {token}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, head.to_owned(), body.to_owned()))
}

/// So many hosts on one switch: `node1`, as it calls its port, at 10.253.0.1, and on.
pub(crate) async fn hosts(count: u8) -> (Namespace, Vec<Namespace>) {
    let switch = Namespace::create().unwrap();
    let netlink = switch.handle().unwrap();
    netlink.add_bridge("switch").await.unwrap();
    netlink.set_up("switch", true).await.unwrap();
    let mut hosts = Vec::new();
    for number in 1..=count {
        let namespace = Namespace::create().unwrap();
        let name = format!("node{number}");
        let ends = [
            VethEnd::new(&name, &switch),
            VethEnd::new("eth0", &namespace),
        ];
        netlink.add_veth(&ends[0], &ends[1]).await.unwrap();
        netlink.set_master(&name, Some("switch")).await.unwrap();
        netlink.set_up(&name, true).await.unwrap();
        let inside = namespace.handle().unwrap();
        inside.set_up("lo", true).await.unwrap();
        let net = ipnet::Ipv4Net::new(Ipv4Addr::new(10, 253, 0, number), 16).unwrap();
        inside.add_address("eth0", net).await.unwrap();
        inside.set_up("eth0", true).await.unwrap();
        hosts.push(namespace);
    }
    (switch, hosts)
}

/// Agents on one switch: first servers, then clients.
pub(crate) struct Site {
    pub(crate) agents: Vec<Consul>,
    switch: Namespace,
    _folder: TempDir,
}

impl Site {
    /// So many servers, as one cluster with a leader.
    pub(crate) async fn servers(count: u8) -> Self {
        Self::with(count, 0, json!({})).await
    }

    /// Servers and clients with this in their configuration, as one cluster with a leader.
    pub(crate) async fn with(servers: u8, clients: u8, config: Value) -> Self {
        Self::make(servers, clients, config, "").await
    }

    /// Servers that want an ACL token.
    pub(crate) async fn with_token(servers: u8, config: Value, token: &str) -> Self {
        Self::make(servers, 0, config, token).await
    }

    async fn make(servers: u8, clients: u8, config: Value, token: &str) -> Self {
        let folder = TempDir::with_prefix("arpanet-consul-").unwrap();
        let (switch, hosts) = hosts(servers + clients).await;
        let mut agents = Vec::new();
        for (number, namespace) in (1..).zip(hosts) {
            let (name, ip) = (format!("node{number}"), Ipv4Addr::new(10, 253, 0, number));
            let folder = folder.path().join(&name);
            std::fs::create_dir_all(&folder).unwrap();
            let mut all = json!({
                "node_name": name,
                "data_dir": folder.join("data"),
                "bind_addr": ip,
                "addresses": {"http": format!("unix://{}", folder.join("http.sock").display())},
                "ports": {"dns": -1, "serf_wan": -1, "grpc": -1},
                "performance": {"raft_multiplier": 1, "rpc_hold_timeout": "2s"},
                "gossip_lan": {"probe_interval": "300ms", "probe_timeout": "150ms", "gossip_interval": "50ms"},
                "limits": {"http_max_conns_per_client": 4096},
                "session_ttl_min": "1s",
                "skip_leave_on_interrupt": true,
                "disable_update_check": true,
                "log_level": "info",
            });
            if number <= servers {
                all["server"] = json!(true);
                all["bootstrap_expect"] = json!(servers);
            }
            for (key, value) in config.as_object().unwrap() {
                all[key] = value.clone();
            }
            agents.push(Consul {
                name,
                ip,
                namespace,
                folder,
                config: all,
                token: token.to_owned(),
                child: Mutex::new(None),
            });
        }
        let site = Self {
            agents,
            switch,
            _folder: folder,
        };
        for agent in &site.agents {
            agent.launch();
        }
        site.join().await;
        site.ready().await;
        site
    }

    /// Has every agent that runs know every other.
    pub(crate) async fn join(&self) {
        for agent in self.agents.iter().filter(|agent| agent.is_up()) {
            until("an agent answers", || agent.get("/v1/agent/self").map(drop)).await;
        }
        let mut up = self.agents.iter().filter(|agent| agent.is_up());
        let Some(first) = up.next() else {
            return;
        };
        for agent in up {
            until("an agent is met", || {
                let path = format!("/v1/agent/join/{}", agent.ip);
                let (status, _) = first.ask("PUT", &path, "")?;
                (status == 200).then_some(())
            })
            .await;
        }
    }

    /// Waits until every agent that runs answers with a leader.
    pub(crate) async fn ready(&self) {
        for agent in self.agents.iter().filter(|agent| agent.is_up()) {
            until("a leader", || agent.is_ready().then_some(())).await;
        }
    }

    /// Which of the agents is the leader.
    pub(crate) async fn leader(&self) -> usize {
        until("a leader that all know", || {
            let leaders: Vec<String> = self
                .agents
                .iter()
                .filter(|agent| agent.is_up())
                .filter_map(Consul::leader)
                .collect();
            let up = self.agents.iter().filter(|agent| agent.is_up()).count();
            let first = leaders.first()?;
            if leaders.len() < up || leaders.iter().any(|leader| leader != first) {
                return None;
            }
            self.agents
                .iter()
                .position(|agent| agent.is_up() && *first == format!("{}:8300", agent.ip))
        })
        .await
    }

    /// Takes an agent's cable out.
    pub(crate) async fn cut(&self, agent: usize) {
        self.plug(agent, false).await;
    }

    /// Puts it back, and has the agents meet again: by itself consul looks after half a minute.
    pub(crate) async fn heal(&self, agent: usize) {
        self.plug(agent, true).await;
        let healed = &self.agents[agent];
        until("the cut agent is met again", || {
            let mut met = true;
            for other in self.agents.iter().filter(|other| other.ip != healed.ip) {
                let path = format!("/v1/agent/join/{}", other.ip);
                met &= healed
                    .ask("PUT", &path, "")
                    .is_some_and(|(status, _)| status == 200);
            }
            met.then_some(())
        })
        .await;
    }

    async fn plug(&self, agent: usize, up: bool) {
        let netlink = self.switch.handle().unwrap();
        netlink.set_up(&self.agents[agent].name, up).await.unwrap();
    }
}
