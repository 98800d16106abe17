//! Giving running containers of this node further addresses, and taking them away.

use std::net::Ipv4Addr;

use super::containers::net_of;
use super::given::{self, GIVEN_LABEL, Given};
use super::{Cluster, Node};
use crate::runtime::{Container, ContainerState, NetRequest};
use crate::{AppAddr, ContainerName, Error, ErrorKind, Result};

impl Cluster {
    /// The addresses that a container is to have: its spec's, and what was changed by [`attach`](Self::attach) and
    /// [`detach`](Self::detach) since.
    #[must_use]
    pub fn addresses(container: &Container) -> Vec<AppAddr> {
        given::addresses(&container.spec)
            .into_iter()
            .map(|(addr, _)| addr)
            .collect()
    }

    /// Gives a container of this node a further address, or any free one of a network, and registers the service that it
    /// provides there. The container keeps it as long as it exists, also when it or the agent is restarted. An address
    /// that it has already, or a network that it is in already, changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown container, [`ErrorKind::Unavailable`] for one that has ended;
    /// [`ErrorKind::Conflict`] when the address is another container's, or the network overlaps another, which is named;
    /// [`ErrorKind::Exhausted`] when the network is full; those of the layers. All is as before then.
    pub async fn attach(&self, name: &ContainerName, request: NetRequest) -> Result<AppAddr> {
        let node = &self.node;
        let _turn = node.attaching.lock().await;
        let container = node.runtime()?.inspect(name).await?;
        if let ContainerState::Exited { .. } = container.state {
            let message = format!("the container {name} has ended");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let request = node.view().resolve_net(&request)?;
        let before = Given::of(&container.spec);
        let held = Self::addresses(&container)
            .into_iter()
            .find(|held| match &request {
                NetRequest::Addr(addr) => held == addr,
                NetRequest::Net(net) => held.net() == Some(*net),
                NetRequest::Named(_) => false,
            });
        let (addr, given) = match held {
            Some(held) => (held, before.clone()),
            None => {
                if let NetRequest::Net(net) = &request {
                    node.view().check_apart(*net)?;
                    node.space(*net).await?;
                }
                let mut view = node.view();
                if let Some(net) = net_of(&request) {
                    view.check_apart(net)?;
                }
                let addr = {
                    let taken = view.taken();
                    view.place(node.me, name, &request, &taken)?
                };
                let given = before.clone().and(addr, view.records.next_epoch());
                (addr, given)
            }
        };
        let attached = match node.give(name, &given).await {
            Ok(()) => node.keeps(name, addr).await,
            Err(error) => Err(error),
        };
        node.view().settled([addr.ip()]);
        if attached.is_err()
            && let Err(error) = node.give(name, &before).await
        {
            tracing::warn!(%name, %addr, %error, "could not take an address back that was not attached");
        }
        attached.map(|()| addr)
    }

    /// Takes an address away from a container of this node, whether it was given by [`attach`](Self::attach) or stands
    /// in its spec; what it provides there leaves the catalogue first. One that it does not have changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown container; those of the layers, and then the address is taken away as soon
    /// as they can.
    pub async fn detach(&self, name: &ContainerName, ip: Ipv4Addr) -> Result<()> {
        let node = &self.node;
        let _turn = node.attaching.lock().await;
        let container = node.runtime()?.inspect(name).await?;
        let given = Given::of(&container.spec).without(&container.spec, ip);
        node.give(name, &given).await
    }
}

impl Node {
    /// Keeps what was given in the container's label, and brings it about.
    async fn give(&self, name: &ContainerName, given: &Given) -> Result<()> {
        let runtime = self.runtime()?;
        let mut container = runtime.inspect(name).await?;
        if Given::of(&container.spec) != *given {
            runtime.set_label(name, GIVEN_LABEL, given.label()).await?;
            container = runtime.inspect(name).await?;
        }
        self.view().containers.insert(name.clone(), container);
        let mut outcome = self.reconcile().await;
        if !outcome.is_clean() {
            // The task tries again.
            self.kick.notify_one();
        }
        match outcome.containers.remove(name) {
            Some(error) => Err(error),
            None => outcome.releases.remove(name).map_or(Ok(()), Err),
        }
    }

    /// Whether the container kept an address that it was just given.
    async fn keeps(&self, name: &ContainerName, addr: AppAddr) -> Result<()> {
        if !self.applied.lock().await.has_lost(name, addr) {
            return Ok(());
        }
        let message = format!("the address {} is held by another container", addr.ip());
        Err(Error::new(ErrorKind::Conflict, message)
            .with_hint("choose another address, or name only the network"))
    }
}
