//! Containers that others made, with whatever client: they are given the addresses that they ask for.
//!
//! What was picked is kept in the container's label, as what was given by hand is, so that it lives as long as the container.

use std::collections::BTreeMap;

use super::Node;
use super::given::{self, GIVEN_LABEL, Given};
use super::view::View;
use crate::runtime::{Container, ContainerState, NetRequest};
use crate::{AppNet, ContainerName, Error, ErrorKind, Result};

/// Whether it can be attached now.
fn is_there(container: &Container) -> bool {
    container.namespace.is_some() && !matches!(container.state, ContainerState::Exited { .. })
}

impl View {
    /// The networks that a container asks for and has no address of.
    fn open_nets(&self, container: &Container) -> Result<Vec<AppNet>> {
        let given = Given::of(&container.spec);
        let held: Vec<Option<AppNet>> = given::addresses(&container.spec)
            .into_iter()
            .map(|(addr, _)| addr.net())
            .collect();
        let mut open = Vec::new();
        for request in &container.spec.nets {
            if let NetRequest::Net(net) = self.resolve_net(request)?
                && !given.shuns(net)
                && !held.contains(&Some(net))
                && !open.contains(&net)
            {
                open.push(net);
            }
        }
        Ok(open)
    }

    /// Containers that are there and ask for what they have not.
    fn unsettled(&self) -> Vec<ContainerName> {
        let there = self.containers.values();
        there
            .filter(|container| is_there(container))
            .filter(|container| {
                self.open_nets(container)
                    .map_or(true, |open| !open.is_empty())
            })
            .map(|container| container.name.clone())
            .collect()
    }

    /// What can't be read of what the containers of this host want.
    pub(super) fn problems(&self) -> impl Iterator<Item = (&ContainerName, &String)> {
        self.containers
            .values()
            .filter(|container| is_there(container))
            .flat_map(|container| {
                let problems = container.problems.iter();
                problems.map(|problem| (&container.name, problem))
            })
    }
}

impl Node {
    /// Picks addresses for the containers that ask for any of a network. What failed is for the next time that something
    /// changes; the caller tells of it. And whether some wait for addresses that were just asked for.
    pub(super) async fn settle(&self) -> (BTreeMap<ContainerName, Error>, bool) {
        let unsettled = self.view().unsettled();
        let mut failed = BTreeMap::new();
        if unsettled.is_empty() {
            return (failed, false);
        }
        // Whoever has the turn may wait for what this round brings: another one then.
        let Ok(_turn) = self.attaching.try_lock() else {
            return (failed, true);
        };
        let mut again = false;
        for name in unsettled {
            match self.settle_one(&name).await {
                // It is gone meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound && self.is_gone(&name).await => {}
                Ok(settled) => again |= !settled,
                Err(error) => failed.extend([(name, error)]),
            }
        }
        (failed, again)
    }

    async fn is_gone(&self, name: &ContainerName) -> bool {
        let Ok(runtime) = self.runtime() else {
            return true;
        };
        let found = runtime.inspect(name).await;
        found.is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }

    async fn settle_one(&self, name: &ContainerName) -> Result<bool> {
        let runtime = self.runtime()?;
        // As it is now: the view may be older than its label.
        let mut container = runtime.inspect(name).await?;
        let open = self.view().open_nets(&container)?;
        for net in &open {
            self.view().check_apart(*net)?;
            if let Some(wait) = self.asks_for(*net) {
                return wait.map(|()| false);
            }
        }
        let mut picked = Vec::new();
        let given = {
            let mut view = self.view();
            let mut given = Given::of(&container.spec);
            let mut taken = view.taken();
            for net in open {
                let addr = view.place(self.me, name, &NetRequest::Net(net), &taken)?;
                taken.insert(addr.ip());
                picked.push(addr.ip());
                given = given.and(addr, view.records.next_epoch());
            }
            given
        };
        if Given::of(&container.spec) != given {
            runtime.set_label(name, GIVEN_LABEL, given.label()).await?;
            container = runtime.inspect(name).await?;
        }
        let mut view = self.view();
        view.containers.insert(name.clone(), container);
        view.settled(picked);
        Ok(true)
    }
}
