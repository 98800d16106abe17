//! Why something is or is not reached: the way of a name and of a packet, step by step, as far as it comes.
//!
//! [`name`] and [`packet`] are pure: they work out from what a node knows, a [`Situation`], what becomes of a question and of
//! a packet. What really becomes of one is found out by sending it; `arpanet2 why` puts both together for
//! the node that is asked.
//!
//! ```
//! use arpanet_core::why::{self, Situation};
//! let mut known = Situation::new("0.1".parse()?);
//! known.hold("10.1.0.5/16".parse()?, "0.1".parse()?, "web".parse()?);
//! known.hold("10.2.0.5/16".parse()?, "0.1".parse()?, "db".parse()?);
//! let steps = why::packet(&known, "10.1.0.5".parse()?, "10.2.0.5".parse()?);
//! let last = steps.last().unwrap();
//! assert_eq!(last.stage, why::Stage::Rule);
//! assert_eq!(last.outcome, why::Outcome::Stops);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::discovery::{Health, Instance, MemberState, heard_of};
use crate::overlay::{PeerState, PeerStatus};
use crate::{AppAddr, AppNet, Claim, ContainerName, NodeAddr, Plane};

/// What a step looks at, in the order in which they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stage {
    /// Whom a name stands for.
    Name,
    /// Whether it should get traffic.
    Health,
    /// Who holds an address.
    Claim,
    /// Whether the container really has it.
    Attachment,
    /// Who may reach whom.
    Rule,
    /// Whether the other node takes part.
    Member,
    /// Whether the overlay carries packets to it.
    Connection,
    /// What became of a packet that was sent.
    Probe,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Name => "name",
            Self::Health => "health",
            Self::Claim => "claim",
            Self::Attachment => "attachment",
            Self::Rule => "rule",
            Self::Member => "member",
            Self::Connection => "connection",
            Self::Probe => "probe",
        })
    }
}

/// How a step ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// It goes on.
    Passes,
    /// It ends here.
    Stops,
    /// This node does not know.
    Unknown,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Step {
    /// What was looked at.
    pub stage: Stage,
    /// How it ends.
    pub outcome: Outcome,
    /// What was found, in one sentence.
    pub found: String,
    /// What to do about it, where it stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Step {
    fn new(stage: Stage, outcome: Outcome, found: impl Into<String>) -> Self {
        Self {
            stage,
            outcome,
            found: found.into(),
            hint: None,
        }
    }

    /// It goes on.
    pub fn passes(stage: Stage, found: impl Into<String>) -> Self {
        Self::new(stage, Outcome::Passes, found)
    }

    /// It ends here.
    pub fn stops(stage: Stage, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..Self::new(stage, Outcome::Stops, found)
        }
    }

    /// This node does not know.
    pub fn unknown(stage: Stage, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..Self::new(stage, Outcome::Unknown, found)
        }
    }
}

/// What a node knows that decides over packets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Situation {
    /// The node that is asked.
    pub me: NodeAddr,
    /// Who takes part, this node too.
    pub members: BTreeMap<NodeAddr, MemberState>,
    /// Who holds each container address; nodes that are out of reach hold theirs.
    pub claims: BTreeMap<Ipv4Addr, Claim>,
    /// What containers of this node have.
    pub attached: BTreeMap<Ipv4Addr, ContainerName>,
    /// The overlay's connections.
    pub peers: BTreeMap<NodeAddr, PeerStatus>,
    /// Whether the overlay keeps networks apart.
    pub isolation: bool,
}

impl Situation {
    /// A node that is alone.
    #[must_use]
    pub fn new(me: NodeAddr) -> Self {
        Self {
            me,
            members: BTreeMap::from([(me, MemberState::Alive)]),
            claims: BTreeMap::new(),
            attached: BTreeMap::new(),
            peers: BTreeMap::new(),
            isolation: true,
        }
    }

    /// A container of this or of another node has an address.
    pub fn hold(&mut self, addr: AppAddr, node: NodeAddr, container: ContainerName) {
        if node == self.me {
            self.attached.insert(addr.ip(), container.clone());
        }
        self.claims
            .insert(addr.ip(), Claim::new(addr, node, container, 1));
    }

    /// What stands behind an address.
    fn end(&self, ip: Ipv4Addr) -> End<'_> {
        if let Some((node, plane)) = NodeAddr::owner_of(ip) {
            return End::System(node, plane);
        }
        match self.claims.get(&ip) {
            Some(claim) => End::Container(claim),
            None if crate::addr::is_application(ip) => End::Nobody,
            None => End::Outside,
        }
    }
}

/// What stands behind an address.
#[derive(Debug, Clone, Copy)]
enum End<'a> {
    /// A node, or a part of one.
    System(NodeAddr, Plane),
    Container(&'a Claim),
    /// An application address that nobody has.
    Nobody,
    /// None of the cluster's.
    Outside,
}

/// What a name stands for to whoever asks from this network (`None`: from a node, or from a container that is confined to
/// none), among all instances of the cluster, and the address that is tried.
#[must_use]
pub fn name(name: &str, from: Option<AppNet>, all: &[Instance]) -> (Vec<Step>, Option<Ipv4Addr>) {
    let of_name: Vec<&Instance> = all
        .iter()
        .filter(|instance| instance.service.as_str() == name)
        .collect();
    if of_name.is_empty() {
        let step = Step::stops(
            Stage::Name,
            format!("nothing is registered as {name}"),
            "arpanet2 services lists what is; a container registers by the label arpanet.service",
        );
        return (vec![step], None);
    }
    let list = |some: &[&Instance]| {
        let all = some.iter().map(|instance| instance.ip.to_string());
        all.collect::<Vec<_>>().join(", ")
    };
    let mut steps = vec![Step::passes(
        Stage::Name,
        format!("{name} is registered at {}", list(&of_name)),
    )];
    let (well, ill): (Vec<&Instance>, Vec<&Instance>) = of_name
        .into_iter()
        .partition(|instance| instance.health == Health::Passing);
    let told: Vec<String> = ill
        .iter()
        .map(|one| format!("{} on node {} is {}", one.ip, one.node, one.health))
        .collect();
    if well.is_empty() {
        steps.push(Step::stops(
            Stage::Health,
            format!("none of them is in DNS: {}", told.join(", ")),
            "critical: arpanet2 ps on its node shows what the check says; suspended: its node is out of reach",
        ));
        return (steps, None);
    }
    let heard = heard_of(from, well.iter().map(|instance| instance.net));
    let shown: Vec<&Instance> = well
        .into_iter()
        .filter(|instance| heard.is_none() || instance.net == heard)
        .collect();
    let mut found = format!("DNS tells {}", list(&shown));
    if !told.is_empty() {
        found = format!("{found}; not in it: {}", told.join(", "));
    }
    steps.push(Step::passes(Stage::Health, found));
    let chosen = shown.first().map(|instance| instance.ip);
    (steps, chosen)
}

/// What becomes of a packet, up to where it stops or arrives.
#[must_use]
pub fn packet(known: &Situation, from: Ipv4Addr, to: Ipv4Addr) -> Vec<Step> {
    let mut way = Way {
        known,
        steps: Vec::new(),
    };
    // Stops where a step does.
    let _ = way.go(from, to);
    way.steps
}

struct Way<'a> {
    known: &'a Situation,
    steps: Vec<Step>,
}

impl Way<'_> {
    fn go(&mut self, from: Ipv4Addr, to: Ipv4Addr) -> Option<()> {
        let (source, target) = (self.known.end(from), self.known.end(to));
        let sender = self.holder(from, source)?;
        let receiver = self.holder(to, target)?;
        self.take(rule(self.known.isolation, (from, source), (to, target)))?;
        self.carry(sender, receiver)
    }

    fn take(&mut self, step: Step) -> Option<()> {
        let goes_on = step.outcome != Outcome::Stops;
        self.steps.push(step);
        goes_on.then_some(())
    }

    /// The node that has an address, and whether it is really there.
    fn holder(&mut self, ip: Ipv4Addr, end: End<'_>) -> Option<NodeAddr> {
        let node = match end {
            End::System(node, plane) => {
                self.take(Step::passes(
                    Stage::Claim,
                    format!("{ip} is node {node}'s {}", part(plane)),
                ))?;
                node
            }
            End::Container(claim) => {
                let (node, name) = (claim.node, &claim.container);
                self.take(Step::passes(
                    Stage::Claim,
                    format!("{ip} is held by node {node} for {name} ({})", claim.addr),
                ))?;
                if node == self.known.me && !self.known.attached.contains_key(&ip) {
                    self.take(Step::stops(
                        Stage::Attachment,
                        format!("{name} does not have {ip} yet, or not any more"),
                        "arpanet2 ps tells what the container is doing",
                    ))?;
                }
                node
            }
            End::Nobody => {
                self.take(Step::stops(
                    Stage::Claim,
                    format!("no container has {ip}"),
                    "it may have ended, or lost the address to an older claim: arpanet2 ps on its node",
                ))?;
                return None;
            }
            End::Outside => {
                self.take(Step::stops(
                    Stage::Claim,
                    format!("{ip} is no address of the cluster"),
                    "the cluster's are 10.0.0.0/8; what lies outside is up to the host's own routes",
                ))?;
                return None;
            }
        };
        match self.known.members.get(&node) {
            Some(MemberState::Alive) => {}
            Some(MemberState::Suspect) => {
                self.take(Step::passes(
                    Stage::Member,
                    format!("node {node} has not answered lately"),
                ))?;
            }
            Some(MemberState::Down) => self.take(Step::stops(
                Stage::Member,
                format!("node {node} is out of reach"),
                "arpanet2 nodes tells since when; its host is down, cut off, or its agent is stopped",
            ))?,
            None => self.take(Step::stops(
                Stage::Member,
                format!("no node {node} takes part"),
                "arpanet2 nodes lists who does",
            ))?,
        }
        Some(node)
    }

    fn carry(&mut self, sender: NodeAddr, receiver: NodeAddr) -> Option<()> {
        let me = self.known.me;
        if sender == receiver {
            return self.take(Step::passes(
                Stage::Connection,
                format!("both are on node {sender}"),
            ));
        }
        let other = match me {
            _ if me == sender => receiver,
            _ if me == receiver => sender,
            _ => {
                return self.take(Step::unknown(
                    Stage::Connection,
                    format!("how {sender} and {receiver} are connected is not known on {me}"),
                    format!("ask there: arpanet2 why on node {sender}"),
                ));
            }
        };
        let step = match self.known.peers.get(&other) {
            None => Step::stops(
                Stage::Connection,
                format!("the overlay does not know node {other} yet"),
                "its announcement has not come; arpanet2 status tells what discovery says",
            ),
            Some(peer) => match peer.state {
                PeerState::Up => Step::passes(Stage::Connection, connected(peer)),
                PeerState::Connecting => Step::stops(
                    Stage::Connection,
                    format!("the overlay is trying to reach node {other}{}", place(peer)),
                    "a firewall between the hosts may drop UDP, or the endpoint is wrong: --advertise",
                ),
                PeerState::Down => Step::stops(
                    Stage::Connection,
                    format!(
                        "the overlay has given node {other} up for now{}",
                        place(peer)
                    ),
                    "its host is down or cut off",
                ),
            },
        };
        self.take(step)
    }
}

const fn part(plane: Plane) -> &'static str {
    match plane {
        Plane::Overlay => "own address",
        Plane::Docker => "docker API",
        Plane::Discovery => "discovery agent",
        Plane::Plugin(_) => "plugin",
    }
}

fn place(peer: &PeerStatus) -> String {
    peer.endpoint
        .map(|endpoint| format!(", at {endpoint}"))
        .unwrap_or_default()
}

fn connected(peer: &PeerStatus) -> String {
    let handshake = peer
        .last_handshake
        .map(|ago| format!(", last handshake {} s ago", ago.as_secs()));
    let round_trip = peer
        .round_trip
        .map(|time| format!(", {:.2} ms", time.as_secs_f64() * 1_000.0));
    format!(
        "the overlay is connected with node {}{}{}{}",
        peer.node,
        place(peer),
        handshake.unwrap_or_default(),
        round_trip.unwrap_or_default()
    )
}

/// Whether one may reach the other: the overlay's promise, in words.
fn rule(
    isolation: bool,
    (from, source): (Ipv4Addr, End<'_>),
    (to, target): (Ipv4Addr, End<'_>),
) -> Step {
    let net = |end: End<'_>| match end {
        End::Container(claim) => claim.net(),
        _ => None,
    };
    let refused = |found: String, hint: &str| Step::stops(Stage::Rule, found, hint);
    match (net(source), net(target)) {
        (one, other) if !isolation => Step::passes(
            Stage::Rule,
            match one == other {
                true => "the overlay carries it".to_owned(),
                false => "the overlay keeps no networks apart".to_owned(),
            },
        ),
        (Some(one), Some(other)) if one == other => {
            Step::passes(Stage::Rule, format!("containers of {one} reach each other"))
        }
        (Some(one), Some(other)) => refused(
            format!("{one} and {other} are kept apart"),
            "a container may be in both networks: arpanet.net takes several",
        ),
        (Some(one), None) => refused(
            format!("containers of {one} reach nobody outside of it, and {to} is"),
            "a container with a /8 address reaches hosts, planes and other /8 addresses",
        ),
        (None, Some(other)) => refused(
            format!("nobody outside of {other} reaches into it, and {from} is"),
            "ask from a container of that network: arpanet2 exec",
        ),
        (None, None) => {
            let mut found = "hosts, planes and /8 addresses reach each other".to_owned();
            if matches!(target, End::System(_, Plane::Docker)) {
                found.push_str("; of a host's users only root reaches docker APIs");
            }
            Step::passes(Stage::Rule, found)
        }
    }
}

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;
