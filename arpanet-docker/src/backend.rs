//! The trait, on the engine's API.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::runtime::{
    Container, ContainerSpec, ContainerState, Exec, ExecSpec, LogOptions, Output, Pull, PullPolicy,
    PullReporter, PullRequest, Resolver, RestartPolicy, Runtime, RuntimeCapabilities,
};
use arpanet_core::watch::Watch;
use arpanet_core::{ContainerName, Error, ErrorKind, Result};
use async_trait::async_trait;
use bollard::models::{ContainerUpdateBody, RestartPolicy as Restart, RestartPolicyNameEnum};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectNetworkOptions, RemoveContainerOptionsBuilder,
    StartContainerOptions, StopContainerOptionsBuilder,
};
use ipnet::Ipv4Net;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::client::{LOOK, WORK};
use crate::config::DockerConfig;
use crate::error::{BACKEND, own};
use crate::keep::Keep;
use crate::spec::{self, Seen};
use crate::turns::{Turns, whole};
use crate::view::View;
use crate::watch::Following;
use crate::{exec, image, logs, resolver};

/// How long a stop waits where neither the spec nor the container says.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// How long the engine may still be at a container that it has answered for.
const SETTLING: Duration = Duration::from_secs(30);

/// Between two looks that nothing tells the time for.
const PAUSE: Duration = Duration::from_millis(10);

/// [`Runtime`] on a docker engine, or Podman's by the same API. See the crate's documentation.
///
/// Clones are the same runtime. Dropping the last one ends its watches and leaves the containers as they are.
#[derive(Debug, Clone)]
pub struct DockerRuntime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    view: Arc<View>,
    turns: Turns,
    following: Following,
}

impl DockerRuntime {
    /// The runtime of the engine that the configuration names. Nothing is asked yet: calls answer
    /// [`ErrorKind::Unavailable`] until it is there, and it is found again after it was restarted.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], with its path, for a damaged file of labels.
    pub fn open(config: DockerConfig) -> Result<Self> {
        let keep = Keep::open(config.labels)?;
        let inner = Inner {
            view: Arc::new(View::new(config.socket, keep)),
            turns: Turns::default(),
            following: Following::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The same, of an engine that has to answer now.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`], with the socket, when no engine answers there; [`ErrorKind::PermissionDenied`];
    /// those of [`open`](Self::open).
    pub async fn connect(config: DockerConfig) -> Result<Self> {
        let runtime = Self::open(config)?;
        runtime.version().await?;
        Ok(runtime)
    }

    /// The engine's version, as `20.10.24`.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when it does not answer.
    pub async fn version(&self) -> Result<String> {
        let client = &self.inner.view.client;
        let version = client
            .ask(LOOK, |docker| async move { docker.version().await })
            .await
            .map_err(|error| error.operation("connect to the engine"))?;
        Ok(version.version.unwrap_or_default())
    }

    /// Has all running containers ask those for names that the engine gave them, whoever told them otherwise: for a host
    /// that is given back. A second call does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the engine does not answer; otherwise the first failure, after everything was tried.
    pub async fn release_resolvers(&self) -> Result<()> {
        let released = resolver::release_all(&self.inner.view).await;
        released.map_err(|error| error.operation("give name servers back"))
    }

    /// A change of a container, in its turn and to its end.
    async fn change<T: Send + 'static, F>(
        &self,
        operation: &'static str,
        name: &ContainerName,
        change: impl FnOnce(Arc<Inner>, ContainerName) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let change = change(Arc::clone(&self.inner), name.clone());
        let outcome = self.inner.turns.take(name, change).await;
        outcome.map_err(|error| error.operation(operation))
    }
}

impl Inner {
    async fn create(self: Arc<Self>, given: ContainerSpec) -> Result<Container> {
        let name = spec::check(&given)?;
        let body = spec::body(&given, name)?;
        if given.pull == PullPolicy::Always {
            match self.view.named(name).await {
                Ok(held) => return found(held, &given),
                Err(error) if error.kind() == ErrorKind::NotFound => self.pull(&given).await?,
                Err(error) => return Err(error),
            }
        }
        let due = Instant::now() + SETTLING;
        loop {
            let refusal = match self.make(name, &body).await {
                Ok(()) => {
                    let made = self.view.named(name).await?.container;
                    self.following.look_at(&made.id);
                    return Ok(made);
                }
                Err(error) => error,
            };
            match refusal.kind() {
                // The name is taken.
                ErrorKind::Conflict => match self.view.named(name).await {
                    Ok(held) => return found(held, &given),
                    // On its way out.
                    Err(error) if error.kind() == ErrorKind::NotFound && Instant::now() < due => {
                        sleep(PAUSE).await;
                    }
                    Err(_) => return Err(refusal),
                },
                ErrorKind::NotFound => {
                    self.pull(&given).await?;
                    if Instant::now() > due + WORK {
                        return Err(refusal);
                    }
                }
                _ => return Err(refusal),
            }
        }
    }

    /// Has a container's image made present, by nobody's credentials.
    async fn pull(&self, spec: &ContainerSpec) -> Result<()> {
        let image = spec.image.as_deref().unwrap_or_default();
        let request = PullRequest::new(image).policy(spec.pull);
        let pulled = image::pull(&self.view.client, &request, &PullReporter::default()).await;
        pulled.map(drop)
    }

    async fn make(
        &self,
        name: &ContainerName,
        body: &bollard::models::ContainerCreateBody,
    ) -> Result<()> {
        let options = CreateContainerOptionsBuilder::default()
            .name(name.as_str())
            .build();
        self.view
            .client
            .ask(WORK, |docker| async move {
                docker.create_container(Some(options), body.clone()).await
            })
            .await
            .map(drop)
    }

    async fn start(self: Arc<Self>, name: ContainerName) -> Result<()> {
        let seen = self.view.named(&name).await?;
        self.restarts(&seen, RestartPolicyNameEnum::ALWAYS).await?;
        let id = seen.container.id;
        let which = id.as_str();
        let asked = self
            .view
            .client
            .ask(WORK, |docker| async move {
                docker
                    .start_container(which, None::<StartContainerOptions>)
                    .await
            })
            .await;
        let Err(error) = asked else {
            self.following.look_at(&id);
            return Ok(());
        };
        if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) {
            return Err(error);
        }
        // Engines differ in how they answer for a command that can't be started; all keep a shell's code for it.
        let seen = self.view.named(&name).await?;
        if matches!(seen.code, 126 | 127) {
            let message = format!("{name} can't be started: {error}");
            return Err(own(ErrorKind::InvalidInput, message));
        }
        Err(error)
    }

    /// Has the engine start one that is to run always by this policy from now on. `always` while it runs: an engine that was
    /// killed ends what it finds running when it is back, and takes that for having been stopped, after which
    /// `unless-stopped` starts nothing. That one once it is stopped, so that it stays so.
    async fn restarts(&self, seen: &Seen, policy: RestartPolicyNameEnum) -> Result<()> {
        let always = seen.given.as_ref().map(|given| given.restart) == Some(RestartPolicy::Always);
        if !always || seen.policy == Some(policy) {
            return Ok(());
        }
        let which = seen.container.id.as_str();
        let body = ContainerUpdateBody {
            restart_policy: Some(Restart {
                name: Some(policy),
                maximum_retry_count: None,
            }),
            ..ContainerUpdateBody::default()
        };
        let changed = self.view.client.ask(WORK, |docker| async move {
            docker.update_container(which, body).await
        });
        match changed.await {
            // It is gone, which what follows tells; or an engine can't: Podman before 5.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    async fn stop(self: Arc<Self>, name: ContainerName) -> Result<i32> {
        let seen = self.view.named(&name).await?;
        self.restarts(&seen, RestartPolicyNameEnum::UNLESS_STOPPED)
            .await?;
        match seen.container.state {
            ContainerState::Exited { code } if !seen.restarting => return Ok(code),
            ContainerState::Created => return Ok(0),
            _ => {}
        }
        let grace = seen.grace.unwrap_or(STOP_GRACE);
        let seconds = i32::try_from(spec::whole_seconds(grace)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        let id = seen.container.id;
        let limit = WORK.saturating_add(grace);
        let ended = async {
            let which = id.as_str();
            let client = &self.view.client;
            client
                .ask(limit, |docker| async move {
                    docker.stop_container(which, Some(options)).await
                })
                .await
        };
        // One that removes itself at its end takes its code with it, unless somebody waits for it.
        let code = self.code(&id, limit);
        tokio::pin!(code, ended);
        let mut told = None;
        let stopped = loop {
            tokio::select! {
                biased;
                code = &mut code, if told.is_none() => told = Some(code),
                stopped = &mut ended => break stopped,
            }
        };
        match stopped {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other?,
        }
        let gone = async {
            match told {
                Some(told) => told,
                None => code.await,
            }
        };
        let due = Instant::now() + SETTLING;
        loop {
            match self.view.named(&name).await {
                Ok(seen) if seen.container.id == id => match seen.container.state {
                    ContainerState::Exited { code } if !seen.restarting => return Ok(code),
                    _ if Instant::now() < due => sleep(PAUSE).await,
                    _ => {
                        let message = format!("{name} does not end");
                        return Err(own(ErrorKind::Timeout, message));
                    }
                },
                Ok(_) => return gone.await,
                Err(error) if error.kind() == ErrorKind::NotFound => return gone.await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for the end of a container that runs.
    async fn code(&self, id: &str, limit: Duration) -> Result<i32> {
        use bollard::errors::Error as Failure;
        use bollard::query_parameters::WaitContainerOptions;
        use futures_util::StreamExt;
        let docker = self.view.client.engine(limit).await?;
        let mut ends = docker.wait_container(id, None::<WaitContainerOptions>);
        let end = tokio::time::timeout(limit, ends.next()).await;
        let code = match end.unwrap_or(Some(Err(Failure::RequestTimeoutError))) {
            Some(Ok(end)) => end.status_code,
            Some(Err(Failure::DockerContainerWaitError { code, .. })) => code,
            Some(Err(failure)) => return Err(self.view.client.failed(failure)),
            None => return Err(own(ErrorKind::Unavailable, "the engine does not wait")),
        };
        Ok(i32::try_from(code).unwrap_or(i32::MAX))
    }

    async fn remove(self: Arc<Self>, name: ContainerName) -> Result<()> {
        let due = Instant::now() + SETTLING;
        loop {
            let id = match self.view.named(&name).await {
                Ok(seen) => seen.container.id,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            let options = RemoveContainerOptionsBuilder::default()
                .force(true)
                .v(true)
                .build();
            let which = id.as_str();
            let asked = self
                .view
                .client
                .ask(WORK, |docker| async move {
                    docker.remove_container(which, Some(options)).await
                })
                .await;
            match asked {
                Ok(()) => {
                    self.view.forget([&id]);
                    self.following.look_at(&id);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                // Somebody else removes it.
                Err(error) if error.kind() == ErrorKind::Conflict && Instant::now() < due => {
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn set_label(
        self: Arc<Self>,
        name: ContainerName,
        label: String,
        value: Option<String>,
    ) -> Result<()> {
        let seen = self.view.named(&name).await?;
        let id = &seen.container.id;
        self.view
            .keep
            .set(id, &label, value, seen.own_labels.get(&label))?;
        self.view.reconsider(id);
        self.following.look_at(id);
        Ok(())
    }
}

/// One that has the name already.
fn found(held: Seen, wanted: &ContainerSpec) -> Result<Container> {
    if held.given.as_ref() == Some(wanted) {
        return Ok(held.container);
    }
    let name = &held.container.name;
    let message = match held.given {
        Some(_) => format!("there is a container {name} with another spec"),
        None => format!("there is a container {name} that another docker client made"),
    };
    Err(own(ErrorKind::Conflict, message))
}

#[async_trait]
impl Runtime for DockerRuntime {
    fn name(&self) -> &'static str {
        BACKEND
    }

    fn capabilities(&self) -> RuntimeCapabilities {
        // The engine makes a container's namespace when it starts it.
        RuntimeCapabilities::all().without_attach_before_start()
    }

    async fn pull(&self, request: &PullRequest) -> Result<Pull> {
        spec::check_image(&request.image).map_err(|error| error.operation("pull"))?;
        let (inner, request) = (Arc::clone(&self.inner), request.clone());
        Ok(Pull::spawn(async move |reporter| {
            let pulled = image::pull(&inner.view.client, &request, &reporter).await;
            pulled.map_err(|error| error.operation("pull"))
        }))
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<Container> {
        let name = spec::check(spec).map_err(|error| error.operation("create"))?;
        let spec = spec.clone();
        self.change("create", name, |inner, _| inner.create(spec))
            .await
    }

    async fn start(&self, name: &ContainerName) -> Result<()> {
        self.change("start", name, Inner::start).await
    }

    async fn stop(&self, name: &ContainerName) -> Result<i32> {
        // Not in its turn: who wants to remove it need not wait for its grace.
        whole(Arc::clone(&self.inner).stop(name.clone()))
            .await
            .map_err(|error| error.operation("stop"))
    }

    async fn remove(&self, name: &ContainerName) -> Result<()> {
        self.change("remove", name, Inner::remove).await
    }

    async fn inspect(&self, name: &ContainerName) -> Result<Container> {
        let seen = self.inner.view.named(name).await;
        let seen = seen.map_err(|error| error.operation("inspect"))?;
        Ok(seen.container)
    }

    async fn list(&self) -> Result<Vec<Container>> {
        let all = self.inner.view.all().await;
        all.map_err(|error| error.operation("list containers"))
    }

    /// One of an engine that is away, or does not answer within five seconds, begins without a list: it is
    /// [stale](arpanet_core::watch::Change::Stale) until the engine does.
    async fn watch(&self) -> Result<Watch<ContainerName, Container>> {
        Ok(self.inner.following.watch(&self.inner.view).await)
    }

    async fn logs(
        &self,
        name: &ContainerName,
        options: LogOptions,
    ) -> Result<mpsc::Receiver<Output>> {
        let logs = logs::read(&self.inner.view, name, options).await;
        logs.map_err(|error: Error| error.operation("read logs"))
    }

    async fn exec(&self, name: &ContainerName, spec: &ExecSpec) -> Result<Exec> {
        let view = Arc::clone(&self.inner.view);
        whole(exec::exec(view, name.clone(), spec.clone()))
            .await
            .map_err(|error| error.operation("exec"))
    }

    async fn set_label(
        &self,
        name: &ContainerName,
        label: &str,
        value: Option<String>,
    ) -> Result<()> {
        let label = label.to_owned();
        self.change("set a label", name, |inner, name| {
            inner.set_label(name, label, value)
        })
        .await
    }

    /// It is the file that the engine has bound over `/etc/resolv.conf`, which it writes anew at each start. A container in a
    /// network of the engine's own, other than its default bridge, keeps the engine's resolver.
    async fn set_resolver(&self, name: &ContainerName, resolver: Option<Resolver>) -> Result<bool> {
        self.change("set a resolver", name, |inner, name| async move {
            resolver::set(&inner.view, &name, resolver).await
        })
        .await
    }

    async fn bridge_address(&self) -> Result<Option<Ipv4Addr>> {
        let asked = self
            .inner
            .view
            .client
            .ask(LOOK, |docker| async move {
                docker
                    .inspect_network("bridge", None::<InspectNetworkOptions>)
                    .await
            })
            .await;
        let network = match asked {
            Ok(network) => network,
            // The engine was started without.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.operation("find the bridge")),
        };
        let pools = network.ipam.and_then(|ipam| ipam.config);
        let pools = pools.unwrap_or_default().into_iter();
        Ok(pools
            .filter_map(|pool| pool.gateway.or(pool.subnet))
            .find_map(|text| gateway(&text)))
    }
}

/// A bridge's address by its gateway, or by its subnet: without a gateway of its own the engine takes the first address, and
/// does not tell it before it was restarted once.
fn gateway(text: &str) -> Option<Ipv4Addr> {
    match text.parse::<Ipv4Net>() {
        Ok(subnet) if subnet.addr() == subnet.network() => subnet.hosts().next(),
        Ok(gateway) => Some(gateway.addr()),
        Err(_) => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::gateway;

    #[test]
    fn a_bridge_without_a_gateway_has_the_first_address() {
        for (text, wanted) in [
            ("172.17.0.1", Some("172.17.0.1")),
            ("172.17.0.9/16", Some("172.17.0.9")),
            ("172.17.0.0/16", Some("172.17.0.1")),
            ("fd00::1", None),
            ("fd00::/64", None),
        ] {
            let wanted = wanted.map(|ip| ip.parse().unwrap());
            assert_eq!(gateway(text), wanted, "{text}");
        }
    }
}
