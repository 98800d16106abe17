//! Addresses that a container was given, or lost, by hand after it was made. Pure.
//!
//! They are kept in one label of the container, so that they live exactly as long as it does, over restarts of the agent
//! too. Each that was given has an age of its own: who attaches late does not win by the container's age.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::runtime::{ContainerSpec, NetRequest};
use crate::{AppAddr, AppNet};

/// The label: `+10.3.0.5/16@17` for each that was given at epoch 17, `-10.1.0.5` for each of the spec that was taken away,
/// `-10.3.0.0/16` for each network that is not to be given an address of again.
pub(super) const GIVEN_LABEL: &str = "arpanet.given";

/// What was changed by hand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Given {
    added: BTreeMap<AppAddr, u64>,
    taken: BTreeSet<Ipv4Addr>,
    shunned: BTreeSet<AppNet>,
}

impl Given {
    /// As a container's label says. A part that can't be read is passed over.
    pub(super) fn of(spec: &ContainerSpec) -> Self {
        let mut given = Self::default();
        let label = spec.labels.get(GIVEN_LABEL).map_or("", String::as_str);
        for part in label.split(',') {
            if let Some(ip) = part.strip_prefix('-').and_then(|ip| ip.parse().ok()) {
                given.taken.insert(ip);
            } else if let Some(net) = part.strip_prefix('-').and_then(|net| net.parse().ok()) {
                given.shunned.insert(net);
            } else if let Some((addr, epoch)) =
                part.strip_prefix('+').and_then(|part| part.split_once('@'))
                && let (Ok(addr), Ok(epoch)) = (addr.parse(), epoch.parse())
            {
                given.added.insert(addr, epoch);
            }
        }
        given
    }

    /// The label's value; `None` where nothing was changed.
    pub(super) fn label(&self) -> Option<String> {
        let added = self
            .added
            .iter()
            .map(|(addr, epoch)| format!("+{addr}@{epoch}"));
        let taken = self.taken.iter().map(|ip| format!("-{ip}"));
        let shunned = self.shunned.iter().map(|net| format!("-{net}"));
        let parts: Vec<String> = added.chain(taken).chain(shunned).collect();
        (!parts.is_empty()).then(|| parts.join(","))
    }

    /// With this address too.
    pub(super) fn and(mut self, addr: AppAddr, epoch: u64) -> Self {
        self.added.insert(addr, epoch);
        self.shunned.retain(|net| addr.net() != Some(*net));
        self
    }

    /// Whether an address of this network was taken away by hand.
    pub(super) fn shuns(&self, net: AppNet) -> bool {
        self.shunned.contains(&net)
    }

    /// Without this address, whether it was given or stands in the spec.
    pub(super) fn without(mut self, spec: &ContainerSpec, ip: Ipv4Addr) -> Self {
        let picked = spec
            .nets
            .iter()
            .any(|request| !matches!(request, NetRequest::Addr(_)));
        let gone = self.added.extract_if(.., |addr, _| addr.ip() == ip);
        let nets: Vec<AppNet> = gone.filter_map(|(addr, _)| addr.net()).collect();
        if picked {
            self.shunned.extend(nets);
        }
        if spec_addresses(spec).any(|addr| addr.ip() == ip) {
            self.taken.insert(ip);
        }
        self
    }
}

fn spec_addresses(spec: &ContainerSpec) -> impl Iterator<Item = AppAddr> {
    spec.nets.iter().filter_map(|request| match request {
        NetRequest::Addr(addr) => Some(*addr),
        NetRequest::Net(_) | NetRequest::Named(_) => None,
    })
}

/// The addresses that a container is to have, each with the epoch that it was given at by hand.
pub(super) fn addresses(spec: &ContainerSpec) -> Vec<(AppAddr, Option<u64>)> {
    let given = Given::of(spec);
    let mut addresses: Vec<(AppAddr, Option<u64>)> = spec_addresses(spec)
        .filter(|addr| !given.taken.contains(&addr.ip()))
        .map(|addr| (addr, None))
        .collect();
    for (addr, epoch) in given.added {
        if addresses.iter().all(|(known, _)| known.ip() != addr.ip()) {
            addresses.push((addr, Some(epoch)));
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(spec: &ContainerSpec) -> Vec<String> {
        addresses(spec)
            .into_iter()
            .map(|(addr, epoch)| format!("{addr} {epoch:?}"))
            .collect()
    }

    fn with(spec: &ContainerSpec, given: &Given) -> ContainerSpec {
        let mut spec = spec.clone();
        spec.labels.remove(GIVEN_LABEL);
        spec.labels
            .extend(given.label().map(|label| (GIVEN_LABEL.to_owned(), label)));
        assert_eq!(Given::of(&spec), *given);
        spec
    }

    #[test]
    fn what_was_given_and_taken_stands_in_the_label() {
        let addr = |text: &str| text.parse::<AppAddr>().unwrap();
        let spec = ContainerSpec::command(["httpd"]).addr(addr("10.1.0.5/16"));
        assert_eq!(Given::of(&spec).label(), None);

        let spec = with(&spec, &Given::of(&spec).and(addr("10.3.0.9/24"), 7));
        assert_eq!(shown(&spec), ["10.1.0.5/16 None", "10.3.0.9/24 Some(7)"]);

        let spec = with(
            &spec,
            &Given::of(&spec).without(&spec, addr("10.1.0.5/16").ip()),
        );
        assert_eq!(shown(&spec), ["10.3.0.9/24 Some(7)"]);

        // Given back, it is as young as that.
        let spec = with(&spec, &Given::of(&spec).and(addr("10.1.0.5/16"), 9));
        assert_eq!(shown(&spec), ["10.1.0.5/16 Some(9)", "10.3.0.9/24 Some(7)"]);
        let spec = with(
            &spec,
            &Given::of(&spec).without(&spec, addr("10.3.0.9/24").ip()),
        );
        let spec = with(
            &spec,
            &Given::of(&spec).without(&spec, addr("10.1.0.5/16").ip()),
        );
        assert!(shown(&spec).is_empty());
    }

    #[test]
    fn a_part_that_can_not_be_read_is_passed_over() {
        let spec = ContainerSpec::command(["httpd"])
            .addr("10.1.0.5/16".parse().unwrap())
            .label(GIVEN_LABEL, "+10.3.0.9/24@x,+10.4.0.2/16@3,-what,,");
        assert_eq!(shown(&spec), ["10.1.0.5/16 None", "10.4.0.2/16 Some(3)"]);
    }
}
