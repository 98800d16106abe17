//! What a catalogue says of instances, seen with what is known of their nodes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Health, Instance, Member, MemberState};
use crate::watch::Change;
use crate::{InstanceId, NodeAddr};

/// Both, by the last that was told.
#[derive(Debug, Default)]
pub(super) struct Merging {
    instances: BTreeMap<InstanceId, Instance>,
    states: BTreeMap<NodeAddr, MemberState>,
}

impl Merging {
    /// Takes over what the catalogue tells; the instances that it changes, and whether the source is out of reach where it
    /// says so.
    pub(super) fn follow_instances(
        &mut self,
        change: Change<InstanceId, Instance>,
    ) -> (BTreeSet<InstanceId>, Option<bool>) {
        match change {
            Change::Snapshot(set) => {
                let before = std::mem::replace(&mut self.instances, set);
                let all = before.into_keys().chain(self.instances.keys().cloned());
                (all.collect(), None)
            }
            Change::Upsert(id, instance) => {
                self.instances.insert(id.clone(), instance);
                (BTreeSet::from([id]), None)
            }
            Change::Removed(id) => {
                self.instances.remove(&id);
                (BTreeSet::from([id]), None)
            }
            Change::Stale => (BTreeSet::new(), Some(true)),
            Change::Fresh => (BTreeSet::new(), Some(false)),
        }
    }

    /// Takes over what is told of nodes; the instances that it changes.
    pub(super) fn follow_members(
        &mut self,
        change: Change<NodeAddr, Member>,
    ) -> BTreeSet<InstanceId> {
        match change {
            Change::Snapshot(set) => {
                self.states = set
                    .into_iter()
                    .map(|(node, member)| (node, member.state))
                    .collect();
                self.ids()
            }
            Change::Upsert(node, member) => {
                match self.states.insert(node, member.state) == Some(member.state) {
                    true => BTreeSet::new(),
                    false => self.of(node),
                }
            }
            Change::Removed(node) => {
                self.states.remove(&node);
                self.of(node)
            }
            Change::Stale | Change::Fresh => BTreeSet::new(),
        }
    }

    /// Every instance that the catalogue knows.
    pub(super) fn ids(&self) -> BTreeSet<InstanceId> {
        self.instances.keys().cloned().collect()
    }

    /// An instance as both say together.
    pub(super) fn instance(&self, id: &InstanceId) -> Option<Instance> {
        let instance = self.instances.get(id)?.clone();
        let lives = matches!(
            self.states.get(&instance.node),
            Some(MemberState::Alive | MemberState::Suspect)
        );
        Some(match lives {
            true => instance,
            false => instance.health(Health::Suspended),
        })
    }

    fn of(&self, node: NodeAddr) -> BTreeSet<InstanceId> {
        let instances = self.instances.iter();
        instances
            .filter(|(_, instance)| instance.node == node)
            .map(|(id, _)| id.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::roster::Role;

    fn web(node: &str) -> Instance {
        let node: NodeAddr = node.parse().unwrap();
        let id = format!("{node}:web").parse().unwrap();
        let [a, b] = node.octets();
        Instance::new(
            id,
            "web".parse().unwrap(),
            Ipv4Addr::new(10, 1, a, b),
            80,
            node,
        )
    }

    fn member(node: &str, state: MemberState) -> Change<NodeAddr, Member> {
        let node = node.parse().unwrap();
        let member = Member::new(node, "node".parse().unwrap(), Role::Server);
        Change::Upsert(node, member.state(state))
    }

    #[test]
    fn an_instance_is_suspended_while_its_node_is_no_living_member() {
        let mut merging = Merging::default();
        let web = web("0.2");
        let (changed, stale) =
            merging.follow_instances(Change::Upsert(web.id.clone(), web.clone()));
        assert_eq!((changed.len(), stale), (1, None));
        let health = |merging: &Merging| merging.instance(&web.id).map(|web| web.health);
        assert_eq!(health(&merging), Some(Health::Suspended));
        for (state, seen) in [
            (MemberState::Alive, Health::Passing),
            (MemberState::Suspect, Health::Passing),
            (MemberState::Down, Health::Suspended),
            (MemberState::Alive, Health::Passing),
        ] {
            let changed = merging.follow_members(member("0.2", state));
            assert_eq!(changed, BTreeSet::from([web.id.clone()]));
            assert_eq!(health(&merging), Some(seen), "{state}");
        }
        // Nothing new, and nothing of others.
        let again = merging.follow_members(member("0.2", MemberState::Alive));
        assert_eq!(again, BTreeSet::new());
        let other = merging.follow_members(member("0.3", MemberState::Down));
        assert_eq!(other, BTreeSet::new());
        merging.follow_members(Change::Removed("0.2".parse().unwrap()));
        assert_eq!(health(&merging), Some(Health::Suspended));
    }

    #[test]
    fn what_the_catalogue_says_worse_of_an_instance_holds() {
        let mut merging = Merging::default();
        merging.follow_members(member("0.2", MemberState::Alive));
        let sick = web("0.2").health(Health::Critical);
        let set = BTreeMap::from([(sick.id.clone(), sick.clone())]);
        merging.follow_instances(Change::Snapshot(set));
        assert_eq!(merging.instance(&sick.id), Some(sick.clone()));
        let (changed, _) = merging.follow_instances(Change::Snapshot(BTreeMap::new()));
        assert_eq!(changed, BTreeSet::from([sick.id.clone()]));
        assert_eq!(merging.instance(&sick.id), None);
        assert_eq!(
            merging.follow_instances(Change::Stale),
            (BTreeSet::new(), Some(true))
        );
    }
}
