//! What `status --json` says. Field names are part of the interface.

use std::net::{Ipv4Addr, SocketAddr};

use arpanet_core::cluster::NodeStatus;
use arpanet_core::discovery::{Health, Instance, MemberState};
use arpanet_core::roster::Role;
use arpanet_core::{
    Cluster, Error, ErrorKind, InstanceId, NodeAddr, NodeName, Result, ServiceName,
};
use serde::{Deserialize, Serialize};

use super::state::DnsKind;

/// The whole answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) node: Me,
    pub(crate) ready: bool,
    pub(crate) stack: Stack,
    pub(crate) version: String,
    pub(crate) cluster: String,
    /// The id of the cluster's key.
    #[serde(default)]
    pub(crate) key: u32,
    pub(crate) nodes: Vec<Node>,
    pub(crate) services: Vec<Service>,
    /// The catalogue is out of reach: services are as they were last known.
    #[serde(default)]
    pub(crate) stale: bool,
    /// What would make the cluster stand more.
    #[serde(default)]
    pub(crate) advice: Vec<String>,
}

/// The node that answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Me {
    pub(crate) address: NodeAddr,
    pub(crate) name: NodeName,
    pub(crate) role: Role,
}

/// The backends in use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stack {
    pub(crate) overlay: String,
    /// Which WireGuard carries it: `kernel`, or `user`, the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel: Option<String>,
    pub(crate) discovery: String,
    pub(crate) runtime: String,
    /// Who answers names of services: `watch`, or `consul` itself.
    #[serde(default)]
    pub(crate) dns: String,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) address: NodeAddr,
    pub(crate) name: NodeName,
    pub(crate) role: Role,
    pub(crate) state: MemberState,
    #[serde(default)]
    pub(crate) drained: bool,
    pub(crate) version: Option<String>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) rtt_ms: Option<f64>,
}

impl From<NodeStatus> for Node {
    fn from(node: NodeStatus) -> Self {
        Self {
            address: node.address,
            name: node.name,
            role: node.role,
            state: node.state,
            drained: node.drained,
            version: node.version,
            endpoint: node.endpoint,
            // To the microsecond.
            rtt_ms: node
                .round_trip
                .map(|rtt| (rtt.as_secs_f64() * 1e6).round() / 1e3),
        }
    }
}

/// One service.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    pub(crate) instances: Vec<ServiceInstance>,
}

/// One of its instances.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ServiceInstance {
    pub(crate) id: InstanceId,
    pub(crate) ip: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) node: NodeAddr,
    pub(crate) health: Health,
    /// Why it gets no traffic, on the node that it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

/// All services, with what is known here of why an instance gets no traffic.
pub(crate) async fn services(cluster: &Cluster) -> Result<Vec<Service>> {
    Ok(explained(cluster, cluster.instances().await?))
}

fn explained(cluster: &Cluster, instances: Vec<Instance>) -> Vec<Service> {
    let mut services = by_service(instances);
    let unwell = cluster.unwell();
    let instances = services
        .iter_mut()
        .flat_map(|service| &mut service.instances);
    let own = instances.filter(|instance| instance.node == cluster.me());
    for instance in own.filter(|instance| instance.health == Health::Critical) {
        instance.why = unwell.get(&instance.ip).map(ToString::to_string);
    }
    services
}

fn by_service(mut instances: Vec<Instance>) -> Vec<Service> {
    instances.sort_by(|a, b| (&a.service, &a.id).cmp(&(&b.service, &b.id)));
    let mut services: Vec<Service> = Vec::new();
    for instance in instances {
        let one = ServiceInstance {
            id: instance.id,
            ip: instance.ip,
            port: instance.port,
            node: instance.node,
            health: instance.health,
            why: None,
        };
        match services
            .last_mut()
            .filter(|service| service.name == instance.service)
        {
            Some(service) => service.instances.push(one),
            None => services.push(Service {
                name: instance.service,
                instances: vec![one],
            }),
        }
    }
    services
}

/// What is to be said of this many servers of a catalogue that needs a majority of them.
fn advice(servers: usize) -> Option<String> {
    let stands = servers.saturating_sub(1) / 2;
    match servers {
        0 | 1 => {
            Some("consul has one server, whose loss stops it: three or five are recommended".into())
        }
        2 => Some(format!(
            "with {servers} servers the loss of one stops consul: three or five are recommended"
        )),
        _ if servers.is_multiple_of(2) => Some(format!(
            "{servers} servers stand the loss of {stands}, as {} do: an odd number is recommended",
            servers - 1
        )),
        8.. => Some(format!(
            "{servers} servers all confirm every change: three or five are recommended, and clients for the rest"
        )),
        _ => None,
    }
}

/// The answer as it is now.
pub(crate) async fn status(cluster: &Cluster, dns: DnsKind) -> Result<Status> {
    let membership = cluster
        .membership()
        .await
        .ok_or_else(|| Error::new(ErrorKind::Unavailable, "the node is still coming up"))?;
    let catalogue = cluster.catalogue().await?;
    let nodes: Vec<Node> = cluster.nodes().await?.into_iter().map(Node::from).collect();
    let servers = nodes.iter().filter(|node| node.role.admits()).count();
    Ok(Status {
        node: Me {
            address: membership.me.node,
            name: membership.me.name,
            role: membership.me.role,
        },
        ready: true,
        stack: Stack {
            overlay: cluster.overlay().name().to_owned(),
            tunnel: None,
            discovery: cluster.discovery().name().to_owned(),
            runtime: cluster
                .runtime()
                .map_or("none", |runtime| runtime.name())
                .to_owned(),
            dns: dns.name().to_owned(),
        },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster: membership.cluster.to_string(),
        key: membership.key.id,
        nodes,
        services: explained(cluster, catalogue.instances),
        stale: catalogue.is_stale,
        advice: match cluster.discovery().name() {
            "consul" => advice(servers).into_iter().collect(),
            _ => Vec::new(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_five_and_seven_servers_need_no_advice() {
        let advised = (1..=9).filter(|servers| advice(*servers).is_some());
        assert_eq!(advised.collect::<Vec<_>>(), [1, 2, 4, 6, 8, 9]);
        assert!(advice(1).is_some_and(|advice| advice.contains("whose loss stops it")));
        assert!(advice(4).is_some_and(|advice| advice.contains("stand the loss of 1, as 3 do")));
    }
}
