//! The suites that every backend keeps, on a real consul.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod consuls;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arpanet_consul::{ConsulDiscovery, ConsulKeyValue};
use arpanet_core::admission::Membership;
use arpanet_core::conformance::{self, DiscoveryRig, KeyValueRig};
use arpanet_core::roster::{Identity, Role, RosterEntry};
use arpanet_core::{Discovery, KeyValue};
use async_trait::async_trait;
use consuls::Site;

const NODES: u8 = 3;

/// Longer than consul's own times of noticing a death, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What consul does not do by its capabilities; and first of all cuts, where the suite registers on the side of the minority,
/// which consul refuses: `live.rs` has what it does instead.
const SKIPPED: [&str; 17] = [
    "a_cut_node_is_suspended_and_back_by_itself",
    "what_happens_during_a_cut_is_known_after_it",
    "records_are_published_replaced_and_retracted",
    "those_who_confirmed_have_the_record_at_once",
    "records_are_watched_by_prefix_and_owner",
    "records_have_limits",
    "records_of_a_dead_node_are_suspended",
    "dropped_calls_about_records_are_finished_by_the_next",
    "an_admitted_node_is_in_every_roster",
    "what_is_taken_is_refused_and_its_holder_named",
    "of_two_at_the_same_moment_one_is_admitted",
    "a_dead_member_is_forgotten_for_good",
    "a_node_may_forget_itself",
    "a_new_key_is_everybodys",
    "who_was_away_gets_the_key_when_it_is_back",
    "of_keys_made_apart_one_stands",
    "a_departure_turns_the_key_over",
];

struct Rig {
    site: Site,
    memberships: Vec<Membership>,
    backends: Mutex<Vec<Arc<ConsulDiscovery>>>,
}

impl Rig {
    async fn new() -> Self {
        let site = Site::servers(NODES).await;
        let backends = (0..usize::from(NODES))
            .map(|node| backend(&site, node))
            .collect();
        Self {
            site,
            memberships: consuls::memberships(NODES),
            backends: Mutex::new(backends),
        }
    }
}

fn backend(site: &Site, node: usize) -> Arc<ConsulDiscovery> {
    Arc::new(ConsulDiscovery::new(site.agents[node].client()).unwrap())
}

#[async_trait]
impl DiscoveryRig for Rig {
    fn memberships(&self) -> &[Membership] {
        &self.memberships
    }

    fn discovery(&self, node: usize) -> Arc<dyn Discovery> {
        self.backends.lock().unwrap()[node].clone()
    }

    async fn kill(&self, node: usize) {
        self.site.agents[node].kill();
        // Its process is gone too.
        self.discovery(node).stop().await.unwrap();
    }

    async fn restart(&self, node: usize) {
        self.backends.lock().unwrap()[node] = backend(&self.site, node);
        self.site.agents[node].launch();
        self.site.join().await;
    }

    fn applicant(&self, node: arpanet_core::NodeAddr, name: &str) -> Option<RosterEntry> {
        let name = name.parse().unwrap();
        Some(RosterEntry::new(
            node,
            name,
            Role::Server,
            Identity::from_bytes([9; 32]),
            9,
        ))
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_keeps_its_contract() {
    require_consul!();
    let report = conformance::discovery(Rig::new).await;
    eprintln!("{report}");
    report.assert_kept();
    let skipped: Vec<&str> = report.skipped().map(|check| check.name()).collect();
    assert_eq!(skipped, SKIPPED);
}

struct Store(Site);

#[async_trait]
impl KeyValueRig for Store {
    fn size(&self) -> usize {
        self.0.agents.len()
    }

    fn key_value(&self, node: usize) -> Arc<dyn KeyValue> {
        Arc::new(ConsulKeyValue::new(self.0.agents[node].client()).unwrap())
    }

    fn can_cut(&self) -> bool {
        true
    }

    async fn cut(&self, node: usize) {
        self.0.cut(node).await;
    }

    async fn heal(&self, node: usize) {
        self.0.heal(node).await;
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn key_value_keeps_its_contract() {
    require_consul!();
    let report = conformance::key_value(async || Store(Site::servers(NODES).await)).await;
    eprintln!("{report}");
    report.assert_kept();
    assert_eq!(report.skipped().count(), 0);
}
