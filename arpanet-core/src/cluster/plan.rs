//! What the containers of this host want of the cluster. Pure.

use std::collections::BTreeMap;

use super::given::{self, GIVEN_LABEL};
use super::record;
use crate::discovery::Instance;
use crate::overlay::NetNamespace;
use crate::runtime::{Container, ContainerSpec, ContainerState, NetRequest};
use crate::{Claim, ContainerName, InstanceId, NodeAddr};

/// The label by which a container's claims keep their age.
pub(super) const EPOCH_LABEL: &str = "arpanet.epoch";

/// A container with what it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) name: ContainerName,
    pub(super) namespace: NetNamespace,
    pub(super) state: ContainerState,
    /// By record key.
    pub(super) claims: BTreeMap<String, Claim>,
    pub(super) instances: BTreeMap<InstanceId, Instance>,
}

/// What the containers that live want. `earlier` is this node's claim of that key as it was published before: a claim
/// keeps its age over restarts.
pub(super) fn wanted<'a>(
    me: NodeAddr,
    containers: impl IntoIterator<Item = &'a Container>,
    next_epoch: impl Fn() -> u64,
    earlier: impl Fn(&str) -> Option<Claim>,
) -> Vec<Wanted> {
    containers
        .into_iter()
        .filter(|container| !matches!(container.state, ContainerState::Exited { .. }))
        .filter_map(|container| {
            let mut wanted = Wanted {
                name: container.name.clone(),
                namespace: container.namespace.clone()?,
                state: container.state,
                claims: BTreeMap::new(),
                instances: BTreeMap::new(),
            };
            let label = container
                .spec
                .labels
                .get(EPOCH_LABEL)
                .and_then(|epoch| epoch.parse().ok());
            for (addr, given) in given::addresses(&container.spec) {
                let key = record::claim_key(addr.ip(), &container.name);
                let epoch = given
                    .or(label)
                    .or_else(|| earlier(&key).map(|claim| claim.epoch))
                    .unwrap_or_else(&next_epoch);
                wanted
                    .claims
                    .insert(key, Claim::new(addr, me, container.name.clone(), epoch));
                if let Some(service) = &container.spec.service {
                    let id: InstanceId = format!("{me}:{}:{}", container.name, addr.ip())
                        .parse()
                        .ok()?;
                    let instance = Instance::new(
                        id.clone(),
                        service.name.clone(),
                        addr.ip(),
                        service.port,
                        me,
                    )
                    .in_net(addr.net())
                    .tagged(service.tags.iter().cloned());
                    wanted.instances.insert(id, instance);
                }
            }
            Some(wanted)
        })
        .collect()
}

/// Whether a container that was made from `made` is what `asked` asks for: addresses that were picked, given or taken by
/// hand, labels and DNS that the cluster put in make no difference.
pub(super) fn satisfies(made: &ContainerSpec, asked: &ContainerSpec) -> bool {
    let nets = made.nets.len() == asked.nets.len()
        && made
            .nets
            .iter()
            .zip(&asked.nets)
            .all(|(made, asked)| match (made, asked) {
                (NetRequest::Addr(addr), NetRequest::Net(net)) => addr.net() == Some(*net),
                (made, asked) => made == asked,
            });
    let plain = |spec: &ContainerSpec| {
        let mut spec = spec.clone();
        spec.nets.clear();
        spec.dns.clear();
        spec.dns_search.clear();
        spec.labels
            .retain(|name, _| name != EPOCH_LABEL && name != GIVEN_LABEL);
        spec
    };
    nets && plain(made) == plain(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picked_address_satisfies_the_network_that_was_asked_for() {
        let asked = ContainerSpec::command(["httpd"]).net("10.1.0.0/16".parse().unwrap());
        let made = ContainerSpec::command(["httpd"])
            .addr("10.1.0.5/16".parse().unwrap())
            .label(EPOCH_LABEL, "7");
        assert!(satisfies(&made, &asked));
        assert!(!satisfies(
            &made,
            &ContainerSpec::command(["httpd"]).net("10.2.0.0/16".parse().unwrap())
        ));
        assert!(!satisfies(
            &made,
            &ContainerSpec::command(["nginx"]).net("10.1.0.0/16".parse().unwrap())
        ));
    }
}
