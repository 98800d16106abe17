//! The heart of a small PaaS: services at their number of replicas, wherever nodes die and return.
//!
//! The decision is [`plan`], a pure function; [`Paas`] asks the cluster for the facts and carries the steps out. Where
//! containers get their addresses, how they are found and who may reach them is arpanet2's part.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arpanet_core::runtime::{ContainerSpec, ContainerState};
use arpanet_core::{Cluster, ContainerName, NodeAddr, Result, ServiceName};

/// The label by which a container is known to be of a service.
const SERVICE_LABEL: &str = "paas.service";

/// Something to be done on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A replica is missing: start one.
    Start(NodeAddr, ContainerName),
    /// There is one too many: remove it.
    Remove(NodeAddr, ContainerName),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(node, name) => write!(f, "start {name} on {node}"),
            Self::Remove(node, name) => write!(f, "remove {name} from {node}"),
        }
    }
}

/// What has to be done so that a service has this many replicas, by what each living node runs of it: the emptiest node
/// gets the next one, the fullest loses one. `load` is what the nodes run besides.
///
/// # Errors
/// Only for a service whose containers can't be named.
pub fn plan(
    service: &ServiceName,
    replicas: usize,
    mut placed: BTreeMap<NodeAddr, Vec<ContainerName>>,
    load: &BTreeMap<NodeAddr, usize>,
) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let weight = |placed: &Vec<ContainerName>, node: &NodeAddr| {
        (placed.len(), load.get(node).copied().unwrap_or_default())
    };
    loop {
        let count: usize = placed.values().map(Vec::len).sum();
        if count == replicas {
            return Ok(steps);
        }
        let by_weight =
            |(node, placed): &(&NodeAddr, &mut Vec<ContainerName>)| weight(placed, node);
        if count > replicas {
            let fullest = placed.iter_mut().rev().max_by_key(by_weight);
            let Some((node, name)) = fullest.and_then(|(node, names)| Some((*node, names.pop()?)))
            else {
                return Ok(steps);
            };
            steps.push(Step::Remove(node, name));
        } else {
            let name = (1..)
                .map(|number| format!("{service}-{number}"))
                .find(|name| {
                    placed
                        .values()
                        .flatten()
                        .all(|taken| taken.as_str() != name)
                });
            let name: ContainerName = name.unwrap_or_default().parse()?;
            let Some((node, names)) = placed.iter_mut().min_by_key(by_weight) else {
                // No node is alive: nothing can be done now.
                return Ok(steps);
            };
            steps.push(Step::Start(*node, name.clone()));
            names.push(name);
        }
    }
}

/// What a service is to be.
#[derive(Debug, Clone)]
struct Deployment {
    spec: ContainerSpec,
    replicas: usize,
}

/// A small PaaS on the nodes of one cluster.
#[derive(Debug)]
pub struct Paas {
    workers: BTreeMap<NodeAddr, Cluster>,
    wanted: Mutex<BTreeMap<ServiceName, Deployment>>,
}

impl Paas {
    /// On these nodes, which are up.
    #[must_use]
    pub fn new(workers: impl IntoIterator<Item = Cluster>) -> Self {
        Self {
            workers: workers.into_iter().map(|node| (node.me(), node)).collect(),
            wanted: Mutex::default(),
        }
    }

    fn wanted(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Deployment>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants a service with this many replicas of what the spec says, and brings it about; what was done. The same again
    /// does nothing; of another spec, only new replicas are made.
    ///
    /// # Errors
    /// As [`mend`](Self::mend).
    pub async fn deploy(
        &self,
        service: &ServiceName,
        port: u16,
        spec: ContainerSpec,
        replicas: usize,
    ) -> Result<Vec<Step>> {
        let spec = spec
            .service(service.clone(), port)
            .label(SERVICE_LABEL, service.as_str());
        let deployment = Deployment { spec, replicas };
        self.wanted().insert(service.clone(), deployment);
        self.mend().await
    }

    /// Wants another number of replicas; what was done. A service that was never deployed stays unknown.
    ///
    /// # Errors
    /// As [`mend`](Self::mend).
    pub async fn scale(&self, service: &ServiceName, replicas: usize) -> Result<Vec<Step>> {
        if let Some(deployment) = self.wanted().get_mut(service) {
            deployment.replicas = replicas;
        }
        self.mend().await
    }

    /// Makes what runs equal to what is wanted; what was done. To be called whenever a node dies or returns.
    ///
    /// # Errors
    /// Those of the cluster. What was done before stays done, and the next call goes on.
    pub async fn mend(&self) -> Result<Vec<Step>> {
        let wanted = self.wanted().clone();
        let mut done = Vec::new();
        for (service, deployment) in wanted {
            let (placed, load) = self.facts(&service).await?;
            for step in plan(&service, deployment.replicas, placed, &load)? {
                match &step {
                    Step::Start(node, name) => {
                        let spec = deployment.spec.clone().named(name.clone());
                        self.workers[node].run(&spec).await?;
                    }
                    Step::Remove(node, name) => self.workers[node].remove(name).await?,
                }
                done.push(step);
            }
        }
        Ok(done)
    }

    /// What each living node runs of a service, and how much it runs besides. Living is who most of the cluster sees alive.
    async fn facts(
        &self,
        service: &ServiceName,
    ) -> Result<(
        BTreeMap<NodeAddr, Vec<ContainerName>>,
        BTreeMap<NodeAddr, usize>,
    )> {
        let (mut placed, mut load) = (BTreeMap::new(), BTreeMap::new());
        for node in self.majority() {
            let Some(worker) = self.workers.get(&node) else {
                continue;
            };
            let running = worker.runtime()?.list().await?;
            let running: Vec<_> = running
                .into_iter()
                .filter(|container| container.state == ContainerState::Running)
                .collect();
            let own = running.iter().filter(|container| {
                container.spec.labels.get(SERVICE_LABEL).map(String::as_str)
                    == Some(service.as_str())
            });
            let own: Vec<ContainerName> = own.map(|container| container.name.clone()).collect();
            load.insert(node, running.len() - own.len());
            placed.insert(node, own);
        }
        Ok((placed, load))
    }

    /// The largest group of nodes that see each other: in a partition, the PaaS goes on there.
    fn majority(&self) -> Vec<NodeAddr> {
        let groups = self.workers.values().map(Cluster::alive);
        groups.max_by_key(Vec::len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn placed(nodes: &[(&str, &[&str])]) -> BTreeMap<NodeAddr, Vec<ContainerName>> {
        let parsed = nodes.iter().map(|(node, names)| {
            let names = names.iter().map(|name| name.parse().unwrap()).collect();
            (node.parse().unwrap(), names)
        });
        parsed.collect()
    }

    fn steps(replicas: usize, nodes: &[(&str, &[&str])]) -> Vec<String> {
        let web = "web".parse().unwrap();
        let steps = plan(&web, replicas, placed(nodes), &BTreeMap::new()).unwrap();
        steps.iter().map(Step::to_string).collect()
    }

    #[test]
    fn the_emptiest_node_gets_the_next_one() {
        assert_eq!(
            steps(3, &[("0.1", &["web-1"]), ("0.2", &[])]),
            ["start web-2 on 0.2", "start web-3 on 0.1"]
        );
    }

    #[test]
    fn the_fullest_node_loses_one() {
        assert_eq!(
            steps(1, &[("0.1", &["web-1"]), ("0.2", &["web-2", "web-3"])]),
            ["remove web-3 from 0.2", "remove web-1 from 0.1"]
        );
    }

    #[test]
    fn what_is_right_stays_and_nothing_is_done_on_no_node() {
        assert!(steps(1, &[("0.1", &["web-1"]), ("0.2", &[])]).is_empty());
        assert!(steps(5, &[]).is_empty());
    }
}
