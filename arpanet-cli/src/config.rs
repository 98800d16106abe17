//! Settings: flags over environment over file over defaults.

use std::path::{Path, PathBuf};

use arpanet_core::{AppNet, Error, ErrorKind, Result};
use arpanet_docker::DockerConfig;
use serde::Deserialize;

use crate::agent::state::{DiscoveryKind, DnsKind, OverlayKind, RuntimeKind, StackKind, Tunnel};
use crate::args::Global;
use crate::paths::Paths;

/// The maintained fork's.
const WEAVE_IMAGE: &str = "rajchaudhuri/weave:2.9.0";

pub(crate) const DEFAULT_FILE: &str = "/etc/arpanet2/config.toml";

/// The file as `setup` writes it: nothing but comments, each of which can become a setting.
pub(crate) const TEMPLATE: &str = r#"# arpanet2: settings of this host.
# Flags and environment go over this file. Every setting may be left out.

# What survives a reboot, and what does not.
#state_dir = "/var/lib/arpanet2"
#run_dir = "/run/arpanet2"

# The node's name; the host's unless set.
#name = "node1"

# IP[:PORT] where others reach this node, where its own address is not what they see.
#advertise = "192.0.2.7:51820"

# The port of the join (tcp), and of gossip and the agent's tunnel (udp).
#port = 51820

# The domain of all names.
#domain = "consul"

# DNS servers for all other names; the host's own unless set.
#upstreams = ["192.0.2.53:53"]

# Application networks that nothing else on this host may use.
#networks = ["10.1.0.0/16"]

# What the containers of this node are: "docker", or "process" for commands of this host. Docker where an engine's socket is
# there, unless set.
#runtime = "docker"

# The engine's socket.
#docker_socket = "/var/run/docker.sock"

# All of overlay, discovery and runtime at once, each unless it is set by itself: "embedded" (WireGuard, gossip, and docker where
# an engine is there), or "classic" (weave, consul, docker).
#stack = "embedded"

# What carries packets between nodes: "wireguard", with nothing to install, or "weave", which the agents launch. The same on all nodes.
#overlay = "wireguard"

# Which WireGuard carries the overlay of this node: "kernel", which goes on while no agent runs, "user", in the agent, or "auto": the
# kernel's where it is there.
#tunnel = "auto"

# The UDP port of the kernel's, which shares none; one above the port unless set.
#tunnel_port = 51821

# The program weaver, for the overlay weave; the one in PATH unless set.
#weaver = "/usr/local/bin/weaver"

# Weave's image, which the docker engine launches where there is no such program.
#weave_image = "rajchaudhuri/weave:2.9.0"

# Where services are kept: "gossip", in the agents themselves, or "consul", which they run. The same on all nodes.
#discovery = "gossip"

# Who answers names of services on this node: "watch", the node itself by what it was told of the catalogue, or "consul", with
# discovery by consul: consul's own DNS.
#dns = "watch"

# The consul program, for discovery by consul; the one in PATH unless set.
#consul = "/usr/bin/consul"

# The image of consul, which runs in a container of it then. Where neither is set and there is no program, it is the official one.
#consul_image = "hashicorp/consul:1.22"

# Its datacenter; the same on all nodes.
#consul_datacenter = "dc1"

# A file with consul's ACL token, a UUID, that only its owner may read; the same on all nodes. With one, consul refuses whoever
# shows none. The boot node's makes it known, with the right to everything; whoever else is to do less has consul make more.
#consul_token_file = "/etc/arpanet2/consul.token"

# Certificates by which consul's agents know each other (PEM): the authority of all nodes, and this node's own. A server's has
# the name server.DATACENTER.DOMAIN. On all nodes, or on none.
#consul_ca = "/etc/arpanet2/consul-ca.pem"
#consul_certificate = "/etc/arpanet2/consul.pem"
#consul_key = "/etc/arpanet2/consul-key.pem"

# Let every user of this host reach the docker plane, not only root.
#open_docker_plane = false
"#;

/// `config.toml`. Everything may be left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// What survives a reboot.
    pub(crate) state_dir: Option<PathBuf>,
    /// What does not.
    pub(crate) run_dir: Option<PathBuf>,
    /// The node's name.
    pub(crate) name: Option<String>,
    /// `IP[:PORT]` where others reach this node.
    pub(crate) advertise: Option<String>,
    /// The port of the join, of gossip and of the agent's tunnel.
    pub(crate) port: Option<u16>,
    /// The domain of all names; `consul` unless set.
    pub(crate) domain: Option<String>,
    /// DNS servers for all other names; the host's own unless set.
    pub(crate) upstreams: Option<Vec<std::net::SocketAddr>>,
    /// Networks that this host must keep clear of.
    pub(crate) networks: Vec<AppNet>,
    /// What the node's containers are.
    pub(crate) runtime: Option<RuntimeKind>,
    /// All of overlay, discovery and runtime at once.
    pub(crate) stack: Option<StackKind>,
    /// What carries packets between nodes.
    pub(crate) overlay: Option<OverlayKind>,
    /// Which WireGuard carries it.
    pub(crate) tunnel: Option<Tunnel>,
    /// The UDP port of the kernel's.
    pub(crate) tunnel_port: Option<u16>,
    /// The program weaver; the one in `PATH` unless set.
    pub(crate) weaver: Option<PathBuf>,
    /// Weave's image, for a docker engine where there is no program.
    pub(crate) weave_image: Option<String>,
    /// Where services are kept.
    pub(crate) discovery: Option<DiscoveryKind>,
    /// Who answers names of services.
    pub(crate) dns: Option<DnsKind>,
    /// The consul program; the one in `PATH` unless set.
    pub(crate) consul: Option<PathBuf>,
    /// Consul's image; a program of the host unless set.
    pub(crate) consul_image: Option<String>,
    /// Consul's datacenter.
    pub(crate) consul_datacenter: Option<String>,
    /// Where its ACL token is.
    pub(crate) consul_token_file: Option<PathBuf>,
    /// Certificates of its agents: the authority, and this node's own with its key.
    pub(crate) consul_ca: Option<PathBuf>,
    pub(crate) consul_certificate: Option<PathBuf>,
    pub(crate) consul_key: Option<PathBuf>,
    /// The docker engine's socket.
    pub(crate) docker_socket: Option<PathBuf>,
    /// Let every user of this host reach the docker plane, not only root.
    pub(crate) open_docker_plane: bool,
}

impl Config {
    /// Reads the file that the options name, or the default one if it is there.
    pub(crate) fn load(global: &Global) -> Result<Self> {
        let (path, required) = match &global.config {
            Some(path) => (path.as_path(), true),
            None => (Path::new(DEFAULT_FILE), false),
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {
                return Ok(Self::default());
            }
            Err(error) => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("{} can't be read", path.display()),
                )
                .with_source(error));
            }
        };
        toml::from_str(&text).map_err(|source| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("{} is not a configuration", path.display()),
            )
            .with_source(source)
        })
    }

    /// What of weave the docker engine launches.
    pub(crate) fn weave_image(&self) -> &str {
        self.weave_image.as_deref().unwrap_or(WEAVE_IMAGE)
    }

    /// Where the docker engine is.
    pub(crate) fn docker(&self) -> DockerConfig {
        let config = DockerConfig::default();
        match &self.docker_socket {
            Some(socket) => config.socket(socket),
            None => config,
        }
    }

    /// The folders, by the options or by the file.
    pub(crate) fn paths(&self, global: &Global) -> Paths {
        let standard = Paths::default();
        let choose = |flag: &Option<PathBuf>, file: &Option<PathBuf>, standard: &Path| {
            flag.clone()
                .or_else(|| file.clone())
                .unwrap_or_else(|| standard.to_owned())
        };
        Paths::new(
            choose(&global.state_dir, &self.state_dir, standard.state()),
            choose(&global.run_dir, &self.run_dir, standard.run()),
        )
    }
}
