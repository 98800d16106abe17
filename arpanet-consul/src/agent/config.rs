//! What the consul process of a node is made of, and the configuration that it is given.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use arpanet_core::admission::Membership;
use arpanet_core::roster::Role;
use arpanet_core::{ErrorKind, NodeAddr, Result};
use serde_json::{Value, json};

use super::access::{AgentTls, guard};
use super::keyring::gossip_key;
use crate::config::Token;
use crate::error::own;

/// The largest log file, in bytes; three of them are kept.
const LOG_BYTES: u64 = 10 << 20;

/// Where servers answer each other, and clients.
pub(super) const SERVER_PORT: u16 = 8300;

/// The consul process of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsulAgentConfig {
    /// The consul program, 1.8 or later.
    pub program: PathBuf,
    /// A folder of its own, where everything is that has to survive a reboot. Made if it is not there, for root alone.
    pub folder: PathBuf,
    /// Where it answers this node, by a unix socket.
    pub socket: PathBuf,
    /// The domain of its own DNS.
    pub domain: String,
    /// DNS servers for all other names; none: it answers for its own domain only.
    pub recursors: Vec<IpAddr>,
    /// The datacenter that all agents of the cluster are in.
    pub datacenter: String,
    /// The ACL token of the cluster. With one, the process enforces access control, and refuses whoever has none: the boot node's
    /// makes this one known, with which everything may be done. `None`: whoever reaches it may do everything.
    pub token: Option<Token>,
    /// Certificates by which agents know each other. `None`: by the key of their gossip and the overlay alone.
    pub tls: Option<AgentTls>,
    /// How long raft and serf wait, as a multiple of the shortest: 1 finds a new leader in a second or two and needs hosts
    /// that are never busy for as long; 5 is consul's own default. From 1 to 10.
    pub raft_multiplier: u8,
}

impl ConsulAgentConfig {
    /// This program, with its data in this folder, answering at this socket.
    #[must_use]
    pub fn new(
        program: impl Into<PathBuf>,
        folder: impl Into<PathBuf>,
        socket: impl Into<PathBuf>,
    ) -> Self {
        Self {
            program: program.into(),
            folder: folder.into(),
            socket: socket.into(),
            domain: "consul".to_owned(),
            recursors: Vec::new(),
            datacenter: "dc1".to_owned(),
            token: None,
            tls: None,
            raft_multiplier: 1,
        }
    }

    /// With this domain.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = domain.into();
        self
    }

    /// With these DNS servers for all other names.
    #[must_use]
    pub fn recursors(mut self, recursors: impl IntoIterator<Item = IpAddr>) -> Self {
        self.recursors.extend(recursors);
        self
    }

    /// In this datacenter.
    #[must_use]
    pub fn datacenter(mut self, datacenter: impl Into<String>) -> Self {
        self.datacenter = datacenter.into();
        self
    }

    /// Refusing whoever does not have this ACL token.
    #[must_use]
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// Known to other agents, and knowing them, by these certificates.
    #[must_use]
    pub fn tls(mut self, tls: AgentTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// With this multiplier of raft's and serf's times.
    #[must_use]
    pub const fn raft_multiplier(mut self, multiplier: u8) -> Self {
        self.raft_multiplier = multiplier;
        self
    }

    pub(super) fn validate(&self) -> Result<()> {
        if !(1..=10).contains(&self.raft_multiplier) {
            let message = "raft_multiplier must be from 1 to 10";
            return Err(own(ErrorKind::InvalidInput, message));
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.datacenter.is_empty() || !self.datacenter.chars().all(is_part) {
            let message = format!("{:?} can't be a datacenter", self.datacenter);
            return Err(own(ErrorKind::InvalidInput, message)
                .with_hint("letters, digits, hyphens and underscores, as in dc1"));
        }
        self.tls.as_ref().map_or(Ok(()), AgentTls::validate)
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder.join("consul.json")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// What it says before it can log.
    pub(super) fn stderr(&self) -> PathBuf {
        self.folder.join("stderr")
    }

    /// Which process it is.
    pub(super) fn process(&self) -> PathBuf {
        process_file(&self.folder)
    }

    /// Present from the first start of a founding server until it has a leader.
    pub(super) fn founding(&self) -> PathBuf {
        self.folder.join("founding")
    }

    /// Present while the process may speak under another key than its configuration's.
    pub(super) fn turning(&self) -> PathBuf {
        self.folder.join("turning")
    }

    /// Its configuration (<https://developer.hashicorp.com/consul/docs/agent/config/config-files>), secrets included.
    pub(super) fn rendered(&self, membership: &Membership, founds: bool) -> Result<Value> {
        let me = &membership.me;
        let ip = me.node.discovery();
        let key = gossip_key(membership)?;
        let mut config = json!({
            "node_name": me.name,
            "datacenter": self.datacenter,
            "domain": self.domain,
            "data_dir": self.data(),
            "server": me.role.admits(),
            "bind_addr": ip,
            "advertise_addr": ip,
            "client_addr": ip,
            "addresses": { "http": format!("unix://{} {ip}", self.socket.display()) },
            "unix_sockets": { "mode": "600" },
            // One datacenter, and no service mesh.
            "ports": { "serf_wan": -1, "grpc": -1 },
            "connect": { "enabled": false },
            "encrypt": key.as_str(),
            // Keys turn over: what it is told here is what it begins with.
            "disable_keyring_file": true,
            "performance": {
                "raft_multiplier": self.raft_multiplier,
                // Nobody but its own node asks a server: none has to be let down gently by one that leaves.
                "leave_drain_time": "100ms",
            },
            "recursors": self.recursors,
            // A host that stops is to be back as what it was: only who is told to leave does.
            "leave_on_terminate": false,
            "skip_leave_on_interrupt": true,
            "rejoin_after_leave": true,
            "reconnect_timeout": "72h",
            "session_ttl_min": "1s",
            "limits": { "http_max_conns_per_client": 4096 },
            "log_file": self.logs().join("consul.log"),
            "log_rotate_bytes": LOG_BYTES,
            "log_rotate_max_files": 3,
            "disable_update_check": true,
            "enable_script_checks": false,
        });
        if founds {
            config["bootstrap_expect"] = json!(1);
        }
        guard(&mut config, self, me.role == Role::Boot);
        Ok(config)
    }
}

pub(super) fn process_file(folder: &Path) -> PathBuf {
    folder.join("process.json")
}

/// Where the agents of other servers are: those that this node may join.
pub(super) fn servers(membership: &Membership) -> Vec<Ipv4Addr> {
    let others = membership
        .roster
        .holders()
        .filter(|entry| entry.node != membership.me.node && entry.role.admits());
    others
        .map(|entry| NodeAddr::discovery(entry.node))
        .collect()
}
