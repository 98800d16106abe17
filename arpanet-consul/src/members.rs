//! Members: the nodes that said so in the catalogue, and what consul's own membership sees of them from here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::discovery::{Member, MemberState};
use arpanet_core::watch::{Watch, WatchHub};
use arpanet_core::{NodeAddr, Result};
use tokio::sync::watch;

use crate::feed::{Age, Ask, Sink, follow};
use crate::reading::Answer;
use crate::running::Source;
use crate::translate::{MEMBER, to_node};
use crate::wire::SerfMember;

/// How often the local agent is asked whom it reaches: no query of consul's waits for that.
const PERIOD: Duration = Duration::from_secs(1);

/// Members with consul's names of their nodes.
pub(crate) type Nodes = Vec<(String, Member)>;

/// Members by address. One that the catalogue has as alive, and this node's agent does not reach, is suspect until the
/// leader has made up its mind; without a leader nobody does, and it is down.
pub(crate) fn seen(
    nodes: &Nodes,
    serf: &[SerfMember],
    has_leader: bool,
) -> BTreeMap<NodeAddr, Member> {
    let mut seen: BTreeMap<NodeAddr, Member> = BTreeMap::new();
    for (name, member) in nodes {
        let reached = serf.iter().any(|one| one.name == *name && one.is_alive());
        let state = match member.state {
            MemberState::Alive if !reached && has_leader => MemberState::Suspect,
            MemberState::Alive if !reached => MemberState::Down,
            state => state,
        };
        let member = member
            .clone()
            .state(state)
            .reachable(reached && state != MemberState::Down);
        // A node that came back under another name at consul is there twice until its former self is forgotten.
        match seen.get(&member.node) {
            Some(other) if other.state == MemberState::Alive => {}
            _ => {
                seen.insert(member.node, member);
            }
        }
    }
    seen
}

/// The members in the catalogue now.
pub(crate) async fn nodes(source: &Source) -> Result<Answer<Nodes>> {
    Ok(to_nodes(source.service(MEMBER).await?))
}

fn to_nodes(answer: Answer<Vec<crate::wire::ServiceEntry>>) -> Answer<Nodes> {
    Answer {
        value: answer.value.iter().filter_map(to_node).collect(),
        index: answer.index,
        has_leader: answer.has_leader,
    }
}

struct Latest {
    nodes: Arc<watch::Sender<(Nodes, bool)>>,
}

impl Sink<Nodes> for Latest {
    fn tell(&mut self, nodes: Nodes, _age: Age) {
        self.nodes.send_modify(|latest| latest.0 = nodes);
    }

    fn set_stale(&mut self, stale: bool) {
        self.nodes
            .send_if_modified(|latest| std::mem::replace(&mut latest.1, stale) != stale);
    }
}

/// Watches members until the reader is dropped or the source ends.
pub(crate) async fn watch(source: &Source) -> Result<Watch<NodeAddr, Member>> {
    let first = nodes(source).await?;
    let mut serf = source.client.serf_members().await?;
    let hub = WatchHub::new();
    hub.replace(seen(&first.value, &serf, first.has_leader));
    hub.set_stale(!first.has_leader);

    let latest = Arc::new(watch::Sender::new((first.value, !first.has_leader)));
    let cancel = source.cancel.child_token();
    let guard = cancel.clone().drop_guard();
    let reader = hub.watch_where(move |_, _| {
        // Ends with its reader.
        let _ = &guard;
        true
    });

    let asking = source.clone();
    let ask: Ask<Nodes> = Box::new(move |index| {
        let source = asking.clone();
        Box::pin(async move {
            let reading = source.beyond(index);
            let answer = source.client.health_service(MEMBER, reading).await?;
            Ok(to_nodes(answer))
        })
    });
    let sink = Latest {
        nodes: Arc::clone(&latest),
    };
    let from = (first.index, source.wait);
    let catalogue = follow(ask, from, source.leadership.follow(), sink);

    let client = source.client.clone();
    let telling = hub.clone();
    let mut news = latest.subscribe();
    let here = async move {
        let mut again = tokio::time::interval(PERIOD);
        loop {
            tokio::select! {
                _ = again.tick() => {}
                changed = news.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            if let Ok(now) = client.serf_members().await {
                serf = now;
            }
            let (nodes, stale) = news.borrow_and_update().clone();
            telling.set_stale(stale);
            telling.replace(seen(&nodes, &serf, !stale));
        }
    };
    tokio::spawn(async move {
        cancel
            .run_until_cancelled(async { tokio::join!(catalogue, here) })
            .await;
        hub.close();
    });
    Ok(reader)
}

#[cfg(test)]
mod tests {
    use arpanet_core::roster::Role;

    use super::*;

    fn node(address: &str, consul: &str, state: MemberState) -> (String, Member) {
        let member = Member::new(
            address.parse().unwrap(),
            consul.parse().unwrap(),
            Role::Server,
        );
        (consul.to_owned(), member.state(state))
    }

    fn serf(name: &str, status: u8) -> SerfMember {
        SerfMember {
            name: name.to_owned(),
            status,
        }
    }

    #[test]
    fn who_is_not_reached_from_here_is_suspect_and_without_a_leader_down() {
        let nodes = vec![
            node("0.1", "a", MemberState::Alive),
            node("0.2", "b", MemberState::Alive),
            node("0.3", "c", MemberState::Down),
        ];
        let serf = [serf("a", 1), serf("b", 4), serf("c", 1)];
        let states = |has_leader| -> Vec<(MemberState, bool)> {
            seen(&nodes, &serf, has_leader)
                .into_values()
                .map(|member| (member.state, member.reachable))
                .collect()
        };
        let (alive, down) = ((MemberState::Alive, true), (MemberState::Down, false));
        assert_eq!(states(true), [alive, (MemberState::Suspect, false), down]);
        assert_eq!(states(false), [alive, down, down]);
    }

    #[test]
    fn a_node_that_is_there_twice_is_the_one_that_lives() {
        let both = [
            node("0.1", "old", MemberState::Down),
            node("0.1", "new", MemberState::Alive),
        ];
        let serf = [serf("new", 1)];
        for nodes in [both.to_vec(), both.iter().rev().cloned().collect()] {
            let seen = seen(&nodes, &serf, true);
            let names: Vec<&str> = seen.values().map(|member| member.name.as_str()).collect();
            assert_eq!(names, ["new"]);
        }
    }
}
