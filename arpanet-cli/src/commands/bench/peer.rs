//! What is measured: arpanet2 and others alike.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use arpanet_core::{Error, ErrorKind};
use arpanet_netlink::Namespace;
use serde::{Serialize, Serializer};

use super::names::Question;

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PeerKind {
    Arpanet2,
    Tunnel,
    Swarm,
    Consul,
    WireGuardGo,
    Weave,
    Vxlan,
    Veth,
}

impl PeerKind {
    pub(super) const ALL: [Self; 8] = [
        Self::Arpanet2,
        Self::Tunnel,
        Self::Swarm,
        Self::Consul,
        Self::WireGuardGo,
        Self::Weave,
        Self::Vxlan,
        Self::Veth,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Arpanet2 => "arpanet2",
            Self::Tunnel => "tunnel",
            Self::Swarm => "swarm",
            Self::Consul => "consul",
            Self::WireGuardGo => "wireguard-go",
            Self::Weave => "weave",
            Self::Vxlan => "vxlan",
            Self::Veth => "veth",
        }
    }

    /// What it is.
    pub(super) const fn is(self) -> &'static str {
        match self {
            Self::Arpanet2 => "this program, encrypted",
            Self::Tunnel => {
                "its tunnel alone, between the hosts as wireguard-go's is, encrypted, in the benchmark's process"
            }
            Self::Swarm => "Docker Swarm on the same engines, not encrypted",
            Self::Consul => "consul alone, on the hosts' own network",
            Self::WireGuardGo => "a tunnel of wireguard-go between the hosts, encrypted",
            Self::Weave => {
                "a weave router on each host, encrypted, run by arpanet2 --overlay weave on hosts of its own"
            }
            Self::Vxlan => "the kernel's VXLAN between the hosts, not encrypted: a limit",
            Self::Veth => "the hosts' own links, which all of the others go over: the limit",
        }
    }
}

impl FromStr for PeerKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let known = Self::ALL.iter().find(|peer| peer.name() == name);
        known.copied().ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::new(
                ErrorKind::InvalidInput,
                format!("there is no peer {name:?}"),
            )
            .with_hint(format!("peers are {names}"))
        })
    }
}

impl Serialize for PeerKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Why there is no figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    NotInstalled(String),
    NotApplicable(String),
    Failed(String),
}

impl Why {
    /// Without the reason.
    pub(super) const fn short(&self) -> &'static str {
        match self {
            Self::NotInstalled(_) => "not installed",
            Self::NotApplicable(_) => "not applicable",
            Self::Failed(_) => "failed",
        }
    }

    pub(super) fn installed(reason: impl Into<String>) -> Self {
        Self::NotInstalled(reason.into())
    }

    pub(super) fn applicable(reason: impl Into<String>) -> Self {
        Self::NotApplicable(reason.into())
    }

    pub(super) fn failed(reason: impl Into<String>) -> Self {
        Self::Failed(reason.into())
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NotInstalled(reason) | Self::NotApplicable(reason) | Self::Failed(reason)) =
            self;
        write!(f, "{}: {reason}", self.short())
    }
}

impl From<Error> for Why {
    fn from(error: Error) -> Self {
        let mut reason = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            reason = format!("{reason}: {error}");
            cause = error.source();
        }
        Self::Failed(reason)
    }
}

impl From<std::io::Error> for Why {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// A figure, or why there is none.
pub(super) type Outcome<T> = Result<T, Why>;

/// A way for packets from one host to another.
#[derive(Debug, Clone)]
pub(super) struct Path {
    pub(super) from: Namespace,
    pub(super) to: Namespace,
    /// The other end's address.
    pub(super) ip: Ipv4Addr,
}

/// One that is measured. Hosts are numbered from 1. What it can't be asked for says why, which is no failure.
pub(super) trait Peer: Send + Sync {
    fn kind(&self) -> PeerKind;

    /// Its version, or why it can't be measured here.
    fn version(&self) -> Outcome<String>;

    /// Founds a cluster of the first host.
    fn boot(&self) -> Outcome<()> {
        Err(Why::applicable("it has no cluster"))
    }

    /// Has a further host join.
    fn join(&self, _host: u8) -> Outcome<()> {
        Err(Why::applicable("it has no cluster"))
    }

    /// Takes down all that it has on the hosts. Fine where there is nothing.
    fn leave(&self) -> Outcome<()> {
        Ok(())
    }

    /// Makes what everything but `boot` and `join` needs, once.
    fn settle(&self) -> Outcome<()> {
        Ok(())
    }

    /// Puts a name for the host itself into its catalogue.
    fn register(&self, _host: u8, _name: &str) -> Outcome<()> {
        Err(Why::applicable("it has no catalogue"))
    }

    /// Starts a container that is found by this name.
    fn start(&self, _host: u8, _name: &str) -> Outcome<()> {
        Err(Why::applicable("it runs no containers"))
    }

    /// Takes back what was registered or started under this name.
    fn remove(&self, _host: u8, _name: &str) -> Outcome<()> {
        Ok(())
    }

    /// How this name is asked for on a host.
    fn question(&self, _host: u8, _name: &str) -> Outcome<Question> {
        Err(Why::applicable("it has no DNS"))
    }

    /// From the first host to the second.
    fn path(&self) -> Outcome<Path> {
        Err(Why::applicable("it carries no packets"))
    }

    /// The processes on the first host that are its agent.
    fn agent(&self) -> Outcome<Vec<i32>> {
        Err(Why::applicable("it has no agent"))
    }
}

/// One that is not here.
#[derive(Debug)]
pub(super) struct Absent {
    pub(super) kind: PeerKind,
    pub(super) why: Why,
}

// === impl Absent ===

impl Peer for Absent {
    fn kind(&self) -> PeerKind {
        self.kind
    }

    fn version(&self) -> Outcome<String> {
        Err(self.why.clone())
    }
}
