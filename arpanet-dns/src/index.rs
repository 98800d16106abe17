//! The catalogue as DNS needs it: who is to be told for which name. Pure: changes in, answers out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use arpanet_core::discovery::{Health, Instance, Member, MemberState, heard_of};
use arpanet_core::watch::Change;
use arpanet_core::{AppNet, InstanceId, NodeAddr};

/// One address that is told for a service.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) ip: Ipv4Addr,
    pub(crate) port: u16,
    id: InstanceId,
    net: Option<AppNet>,
    tags: BTreeSet<Box<str>>,
}

#[derive(Debug, Default)]
struct Service {
    /// In the order of their ids.
    targets: Vec<Target>,
    /// Those whose address another one before them has too.
    repeated: usize,
    /// Who is told first next time.
    turn: AtomicU32,
}

/// Who is told for a name, as it stands at this moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told<'a> {
    service: Option<&'a Service>,
    tag: Option<&'a str>,
    net: Option<AppNet>,
    count: usize,
}

/// Names to addresses, kept up to date by changes.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// All instances, whatever their health.
    instances: HashMap<InstanceId, Instance>,
    members: BTreeMap<NodeAddr, Member>,
    /// The services that have an instance to tell.
    services: HashMap<Box<str>, Service>,
    /// The living nodes.
    nodes: HashMap<Box<str>, NodeAddr>,
    /// Which services an address is told for, and by how many of their instances.
    reverse: HashMap<Ipv4Addr, BTreeMap<Box<str>, usize>>,
    /// The networks that instances are in, by their first address; they don't overlap.
    nets: BTreeMap<Ipv4Addr, (AppNet, usize)>,
}

impl Index {
    /// Takes in what changed in the catalogue.
    pub(crate) fn apply_instances(&mut self, change: Change<InstanceId, Instance>) {
        match change {
            Change::Snapshot(set) => {
                let is_gone = |id: &&InstanceId| !set.contains_key(*id);
                let gone: Vec<_> = self.instances.keys().filter(is_gone).cloned().collect();
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
        let old = std::mem::replace(&mut self.nodes, nodes);
        let [old, new]: [BTreeSet<NodeAddr>; 2] =
            [&old, &self.nodes].map(|nodes| nodes.values().copied().collect());
        let affected: Vec<Instance> = self
            .instances
            .values()
            .filter(|instance| old.contains(&instance.node) != new.contains(&instance.node))
            .cloned()
            .collect();
        for instance in affected {
            self.untell(&instance);
            self.tell(&instance);
        }
    }

    fn upsert(&mut self, instance: Instance) {
        if self.instances.get(&instance.id) == Some(&instance) {
            return;
        }
        self.remove(&instance.id);
        if let Some(net) = instance.net {
            self.nets.entry(net.cidr().network()).or_insert((net, 0)).1 += 1;
        }
        self.tell(&instance);
        self.instances.insert(instance.id.clone(), instance);
    }

    fn remove(&mut self, id: &InstanceId) {
        let Some(instance) = self.instances.remove(id) else {
            return;
        };
        self.untell(&instance);
        if let Some(net) = instance.net
            && let Some((_, count)) = self.nets.get_mut(&net.cidr().network())
        {
            *count -= 1;
            if *count == 0 {
                self.nets.remove(&net.cidr().network());
            }
        }
    }

    /// Tells an instance from now on, if it is to be told.
    fn tell(&mut self, instance: &Instance) {
        let is_told = instance.health == Health::Passing
            && self.members.get(&instance.node).is_some_and(is_up);
        if !is_told {
            return;
        }
        let name = instance.service.as_str();
        let service = self.services.entry(name.into()).or_default();
        let Err(place) = service.place(&instance.id) else {
            return;
        };
        let tags = instance.tags.iter().map(|tag| tag.as_str().into());
        let target = Target {
            ip: instance.ip,
            port: instance.port,
            id: instance.id.clone(),
            net: instance.net,
            tags: tags.collect(),
        };
        service.targets.insert(place, target);
        let names = self.reverse.entry(instance.ip).or_default();
        let count = names.entry(name.into()).or_default();
        service.repeated += usize::from(*count > 0);
        *count += 1;
    }

    /// No longer tells an instance, if it was told.
    fn untell(&mut self, instance: &Instance) {
        let name = instance.service.as_str();
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        let Ok(place) = service.place(&instance.id) else {
            return;
        };
        service.targets.remove(place);
        if let Some(names) = self.reverse.get_mut(&instance.ip)
            && let Some(count) = names.get_mut(name)
        {
            service.repeated -= usize::from(*count > 1);
            *count -= 1;
            if *count == 0 {
                names.remove(name);
            }
            if names.is_empty() {
                self.reverse.remove(&instance.ip);
            }
        }
        if service.targets.is_empty() {
            self.services.remove(name);
        }
    }

    /// Who is told for a service, or for those of its instances with a tag. Whoever asks from a network with instances of
    /// it hears of those alone. Empty when there is no such name.
    pub(crate) fn service<'a>(
        &'a self,
        name: &str,
        tag: Option<&'a str>,
        source: Option<Ipv4Addr>,
    ) -> Told<'a> {
        let service = self.services.get(name);
        let all = |net| Told {
            service,
            tag,
            net,
            count: 0,
        };
        let own = source.and_then(|source| self.network(source));
        let nets = all(None).targets().map(|target| target.net);
        all(heard_of(own, nets)).counted()
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
            .flat_map(BTreeMap::keys)
            .map(|name| &**name)
    }

    /// The network that holds this address, as far as the catalogue knows it.
    fn network(&self, ip: Ipv4Addr) -> Option<AppNet> {
        let (_, (net, _)) = self.nets.range(..=ip).next_back()?;
        net.contains(ip).then_some(*net)
    }
}

impl Service {
    /// Where the target with this id is, or belongs.
    fn place(&self, id: &InstanceId) -> Result<usize, usize> {
        self.targets.binary_search_by(|target| target.id.cmp(id))
    }
}

impl<'a> Told<'a> {
    /// Nobody is.
    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether an address may come more than once.
    pub(crate) fn repeats(&self) -> bool {
        self.service.is_some_and(|service| service.repeated > 0)
    }

    /// All of them, starting with another one each time.
    pub(crate) fn in_turn(&self) -> impl Iterator<Item = &'a Target> + use<'a> {
        let turn = self
            .service
            .map_or(0, |service| service.turn.fetch_add(1, Ordering::Relaxed));
        let first = usize::try_from(turn).unwrap_or_default() % self.count.max(1);
        let after = self.targets().skip(first);
        after.chain(self.targets().take(first))
    }

    fn counted(mut self) -> Self {
        self.count = match (self.tag, self.net) {
            (None, None) => self.service.map_or(0, |service| service.targets.len()),
            _ => self.targets().count(),
        };
        self
    }

    fn targets(&self) -> impl Iterator<Item = &'a Target> + use<'a> {
        let Self { tag, net, .. } = *self;
        self.service
            .into_iter()
            .flat_map(|service| &service.targets)
            .filter(move |target| tag.is_none_or(|tag| target.tags.contains(tag)))
            .filter(move |target| net.is_none() || target.net == net)
    }
}

/// Whether what runs on this node can be reached from here.
fn is_up(member: &Member) -> bool {
    member.reachable && matches!(member.state, MemberState::Alive | MemberState::Suspect)
}
