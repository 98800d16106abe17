//! Running containers on this node.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::plan::{self, EPOCH_LABEL};
use super::reconcile::Outcome;
use super::view::View;
use super::{Cluster, Node};
use crate::runtime::{Container, ContainerSpec, ContainerState, NetRequest};
use crate::{AppAddr, AppNet, ContainerName, Error, ErrorKind, NodeAddr, Result, ServiceName};

/// The network that is asked for, or that the address is in; none for a /8 address, or by a name.
pub(super) fn net_of(request: &NetRequest) -> Option<AppNet> {
    match request {
        NetRequest::Net(net) => Some(*net),
        NetRequest::Addr(addr) => addr.net(),
        NetRequest::Named(_) => None,
    }
}

impl Cluster {
    /// Runs a container on this node: it is attached before its command starts, and registered when this returns. The
    /// same name with the same spec again does nothing while it runs, and starts it anew when it has ended.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the name is taken by another spec, or by one that is being started, or an address by
    /// another container; [`ErrorKind::NotFound`] for a network's name that nobody gave; [`ErrorKind::Exhausted`] when a
    /// network is full; those of the layers. Nothing is left behind then, nor when this call is dropped before its end: what
    /// could not be removed at once is removed as soon as it can be.
    pub async fn run(&self, spec: &ContainerSpec) -> Result<Container> {
        let node = &self.node;
        let runtime = node.runtime()?;
        let mut rise = Rise::begin(node, spec.name.as_ref())?;
        let name = rise.name.clone();
        let mut spec = spec.clone();
        spec.name = Some(name.clone());
        node.view().resolve_nets(&mut spec)?;
        node.clear_failed(&name).await?;
        match runtime.inspect(&name).await {
            Ok(present) if !plan::satisfies(&present.spec, &spec) => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("there is another container called {name} here"),
                )
                .with_hint("remove it first, or choose another name"));
            }
            Ok(present) if present.state == ContainerState::Running => return Ok(present),
            Ok(_) => runtime.remove(&name).await?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        for request in &spec.nets {
            if let NetRequest::Net(net) = request {
                node.view().check_apart(*net)?;
                node.space(*net).await?;
            }
        }
        let complete = node.complete(&spec, name.clone())?;
        rise.makes(&complete);
        let brought = node.bring_up(&complete, &mut rise).await;
        drop(rise);
        if brought.is_err() {
            if let Err(error) = node.clear_failed(&name).await {
                tracing::warn!(%name, %error, "could not remove a container that did not start; it is tried again");
            }
            node.forget_container(&name, true).await;
        }
        brought
    }

    /// Stops a container with its grace; its addresses and registrations are taken back. Its exit code.
    ///
    /// # Errors
    /// Those of [`Runtime::stop`](crate::Runtime::stop).
    pub async fn stop_container(&self, name: &ContainerName) -> Result<i32> {
        let code = self.node.runtime()?.stop(name).await?;
        self.node.forget_container(name, false).await;
        Ok(code)
    }

    /// Ends a container at once and removes all of it. A second call does nothing.
    ///
    /// # Errors
    /// Those of [`Runtime::remove`](crate::Runtime::remove).
    pub async fn remove(&self, name: &ContainerName) -> Result<()> {
        self.node.runtime()?.remove(name).await?;
        self.node.forget_container(name, true).await;
        Ok(())
    }
}

/// A container that is being brought up. What was made for it is removed at the end of this, unless it is up.
struct Rise<'a> {
    node: &'a Node,
    name: ContainerName,
    addrs: Vec<Ipv4Addr>,
    /// There may be one, and it is not up.
    made: bool,
}

impl<'a> Rise<'a> {
    /// Under this name, or one that nobody has.
    fn begin(node: &'a Node, name: Option<&ContainerName>) -> Result<Self> {
        let mut view = node.view();
        let name = match name {
            Some(name) => name.clone(),
            None => view.unused_name()?,
        };
        if !view.rising.insert(name.clone()) {
            let message = format!("a container called {name} is being started here");
            return Err(Error::new(ErrorKind::Conflict, message)
                .with_hint("wait for it, or choose another name"));
        }
        Ok(Self {
            node,
            name,
            addrs: Vec::new(),
            made: false,
        })
    }

    /// From now on there may be one of this spec.
    fn makes(&mut self, complete: &ContainerSpec) {
        self.made = true;
        let addrs = complete.nets.iter().filter_map(|request| match request {
            NetRequest::Addr(addr) => Some(addr.ip()),
            _ => None,
        });
        self.addrs = addrs.collect();
    }
}

impl Drop for Rise<'_> {
    fn drop(&mut self) {
        let mut view = self.node.view();
        view.rising.remove(&self.name);
        view.settled(self.addrs.drain(..));
        if self.made {
            view.failed.insert(self.name.clone());
            // Where nobody waits for it any more, the task removes it.
            self.node.kick.notify_one();
        }
    }
}

fn no_network(name: &ServiceName) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("there is no network called {name}"),
    )
    .with_hint(format!(
        "make it with: arpanet2 networks create {name} 10.1.0.0/16, or name its CIDR"
    ))
}

impl View {
    fn unused_name(&self) -> Result<ContainerName> {
        let is_free = |name: &ContainerName| {
            !self.containers.contains_key(name)
                && !self.rising.contains(name)
                && !self.failed.contains(name)
        };
        (1u64..)
            .map(|number| format!("c{number}").parse::<ContainerName>())
            .find(|name| name.as_ref().is_ok_and(is_free))
            .unwrap_or_else(|| Err(Error::new(ErrorKind::Exhausted, "no name is left")))
    }

    /// A network by its CIDR where it was named.
    pub(super) fn resolve_net(&self, request: &NetRequest) -> Result<NetRequest> {
        let NetRequest::Named(name) = request else {
            return Ok(request.clone());
        };
        let net = self.network_called(name).ok_or_else(|| no_network(name))?;
        Ok(NetRequest::Net(net))
    }

    fn resolve_nets(&self, spec: &mut ContainerSpec) -> Result<()> {
        for request in &mut spec.nets {
            *request = self.resolve_net(request)?;
        }
        Ok(())
    }

    /// The address that answers a request: the one that is asked for, unless another container holds it, or a free one.
    pub(super) fn place(
        &mut self,
        me: NodeAddr,
        name: &ContainerName,
        request: &NetRequest,
        taken: &BTreeSet<Ipv4Addr>,
    ) -> Result<AppAddr> {
        let addr = match self.resolve_net(request)? {
            NetRequest::Addr(addr) => addr,
            NetRequest::Net(net) => return self.pick(me, net, taken),
            NetRequest::Named(name) => return Err(no_network(&name)),
        };
        match self.records.holder(addr.ip()) {
            Some(holder) if (holder.node, &holder.container) != (me, name) => Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "the address {} is held by {} on node {}",
                    addr.ip(),
                    holder.container,
                    holder.node
                ),
            )
            .with_hint("choose another address, or name only the network")),
            _ => Ok(addr),
        }
    }
}

impl Node {
    /// The spec with all that the cluster decides: addresses, DNS, the age of its claims.
    fn complete(&self, spec: &ContainerSpec, name: ContainerName) -> Result<ContainerSpec> {
        let mut view = self.view();
        let mut taken = view.taken();
        let mut complete = spec.clone();
        let nets: Vec<AppNet> = spec.nets.iter().filter_map(net_of).collect();
        for (index, net) in nets.iter().enumerate() {
            view.check_apart(*net)?;
            if let Some(other) = nets[..index]
                .iter()
                .find(|other| *other != net && other.overlaps(*net))
            {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("{net} overlaps {other}, and networks don't"),
                )
                .with_hint("one of them is enough"));
            }
        }
        for request in &mut complete.nets {
            let addr = view.place(self.me, &name, request, &taken)?;
            taken.insert(addr.ip());
            *request = NetRequest::Addr(addr);
        }
        complete.labels.insert(
            EPOCH_LABEL.to_owned(),
            view.records.next_epoch().to_string(),
        );
        complete.name = Some(name);
        if !complete.nets.is_empty() && complete.dns.is_empty() {
            let resolver = self.resolver();
            complete.dns = resolver.servers;
            complete.dns_search.extend(resolver.search);
        }
        Ok(complete)
    }

    /// Removes a container at once that did not come up: none of its name is to be removed later.
    async fn clear_failed(&self, name: &ContainerName) -> Result<()> {
        // No reconciliation may be about to remove it, and then remove the other.
        let _applied = self.applied.lock().await;
        if self.view().failed.contains(name) {
            self.remove_failed_one(name).await?;
        }
        Ok(())
    }

    /// Removes the containers that did not come up.
    pub(super) async fn remove_failed(&self, outcome: &mut Outcome) {
        let failed = self.view().failed.clone();
        for name in failed {
            if let Err(error) = self.remove_failed_one(&name).await {
                outcome.containers.insert(name, error);
            }
        }
    }

    async fn remove_failed_one(&self, name: &ContainerName) -> Result<()> {
        self.runtime()?.remove(name).await?;
        let mut view = self.view();
        view.failed.remove(name);
        view.containers.remove(name);
        Ok(())
    }

    async fn bring_up(&self, spec: &ContainerSpec, rise: &mut Rise<'_>) -> Result<Container> {
        let runtime = self.runtime()?;
        let created = runtime.create(spec).await;
        if matches!(&created, Err(error) if error.kind() == ErrorKind::Conflict) {
            // Another client made one of that name meanwhile: it is not this node's to remove.
            rise.made = false;
        }
        let container = created?;
        let name = container.name.clone();
        if runtime.capabilities().attach_before_start {
            self.take_in(container).await?;
        }
        runtime.start(&name).await?;
        let container = runtime.inspect(&name).await?;
        self.take_in(container.clone()).await?;
        rise.made = false;
        Ok(container)
    }

    /// Reconciles with a container that is there, or changed, before the watch tells of it.
    async fn take_in(&self, container: Container) -> Result<()> {
        let name = container.name.clone();
        self.view().containers.insert(name.clone(), container);
        self.reconcile()
            .await
            .containers
            .remove(&name)
            .map_or(Ok(()), Err)
    }

    /// Reconciles with a container that ended or is gone, before the watch tells of it.
    async fn forget_container(&self, name: &ContainerName, gone: bool) {
        {
            let mut view = self.view();
            if gone {
                view.containers.remove(name);
            } else if let Some(container) = view.containers.get_mut(name) {
                container.state = ContainerState::Exited { code: 0 };
            }
        }
        if !self.reconcile().await.is_clean() {
            // The task tries again.
            self.kick.notify_one();
        }
    }

    /// Removes what the cluster runs here.
    pub(super) async fn remove_own_containers(&self) -> Result<()> {
        let Some(runtime) = &self.runtime else {
            return Ok(());
        };
        let mut outcomes = Vec::new();
        for container in runtime.list().await? {
            if container.spec.labels.contains_key(EPOCH_LABEL) {
                outcomes.push(runtime.remove(&container.name).await);
            }
        }
        outcomes.into_iter().collect()
    }
}
