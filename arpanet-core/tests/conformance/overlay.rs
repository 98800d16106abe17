//! The suite for overlays.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arpanet_core::admission::Membership;
use arpanet_core::conformance::{self, Outcome, OverlayRig, Ping, PingFrom, Report};
use arpanet_core::memory::World;
use arpanet_core::overlay::{NetNamespace, OverlayCapabilities};
use arpanet_core::{ErrorKind, NodeAddr, Overlay};
use async_trait::async_trait;

use crate::broken_overlay::{Breach, Broken};

struct Rig {
    world: World,
    memberships: Vec<Membership>,
    capabilities: OverlayCapabilities,
    breach: Option<Breach>,
}

impl Rig {
    async fn new(capabilities: OverlayCapabilities, breach: Option<Breach>) -> Self {
        let world = World::new(1);
        let memberships = world.memberships(3).await.unwrap();
        Self {
            world,
            memberships,
            capabilities,
            breach,
        }
    }

    fn place(&self, node: usize) -> NodeAddr {
        self.memberships[node].me.node
    }
}

#[async_trait]
impl OverlayRig for Rig {
    fn memberships(&self) -> &[Membership] {
        &self.memberships
    }

    fn overlay(&self, node: usize) -> Arc<dyn Overlay> {
        let overlay = self.world.overlay(self.place(node));
        let overlay = Arc::new(overlay.with_capabilities(self.capabilities));
        match self.breach {
            Some(breach) => Arc::new(Broken::new(overlay, breach)),
            None => overlay,
        }
    }

    fn endpoint(&self, node: usize) -> Option<SocketAddr> {
        Some(self.world.endpoint(self.place(node)))
    }

    async fn ping(&self, from: PingFrom<'_>, to: Ipv4Addr) -> Ping {
        let answer = match from {
            PingFrom::Host(node) => self.world.ping(self.place(node), to).await,
            PingFrom::Container(node, attachment) => {
                let from = (self.place(node), &attachment.container);
                self.world.ping(from, to).await
            }
            _ => unreachable!("no other origins are known"),
        };
        match answer.map_err(|error| error.kind()) {
            Ok(_) => Ping::Answered,
            Err(ErrorKind::PermissionDenied | ErrorKind::NotFound) => Ping::Refused,
            Err(_) => Ping::Silent,
        }
    }

    fn can_crash(&self) -> bool {
        true
    }

    async fn crash(&self, node: usize) {
        self.world.crash(self.place(node));
    }

    fn can_cut(&self) -> bool {
        true
    }

    async fn cut(&self, node: usize) {
        self.world.cut(self.place(node));
    }

    async fn heal(&self, node: usize) {
        self.world.heal(self.place(node));
    }

    async fn namespace(&self, node: usize) -> Option<NetNamespace> {
        Some(self.world.namespace(self.place(node)))
    }

    async fn remove_namespace(&self, node: usize, namespace: &NetNamespace) {
        self.world.remove_namespace(self.place(node), namespace);
    }

    fn host_namespace(&self, _: usize) -> Option<NetNamespace> {
        Some(NetNamespace::Simulated(0))
    }
}

async fn report(capabilities: OverlayCapabilities, breach: Option<Breach>) -> Report {
    conformance::overlay(|| Rig::new(capabilities, breach)).await
}

#[tokio::test(start_paused = true)]
async fn memory_keeps_all_of_it() {
    let report = report(OverlayCapabilities::all(), None).await;
    report.assert_kept();
    let skipped: Vec<&str> = report.skipped().map(|check| check.name()).collect();
    assert_eq!(skipped, ["without_attach_it_answers_unsupported"]);
    assert!(report.checks().len() > 30);
}

#[tokio::test(start_paused = true)]
async fn what_a_backend_can_not_do_is_skipped_and_told() {
    let report = report(OverlayCapabilities::all().without_attach(), None).await;
    report.assert_kept();
    let skipped: Vec<&str> = report.skipped().map(|check| check.name()).collect();
    assert!(skipped.contains(&"an_attached_address_works"), "{report}");
    assert!(!skipped.contains(&"without_attach_it_answers_unsupported"));
}

#[tokio::test(start_paused = true)]
async fn every_breach_is_found_by_its_check() {
    for (breach, name) in Breach::ALL {
        let report = report(OverlayCapabilities::all(), Some(*breach)).await;
        let check = report
            .broken()
            .find(|check| check.name() == *name)
            .unwrap_or_else(|| panic!("{breach:?} was not found by {name}: {report}"));
        assert!(matches!(check.outcome(), Outcome::Broken(seen) if !seen.is_empty()));
        assert!(
            report.broken().count() < report.checks().len() / 2,
            "{breach:?}: {report}"
        );
    }
}
