//! The suite for [`Discovery`].

mod admission;
mod catalogue;
mod keys;
mod lifecycle;
mod records;
mod watching;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::check::{Broken, Check, Verdict, conduct, ensure, until};
use super::report::Report;
use crate::admission::Membership;
use crate::discovery::{Health, Instance, MemberState};
use crate::roster::RosterEntry;
use crate::watch::{Change, Watch};
use crate::{Discovery, NodeAddr, ServiceName};

/// The nodes that the suite for [`Discovery`] works with: at least three of one cluster, none of them started.
#[async_trait]
pub trait DiscoveryRig: Send + Sync + 'static {
    /// Each node's membership: who it is, with a roster of all of them.
    fn memberships(&self) -> &[Membership];

    /// The backend of a node: of its present process, the same one at each call until [`restart`](Self::restart).
    fn discovery(&self, node: usize) -> Arc<dyn Discovery>;

    /// Ends the node's process without a word, as a loss of power. The suite calls it once between two restarts.
    async fn kill(&self, node: usize);

    /// Gives a killed node a new process, with what it had on its disk. The backend is not started.
    async fn restart(&self, node: usize);

    /// Whether the rig can [`cut`](Self::cut) and [`heal`](Self::heal).
    fn can_cut(&self) -> bool {
        false
    }

    /// Takes a node off the underlay: nothing gets to it or from it.
    async fn cut(&self, node: usize) {
        let _ = node;
    }

    /// Mends that.
    async fn heal(&self, node: usize) {
        let _ = node;
    }

    /// A node that asks to be admitted to this address under this name, with an identity of its own at each call, and
    /// the first epoch and generation. `None` where the rig can't make one.
    fn applicant(&self, node: NodeAddr, name: &str) -> Option<RosterEntry> {
        let _ = (node, name);
        None
    }

    /// How long the suite waits for what the contract promises without naming a time.
    fn patience(&self) -> Duration {
        Duration::from_secs(15)
    }
}

type Rig = dyn DiscoveryRig;

/// Runs the suite for [`Discovery`]; `make` makes a rig for each check.
pub async fn discovery<R, F>(make: impl Fn() -> F) -> Report
where
    R: DiscoveryRig,
    F: Future<Output = R>,
{
    let mut backend = "unknown";
    let mut checks = Vec::new();
    for check in suite() {
        let rig = make().await;
        backend = rig.discovery(0).name();
        // A check waits a few times, each time with patience.
        checks.push(conduct::<Rig>(&check, &rig, rig.patience() * 8).await);
    }
    Report::new("discovery", backend, checks)
}

fn suite() -> Vec<Check<Rig>> {
    let parts = [
        lifecycle::checks(),
        catalogue::checks(),
        watching::checks(),
        records::checks(),
        admission::checks(),
        keys::checks(),
    ];
    parts.into_iter().flatten().collect()
}

fn needs_records(rig: &Rig) -> Option<&'static str> {
    let able = rig.discovery(0).capabilities().records;
    (!able).then_some("the backend publishes no records")
}

fn needs_admission(rig: &Rig) -> Option<&'static str> {
    let able = rig.discovery(0).capabilities().admits;
    let node = NodeAddr::from_index(1)?;
    match rig.applicant(node, "applicant") {
        _ if !able => Some("the backend admits no nodes"),
        None => Some("the rig makes no applicants"),
        Some(_) => None,
    }
}

fn needs_cuts(rig: &Rig) -> Option<&'static str> {
    (!rig.can_cut()).then_some("the rig can't cut")
}

fn node(rig: &Rig, node: usize) -> NodeAddr {
    rig.memberships()[node].me.node
}

/// Starts a node, whose overlay reaches the others.
async fn start(rig: &Rig, node: usize) -> crate::Result<()> {
    let discovery = rig.discovery(node);
    discovery.start(&rig.memberships()[node]).await?;
    discovery.start_on_overlay(false).await
}

/// Starts every node.
async fn started(rig: &Rig) -> Verdict {
    ensure!(
        rig.memberships().len() >= 3,
        "the rig has fewer than three nodes"
    );
    for node in 0..rig.memberships().len() {
        start(rig, node).await?;
    }
    for observer in 0..rig.memberships().len() {
        for other in 0..rig.memberships().len() {
            until(rig.patience(), async || {
                sees(rig, observer, other, MemberState::Alive).await
            })
            .await?;
        }
    }
    Ok(())
}

fn service(name: &str) -> Verdict<ServiceName> {
    Ok(name.parse()?)
}

/// An instance of a node; the name tells its id and its service.
fn instance(rig: &Rig, at: usize, name: &str) -> Verdict<Instance> {
    let at = node(rig, at);
    let [a, b] = at.octets();
    Ok(Instance::new(
        format!("{at}:{name}").parse()?,
        service(name)?,
        Ipv4Addr::new(10, 1, a, b),
        80,
        at,
    ))
}

/// Whether a node's lookup answers with just these.
async fn finds(rig: &Rig, observer: usize, name: &str, wanted: &[&Instance]) -> Verdict {
    let found = rig.discovery(observer).lookup(&service(name)?).await?;
    ensure!(
        found.iter().collect::<Vec<_>>() == wanted,
        "node {observer} looks {name} up and finds {found:?} instead of {wanted:?}"
    );
    Ok(())
}

/// The same, as soon as the contract can be expected to be kept.
async fn comes_to_find(rig: &Rig, observer: usize, name: &str, wanted: &[&Instance]) -> Verdict {
    until(rig.patience(), async || {
        finds(rig, observer, name, wanted).await
    })
    .await
}

/// Whether a node takes another for a member in this state.
async fn sees(rig: &Rig, observer: usize, other: usize, state: MemberState) -> Verdict {
    let members = rig.discovery(observer).members().await?;
    let found = members
        .iter()
        .find(|member| member.node == node(rig, other));
    let found = found.map(|member| member.state);
    ensure!(
        found == Some(state),
        "node {observer} sees node {other} as {found:?} instead of {state}"
    );
    Ok(())
}

/// What a watch has told so far.
struct Told<K, V> {
    watch: Watch<K, V>,
    set: BTreeMap<K, V>,
    /// Upserts and removals.
    changes: usize,
}

impl<K: Ord + Clone, V: Clone> Told<K, V> {
    /// Takes the snapshot that every watch begins with.
    async fn by(mut watch: Watch<K, V>) -> Verdict<Self> {
        match watch.next().await {
            Some(Change::Snapshot(set)) => Ok(Self {
                watch,
                set,
                changes: 0,
            }),
            Some(_) => Err(Broken::new(
                "a watch began with something else than a snapshot",
            )),
            None => Err(Broken::new("a watch was closed before it told anything")),
        }
    }

    /// The set by all that was told up to now.
    fn now(&mut self) -> &BTreeMap<K, V> {
        while let Some(Some(change)) = self.watch.try_next() {
            match change {
                Change::Snapshot(set) => self.set = set,
                Change::Upsert(key, value) => {
                    self.set.insert(key, value);
                    self.changes += 1;
                }
                Change::Removed(key) => {
                    self.set.remove(&key);
                    self.changes += 1;
                }
                Change::Stale | Change::Fresh => {}
            }
        }
        &self.set
    }
}

impl Told<crate::InstanceId, Instance> {
    async fn comes_to_health(
        &mut self,
        rig: &Rig,
        wanted: &Instance,
        health: Option<Health>,
    ) -> Verdict {
        until(rig.patience(), async || {
            let found = self.now().get(&wanted.id).map(|found| found.health);
            ensure!(
                found == health,
                "the watch tells that {} is {found:?} instead of {health:?}",
                wanted.id
            );
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_stands_for_a_sentence_of_the_contract() {
        crate::conformance::check::assert_quoted(include_str!("../../discovery.rs"), &suite());
    }
}
