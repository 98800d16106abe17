//! The suite for discovery.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arpanet_core::admission::Membership;
use arpanet_core::conformance::{self, DiscoveryRig, Outcome, Report};
use arpanet_core::discovery::{DiscoveryCapabilities, LayeredDiscovery};
use arpanet_core::memory::World;
use arpanet_core::roster::{Identity, Role, RosterEntry};
use arpanet_core::{Discovery, NodeAddr};
use async_trait::async_trait;

use crate::broken_discovery::{Breach, Broken};

struct Rig {
    world: World,
    memberships: Vec<Membership>,
    capabilities: DiscoveryCapabilities,
    breach: Option<Breach>,
    applicants: std::sync::atomic::AtomicU8,
}

impl Rig {
    async fn new(capabilities: DiscoveryCapabilities, breach: Option<Breach>) -> Self {
        let world = World::new(1);
        let memberships = world.memberships(3).await.unwrap();
        Self {
            world,
            memberships,
            capabilities,
            breach,
            applicants: Default::default(),
        }
    }

    fn place(&self, node: usize) -> NodeAddr {
        self.memberships[node].me.node
    }
}

#[async_trait]
impl DiscoveryRig for Rig {
    fn memberships(&self) -> &[Membership] {
        &self.memberships
    }

    fn discovery(&self, node: usize) -> Arc<dyn Discovery> {
        let discovery = self.world.discovery(self.place(node));
        let discovery = Arc::new(discovery.with_capabilities(self.capabilities));
        match self.breach {
            Some(breach) => Arc::new(Broken::new(discovery, breach)),
            None => discovery,
        }
    }

    async fn kill(&self, node: usize) {
        self.world.kill(self.place(node));
    }

    async fn restart(&self, node: usize) {
        self.world.start(self.place(node));
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

    fn applicant(&self, node: NodeAddr, name: &str) -> Option<RosterEntry> {
        let number = self
            .applicants
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let identity = Identity::from_bytes([200 + number; 32]);
        let name = name.parse().unwrap();
        Some(RosterEntry::new(node, name, Role::Server, identity, 1))
    }
}

async fn report(capabilities: DiscoveryCapabilities, breach: Option<Breach>) -> Report {
    conformance::discovery(|| Rig::new(capabilities, breach)).await
}

#[tokio::test(start_paused = true)]
async fn memory_keeps_all_of_it() {
    let report = report(DiscoveryCapabilities::all().with_turning_keys(), None).await;
    report.assert_kept();
    let skipped: Vec<&str> = report.skipped().map(|check| check.name()).collect();
    assert_eq!(skipped, ["where_the_key_stays_it_is_said"], "{report}");
    assert!(report.checks().len() > 40);
}

/// Services in one world, all else in another, whose hosts share their fate.
struct LayeredRig {
    members: Rig,
    catalogue: Rig,
    layered: Mutex<BTreeMap<usize, Arc<LayeredDiscovery>>>,
}

#[async_trait]
impl DiscoveryRig for LayeredRig {
    fn memberships(&self) -> &[Membership] {
        self.members.memberships()
    }

    fn discovery(&self, node: usize) -> Arc<dyn Discovery> {
        let mut layered = self.layered.lock().unwrap();
        let there = layered.entry(node).or_insert_with(|| {
            let (members, catalogue) = (&self.members, &self.catalogue);
            let layered = LayeredDiscovery::new(members.discovery(node), catalogue.discovery(node));
            Arc::new(layered)
        });
        Arc::clone(there) as _
    }

    async fn kill(&self, node: usize) {
        self.members.kill(node).await;
        self.catalogue.kill(node).await;
        self.layered.lock().unwrap().remove(&node);
    }

    async fn restart(&self, node: usize) {
        self.members.restart(node).await;
        self.catalogue.restart(node).await;
    }

    fn can_cut(&self) -> bool {
        true
    }

    async fn cut(&self, node: usize) {
        self.members.cut(node).await;
        self.catalogue.cut(node).await;
    }

    async fn heal(&self, node: usize) {
        self.members.heal(node).await;
        self.catalogue.heal(node).await;
    }

    fn applicant(&self, node: NodeAddr, name: &str) -> Option<RosterEntry> {
        self.members.applicant(node, name)
    }
}

#[tokio::test(start_paused = true)]
async fn two_memories_on_each_other_keep_all_of_it() {
    let less = DiscoveryCapabilities::all()
        .without_records()
        .without_admission();
    let report = conformance::discovery(async || LayeredRig {
        members: Rig::new(DiscoveryCapabilities::all().with_turning_keys(), None).await,
        catalogue: Rig::new(less, None).await,
        layered: Mutex::default(),
    })
    .await;
    report.assert_kept();
    let skipped: Vec<&str> = report.skipped().map(|check| check.name()).collect();
    assert_eq!(skipped, ["where_the_key_stays_it_is_said"], "{report}");
}

#[tokio::test(start_paused = true)]
async fn what_a_backend_can_not_do_is_skipped_and_told() {
    let less = DiscoveryCapabilities::all()
        .without_records()
        .without_admission();
    let report = report(less, None).await;
    report.assert_kept();
    let skipped: Vec<&str> = report.skipped().map(|check| check.name()).collect();
    assert!(skipped.contains(&"records_have_limits"), "{report}");
    assert!(skipped.contains(&"a_node_may_forget_itself"), "{report}");
    assert!(!skipped.contains(&"what_it_can_not_do_answers_unsupported"));
    assert!(skipped.contains(&"a_new_key_is_everybodys"));
    assert!(!skipped.contains(&"where_the_key_stays_it_is_said"));
    assert!(
        report
            .to_string()
            .contains("skipped records_have_limits: the backend publishes no records")
    );
}

#[tokio::test(start_paused = true)]
async fn every_breach_is_found_by_its_check() {
    for (breach, name) in Breach::ALL {
        let report = report(
            DiscoveryCapabilities::all().with_turning_keys(),
            Some(*breach),
        )
        .await;
        let check = report
            .broken()
            .find(|check| check.name() == *name)
            .unwrap_or_else(|| panic!("{breach:?} was not found by {name}: {report}"));
        assert!(matches!(check.outcome(), Outcome::Broken(seen) if !seen.is_empty()));
        assert!(report.to_string().contains(check.sentence()));
        // It is one breach, and not the end of everything.
        assert!(
            report.broken().count() < report.checks().len() / 2,
            "{breach:?}: {report}"
        );
    }
}
