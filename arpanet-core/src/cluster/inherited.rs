//! What an earlier process of this node told: it is told again as long as it is not known which containers there are.
//!
//! An agent may start while its container engine is away, and the containers live on. What is not known is not gone: their
//! addresses stay attached and claimed, and what they provide stays registered, until the engine has said.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::reconcile::Applied;
use super::view::View;
use super::{Node, plan, record};
use crate::discovery::{Health, Instance, Selector};
use crate::overlay::AttachAddr;
use crate::watch::Change;
use crate::{Claim, ContainerName, InstanceId, NodeAddr, Result};

/// What an earlier process attached: containers and their addresses.
type Attached = BTreeSet<(ContainerName, AttachAddr)>;

fn ip_of(me: NodeAddr, addr: AttachAddr) -> Ipv4Addr {
    match addr {
        AttachAddr::Application(addr) => addr.ip(),
        AttachAddr::Plugin(block) => me.plugin(block),
    }
}

/// The claims of the addresses that are attached, by record key, each as old as it was before, where that is known.
fn claims(view: &View, me: NodeAddr, attached: &Attached) -> BTreeMap<String, Claim> {
    let claims = attached.iter().filter_map(|(container, addr)| {
        let AttachAddr::Application(addr) = addr else {
            return None;
        };
        let key = record::claim_key(addr.ip(), container);
        let before = view.records.claim(me, &key).map(|claim| claim.epoch);
        let epoch = before.unwrap_or_else(|| view.records.next_epoch());
        Some((key, Claim::new(*addr, me, container.clone(), epoch)))
    });
    claims.collect()
}

/// The instances that this node told of what these containers provide.
fn instances(
    known: BTreeMap<InstanceId, Instance>,
    me: NodeAddr,
    attached: &Attached,
) -> Vec<Instance> {
    let known = known.into_values();
    known
        .filter(|one| one.node == me && one.health != Health::Suspended)
        .filter(|one| {
            let mut attached = attached.iter();
            attached.any(|(container, addr)| plan::provides(me, container, ip_of(me, *addr), one))
        })
        .collect()
}

impl Node {
    /// Tells again what an earlier process told of containers that are still attached: others reach them by that, and
    /// discovery loses what is not told again.
    pub(super) async fn keep_inherited(&self, applied: &mut Applied) -> Result<()> {
        let attached = applied.inherited();
        if attached.is_empty() {
            return Ok(());
        }
        if !applied.is_inherited {
            self.register_inherited(applied, &attached).await?;
            applied.is_inherited = true;
        }
        if !self.discovery.capabilities().records {
            return Ok(());
        }
        let claims = claims(&self.view(), self.me, &attached);
        for (key, claim) in claims {
            // At the age that it has been told with, whatever has come since.
            if !matches!(applied.claims.get(&key), Some(Some(_))) {
                self.claim(applied, &key, &claim).await?;
            }
        }
        Ok(())
    }

    async fn register_inherited(&self, applied: &mut Applied, attached: &Attached) -> Result<()> {
        let mut watch = self.discovery.watch(Selector::All).await?;
        let known = match watch.try_next() {
            Some(Some(Change::Snapshot(known))) => known,
            _ => BTreeMap::new(),
        };
        for instance in instances(known, self.me, attached) {
            self.tell_instance(applied, instance).await?;
        }
        Ok(())
    }
}

impl Applied {
    /// What an earlier process attached, and this one has not attached anew.
    fn inherited(&self) -> Attached {
        let attached = self.attached.iter().flatten();
        let left = attached.filter(|(_, namespace)| namespace.is_none());
        left.map(|(key, _)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::discovery::Record;

    fn attached(name: &str, addr: &str) -> Attached {
        let addr = AttachAddr::Application(addr.parse().unwrap());
        [(name.parse().unwrap(), addr)].into()
    }

    #[test]
    fn a_claim_is_as_old_as_it_was_where_that_is_known() {
        let me: NodeAddr = "0.2".parse().unwrap();
        let mut view = View::default();
        let w1 = attached("w1", "10.1.0.5/16");
        let made = claims(&view, me, &w1);
        assert_eq!(made["claim/10.1.0.5/w1"].epoch, view.records.next_epoch());
        let claim = Claim::new("10.1.0.5/16".parse().unwrap(), me, "w1".parse().unwrap(), 4);
        let value: Bytes = record::encode(&claim).unwrap();
        let key = "claim/10.1.0.5/w1".to_owned();
        view.records.insert(me, key, Record::new(value));
        assert_eq!(claims(&view, me, &w1)["claim/10.1.0.5/w1"].epoch, 4);
    }

    #[test]
    fn only_what_the_attached_containers_provide_is_told_again() {
        let me: NodeAddr = "0.2".parse().unwrap();
        let instance = |id: &str, ip: &str, health| {
            let node = id.split(':').next().unwrap().parse().unwrap();
            let ip = ip.parse().unwrap();
            let one = Instance::new(id.parse().unwrap(), "web".parse().unwrap(), ip, 80, node);
            (one.id.clone(), one.health(health))
        };
        let known = [
            instance("0.2:w1:10.1.0.5", "10.1.0.5", Health::Critical),
            instance("0.2:w1:10.1.0.5:shop", "10.1.0.5", Health::Passing),
            instance("0.2:10.1.0.5:web", "10.1.0.5", Health::Passing),
            // Another container's, another address's, another node's, one by hand, and one that nobody can reach.
            instance("0.2:w2:10.1.0.6", "10.1.0.6", Health::Passing),
            instance("0.2:w1:10.1.0.55", "10.1.0.55", Health::Passing),
            instance("0.3:w1:10.1.0.5", "10.1.0.5", Health::Passing),
            instance("0.2:mine", "10.1.0.5", Health::Passing),
            instance("0.2:w1:10.1.0.5:old", "10.1.0.5", Health::Suspended),
        ];
        let told = instances(known.into(), me, &attached("w1", "10.1.0.5/16"));
        let told: Vec<&str> = told.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(
            told,
            [
                "0.2:10.1.0.5:web",
                "0.2:w1:10.1.0.5",
                "0.2:w1:10.1.0.5:shop"
            ]
        );
    }
}
