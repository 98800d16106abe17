//! The suite for [`Overlay`].

mod containers;
mod isolation;
mod lifecycle;
mod peers;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::check::{Broken, Check, Verdict, conduct, ensure, until};
use super::report::Report;
use crate::admission::Membership;
use crate::overlay::{Announcement, AttachAddr, Attachment, NetNamespace, PeerSpec};
use crate::{AppAddr, ContainerName, NodeAddr, Overlay};

/// Where a ping of the suite comes from.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum PingFrom<'a> {
    /// From the host of a node itself.
    Host(usize),
    /// From inside a container that the suite has attached.
    Container(usize, &'a Attachment),
}

/// What became of a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ping {
    /// An answer came back.
    Answered,
    /// Somebody said that it must not or can't get there, at once or within 1.2 s.
    Refused,
    /// Nothing came back.
    Silent,
}

/// The nodes that the suite for [`Overlay`] works with: at least three of one cluster, none of them launched.
#[async_trait]
pub trait OverlayRig: Send + Sync + 'static {
    /// Each node's membership: who it is, with a roster of all of them.
    fn memberships(&self) -> &[Membership];

    /// The backend of a node: of its present process, the same one at each call until [`crash`](Self::crash).
    fn overlay(&self, node: usize) -> Arc<dyn Overlay>;

    /// Where a node is on the underlay.
    fn endpoint(&self, node: usize) -> Option<SocketAddr>;

    /// Sends a ping and tells what became of it; gives up after 2 s.
    async fn ping(&self, from: PingFrom<'_>, to: Ipv4Addr) -> Ping;

    /// Whether the rig can [`crash`](Self::crash).
    fn can_crash(&self) -> bool {
        false
    }

    /// Kills the node's process, as `kill -9`, and gives it a new one, which is not launched.
    async fn crash(&self, node: usize) {
        let _ = node;
    }

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

    /// A new, empty namespace on the host of a node, as a container has. `None` where the rig can't make one.
    async fn namespace(&self, node: usize) -> Option<NetNamespace> {
        let _ = node;
        None
    }

    /// Removes such a namespace, as when its container ends.
    async fn remove_namespace(&self, node: usize, namespace: &NetNamespace) {
        let _ = (node, namespace);
    }

    /// The namespace of the host itself, which must not be attached.
    fn host_namespace(&self, node: usize) -> Option<NetNamespace> {
        let _ = node;
        None
    }

    /// All that the backend could have left on a host, in any form that can be compared; `None` where the rig can't say.
    async fn traces(&self, node: usize) -> Option<Vec<String>> {
        let _ = node;
        None
    }

    /// How long the suite waits for what the contract promises without naming a time.
    fn patience(&self) -> Duration {
        Duration::from_secs(15)
    }
}

type Rig = dyn OverlayRig;

/// Runs the suite for [`Overlay`]; `make` makes a rig for each check.
pub async fn overlay<R, F>(make: impl Fn() -> F) -> Report
where
    R: OverlayRig,
    F: Future<Output = R>,
{
    let mut backend = "unknown";
    let mut checks = Vec::new();
    for check in suite() {
        let rig = make().await;
        backend = rig.overlay(0).name();
        // A check waits a few times, each time with patience.
        checks.push(conduct::<Rig>(&check, &rig, rig.patience() * 8).await);
    }
    Report::new("overlay", backend, checks)
}

fn suite() -> Vec<Check<Rig>> {
    let parts = [
        lifecycle::checks(),
        peers::checks(),
        containers::checks(),
        isolation::checks(),
    ];
    parts.into_iter().flatten().collect()
}

fn needs_attach(rig: &Rig) -> Option<&'static str> {
    let able = rig.overlay(0).capabilities().attach;
    (!able).then_some("the backend attaches no containers")
}

fn needs_isolation(rig: &Rig) -> Option<&'static str> {
    let able = rig.overlay(0).capabilities().isolation;
    needs_attach(rig).or((!able).then_some("the backend does not isolate"))
}

fn needs_crashes(rig: &Rig) -> Option<&'static str> {
    (!rig.can_crash()).then_some("the rig can't crash a process")
}

fn needs_cuts(rig: &Rig) -> Option<&'static str> {
    (!rig.can_cut()).then_some("the rig can't cut")
}

fn node(rig: &Rig, node: usize) -> NodeAddr {
    rig.memberships()[node].me.node
}

/// What a node is to the others.
fn peer(rig: &Rig, of: usize, announcement: &Announcement) -> PeerSpec {
    PeerSpec::new(node(rig, of), rig.endpoint(of), announcement.clone())
}

/// Launches every node; their announcements.
async fn launched(rig: &Rig) -> Verdict<Vec<Announcement>> {
    ensure!(
        rig.memberships().len() >= 3,
        "the rig has fewer than three nodes"
    );
    let mut announcements = Vec::new();
    for (node, membership) in rig.memberships().iter().enumerate() {
        announcements.push(rig.overlay(node).launch(membership).await?);
    }
    Ok(announcements)
}

/// Tells every node of all others, and which container addresses they hold.
async fn told(rig: &Rig, announcements: &[Announcement], holds: &[(usize, AppAddr)]) -> Verdict {
    for (other, announcement) in announcements.iter().enumerate() {
        let held = holds
            .iter()
            .filter(|(holder, _)| *holder == other)
            .map(|(_, addr)| *addr)
            .collect();
        let spec = peer(rig, other, announcement).holding(held);
        for observer in (0..announcements.len()).filter(|observer| *observer != other) {
            rig.overlay(observer).connect(spec.clone()).await?;
        }
    }
    Ok(())
}

/// Launches every node and connects them all.
async fn connected(rig: &Rig) -> Verdict<Vec<Announcement>> {
    let announcements = launched(rig).await?;
    told(rig, &announcements, &[]).await?;
    for observer in 0..announcements.len() {
        for other in (0..announcements.len()).filter(|other| *other != observer) {
            rig.overlay(observer)
                .wait_reachable(node(rig, other), rig.patience())
                .await?;
        }
    }
    Ok(announcements)
}

/// A container that may be attached: a namespace with a name and an address.
async fn container(rig: &Rig, at: usize, name: &str, addr: AttachAddr) -> Verdict<Attachment> {
    let name: ContainerName = name.parse()?;
    let namespace = rig.namespace(at).await;
    let namespace = namespace.ok_or_else(|| Broken::new("the rig makes no namespaces"))?;
    Ok(Attachment::new(name, namespace, addr))
}

fn app(text: &str) -> Verdict<AppAddr> {
    Ok(text.parse()?)
}

/// An address that the suite is written with.
fn ip(text: &str) -> Ipv4Addr {
    text.parse()
        .unwrap_or_else(|_| unreachable!("{text} is an address"))
}

/// A container that is attached with this application address.
async fn attached(rig: &Rig, at: usize, name: &str, addr: &str) -> Verdict<Attachment> {
    let container = container(rig, at, name, AttachAddr::Application(app(addr)?)).await?;
    rig.overlay(at).attach(&container).await?;
    Ok(container)
}

/// What becomes of a ping at once.
async fn answers(rig: &Rig, from: PingFrom<'_>, to: Ipv4Addr, wanted: &[Ping]) -> Verdict {
    let ping = rig.ping(from, to).await;
    ensure!(
        wanted.contains(&ping),
        "a ping from {from:?} to {to} is {ping:?} instead of {:?}",
        wanted[0]
    );
    Ok(())
}

/// The same, as soon as the contract can be expected to be kept.
async fn comes_to_answer(rig: &Rig, from: PingFrom<'_>, to: Ipv4Addr, wanted: &[Ping]) -> Verdict {
    until(rig.patience(), async || {
        answers(rig, from, to, wanted).await
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_stands_for_a_sentence_of_the_contract() {
        crate::conformance::check::assert_quoted(include_str!("../../overlay.rs"), &suite());
    }
}
