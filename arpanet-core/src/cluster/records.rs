//! All nodes' records with what follows from them, kept up as they change: nothing is decoded twice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::ranges::Deed;
use super::record;
use crate::discovery::{Record, RecordKey};
use crate::watch::Change;
use crate::{AppAddr, AppNet, Claim, NodeAddr};

/// A record, with the claim that it is.
#[derive(Debug)]
struct Known {
    record: Record,
    claim: Option<Claim>,
    /// What it says of ranges.
    deeds: Vec<Deed>,
}

/// The records of all nodes.
#[derive(Debug, Default)]
pub(super) struct Records {
    by_owner: BTreeMap<NodeAddr, BTreeMap<RecordKey, Known>>,
    /// Who wants an address, and whether that one is out of reach: seldom more than one.
    claims: BTreeMap<Ipv4Addr, Vec<(Claim, bool)>>,
    /// Nodes whose announcement or holdings changed.
    changed: BTreeSet<NodeAddr>,
    claims_changed: bool,
    networks_changed: bool,
    ranges_changed: bool,
    /// How many claims there are in each network.
    nets: BTreeMap<AppNet, usize>,
}

impl Records {
    /// Carries a change of the watch over.
    pub(super) fn follow(&mut self, change: Change<(NodeAddr, RecordKey), Record>) {
        match change {
            Change::Snapshot(set) => {
                let gone: Vec<(NodeAddr, RecordKey)> = self
                    .by_owner
                    .iter()
                    .flat_map(|(owner, known)| known.keys().map(|key| (*owner, key.clone())))
                    .filter(|key| !set.contains_key(key))
                    .collect();
                for (owner, key) in gone {
                    self.remove(owner, &key);
                }
                for ((owner, key), record) in set {
                    self.insert(owner, key, record);
                }
            }
            Change::Upsert((owner, key), record) => self.insert(owner, key, record),
            Change::Removed((owner, key)) => self.remove(owner, &key),
            // What was told stays the best known.
            Change::Stale | Change::Fresh => {}
        }
    }

    pub(super) fn insert(&mut self, owner: NodeAddr, key: RecordKey, record: Record) {
        let of_owner = self.by_owner.entry(owner).or_default();
        if of_owner
            .get(&key)
            .is_some_and(|known| known.record == record)
        {
            return;
        }
        self.remove(owner, &key);
        self.note(owner, &key);
        // A node can only claim for itself.
        let claim = key
            .starts_with(record::CLAIM)
            .then(|| record::decode::<Claim>(&record.value))
            .flatten()
            .filter(|claim| claim.node == owner);
        if let Some(claim) = &claim {
            let rivals = self.claims.entry(claim.addr.ip()).or_default();
            rivals.push((claim.clone(), record.suspended));
            if let Some(net) = claim.net() {
                let claims = self.nets.entry(net).or_default();
                self.ranges_changed |= *claims == 0;
                *claims += 1;
            }
            self.changed
                .extend(rivals.iter().map(|(rival, _)| rival.node));
        }
        let deeds = key
            .starts_with(record::RANGE)
            .then(|| record::decode::<Vec<Deed>>(&record.value))
            .flatten()
            .unwrap_or_default();
        let known = Known {
            record,
            claim,
            deeds,
        };
        self.by_owner.entry(owner).or_default().insert(key, known);
    }

    fn remove(&mut self, owner: NodeAddr, key: &str) {
        let Some(known) = self.by_owner.get_mut(&owner).and_then(|of| of.remove(key)) else {
            return;
        };
        self.note(owner, key);
        let Some(claim) = known.claim else { return };
        if let Some(net) = claim.net()
            && let Some(claims) = self.nets.get_mut(&net)
        {
            *claims -= 1;
            if *claims == 0 {
                self.nets.remove(&net);
            }
        }
        if let Some(rivals) = self.claims.get_mut(&claim.addr.ip()) {
            self.changed
                .extend(rivals.iter().map(|(rival, _)| rival.node));
            if let Some(position) = rivals.iter().position(|(rival, _)| *rival == claim) {
                rivals.swap_remove(position);
            }
            if rivals.is_empty() {
                self.claims.remove(&claim.addr.ip());
            }
        }
    }

    fn note(&mut self, owner: NodeAddr, key: &str) {
        if key.starts_with(record::CLAIM) {
            self.claims_changed = true;
        } else if key.starts_with(record::NETWORK) || key.starts_with(record::DRAIN) {
            self.networks_changed = true;
            self.ranges_changed = true;
        } else if key.starts_with(record::RANGE) || key.starts_with(record::WANT) {
            self.ranges_changed = true;
        } else if key == record::ANNOUNCEMENT {
            self.changed.insert(owner);
        }
    }

    /// Nodes whose announcement or holdings changed since the last time.
    pub(super) fn take_changed(&mut self) -> BTreeSet<NodeAddr> {
        std::mem::take(&mut self.changed)
    }

    /// Whether claims came or went since the last time.
    pub(super) fn take_claims_changed(&mut self) -> bool {
        std::mem::take(&mut self.claims_changed)
    }

    /// Whether networks, or who is drained, changed since the last time.
    pub(super) fn take_networks_changed(&mut self) -> bool {
        std::mem::take(&mut self.networks_changed)
    }

    /// Whether ranges, wants, or the set of networks changed since the last time.
    pub(super) fn take_ranges_changed(&mut self) -> bool {
        std::mem::take(&mut self.ranges_changed)
    }

    /// What all nodes say of a network's ranges, those that are out of reach too.
    pub(super) fn deeds(&self, net: AppNet) -> impl Iterator<Item = &Deed> {
        let key = record::range_key(net);
        self.by_owner
            .values()
            .filter_map(move |known| known.get(&key))
            .flat_map(|known| &known.deeds)
    }

    /// Networks that claims, ranges or wants are of.
    pub(super) fn nets(&self) -> BTreeSet<AppNet> {
        let mut nets: BTreeSet<AppNet> = self.nets.keys().copied().collect();
        for prefix in [record::RANGE, record::WANT] {
            nets.extend(
                self.with_prefix(prefix)
                    .filter_map(|(net, _)| net.parse::<AppNet>().ok()),
            );
        }
        nets
    }

    /// One record.
    pub(super) fn get(&self, owner: NodeAddr, key: &str) -> Option<&Record> {
        Some(&self.by_owner.get(&owner)?.get(key)?.record)
    }

    /// All records whose keys start with `prefix`: the rest of the key, and the record.
    pub(super) fn with_prefix<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Record)> {
        self.by_owner
            .values()
            .flat_map(move |known| known.range(prefix.to_owned()..))
            .filter_map(move |(key, known)| Some((key.strip_prefix(prefix)?, &known.record)))
    }

    /// One claim.
    pub(super) fn claim(&self, owner: NodeAddr, key: &str) -> Option<&Claim> {
        self.by_owner.get(&owner)?.get(key)?.claim.as_ref()
    }

    /// One node's claims, by key.
    pub(super) fn claims_of(&self, owner: NodeAddr) -> impl Iterator<Item = (&RecordKey, &Claim)> {
        self.by_owner
            .get(&owner)
            .into_iter()
            .flatten()
            .filter_map(|(key, known)| Some((key, known.claim.as_ref()?)))
    }

    /// The keys of one node's claims, those that can't be read too.
    pub(super) fn claim_keys_of(&self, owner: NodeAddr) -> impl Iterator<Item = &RecordKey> {
        self.by_owner
            .get(&owner)
            .into_iter()
            .flat_map(BTreeMap::keys)
            .filter(|key| key.starts_with(record::CLAIM))
    }

    /// All claims, those of suspended owners too.
    pub(super) fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.claims.values().flatten().map(|(claim, _)| claim)
    }

    /// Addresses that must not be picked: claimed, also by suspended owners.
    pub(super) fn taken(&self) -> BTreeSet<Ipv4Addr> {
        self.claims.keys().copied().collect()
    }

    /// Who holds this address. The claims of suspended owners rest until they return.
    pub(super) fn holder(&self, ip: Ipv4Addr) -> Option<&Claim> {
        let (claim, rests) = first(self.claims.get(&ip)?)?;
        (!rests).then_some(claim)
    }

    /// Who holds each address; that of a node out of reach, where nobody else took it meanwhile.
    pub(super) fn settled(&self) -> BTreeMap<Ipv4Addr, Claim> {
        let claims = self.claims.iter();
        claims
            .filter_map(|(ip, rivals)| Some((*ip, first(rivals)?.0.clone())))
            .collect()
    }

    /// The claim that this one loses its address to.
    pub(super) fn older_than(&self, claim: &Claim) -> Option<&Claim> {
        self.holder(claim.addr.ip())
            .filter(|holder| holder.seniority(claim).is_lt())
    }

    /// The addresses that a node holds. A suspended owner keeps its routes where nobody else took the address meanwhile:
    /// the return costs nothing.
    pub(super) fn held_by(&self, owner: NodeAddr) -> Vec<AppAddr> {
        self.claims_of(owner)
            .filter(|(key, claim)| match self.holder(claim.addr.ip()) {
                Some(holder) => holder == *claim,
                None => self.get(owner, key).is_some_and(|record| record.suspended),
            })
            .map(|(_, claim)| claim.addr)
            .collect()
    }

    /// The /8 addresses that are held.
    pub(super) fn wide(&self) -> Vec<AppAddr> {
        let is_wide = |claim: &Claim| claim.net().is_none();
        self.claims
            .iter()
            .filter(|(_, rivals)| rivals.iter().any(|(claim, _)| is_wide(claim)))
            .filter_map(|(ip, _)| self.holder(*ip))
            .filter(|claim| is_wide(claim))
            .map(|claim| claim.addr)
            .collect()
    }

    /// The cluster's logical time: past every claim that was heard of.
    pub(super) fn next_epoch(&self) -> u64 {
        record::later(self.claims().map(|claim| claim.epoch).max())
    }
}

/// Who of several has an address: the oldest claim of those in reach, then of the others; and whether it is out of reach.
fn first(rivals: &[(Claim, bool)]) -> Option<&(Claim, bool)> {
    rivals
        .iter()
        .min_by(|(a, a_rests), (b, b_rests)| a_rests.cmp(b_rests).then_with(|| a.seniority(b)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::claim::Holders;

    /// A node's claim to an address: with an epoch, and suspended or not; or no longer.
    type Said = (u16, u8, Option<(u64, bool)>);

    /// Claims that come and go, of owners that come and go.
    fn changes() -> impl Strategy<Value = Vec<Said>> {
        let change = prop::option::weighted(0.8, (0..4u64, any::<bool>()));
        prop::collection::vec((1..4u16, 1..4u8, change), 0..40)
    }

    /// Found by the fuzz target `catalogue_records`: the next claim would have been older than all others.
    #[test]
    fn a_claim_at_the_end_of_time_makes_no_later_one_older() {
        let mut records = Records::default();
        let owner = NodeAddr::from_index(1).unwrap();
        let addr = "10.1.0.1/16".parse().unwrap();
        let claim = Claim::new(addr, owner, "w".parse().unwrap(), u64::MAX);
        let record = Record::new(record::encode(&claim).unwrap());
        records.follow(Change::Upsert((owner, "claim/10.1.0.1/w".into()), record));
        assert_eq!(records.next_epoch(), u64::MAX);
    }

    proptest! {
        #[test]
        fn what_is_kept_up_is_what_is_worked_out_anew(changes in changes()) {
            let mut records = Records::default();
            let mut all = BTreeMap::new();
            for (node, host, change) in changes {
                let owner = NodeAddr::from_index(node).unwrap();
                let key = format!("claim/10.1.0.{host}/w");
                match change {
                    Some((epoch, suspended)) => {
                        let addr = format!("10.1.0.{host}/16").parse().unwrap();
                        let claim = Claim::new(addr, owner, "w".parse().unwrap(), epoch);
                        let record = Record::new(record::encode(&claim).unwrap());
                        let record = record.suspended(suspended);
                        all.insert((owner, key.clone()), (claim, suspended));
                        records.follow(Change::Upsert((owner, key), record));
                    }
                    None => {
                        all.remove(&(owner, key.clone()));
                        records.follow(Change::Removed((owner, key)));
                    }
                }
            }
            let live = all.values().filter(|(_, suspended)| !suspended);
            let holders = Holders::resolve(live.map(|(claim, _)| claim.clone()));
            for host in 1..4 {
                let ip = Ipv4Addr::new(10, 1, 0, host);
                prop_assert_eq!(records.holder(ip), holders.holder(ip));
            }
            for (claim, _) in all.values() {
                prop_assert_eq!(records.older_than(claim), holders.older_than(claim));
            }
            let epochs = all.values().map(|(claim, _)| claim.epoch);
            prop_assert_eq!(records.next_epoch(), epochs.max().unwrap_or(0) + 1);
            prop_assert_eq!(records.claims().count(), all.len());
            let addrs: BTreeSet<Ipv4Addr> = all.values().map(|(claim, _)| claim.addr.ip()).collect();
            prop_assert_eq!(records.taken(), addrs);
        }
    }
}
