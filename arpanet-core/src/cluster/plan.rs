//! What the containers of this host want of the cluster. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::given::{self, GIVEN_LABEL};
use super::record;
use crate::addr::PluginBlock;
use crate::discovery::{Health, Instance};
use crate::overlay::{AttachAddr, NetNamespace};
use crate::runtime::{Container, ContainerSpec, ContainerState, NetRequest, PullPolicy};
use crate::{AppAddr, Claim, ContainerName, InstanceId, NodeAddr};

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
    pub(super) plugin: Option<PluginBlock>,
    pub(super) instances: BTreeMap<InstanceId, Instance>,
}

impl Wanted {
    /// All addresses that it is to have.
    pub(super) fn attach_addrs(&self) -> impl Iterator<Item = AttachAddr> {
        let claimed = self.claims.values();
        let claimed = claimed.map(|claim| AttachAddr::Application(claim.addr));
        claimed.chain(self.plugin.map(AttachAddr::Plugin))
    }

    /// Registers what the container provides at an address: its service, and a name for each alias.
    fn provide(&mut self, me: NodeAddr, container: &Container, addr: AttachAddr, health: Health) {
        let (ip, net) = match addr {
            AttachAddr::Application(addr) => (addr.ip(), addr.net()),
            AttachAddr::Plugin(block) => (me.plugin(block), None),
        };
        let spec = &container.spec;
        let service = spec.service.as_ref();
        let port = service.map_or(0, |service| service.port);
        let names = container.names.get(&ip).into_iter().flatten();
        let names = names.filter(|name| !spec.aliases.contains(name));
        let aliases = spec.aliases.iter().chain(names);
        let aliases = aliases.filter(|alias| service.is_none_or(|service| service.name != **alias));
        let named = service.map(|service| (&service.name, None));
        for (name, alias) in named
            .into_iter()
            .chain(aliases.map(|alias| (alias, Some(alias))))
        {
            let id = match alias {
                None => format!("{me}:{}:{ip}", container.name),
                Some(alias) => format!("{me}:{}:{ip}:{alias}", container.name),
            };
            // Too long only where both names are; the address alone is enough on one node.
            let id = id.parse().or_else(|_| format!("{me}:{ip}:{name}").parse());
            let Ok(id) = id else { continue };
            let id: InstanceId = id;
            let tags = service.filter(|_| alias.is_none()).into_iter();
            let instance = Instance::new(id.clone(), name.clone(), ip, port, me)
                .in_net(net)
                .tagged(tags.flat_map(|service| service.tags.iter().cloned()))
                .health(health);
            self.instances.insert(id, instance);
        }
    }
}

/// Whether an instance of this node is what a container with this name provides at this address, by its id.
pub(super) fn provides(
    me: NodeAddr,
    container: &ContainerName,
    ip: Ipv4Addr,
    instance: &Instance,
) -> bool {
    let id = instance.id.as_str();
    let named = id.strip_prefix(&format!("{me}:{container}:{ip}"));
    instance.ip == ip
        && (named.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
            || *id == format!("{me}:{ip}:{}", instance.service))
}

/// What the containers that live want. `serves` says whether one should get traffic; `earlier` is the age of this node's
/// claim of that address and key as it was before: a claim keeps its age over restarts.
pub(super) fn wanted<'a>(
    me: NodeAddr,
    containers: impl IntoIterator<Item = &'a Container>,
    serves: impl Fn(&Container) -> bool,
    next_epoch: impl Fn() -> u64,
    earlier: impl Fn(AppAddr, &str) -> Option<u64>,
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
                plugin: container.spec.plugin,
                instances: BTreeMap::new(),
            };
            let health = match serves(container) {
                true => Health::Passing,
                false => Health::Critical,
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
                    .or_else(|| earlier(addr, &key))
                    .unwrap_or_else(&next_epoch);
                wanted
                    .claims
                    .insert(key, Claim::new(addr, me, container.name.clone(), epoch));
                wanted.provide(me, container, AttachAddr::Application(addr), health);
            }
            if let Some(block) = container.spec.plugin {
                wanted.provide(me, container, AttachAddr::Plugin(block), health);
            }
            Some(wanted)
        })
        .collect()
}

/// Whether a container that was made from `made` is what `asked` asks for: addresses that were picked, given or taken by
/// hand, labels and DNS that the cluster put in, and how its image came make no difference.
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
        spec.pull = PullPolicy::default();
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
        assert!(satisfies(&made, &asked.clone().pull(PullPolicy::Always)));
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
