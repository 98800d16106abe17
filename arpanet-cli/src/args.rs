//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use arpanet_core::{NodeAddr, NodeName};
use clap::{Args, Parser, Subcommand};

use crate::agent::state::{DiscoveryKind, DnsKind, OverlayKind, RuntimeKind, StackKind, Tunnel};
use crate::commands;

/// One cluster of separate docker hosts: an encrypted overlay network with addresses that you can predict, and a service
/// catalogue with DNS.
#[derive(Debug, Parser)]
#[command(
    name = "arpanet2",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Print results as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Read this configuration instead of /etc/arpanet2/config.toml
    #[arg(long, global = true, value_name = "FILE", env = "ARPANET2_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Keep what survives a reboot here [default: /var/lib/arpanet2]
    #[arg(long, global = true, value_name = "DIR", env = "ARPANET2_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Keep the agent's socket and what does not survive a reboot here [default: /run/arpanet2]
    #[arg(long, global = true, value_name = "DIR", env = "ARPANET2_RUN_DIR")]
    pub(crate) run_dir: Option<PathBuf>,
}

/// How this node is found and what it is called.
#[derive(Debug, Clone, Args)]
pub(crate) struct NodeOptions {
    /// The node's name [default: the host's name]
    #[arg(long, env = "ARPANET2_NAME")]
    pub(crate) name: Option<NodeName>,
    /// Where others reach this node, where its own address is not what they see
    #[arg(long, value_name = "IP[:PORT]", env = "ARPANET2_ADVERTISE")]
    pub(crate) advertise: Option<String>,
    /// The port of the join (tcp), of gossip and of the agent's tunnel (udp) [default: 51820]
    #[arg(long, env = "ARPANET2_PORT")]
    pub(crate) port: Option<u16>,
    /// What its containers are [default: docker where an engine's socket is there, or else process]
    #[arg(long, value_enum, env = "ARPANET2_RUNTIME")]
    pub(crate) runtime: Option<RuntimeKind>,
    /// All of overlay, discovery and runtime at once, each unless it is chosen by itself [default: embedded]
    #[arg(long, value_enum, env = "ARPANET2_STACK")]
    pub(crate) stack: Option<StackKind>,
    /// What carries packets between nodes; the same on all nodes of a cluster [default: wireguard]
    #[arg(long, value_enum, env = "ARPANET2_OVERLAY")]
    pub(crate) overlay: Option<OverlayKind>,
    /// Which WireGuard carries the overlay of this node [default: auto]
    #[arg(long, value_enum, env = "ARPANET2_TUNNEL")]
    pub(crate) tunnel: Option<Tunnel>,
    /// The password of a weave network that was there before the cluster; its router on this host is used where one runs
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "ARPANET2_WEAVE_PASSWORD",
        hide_env_values = true
    )]
    pub(crate) weave_password: Option<String>,
    /// Where services are kept; the same on all nodes of a cluster [default: gossip]
    #[arg(long, value_enum, env = "ARPANET2_DISCOVERY")]
    pub(crate) discovery: Option<DiscoveryKind>,
    /// Who answers names of services on this node [default: watch]
    #[arg(long, value_enum, env = "ARPANET2_DNS")]
    pub(crate) dns: Option<DnsKind>,
    /// Stay in the foreground
    #[arg(long)]
    pub(crate) foreground: bool,
}

/// Where the password comes from.
#[derive(Debug, Clone, Args)]
pub(crate) struct PasswordOptions {
    /// Read the password from this file
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

/// Joining, as a server or a client.
#[derive(Debug, Clone, Args)]
pub(crate) struct JoinArgs {
    /// This node's address, A.B
    pub(crate) address: NodeAddr,
    /// PASSWORD SEED-ADDR SEED-IP; PASSWORD is - for standard input, and may be left out with ARPANET2_PASSWORD or
    /// --password-file
    #[arg(required = true, num_args = 2..=3, value_names = ["PASSWORD", "SEED-ADDR", "SEED-IP"])]
    pub(crate) rest: Vec<String>,
    /// Take the address over from a node that is down
    #[arg(long)]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) password: PasswordOptions,
    #[command(flatten)]
    pub(crate) node: NodeOptions,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prepare this host: check it, write its settings, and install the unit where systemd runs
    Setup(commands::setup::SetupArgs),
    /// Found a cluster with this host as its first node
    Boot(commands::boot::BootArgs),
    /// Join a cluster, and admit others
    Server(JoinArgs),
    /// Join a cluster without keeping its password
    Client(JoinArgs),
    /// Bring a node back that is a member already
    Start(commands::start::StartArgs),
    /// Leave the cluster; the address stays this node's own
    Stop,
    /// Leave the cluster for good, and leave nothing on this host
    Reset,
    /// Show this node and its cluster
    Status,
    /// Check this host for what would keep a node from working
    Doctor,
    /// List the nodes
    Nodes,
    /// List the services
    Services,
    /// List, create and remove application networks
    Networks(commands::networks::NetworksArgs),
    /// Print the addresses that a name stands for, one a line
    Resolve(commands::resolve::ResolveArgs),
    /// Tell step by step why one reaches another, or where the way stops
    Why(commands::why::WhyArgs),
    /// Put an instance of a service into the catalogue
    Register(commands::register::RegisterArgs),
    /// Take an instance out of the catalogue
    Deregister(commands::deregister::DeregisterArgs),
    /// Run a container on this node
    Run(Box<commands::run::RunArgs>),
    /// Pull an image, whether or not it is here
    Pull(commands::pull::PullArgs),
    /// List the containers of this node
    Ps,
    /// Print a container's output
    Logs(commands::logs::LogsArgs),
    /// Run a command in a running container
    Exec(commands::exec::ExecArgs),
    /// Stop a container and remove it
    Rm(commands::rm::RmArgs),
    /// Give a running container a further address
    Attach(commands::attach::AttachArgs),
    /// Take an address away from a running container
    Detach(commands::detach::DetachArgs),
    /// Answer at this node's address in a plane again
    Expose(commands::expose::ExposeArgs),
    /// Refuse everybody at this node's address in a plane, until it is exposed again
    Hide(commands::hide::HideArgs),
    /// Remove a dead node from the cluster for good, and turn the cluster's key over
    Forget(commands::forget::ForgetArgs),
    /// Give the cluster a new key while it runs; on a boot or server node
    ///
    /// What members say to each other is sealed with it. Traffic of containers does not depend on it, and goes on. A member that
    /// is down gets the key when it is back. Not with weave, which depends on the key that the cluster was founded with.
    #[command(verbatim_doc_comment)]
    Rekey,
    /// Give the cluster a new password, and a new key with it, while it runs; on a boot or server node
    ///
    /// The old password admits nobody any more, and members need none to come back. Root on such a node may do it without the
    /// old one. Not with weave.
    #[command(verbatim_doc_comment)]
    Passwd(commands::passwd::PasswdArgs),
    /// Take what a node's containers provide out of DNS; they go on
    Drain(commands::drain::DrainArgs),
    /// Have what a drained node's containers provide in DNS again
    Undrain(commands::drain::DrainArgs),
    /// Run the docker client against a node
    Docker(commands::docker::DockerArgs),
    /// Run the consul program against this node's agent
    Consul(commands::consul::ConsulArgs),
    /// Read and change the key-value store, watch it, and run commands under its locks
    Kv(commands::kv::KvArgs),
    /// Print the addresses of a node
    Addr(commands::addr::AddrArgs),
    /// Several hosts on this machine, made of namespaces
    Lab(commands::lab::LabArgs),
    /// Show it all on this machine: three hosts become one cluster, and go again
    Demo,
    /// Measure it beside its peers on this machine, on hosts made of namespaces
    Bench(Box<commands::bench::BenchArgs>),
    /// Print a shell's completions
    Completions(commands::completions::CompletionsArgs),
    /// Print the manual page, or write all of them into a folder
    Man(commands::man::ManArgs),
    /// The agent itself
    #[command(hide = true)]
    Agent,
    /// Keeps one lab host
    #[command(hide = true, disable_help_flag = true)]
    Holder(HiddenArgs),
    /// Serves one web page, in the demo
    #[command(hide = true)]
    Hello(commands::hello::HelloArgs),
    /// Fetches it
    #[command(hide = true)]
    Fetch(commands::hello::FetchArgs),
    /// Keeps one container
    #[command(hide = true, disable_help_flag = true)]
    Shim(HiddenArgs),
    /// Keeps the socket of docker's network driver
    #[command(hide = true, disable_help_flag = true)]
    PluginKeeper(HiddenArgs),
}

/// Handed on as they are.
#[derive(Debug, Clone, Args)]
pub(crate) struct HiddenArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<std::ffi::OsString>,
}

/// An endpoint from `IP` or `IP:PORT`.
pub(crate) fn endpoint(text: &str, port: u16) -> arpanet_core::Result<SocketAddr> {
    text.parse::<SocketAddr>()
        .or_else(|_| text.parse().map(|ip| SocketAddr::new(ip, port)))
        .map_err(|source: std::net::AddrParseError| {
            arpanet_core::Error::new(
                arpanet_core::ErrorKind::InvalidInput,
                format!("{text:?} is not an address on the underlay"),
            )
            .with_hint("write IP or IP:PORT, as in 192.168.8.120 or 192.168.8.120:51820")
            .with_source(source)
        })
}
