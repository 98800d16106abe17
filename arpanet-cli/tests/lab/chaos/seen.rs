//! What must hold when all is well, and where what hosts say differs from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::plan::{CONTESTED, HOSTS, NODES, SLOTS};
use crate::churn::seen::Placed;

/// The service of all containers.
pub(super) const WEB: &str = "web";
/// The service that each node is.
pub(super) const NODE: &str = "arpanet2";
/// The service that each node with an engine is besides.
pub(super) const ENGINE: &str = "docker";

/// What commands were told to bring about, and said that they had.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// Host and slot.
    pub(super) registered: BTreeSet<(usize, usize)>,
    /// Host and slot.
    pub(super) running: BTreeSet<(usize, usize)>,
    /// Of an address, the hosts whose containers were given it.
    pub(super) claimed: BTreeMap<usize, BTreeSet<usize>>,
    pub(super) dead: Option<usize>,
    /// Whether each host has an engine.
    pub(super) engines: bool,
}

/// What one host says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Which of the cluster's keys it has. An older build may not say.
    pub(super) key: Option<u64>,
    /// By address: name and role, and state.
    pub(super) nodes: BTreeMap<String, (String, String)>,
    /// Service, container or nothing, address, node, health.
    pub(super) instances: BTreeSet<(String, String, Ipv4Addr, String, String)>,
    /// What its DNS answers.
    pub(super) names: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    /// What its router holds: containers and addresses.
    pub(super) links: BTreeSet<Placed>,
}

/// The service that a host registers in a slot.
pub(super) fn registration(host: usize, slot: usize) -> String {
    format!("r{host}-{slot}")
}

/// The container of a host's slot.
pub(super) fn container(host: usize, slot: usize) -> String {
    format!("w{host}-{slot}")
}

/// A host's container with an address that another may have asked for.
pub(super) fn claimant(host: usize, address: usize) -> String {
    format!("c{host}-{address}")
}

pub(super) fn contested(address: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 7, 7 + u8::try_from(address).unwrap())
}

/// All names that DNS is asked for.
pub(super) fn names() -> Vec<String> {
    let hosts = 0..HOSTS.len();
    let registered = hosts.flat_map(|host| (0..SLOTS).map(move |slot| registration(host, slot)));
    registered
        .chain([WEB, NODE, ENGINE].map(str::to_owned))
        .collect()
}

/// Where the living differ from what is wanted and from each other, a line each. Pure.
pub(super) fn differences(wanted: &Wanted, seen: &BTreeMap<usize, Seen>) -> Vec<String> {
    let mut lines = Vec::new();
    for (host, here) in seen {
        for line in differences_of(wanted, here) {
            lines.push(format!("{}: {line}", HOSTS[*host]));
        }
    }
    let mut holders: BTreeMap<Ipv4Addr, Vec<&str>> = BTreeMap::new();
    for here in seen.values() {
        for (name, ip) in &here.links {
            holders.entry(*ip).or_default().push(name);
        }
    }
    for (ip, names) in holders.iter().filter(|(_, names)| names.len() > 1) {
        lines.push(format!("{ip} is held by {}", names.join(" and ")));
    }
    for (host, here) in seen {
        let said = here.instances.iter();
        let own = said.filter(|(service, .., node, _)| service == WEB && node == NODES[*host]);
        let own: BTreeSet<Placed> = own.map(|(_, name, ip, ..)| (name.clone(), *ip)).collect();
        if own != here.links {
            lines.push(format!(
                "{}: says {own:?} of itself and has {:?}",
                HOSTS[*host], here.links
            ));
        }
    }
    if let Some((first, here)) = seen.first_key_value() {
        for (host, there) in seen {
            let mut apart = Vec::new();
            if let Some((one, other)) = here.key.zip(there.key).filter(|(one, other)| one != other)
            {
                apart.push(format!("the key is {one} and {other}"));
            }
            let nodes = different(&here.nodes, &there.nodes);
            if !nodes.is_empty() {
                apart.push(format!("nodes: {nodes:?}"));
            }
            let instances: Vec<_> = here
                .instances
                .symmetric_difference(&there.instances)
                .collect();
            if !instances.is_empty() {
                apart.push(format!("instances: {instances:?}"));
            }
            if !apart.is_empty() {
                lines.push(format!(
                    "{} and {} say different things: {}",
                    HOSTS[*first],
                    HOSTS[*host],
                    apart.join("; ")
                ));
            }
        }
    }
    lines
}

/// What only one of two has, or has otherwise.
fn different<'a, K: Ord, V: PartialEq>(
    here: &'a BTreeMap<K, V>,
    there: &'a BTreeMap<K, V>,
) -> Vec<(&'a K, &'a V)> {
    let lacking = |from: &'a BTreeMap<K, V>, in_other: &'a BTreeMap<K, V>| {
        from.iter()
            .filter(move |(key, value)| in_other.get(key) != Some(value))
    };
    lacking(here, there).chain(lacking(there, here)).collect()
}

fn differences_of(wanted: &Wanted, here: &Seen) -> Vec<String> {
    let mut lines = Vec::new();
    for (host, node) in NODES.into_iter().enumerate() {
        let right = if wanted.dead == Some(host) {
            "down"
        } else {
            "alive"
        };
        let state = here.nodes.get(node).map(|(_, state)| &**state);
        if state != Some(right) {
            lines.push(format!("{node} is {state:?} and not {right}"));
        }
    }
    if here.nodes.len() != NODES.len() {
        lines.push(format!("there are {:?}", here.nodes.keys()));
    }
    let mut missing: BTreeSet<(String, String, usize)> = BTreeSet::new();
    for host in 0..HOSTS.len() {
        missing.insert((NODE.to_owned(), String::new(), host));
        if wanted.engines {
            missing.insert((ENGINE.to_owned(), String::new(), host));
        }
    }
    for (host, slot) in &wanted.registered {
        missing.insert((registration(*host, *slot), String::new(), *host));
    }
    for (host, slot) in &wanted.running {
        missing.insert((WEB.to_owned(), container(*host, *slot), *host));
    }
    let mut winners: BTreeMap<usize, usize> = BTreeMap::new();
    let mut answers: BTreeMap<&str, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for (service, name, ip, node, health) in &here.instances {
        let is_alive = wanted.dead.is_none_or(|dead| node != NODES[dead]);
        let right = if is_alive { "passing" } else { "suspended" };
        if health != right {
            lines.push(format!(
                "{service} {name} on {node} is {health} and not {right}"
            ));
        }
        if is_alive {
            answers.entry(service).or_default().insert(*ip);
        }
        let host = NODES.iter().position(|known| known == node);
        let host = host.unwrap_or(usize::MAX);
        if missing.remove(&(service.clone(), name.clone(), host)) {
            continue;
        }
        let won = (0..CONTESTED).find(|address| {
            let claims = wanted.claimed.get(address);
            claimant(host, *address) == *name
                && contested(*address) == *ip
                && claims.is_some_and(|claims| claims.contains(&host))
        });
        match won {
            Some(address) => *winners.entry(address).or_default() += 1,
            None => lines.push(format!(
                "{service} {name} {ip} on {node} should not be there"
            )),
        }
    }
    for (service, name, host) in missing {
        lines.push(format!("{service} {name} of {} is missing", HOSTS[host]));
    }
    for (address, hosts) in &wanted.claimed {
        let count = winners.get(address).copied().unwrap_or(0);
        if count != 1 && !hosts.is_empty() {
            let ip = contested(*address);
            lines.push(format!("{ip} is with {count} of hosts {hosts:?}"));
        }
    }
    for (name, told) in &here.names {
        let right = answers.remove(&**name).unwrap_or_default();
        if *told != right {
            lines.push(format!("DNS says {told:?} of {name} and not {right:?}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// node1 has a registration and a container, node2 and node4 have asked for one address, which node4 has.
    fn well() -> (Wanted, BTreeMap<usize, Seen>) {
        let wanted = Wanted {
            registered: [(0, 1)].into(),
            running: [(0, 0)].into(),
            claimed: [(1, [1, 3].into())].into(),
            dead: None,
            engines: false,
        };
        let (node, picked, won) = ("10.255.0.1", "10.1.0.2", "10.1.7.8");
        let instance = |service: &str, name: &str, ip: &str, node: &str| {
            let [service, name, node, health] = [service, name, node, "passing"].map(str::to_owned);
            (service, name, ip.parse().unwrap(), node, health)
        };
        let hosts: Vec<String> = NODES.map(|node| format!("10.255.{node}")).into();
        let mut names: BTreeMap<String, BTreeSet<Ipv4Addr>> = names()
            .into_iter()
            .map(|name| (name, BTreeSet::new()))
            .collect();
        names.insert(registration(0, 1), [node.parse().unwrap()].into());
        names.insert(
            WEB.to_owned(),
            [picked, won].map(|ip| ip.parse().unwrap()).into(),
        );
        let itself = hosts.iter().map(|ip| ip.parse().unwrap());
        names.insert(NODE.to_owned(), itself.collect());
        let mut all = Seen {
            key: Some(1),
            nodes: NODES
                .map(|node| (node.to_owned(), (node.to_owned(), "alive".to_owned())))
                .into(),
            instances: [
                instance("r0-1", "", node, "0.1"),
                instance(WEB, "w0-0", picked, "0.1"),
                instance(WEB, "c3-1", won, "0.3"),
            ]
            .into(),
            names,
            links: BTreeSet::new(),
        };
        for (host, node) in hosts.iter().zip(NODES) {
            all.instances.insert(instance(NODE, "", host, node));
        }
        let mut seen: BTreeMap<usize, Seen> = (0..4).map(|host| (host, all.clone())).collect();
        let mut hold = |host, name: &str, ip: &str| {
            let links = &mut seen.get_mut(&host).unwrap().links;
            links.insert((name.to_owned(), ip.parse().unwrap()));
        };
        hold(0, "w0-0", picked);
        hold(3, "c3-1", won);
        (wanted, seen)
    }

    #[test]
    fn what_is_well_differs_nowhere() {
        let (wanted, seen) = well();
        assert_eq!(differences(&wanted, &seen), Vec::<String>::new());
    }

    #[test]
    fn the_dead_are_down_and_what_they_said_is_in_no_lookup() {
        let (mut wanted, mut seen) = well();
        wanted.dead = Some(0);
        seen.remove(&0);
        let lines = differences(&wanted, &seen).join("\n");
        for found in [
            "0.1 is Some(\"alive\")",
            "w0-0 on 0.1 is passing",
            "DNS says",
        ] {
            assert!(lines.contains(found), "{found}: {lines}");
        }
        for here in seen.values_mut() {
            here.nodes.get_mut("0.1").unwrap().1 = "down".to_owned();
            let all = std::mem::take(&mut here.instances).into_iter();
            let suspended = all.map(|(service, name, ip, node, health)| {
                let dead = node == "0.1";
                let health = if dead { "suspended".to_owned() } else { health };
                (service, name, ip, node, health)
            });
            here.instances = suspended.collect();
            here.names.insert(registration(0, 1), BTreeSet::new());
            here.names.insert(WEB.to_owned(), [contested(1)].into());
            let nodes = here.names.get_mut(NODE).unwrap();
            nodes.remove(&"10.255.0.1".parse().unwrap());
        }
        assert_eq!(differences(&wanted, &seen), Vec::<String>::new());
    }

    #[test]
    fn whoever_lies_is_found_out() {
        type Lie = fn(&mut Seen);
        let lies: [(Lie, &str); 7] = [
            (|here| here.key = Some(2), "say different things"),
            (|here| drop(here.nodes.remove("0.3")), "0.3 is None"),
            (
                |here| here.instances.retain(|(service, ..)| service != "r0-1"),
                "r0-1  of node1 is missing",
            ),
            (
                |here| here.instances.retain(|(_, name, ..)| name != "c3-1"),
                "10.1.7.8 is with 0",
            ),
            (
                |here| {
                    let (service, name) = (WEB.to_owned(), "c1-1".to_owned());
                    let (node, health) = ("0.2".to_owned(), "passing".to_owned());
                    here.instances
                        .insert((service, name, contested(1), node, health));
                },
                "10.1.7.8 is with 2",
            ),
            (
                |here| drop(here.names.insert(WEB.to_owned(), BTreeSet::new())),
                "DNS says {} of web",
            ),
            (
                |here| {
                    here.links.insert(("c1-1".to_owned(), contested(1)));
                },
                "10.1.7.8 is held by c1-1 and c3-1",
            ),
        ];
        for (lie, found) in lies {
            let (wanted, mut seen) = well();
            lie(seen.get_mut(&1).unwrap());
            let lines = differences(&wanted, &seen).join("\n");
            assert!(lines.contains(found), "{found}: {lines}");
        }
    }
}
