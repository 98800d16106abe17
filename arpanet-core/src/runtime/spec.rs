//! Containers as they are wanted.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Check, PullPolicy};
use crate::addr::PluginBlock;
use crate::{AppAddr, AppNet, ContainerName, Error, Result, ServiceName, Tag};

/// The environment of a container. Values never show in `Debug`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Environment(pub BTreeMap<String, String>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// When a container is started again after it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When it ended with an exit code other than 0.
    OnFailure,
    /// Whenever it ends without having been stopped.
    Always,
}

/// An application network a container is to be in, written as `10.1.0.5/16`, `10.1.0.0/16` or `shop`.
///
/// ```
/// use arpanet_core::runtime::NetRequest;
/// assert!(matches!("10.1.0.5/16".parse()?, NetRequest::Addr(_)));
/// assert!(matches!("10.1.0.0/16".parse()?, NetRequest::Net(_)));
/// assert!(matches!("shop".parse()?, NetRequest::Named(_)));
/// # Ok::<(), arpanet_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum NetRequest {
    /// This very address.
    Addr(AppAddr),
    /// Any free address of this network.
    Net(AppNet),
    /// Any free address of the network with this name.
    Named(ServiceName),
}

impl fmt::Display for NetRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Net(net) => net.fmt(f),
            Self::Named(name) => name.fmt(f),
        }
    }
}

impl FromStr for NetRequest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((ip, prefix)) = text.split_once('/') else {
            return text.parse().map(Self::Named).map_err(|source: Error| {
                Error::new(source.kind(), format!("{text:?} is not a network"))
                    .with_hint("a network is a CIDR, as in 10.1.0.0/16, or a network's name")
            });
        };
        // A network's own address names the network, any other an address of it.
        text.parse().map(Self::Net).or_else(|net: Error| {
            let is_address = prefix == "8" || !ip.ends_with(".0");
            let addr = text.parse().map(Self::Addr);
            addr.map_err(|addr| if is_address { addr } else { net })
        })
    }
}

/// The service a container provides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceRequest {
    /// Its name.
    pub name: ServiceName,
    /// The port, 0 when it has none of interest.
    pub port: u16,
    /// Names within the service.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

impl ServiceRequest {
    /// A service without tags.
    #[must_use]
    pub const fn new(name: ServiceName, port: u16) -> Self {
        Self {
            name,
            port,
            tags: Vec::new(),
        }
    }
}

/// A container as it is wanted.
///
/// ```
/// use arpanet_core::runtime::ContainerSpec;
/// let spec = ContainerSpec::command(["httpd", "-f"])
///     .named("w1".parse()?)
///     .net("10.1.0.0/16".parse()?)
///     .service("web".parse()?, 80);
/// assert!(spec.image.is_none());
/// # Ok::<(), arpanet_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ContainerSpec {
    /// Its name; one is made up where there is none.
    pub name: Option<ContainerName>,
    /// The image; `None` runs a command of the host (in runtimes without images).
    pub image: Option<String>,
    /// When its image is asked of the registry: each time the container is made. Where the registry wants credentials, or
    /// somebody wants to see progress, [pull](super::Runtime::pull) it before, and leave this as it is.
    #[serde(skip_serializing_if = "PullPolicy::is_default")]
    pub pull: PullPolicy,
    /// The command and its arguments; empty runs the image's own.
    pub command: Vec<String>,
    /// Added to the runtime's own environment.
    pub env: Environment,
    /// The user to run as, by name or number; `None` is the image's or the agent's own.
    pub user: Option<String>,
    /// The directory to start in.
    pub workdir: Option<String>,
    /// Started again after it ended?
    pub restart: RestartPolicy,
    /// How long a stop waits between SIGTERM and SIGKILL; 10 s where there is none.
    pub stop_grace: Option<Duration>,
    /// The networks it is in.
    pub nets: Vec<NetRequest>,
    /// The service it provides.
    pub service: Option<ServiceRequest>,
    /// Names that find it in its networks without a service: what docker calls aliases.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<ServiceName>,
    /// What tells whether it should get traffic. All must pass.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// Makes it a plugin: it has this node's address in that block, and the reach of a system part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<PluginBlock>,
    /// DNS servers; the cluster logic fills it.
    pub dns: Vec<Ipv4Addr>,
    /// DNS search domains; the cluster logic fills it.
    pub dns_search: Vec<String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
}

impl ContainerSpec {
    /// Runs an image.
    #[must_use]
    pub fn image(image: impl Into<String>) -> Self {
        Self {
            image: Some(image.into()),
            ..Self::default()
        }
    }

    /// Runs a command of the host.
    #[must_use]
    pub fn command<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// With its image pulled by this policy.
    #[must_use]
    pub const fn pull(mut self, policy: PullPolicy) -> Self {
        self.pull = policy;
        self
    }

    /// With this name.
    #[must_use]
    pub fn named(mut self, name: ContainerName) -> Self {
        self.name = Some(name);
        self
    }

    /// In this network too, at any free address.
    #[must_use]
    pub fn net(mut self, net: AppNet) -> Self {
        self.nets.push(NetRequest::Net(net));
        self
    }

    /// With this address too.
    #[must_use]
    pub fn addr(mut self, addr: AppAddr) -> Self {
        self.nets.push(NetRequest::Addr(addr));
        self
    }

    /// Providing this service.
    #[must_use]
    pub fn service(mut self, name: ServiceName, port: u16) -> Self {
        self.service = Some(ServiceRequest::new(name, port));
        self
    }

    /// Found by this name too.
    #[must_use]
    pub fn alias(mut self, name: ServiceName) -> Self {
        self.aliases.push(name);
        self
    }

    /// With this check.
    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// With this environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.0.insert(name.into(), value.into());
        self
    }

    /// With this label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }
}
