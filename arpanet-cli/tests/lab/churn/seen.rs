//! What docker, the links, the catalogue and DNS each say there is, and where they differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::Ipv4Addr;

use super::plan::{HOSTS, Slot};

/// Name and address of a container.
pub(crate) type Placed = (String, Ipv4Addr);
/// An instance: service, container, address, host.
pub(super) type Provided = (String, String, Ipv4Addr, usize);

/// What one host says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// What docker runs here, with the address where it has one of docker's network.
    pub(super) docker: BTreeMap<String, Option<Ipv4Addr>>,
    /// The aliases that docker knows: one of its engines that is killed at a bad moment forgets a container's.
    pub(super) aliased: BTreeSet<String>,
    /// The links in the router; those that nobody has yet are nobody's.
    pub(super) links: BTreeSet<Placed>,
    /// The addresses of the overlay that the containers see.
    pub(super) inside: BTreeSet<Placed>,
    /// The addresses that the network driver has given to endpoints.
    pub(super) promised: BTreeSet<Ipv4Addr>,
    /// The instances in the whole cluster, but those of nodes.
    pub(super) catalogue: BTreeSet<Provided>,
    /// What its DNS server answers.
    pub(super) dns: BTreeMap<String, BTreeSet<Ipv4Addr>>,
}

/// The names that a container is to be found by.
pub(super) fn names(slot: &Slot) -> impl Iterator<Item = String> {
    // Docker's own names are of its networks.
    let own = slot.driven.then(|| [alias_of(slot), slot.name.clone()]);
    let own = own.into_iter().flatten();
    [slot.service.clone()].into_iter().chain(own)
}

/// What aliases begin with.
pub(super) const ALIAS: &str = "alias-";

pub(super) fn alias_of(slot: &Slot) -> String {
    format!("{ALIAS}{}", slot.name)
}

/// Where the others differ from docker, a line each. Pure.
pub(super) fn differences(slots: &[Slot], seen: &[Host]) -> Vec<String> {
    let mut lines = Vec::new();
    let slot_of = |name: &str| slots.iter().find(|slot| slot.name == name);
    let mut provided = BTreeSet::new();
    for (host, here) in seen.iter().enumerate() {
        let running: BTreeSet<&String> = here.docker.keys().collect();
        let linked: BTreeSet<&String> = here.links.iter().map(|(name, _)| name).collect();
        let at = HOSTS[host];
        compare(&mut lines, &format!("{at}: links"), &running, &linked);
        if here.links.len() != linked.len() {
            lines.push(format!("{at}: more than one link: {:?}", here.links));
        }
        compare(
            &mut lines,
            &format!("{at}: addresses inside"),
            &here.links,
            &here.inside,
        );
        let driven: BTreeSet<Ipv4Addr> = here.docker.values().flatten().copied().collect();
        compare(
            &mut lines,
            &format!("{at}: addresses of the driver"),
            &driven,
            &here.promised,
        );
        for (name, ip) in &here.links {
            if let Some(Some(of_docker)) = here.docker.get(name)
                && of_docker != ip
            {
                lines.push(format!(
                    "{at}: {name} is {of_docker} to docker and {ip} by its link"
                ));
            }
            if let Some(slot) = slot_of(name).filter(|_| running.contains(name)) {
                let known = names(slot)
                    .filter(|name| !name.starts_with(ALIAS) || here.aliased.contains(name));
                provided.extend(known.map(|service| (service, name.clone(), *ip, host)));
            }
        }
    }
    let mut answers: BTreeMap<String, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for name in slots.iter().flat_map(names) {
        answers.entry(name).or_default();
    }
    for (name, _, ip, _) in &provided {
        answers.entry(name.clone()).or_default().insert(*ip);
    }
    for (host, here) in seen.iter().enumerate() {
        let at = HOSTS[host];
        compare(
            &mut lines,
            &format!("{at}: catalogue"),
            &provided,
            &here.catalogue,
        );
        for (name, ips) in &answers {
            let empty = BTreeSet::new();
            let told = here.dns.get(name).unwrap_or(&empty);
            compare(&mut lines, &format!("{at}: DNS of {name}"), ips, told);
        }
    }
    lines
}

fn compare<T: Ord + Debug>(
    lines: &mut Vec<String>,
    what: &str,
    wanted: &BTreeSet<T>,
    found: &BTreeSet<T>,
) {
    lines.extend(
        wanted
            .difference(found)
            .map(|one| format!("{what}: {one:?} is missing")),
    );
    lines.extend(
        found
            .difference(wanted)
            .map(|one| format!("{what}: {one:?} should not be there")),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(name: &str, host: usize, driven: bool) -> Slot {
        Slot {
            name: name.to_owned(),
            host,
            service: "web".to_owned(),
            driven,
            always: false,
        }
    }

    /// `a` on node1 by labels, `b` on node2 by the driver; all agree.
    fn well() -> (Vec<Slot>, Vec<Host>) {
        let (one, two): (Ipv4Addr, Ipv4Addr) =
            ("10.1.0.5".parse().unwrap(), "10.1.0.6".parse().unwrap());
        let provided: BTreeSet<Provided> = [
            ("web", "a", one, 0),
            ("web", "b", two, 1),
            ("alias-b", "b", two, 1),
            ("b", "b", two, 1),
        ]
        .map(|(service, name, ip, host)| (service.to_owned(), name.to_owned(), ip, host))
        .into();
        let dns: BTreeMap<_, _> = [
            ("web".to_owned(), [one, two].into()),
            ("alias-b".to_owned(), [two].into()),
            ("b".to_owned(), [two].into()),
        ]
        .into();
        let host = |name: &str, ip: Ipv4Addr, driven: bool| Host {
            docker: [(name.to_owned(), driven.then_some(ip))].into(),
            aliased: driven
                .then(|| format!("alias-{name}"))
                .into_iter()
                .collect(),
            links: [(name.to_owned(), ip)].into(),
            inside: [(name.to_owned(), ip)].into(),
            promised: driven.then_some(ip).into_iter().collect(),
            catalogue: provided.clone(),
            dns: dns.clone(),
        };
        (
            vec![slot("a", 0, false), slot("b", 1, true)],
            vec![host("a", one, false), host("b", two, true)],
        )
    }

    #[test]
    fn what_agrees_differs_nowhere() {
        let (slots, seen) = well();
        assert!(differences(&slots, &seen).is_empty());
    }

    #[test]
    fn whoever_lies_is_found_out() {
        type Lie = fn(&mut Host);
        let lies: [(Lie, &str); 9] = [
            (
                |host| host.docker.clear(),
                "links: \"b\" should not be there",
            ),
            (|host| host.links.clear(), "links: \"b\" is missing"),
            (|host| host.inside.clear(), "addresses inside"),
            (|host| host.promised.clear(), "addresses of the driver"),
            (
                |host| {
                    host.links
                        .insert(("b".to_owned(), "10.1.0.7".parse().unwrap()));
                },
                "more than one link",
            ),
            (
                |host| {
                    host.docker
                        .insert("b".to_owned(), Some("10.1.0.7".parse().unwrap()));
                },
                "b is 10.1.0.7 to docker and 10.1.0.6 by its link",
            ),
            (|host| drop(host.catalogue.pop_first()), "catalogue"),
            (|host| drop(host.dns.remove("alias-b")), "DNS of alias-b"),
            (
                |host| {
                    host.dns
                        .get_mut("web")
                        .unwrap()
                        .insert("10.1.0.9".parse().unwrap());
                },
                "DNS of web: 10.1.0.9 should not be there",
            ),
        ];
        for (lie, found) in lies {
            let (slots, mut seen) = well();
            lie(&mut seen[1]);
            let lines = differences(&slots, &seen);
            assert!(
                lines
                    .iter()
                    .any(|line| line.starts_with("node2") && line.contains(found)),
                "{found}: {lines:?}"
            );
        }
    }
}
