//! The catalogue as DNS needs it: who is to be told for which name. Pure: changes in, answers out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use arpanet_core::discovery::{Health, Instance, Member, MemberState};
use arpanet_core::watch::Change;
use arpanet_core::{AppNet, InstanceId, NodeAddr, ServiceName};

/// One address that is told for a service.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) ip: Ipv4Addr,
    pub(crate) port: u16,
    net: Option<AppNet>,
    tags: BTreeSet<Box<str>>,
}

#[derive(Debug, Default)]
struct Service {
    targets: Vec<Target>,
    /// Who is told first next time.
    turn: AtomicU32,
}

/// Names to addresses, kept up to date by changes.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// All instances, whatever their health.
    instances: BTreeMap<ServiceName, BTreeMap<InstanceId, Instance>>,
    services_of: BTreeMap<InstanceId, ServiceName>,
    members: BTreeMap<NodeAddr, Member>,
    /// The services that have an instance to tell.
    services: HashMap<Box<str>, Service>,
    /// The living nodes.
    nodes: HashMap<Box<str>, NodeAddr>,
    /// Which services an address is told for.
    reverse: HashMap<Ipv4Addr, BTreeSet<Box<str>>>,
    /// The networks that instances are in, by their first address; they don't overlap.
    nets: BTreeMap<Ipv4Addr, (AppNet, usize)>,
}

impl Index {
    /// Takes in what changed in the catalogue.
    pub(crate) fn apply_instances(&mut self, change: Change<InstanceId, Instance>) {
        match change {
            Change::Snapshot(set) => {
                let gone: Vec<_> = self
                    .services_of
                    .keys()
                    .filter(|id| !set.contains_key(*id))
                    .cloned()
                    .collect();
                for id in gone {
                    self.remove(&id);
                }
                for instance in set.into_values() {
                    self.upsert(instance);
                }
            }
            Change::Upsert(_, instance) => self.upsert(instance),
            Change::Removed(id) => self.remove(&id),
            // What was told last stays the best known.
            _ => {}
        }
    }

    /// Takes in what changed among the members.
    pub(crate) fn apply_members(&mut self, change: Change<NodeAddr, Member>) {
        match change {
            Change::Snapshot(set) => self.members = set,
            Change::Upsert(node, member) => {
                self.members.insert(node, member);
            }
            Change::Removed(node) => {
                self.members.remove(&node);
            }
            _ => return,
        }
        let nodes = self
            .members
            .values()
            .filter(|member| is_up(member))
            .map(|member| (member.name.as_str().into(), member.node))
            .collect();
        // Most of what members tell (endpoints, suspicions) changes no answer.
        if self.nodes == nodes {
            return;
        }
        self.nodes = nodes;
        let all: Vec<_> = self.instances.keys().cloned().collect();
        for service in all {
            self.refresh(&service);
        }
    }

    fn upsert(&mut self, instance: Instance) {
        let held = self
            .services_of
            .get(&instance.id)
            .and_then(|service| self.instances.get(service)?.get(&instance.id));
        if held == Some(&instance) {
            return;
        }
        self.remove(&instance.id);
        if let Some(net) = instance.net {
            self.nets.entry(net.cidr().network()).or_insert((net, 0)).1 += 1;
        }
        let service = instance.service.clone();
        self.services_of
            .insert(instance.id.clone(), service.clone());
        self.instances
            .entry(service.clone())
            .or_default()
            .insert(instance.id.clone(), instance);
        self.refresh(&service);
    }

    fn remove(&mut self, id: &InstanceId) {
        let Some(service) = self.services_of.remove(id) else {
            return;
        };
        let Some(instances) = self.instances.get_mut(&service) else {
            return;
        };
        let removed = instances.remove(id);
        if instances.is_empty() {
            self.instances.remove(&service);
        }
        if let Some(net) = removed.and_then(|instance| instance.net)
            && let Some((_, count)) = self.nets.get_mut(&net.cidr().network())
        {
            *count -= 1;
            if *count == 0 {
                self.nets.remove(&net.cidr().network());
            }
        }
        self.refresh(&service);
    }

    /// Works out anew which instances of a service are told.
    fn refresh(&mut self, service: &ServiceName) {
        let name = service.as_str();
        let targets: Vec<Target> = self
            .instances
            .get(service)
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter(|instance| instance.health == Health::Passing)
            .filter(|instance| self.members.get(&instance.node).is_some_and(is_up))
            .map(|instance| Target {
                ip: instance.ip,
                port: instance.port,
                net: instance.net,
                tags: instance
                    .tags
                    .iter()
                    .map(|tag| tag.as_str().into())
                    .collect(),
            })
            .collect();
        for old in self
            .services
            .get(name)
            .into_iter()
            .flat_map(|old| &old.targets)
        {
            if let Some(names) = self.reverse.get_mut(&old.ip) {
                names.remove(name);
                if names.is_empty() {
                    self.reverse.remove(&old.ip);
                }
            }
        }
        if targets.is_empty() {
            self.services.remove(name);
            return;
        }
        for target in &targets {
            self.reverse
                .entry(target.ip)
                .or_default()
                .insert(name.into());
        }
        self.services.entry(name.into()).or_default().targets = targets;
    }

    /// Who is told for a service, or for those of its instances with a tag, starting with another one each time. Whoever
    /// asks from a network with instances of it hears of those alone. Empty when there is no such name.
    pub(crate) fn service(
        &self,
        name: &str,
        tag: Option<&str>,
        source: Option<Ipv4Addr>,
    ) -> Vec<&Target> {
        let Some(service) = self.services.get(name) else {
            return Vec::new();
        };
        let tagged = |target: &&Target| tag.is_none_or(|tag| target.tags.contains(tag));
        let mut targets: Vec<&Target> = service.targets.iter().filter(tagged).collect();
        if let Some(own) = source.and_then(|source| self.network(source))
            && targets.iter().any(|target| target.net == Some(own))
        {
            targets.retain(|target| target.net == Some(own));
        }
        if !targets.is_empty() {
            let turn = service.turn.fetch_add(1, Ordering::Relaxed);
            let first = usize::try_from(turn).unwrap_or_default() % targets.len();
            targets.rotate_left(first);
        }
        targets
    }

    /// The living node of this name.
    pub(crate) fn node(&self, name: &str) -> Option<NodeAddr> {
        self.nodes.get(name).copied()
    }

    /// The name of the living node with this address.
    pub(crate) fn node_name(&self, node: NodeAddr) -> Option<&str> {
        self.members
            .get(&node)
            .filter(|member| is_up(member))
            .map(|member| member.name.as_str())
    }

    /// The services that this address is told for.
    pub(crate) fn services_at(&self, ip: Ipv4Addr) -> impl Iterator<Item = &str> {
        self.reverse
            .get(&ip)
            .into_iter()
            .flatten()
            .map(|name| &**name)
    }

    /// The network that holds this address, as far as the catalogue knows it.
    fn network(&self, ip: Ipv4Addr) -> Option<AppNet> {
        let (_, (net, _)) = self.nets.range(..=ip).next_back()?;
        net.contains(ip).then_some(*net)
    }
}

/// Whether what runs on this node can be reached from here.
fn is_up(member: &Member) -> bool {
    member.reachable && matches!(member.state, MemberState::Alive | MemberState::Suspect)
}
