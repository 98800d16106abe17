//! Why something is or is not reached: what the node knows, and what becomes of a packet that is really sent.

use std::net::Ipv4Addr;
use std::time::Duration;

use arpanet_core::overlay::NetNamespace;
use arpanet_core::runtime::Container;
use arpanet_core::why::{self, Outcome, Situation, Stage, Step};
use arpanet_core::{AppNet, Cluster, Error, ErrorKind, NodeAddr, Result};
use arpanet_netlink::Namespace;
use arpanet_router::Pinger;
use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use super::api::{Answer, Context};

/// How long an answer to a packet is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// A first packet may only wake a connection.
const PACKETS: usize = 2;

/// From whom to whom.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) from: String,
    pub(crate) to: String,
}

/// The way between them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Way {
    pub(crate) from: Ipv4Addr,
    /// None where the name stands for nobody.
    pub(crate) to: Option<Ipv4Addr>,
    pub(crate) steps: Vec<Step>,
    /// Whether it arrives.
    pub(crate) arrives: bool,
}

pub(super) async fn why(State(context): State<Context>, Query(asked): Query<Asked>) -> Answer<Way> {
    Ok(Json(way(&context.cluster, &asked).await?))
}

async fn way(cluster: &Cluster, asked: &Asked) -> Result<Way> {
    let known = cluster.situation().await?;
    let containers = match cluster.runtime() {
        Ok(runtime) => runtime.list().await?,
        Err(_) => Vec::new(),
    };
    let from = sender(cluster, &known, &asked.from).await?;
    let (mut steps, to) = receiver(cluster, &known, from, &asked.to).await?;
    let Some(to) = to else {
        return Ok(Way {
            from,
            to,
            steps,
            arrives: false,
        });
    };
    steps.extend(why::packet(&known, from, to));
    let stops = steps.iter().any(|step| step.outcome == Outcome::Stops);
    let probe = probe(&known, &containers, from, to, stops).await;
    let arrives = match probe.outcome {
        Outcome::Passes => true,
        Outcome::Unknown => !stops,
        _ => false,
    };
    steps.push(probe);
    Ok(Way {
        from,
        to: Some(to),
        steps,
        arrives,
    })
}

/// An address, a node by its address or name, or a container of this host.
async fn at(cluster: &Cluster, known: &Situation, text: &str) -> Result<Option<Ipv4Addr>> {
    if let Ok(ip) = text.parse() {
        return Ok(Some(ip));
    }
    if let Ok(node) = text.parse::<NodeAddr>() {
        return Ok(Some(node.overlay()));
    }
    let mut attached = known.attached.iter();
    if let Some((ip, _)) = attached.find(|(_, container)| container.as_str() == text) {
        return Ok(Some(*ip));
    }
    let nodes = cluster.nodes().await?;
    let node = nodes.into_iter().find(|node| node.name.as_str() == text);
    Ok(node.map(|node| node.address.overlay()))
}

async fn sender(cluster: &Cluster, known: &Situation, text: &str) -> Result<Ipv4Addr> {
    if let Some(ip) = at(cluster, known, text).await? {
        return Ok(ip);
    }
    let instances = cluster.instances().await?;
    let instance = instances
        .into_iter()
        .find(|instance| instance.service.as_str() == text);
    instance.map(|instance| instance.ip).ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!("{text} is no address, node, service, or container of this host"),
        )
        .with_hint("arpanet2 ps, arpanet2 nodes and arpanet2 services list them")
    })
}

/// Names of services first: that is what is asked for from elsewhere.
async fn receiver(
    cluster: &Cluster,
    known: &Situation,
    from: Ipv4Addr,
    text: &str,
) -> Result<(Vec<Step>, Option<Ipv4Addr>)> {
    let instances = cluster.instances().await?;
    let is_service = instances
        .iter()
        .any(|instance| instance.service.as_str() == text);
    if !is_service && let Some(ip) = at(cluster, known, text).await? {
        return Ok((Vec::new(), Some(ip)));
    }
    Ok(why::name(text, net(known, from), &instances))
}

fn net(known: &Situation, ip: Ipv4Addr) -> Option<AppNet> {
    known.claims.get(&ip)?.net()
}

/// Sends a packet, where it would be sent from here.
async fn probe(
    known: &Situation,
    containers: &[Container],
    from: Ipv4Addr,
    to: Ipv4Addr,
    stops: bool,
) -> Step {
    let unsent = |why: String, hint: &str| Step::unknown(Stage::Probe, why, hint);
    let namespace = if from == known.me.overlay() {
        Namespace::current()
    } else if let Some(name) = known.attached.get(&from) {
        let mut containers = containers.iter();
        let container = containers.find(|container| container.name == *name);
        match container.and_then(|container| container.namespace.as_ref()) {
            Some(NetNamespace::Path(path)) => Namespace::open(path),
            _ => {
                let why = format!("{name} has no network namespace to send from");
                return unsent(why, "it does not run");
            }
        }
    } else {
        return unsent(
            format!("no packet was sent: {from} is not on node {}", known.me),
            "arpanet2 why on its own node sends one",
        );
    };
    let pinger = match namespace.and_then(|namespace| Pinger::new(&namespace)) {
        Ok(pinger) => pinger,
        Err(error) => return unsent(format!("no packet could be sent: {error}"), "ask as root"),
    };
    for _ in 0..PACKETS {
        if let Some(time) = pinger.ping(to, PATIENCE).await {
            let found = format!("{to} answered in {:.2} ms", time.as_secs_f64() * 1_000.0);
            let against = if stops {
                ", whatever was worked out"
            } else {
                ""
            };
            return Step::passes(Stage::Probe, format!("{found}{against}"));
        }
    }
    let found = format!("{to} did not answer within {} s", PATIENCE.as_secs() * 2);
    let hint = if stops {
        "as worked out"
    } else {
        "everything on the way is as it should be: it may answer no ICMP echo, or have ended this moment"
    };
    Step::stops(Stage::Probe, found, hint)
}
