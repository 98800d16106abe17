//! The runtime layer: containers on this host.

mod check;
mod host;
mod pull;
mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use self::check::{Check, EngineHealth, Probe};
pub use self::host::{HostEngine, HostProgram};
pub use self::pull::{
    Pull, PullPhase, PullPolicy, PullProgress, PullReporter, PullRequest, PulledImage,
    RegistryCredentials,
};
pub use self::spec::{ContainerSpec, Environment, NetRequest, RestartPolicy, ServiceRequest};

use crate::overlay::NetNamespace;
use crate::watch::Watch;
use crate::{ContainerName, Error, Result, ServiceName};

/// What a runtime can do. What it can't do answers [`Unsupported`](crate::ErrorKind::Unsupported), at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RuntimeCapabilities {
    /// Runs images, and can pull them. Otherwise it runs commands of the host.
    pub images: bool,
    /// Containers can be attached between create and start.
    pub attach_before_start: bool,
    /// Can run a command in a running container.
    pub exec: bool,
    /// Can change the labels of a container that is there.
    pub relabel: bool,
    /// Can change whom a running container asks for names.
    pub resolver: bool,
}

impl RuntimeCapabilities {
    /// Everything.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            images: true,
            attach_before_start: true,
            exec: true,
            relabel: true,
            resolver: true,
        }
    }

    /// Without images.
    #[must_use]
    pub const fn without_images(mut self) -> Self {
        self.images = false;
        self
    }

    /// Without exec.
    #[must_use]
    pub const fn without_exec(mut self) -> Self {
        self.exec = false;
        self
    }

    /// Without changes of labels.
    #[must_use]
    pub const fn without_relabel(mut self) -> Self {
        self.relabel = false;
        self
    }

    /// Without changes of whom containers ask for names.
    #[must_use]
    pub const fn without_resolver(mut self) -> Self {
        self.resolver = false;
        self
    }

    /// Attaches only after the start.
    #[must_use]
    pub const fn without_attach_before_start(mut self) -> Self {
        self.attach_before_start = false;
        self
    }
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Running.
    Running,
    /// Ended with this exit code; 128 + N after signal N.
    Exited {
        /// The exit code.
        code: i32,
    },
}

/// Whom a container asks for names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Resolver {
    /// The name servers.
    pub servers: Vec<Ipv4Addr>,
    /// The domains that short names are looked for in, before those that the container has by itself.
    pub search: Vec<String>,
}

impl Resolver {
    /// These name servers.
    #[must_use]
    pub fn new(servers: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        Self {
            servers: servers.into_iter().collect(),
            search: Vec::new(),
        }
    }

    /// Looks for short names in this domain too.
    #[must_use]
    pub fn search(mut self, domain: impl Into<String>) -> Self {
        self.search.push(domain.into());
        self
    }
}

/// A container as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Container {
    /// Its name, alone on this host.
    pub name: ContainerName,
    /// The runtime's own id for it.
    pub id: String,
    /// As it was wanted.
    pub spec: ContainerSpec,
    /// What it is doing.
    pub state: ContainerState,
    /// Its network namespace, while it has one.
    pub namespace: Option<NetNamespace>,
    /// When it was made.
    pub created: SystemTime,
    /// What the engine's own check says; `None` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<EngineHealth>,
    /// What can't be read of what it wants, a sentence for each (see [`label::read`](crate::label::read)).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Names that find it at one of its addresses, beside the [aliases](ContainerSpec::aliases) that find it at all of them:
    /// what the engine's own networks call it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<Ipv4Addr, BTreeSet<ServiceName>>,
}

impl Container {
    /// A container that was just created.
    #[must_use]
    pub fn new(
        name: ContainerName,
        id: impl Into<String>,
        spec: ContainerSpec,
        created: SystemTime,
    ) -> Self {
        Self {
            name,
            id: id.into(),
            spec,
            state: ContainerState::Created,
            namespace: None,
            created,
            health: None,
            problems: Vec::new(),
            names: BTreeMap::new(),
        }
    }

    /// In this state.
    #[must_use]
    pub const fn state(mut self, state: ContainerState) -> Self {
        self.state = state;
        self
    }

    /// With this health by the engine's own check.
    #[must_use]
    pub const fn health(mut self, health: Option<EngineHealth>) -> Self {
        self.health = health;
        self
    }

    /// With what can't be read of what it wants.
    #[must_use]
    pub fn problems(mut self, problems: Vec<String>) -> Self {
        self.problems = problems;
        self
    }

    /// Found at this address by these names too.
    #[must_use]
    pub fn known_as(mut self, ip: Ipv4Addr, names: impl IntoIterator<Item = ServiceName>) -> Self {
        self.names.entry(ip).or_default().extend(names);
        self
    }

    /// With this namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: Option<NetNamespace>) -> Self {
        self.namespace = namespace;
        self
    }
}

/// Which of the two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// Which stream it was written to.
    pub stream: OutputStream,
    /// The bytes, as written; no line structure is promised.
    pub bytes: Bytes,
}

impl Output {
    /// A piece of output.
    #[must_use]
    pub const fn new(stream: OutputStream, bytes: Bytes) -> Self {
        Self { stream, bytes }
    }
}

/// Which part of a container's output to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogOptions {
    /// Only the last this many lines of what there is.
    pub tail: Option<usize>,
    /// Go on with what comes, until the container is removed or the reader drops.
    pub follow: bool,
    /// Only what was written since then.
    pub since: Option<SystemTime>,
}

impl LogOptions {
    /// All there is.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            tail: None,
            follow: false,
            since: None,
        }
    }

    /// Only the last lines.
    #[must_use]
    pub const fn tail(mut self, lines: usize) -> Self {
        self.tail = Some(lines);
        self
    }

    /// And what comes.
    #[must_use]
    pub const fn follow(mut self) -> Self {
        self.follow = true;
        self
    }

    /// Only what was written since then.
    #[must_use]
    pub const fn since(mut self, since: SystemTime) -> Self {
        self.since = Some(since);
        self
    }
}

/// A command to run in a running container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ExecSpec {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Added to the container's environment.
    pub env: Environment,
    /// On a terminal of this size (columns, rows); both output streams are one then.
    pub terminal: Option<(u16, u16)>,
}

impl ExecSpec {
    /// A command without a terminal.
    #[must_use]
    pub fn new<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

/// What is sent to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExecInput {
    /// Bytes for its standard input.
    Data(Bytes),
    /// The terminal's new size: columns, rows.
    Resize(u16, u16),
}

/// What comes from a command.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExecOutput {
    /// A piece of output.
    Output(Output),
    /// It ended with this exit code (128 + N after signal N); nothing comes after that.
    Exited(i32),
}

/// A running command. Dropping `input` closes its standard input; dropping both ends kills it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Exec {
    /// To the command; bounded, so a command that does not read slows the writer.
    pub input: mpsc::Sender<ExecInput>,
    /// From the command; bounded, so a reader that does not read slows the command.
    pub output: mpsc::Receiver<ExecOutput>,
}

impl Exec {
    /// The two ends of a running command.
    #[must_use]
    pub const fn new(input: mpsc::Sender<ExecInput>, output: mpsc::Receiver<ExecOutput>) -> Self {
        Self { input, output }
    }
}

/// Containers on this host.
///
/// The contract, for every backend:
/// - Every call is idempotent; what a second call does is said at each. Removing what is not there succeeds.
/// - Dropping a call's future at any point leaves nothing behind, or something that the same call finishes.
/// - Containers outlive the process that made them; [`list`](Runtime::list) after a restart finds them all.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Runtime: fmt::Debug + Send + Sync + 'static {
    /// The backend's name: `docker`, `process`, `memory`.
    fn name(&self) -> &'static str;

    /// What it can do. Constant for one backend in one configuration.
    fn capabilities(&self) -> RuntimeCapabilities;

    /// Begins to make an image present; how far it is and how it ends is told by the [`Pull`]. An image that is present is
    /// not pulled again, unless its registry is asked [always](PullPolicy::Always). Dropping the pull gives it up: what has
    /// come by then may stay, and the same call finishes it.
    ///
    /// # Errors
    /// At once: [`Unsupported`](crate::ErrorKind::Unsupported) without images;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for what can't be an image's name. At the end:
    /// [`NotFound`](crate::ErrorKind::NotFound) for an image that its registry does not have, or that is not here and
    /// [never](PullPolicy::Never) to be pulled; [`Unauthenticated`](crate::ErrorKind::Unauthenticated) or
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) as the registry says;
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when it can't be reached.
    async fn pull(&self, request: &PullRequest) -> Result<Pull> {
        let _ = request;
        Err(Error::unsupported(self.name(), "pull images"))
    }

    /// Makes a container, with a namespace that it can be attached by where the backend can attach before the start.
    /// The same name and spec again: answers with the one that is there. Otherwise its image is made present first, as
    /// [the spec](ContainerSpec::pull) says, by nobody's credentials.
    ///
    /// # Errors
    /// Those of [`pull`](Runtime::pull); [`Conflict`](crate::ErrorKind::Conflict) when the name is taken by another spec;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a spec without a name, or that this backend can't run.
    async fn create(&self, spec: &ContainerSpec) -> Result<Container>;

    /// Starts it. A second call does nothing while it runs.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for an unknown one;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when its command can't be started, saying why.
    async fn start(&self, name: &ContainerName) -> Result<()>;

    /// Stops it: SIGTERM, its grace, SIGKILL; returns when it has ended, with its exit code. One that has ended already
    /// answers at once.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for an unknown one.
    async fn stop(&self, name: &ContainerName) -> Result<i32>;

    /// Ends it at once and removes all of it, logs included. A second call does nothing.
    ///
    /// # Errors
    /// None of its own.
    async fn remove(&self, name: &ContainerName) -> Result<()>;

    /// One container.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for an unknown one.
    async fn inspect(&self, name: &ContainerName) -> Result<Container>;

    /// All containers that arpanet2 made or looks after, sorted by name.
    ///
    /// # Errors
    /// None of its own.
    async fn list(&self) -> Result<Vec<Container>>;

    /// All containers as they change: first a snapshot; after a lost connection to the engine a snapshot again, so no
    /// event is lost for good.
    ///
    /// # Errors
    /// None of its own.
    async fn watch(&self) -> Result<Watch<ContainerName, Container>>;

    /// A container's output.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for an unknown one.
    async fn logs(
        &self,
        name: &ContainerName,
        options: LogOptions,
    ) -> Result<mpsc::Receiver<Output>>;

    /// Runs a command in a running container.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for an unknown container,
    /// [`Unavailable`](crate::ErrorKind::Unavailable) for one that does not run,
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the command can't be started, saying why.
    async fn exec(&self, name: &ContainerName, spec: &ExecSpec) -> Result<Exec> {
        let _ = (name, spec);
        Err(Error::unsupported(
            self.name(),
            "run commands in containers",
        ))
    }

    /// Gives a container's label this value, or takes the label away: [`inspect`](Runtime::inspect) and the others show it
    /// from then on, as long as the container is there. [`create`](Runtime::create) goes on to compare with the spec as it
    /// was given. A backend whose engine can't change labels keeps them beside it. The same again does nothing.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for an unknown one;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without [`relabel`](RuntimeCapabilities::relabel).
    async fn set_label(
        &self,
        name: &ContainerName,
        label: &str,
        value: Option<String>,
    ) -> Result<()> {
        let _ = (name, label, value);
        Err(Error::unsupported(self.name(), "change labels"))
    }

    /// Has a running container ask these name servers from now on; with `None`, those that its engine gave it. A container
    /// whose maker named servers, or whose engine answers for networks of its own, keeps what it has. Answers whether it
    /// asks these. It holds until the container ends: after each start it is to be said again. The same again does nothing.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for an unknown one; [`Unavailable`](crate::ErrorKind::Unavailable) for one
    /// that does not run; [`Unsupported`](crate::ErrorKind::Unsupported) without
    /// [`resolver`](RuntimeCapabilities::resolver).
    async fn set_resolver(&self, name: &ContainerName, resolver: Option<Resolver>) -> Result<bool> {
        let _ = (name, resolver);
        Err(Error::unsupported(
            self.name(),
            "change whom containers ask for names",
        ))
    }

    /// The address of the bridge that containers without an overlay address reach their host by; `None` where there is
    /// no such bridge.
    ///
    /// # Errors
    /// None of its own.
    async fn bridge_address(&self) -> Result<Option<Ipv4Addr>> {
        Ok(None)
    }
}
