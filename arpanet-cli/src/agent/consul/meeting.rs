//! Consul's agents that find each other again, as soon as gossip sees them back.

use std::collections::BTreeSet;
use std::sync::Arc;

use arpanet_consul::ConsulAgent;
use arpanet_core::NodeAddr;
use arpanet_core::discovery::{Member, MemberState};
use arpanet_core::watch::{Change, Watch};
use tokio::sync::Notify;

/// Has consul meet every server that comes up, and all of them again once the key has turned: by itself it looks after half a
/// minute.
///
/// One that does not answer is not tried again before that: it joins by itself as it starts, and one that is just leaving would be
/// heard to leave, which serf holds for minutes against whoever has its name.
pub(super) async fn meet(
    agent: Arc<ConsulAgent>,
    me: NodeAddr,
    mut members: Watch<NodeAddr, Member>,
    turned: Arc<Notify>,
) {
    let mut met = Met::default();
    loop {
        tokio::select! {
            change = members.next() => match change {
                Some(change) => met.hear(me, change),
                None => return,
            },
            () = turned.notified() => met.due.clone_from(&met.up),
        }
        for node in std::mem::take(&mut met.due) {
            if let Err(error) = agent.join(&[node.discovery()]).await {
                tracing::debug!(%error, %node, "consul there does not answer yet");
            }
        }
    }
}

/// The servers that have come up, and which of them are still to be met.
#[derive(Debug, Default)]
struct Met {
    up: BTreeSet<NodeAddr>,
    due: BTreeSet<NodeAddr>,
}

impl Met {
    fn hear(&mut self, me: NodeAddr, change: Change<NodeAddr, Member>) {
        let is_server = |member: &Member| {
            member.node != me && member.role.admits() && member.state == MemberState::Alive
        };
        match change {
            Change::Snapshot(set) => {
                // Whoever it does not have, or has as down, went meanwhile.
                let is_down = |node: &NodeAddr| {
                    set.get(node)
                        .is_none_or(|member| member.state == MemberState::Down)
                };
                self.up.retain(|node| !is_down(node));
                self.due.retain(|node| !is_down(node));
                for server in set.into_values().filter(is_server) {
                    self.come(server.node);
                }
            }
            Change::Upsert(node, member) if is_server(&member) => self.come(node),
            Change::Upsert(node, member) if member.state == MemberState::Down => self.go(node),
            Change::Removed(node) => self.go(node),
            _ => {}
        }
    }

    fn come(&mut self, node: NodeAddr) {
        if self.up.insert(node) {
            self.due.insert(node);
        }
    }

    fn go(&mut self, node: NodeAddr) {
        self.up.remove(&node);
        self.due.remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use arpanet_core::roster::Role;

    use super::*;

    fn member(text: &str, role: Role, state: MemberState) -> Member {
        let node: NodeAddr = text.parse().unwrap();
        let name = format!("node{}", node.octets()[1]).parse().unwrap();
        let mut member = Member::new(node, name, role);
        member.state = state;
        member
    }

    fn set(members: &[Member]) -> Change<NodeAddr, Member> {
        let members = members.iter().cloned();
        Change::Snapshot(members.map(|member| (member.node, member)).collect())
    }

    #[test]
    fn servers_are_met_once_each_time_that_they_come_up() {
        use MemberState::{Alive, Down, Suspect};
        let [me, other]: [NodeAddr; 2] = ["0.1", "0.2"].map(|node| node.parse().unwrap());
        let own = member("0.1", Role::Boot, Alive);
        let server = |state| member("0.2", Role::Server, state);
        let client = member("0.3", Role::Client, Alive);
        let mut met = Met::default();
        let mut come = |change| {
            met.hear(me, change);
            std::mem::take(&mut met.due).into_iter().collect::<Vec<_>>()
        };
        let first = set(&[own.clone(), server(Alive), client.clone()]);
        assert_eq!(come(first.clone()), [other]);
        assert_eq!(come(first), []);
        for (state, count) in [(Suspect, 0), (Alive, 0), (Down, 0), (Alive, 1)] {
            let change = Change::Upsert(other, server(state));
            assert_eq!(come(change).len(), count, "{state:?}");
        }
        assert_eq!(come(Change::Upsert(client.node, client)), []);
        // What a snapshot does not have, or has as down, is met again.
        for gone in [set(std::slice::from_ref(&own)), set(&[own, server(Down)])] {
            assert_eq!(come(gone), []);
            assert_eq!(come(set(&[server(Alive)])), [other]);
        }
        assert_eq!(come(Change::Removed(other)), []);
        assert_eq!(come(set(&[server(Alive)])), [other]);
    }

    #[test]
    fn one_that_went_is_not_to_be_met() {
        let [me, other]: [NodeAddr; 2] = ["0.1", "0.2"].map(|node| node.parse().unwrap());
        let server = |state| Change::Upsert(other, member("0.2", Role::Server, state));
        let mut met = Met::default();
        met.hear(me, server(MemberState::Alive));
        met.hear(me, server(MemberState::Suspect));
        assert_eq!(met.due, [other].into());
        for gone in [server(MemberState::Down), Change::Removed(other), set(&[])] {
            met.hear(me, gone);
            assert_eq!((&met.due, &met.up), (&[].into(), &[].into()));
            met.hear(me, server(MemberState::Alive));
            assert_eq!(met.due, [other].into());
        }
    }
}
