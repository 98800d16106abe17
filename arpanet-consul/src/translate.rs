//! What consul has as what this cluster has, and back.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use arpanet_core::addr::Plane;
use arpanet_core::admission::NodeInfo;
use arpanet_core::discovery::{Health, Instance, Member, MemberState};
use arpanet_core::roster::Role;
use arpanet_core::{InstanceId, NodeAddr};

use crate::check::{ServiceCheck, health_check, health_check_id};
use crate::wire::{Check, NewCheck, NewService, ServiceEntry, Status};

/// The service by which a node says that it is a member. It is no service of the cluster's.
pub(crate) const MEMBER: &str = "arpanet-member";

/// The service that consul's servers are.
pub(crate) const CONSUL: &str = "consul";

/// The check of a node that fails when its agent of arpanet2 gives no sign of life.
pub(crate) const HEARTBEAT: &str = "arpanet";

/// The check of a node that consul's own membership keeps.
const SERF: &str = "serfHealth";

/// In front of an instance's id: consul's ids are by node, and may be `..`, which no path can have.
const ID: &str = "arpanet:";

const META_NODE: &str = "arpanet-node";
const META_NAME: &str = "arpanet-name";
const META_ROLE: &str = "arpanet-role";
const META_NET: &str = "arpanet-net";

/// The id of an instance at consul.
pub(crate) fn service_id(id: &InstanceId) -> String {
    format!("{ID}{id}")
}

/// The instance that has this id at consul, where arpanet2 registered it.
pub(crate) fn instance_id(service_id: &str) -> Option<InstanceId> {
    service_id.strip_prefix(ID)?.parse().ok()
}

/// Whether a name is not to be had for services of the cluster.
pub(crate) fn is_reserved(service: &str) -> bool {
    service == MEMBER || service == CONSUL
}

/// What consul is told about an instance's health.
pub(crate) const fn status(health: Health) -> Status {
    match health {
        Health::Passing => Status::Passing,
        _ => Status::Critical,
    }
}

/// An instance as consul takes it.
pub(crate) fn to_service(instance: &Instance, checks: &[ServiceCheck]) -> NewService {
    let id = service_id(&instance.id);
    let mut meta = BTreeMap::from([(META_NODE.to_owned(), instance.node.to_string())]);
    if let Some(net) = instance.net {
        meta.insert(META_NET.to_owned(), net.to_string());
    }
    let own = health_check(&id, status(instance.health));
    let others = checks
        .iter()
        .enumerate()
        .map(|(number, check)| check.to_wire(&id, number));
    NewService {
        name: instance.service.to_string(),
        tags: instance.tags.iter().map(ToString::to_string).collect(),
        address: instance.ip.to_string(),
        port: instance.port,
        meta,
        checks: std::iter::once(own).chain(others).collect(),
        id,
    }
}

/// A member as consul takes it.
pub(crate) fn to_member(me: &NodeInfo) -> NewService {
    let meta = [
        (META_NODE, me.node.to_string()),
        (META_NAME, me.name.to_string()),
        (META_ROLE, me.role.to_string()),
    ];
    NewService {
        id: MEMBER.to_owned(),
        name: MEMBER.to_owned(),
        tags: Vec::new(),
        address: String::new(),
        port: 0,
        meta: meta.map(|(key, value)| (key.to_owned(), value)).into(),
        checks: Vec::new(),
    }
}

/// The sign of life, as consul takes it.
pub(crate) fn to_heartbeat(ttl: std::time::Duration) -> NewCheck {
    NewCheck {
        id: Some(HEARTBEAT.to_owned()),
        name: "arpanet2's agent".to_owned(),
        ttl: Some(crate::check::go_duration(ttl)),
        status: Some(Status::Passing),
        ..NewCheck::default()
    }
}

/// The instance of an entry: one that arpanet2 registered, or one that somebody registered at consul itself, where it has
/// what an instance needs. Consul's own service and the members are none.
pub(crate) fn to_instance(entry: &ServiceEntry) -> Option<Instance> {
    let service = &entry.service;
    if is_reserved(&service.service) {
        return None;
    }
    let node_ip: Option<Ipv4Addr> = entry.node.address.parse().ok();
    let (node, id) = match instance_id(&service.id) {
        Some(id) => (service.meta.get(META_NODE)?.parse().ok()?, id),
        None => {
            let node = owner(node_ip?)?;
            (node, format!("{node}:{}", service.id).parse().ok()?)
        }
    };
    let ip = if service.address.is_empty() {
        node_ip?
    } else {
        service.address.parse().ok()?
    };
    let net = match service.meta.get(META_NET) {
        Some(net) => Some(net.parse().ok()?),
        None => None,
    };
    let tags = service.tags.iter().filter_map(|tag| tag.parse().ok());
    Some(
        Instance::new(id, service.service.parse().ok()?, ip, service.port, node)
            .in_net(net)
            .tagged(tags)
            .health(health(entry)),
    )
}

fn owner(ip: Ipv4Addr) -> Option<NodeAddr> {
    match NodeAddr::owner_of(ip)? {
        (node, Plane::Discovery) => Some(node),
        _ => None,
    }
}

/// Whether a check is that of consul's own membership.
pub(crate) fn is_serf(check: &Check) -> bool {
    check.service_id.is_empty() && check.id == SERF
}

/// Whether the node of an entry is out of reach, by consul's membership or by the sign of life.
pub(crate) fn is_lost(entry: &ServiceEntry) -> bool {
    entry.checks.iter().any(|check| {
        let is_heartbeat = check.service_id.is_empty() && check.id == HEARTBEAT;
        (is_serf(check) || is_heartbeat) && check.status == Status::Critical
    })
}

/// As consul's own DNS has it: a warning still gets traffic, and checks of the node count.
fn health(entry: &ServiceEntry) -> Health {
    if is_lost(entry) {
        return Health::Suspended;
    }
    let good = |status| matches!(status, Status::Passing | Status::Warning);
    if entry.checks.iter().all(|check| good(check.status)) {
        Health::Passing
    } else {
        Health::Critical
    }
}

/// Instances by their ids. Of two with one id (it moved from one node to another) the one that gets traffic counts.
pub(crate) fn by_id(
    instances: impl IntoIterator<Item = Instance>,
) -> BTreeMap<InstanceId, Instance> {
    fn rank(instance: &Instance) -> (bool, bool, NodeAddr) {
        (
            instance.health == Health::Suspended,
            instance.health != Health::Passing,
            instance.node,
        )
    }
    let mut set: BTreeMap<InstanceId, Instance> = BTreeMap::new();
    for instance in instances {
        match set.get(&instance.id) {
            Some(other) if rank(other) <= rank(&instance) => {}
            _ => {
                set.insert(instance.id.clone(), instance);
            }
        }
    }
    set
}

/// The member of an entry of [`MEMBER`], with consul's name for its node.
pub(crate) fn to_node(entry: &ServiceEntry) -> Option<(String, Member)> {
    let meta = |key: &str| entry.service.meta.get(key);
    let role = match meta(META_ROLE)?.as_str() {
        "boot" => Role::Boot,
        "server" => Role::Server,
        "client" => Role::Client,
        _ => return None,
    };
    let state = if is_lost(entry) {
        MemberState::Down
    } else {
        MemberState::Alive
    };
    let member = Member::new(
        meta(META_NODE)?.parse().ok()?,
        meta(META_NAME)?.parse().ok()?,
        role,
    );
    Some((entry.node.node.clone(), member.state(state)))
}

/// Whether the catalogue shows an instance as it was registered at this node of consul's.
pub(crate) fn is_shown(entries: &[ServiceEntry], at: &str, instance: &Instance) -> bool {
    let id = service_id(&instance.id);
    let health_id = health_check_id(&id);
    let wanted = status(instance.health);
    entries.iter().any(|entry| {
        let reported = entry.checks.iter().find(|check| check.id == health_id);
        entry.node.node == at
            && entry.service.id == id
            && reported.is_some_and(|check| check.status == wanted)
            && to_instance(entry).is_some_and(|shown| shown.health(instance.health) == *instance)
    })
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
