//! The order of calls when nothing fails.

use arpanet_core::ErrorKind;
use arpanet_core::admission::NodeInfo;
use arpanet_core::roster::Role;

use crate::rig::{Rig, me, membership, password, seed};

/// What every way up has in common, after the node has been admitted.
const CLIMB: [&str; 15] = [
    "store.save",
    "overlay.launch",
    "overlay.expose Docker",
    "overlay.expose Discovery",
    "discovery.start",
    "discovery.publish node",
    "discovery.publish overlay",
    "discovery.watch_members",
    "discovery.watch_records",
    "runtime.watch",
    "discovery.roster",
    "overlay.attached",
    "discovery.start_on_overlay",
    "dns.start",
    "docker.start",
];

/// And last of all.
const ARRIVE: [&str; 2] = ["discovery.register 0.2:arpanet2", "admission.serve"];

#[tokio::test(start_paused = true)]
async fn boot() {
    let rig = Rig::new();
    rig.cluster.boot(&password()).await.unwrap();
    let first: &[&str] = &["overlay.preflight", "admission.found"];
    assert_eq!(rig.journal.calls(), [first, &CLIMB, &ARRIVE].concat());
    let again = rig.cluster.boot(&password()).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
}

#[tokio::test(start_paused = true)]
async fn join() {
    let rig = Rig::new();
    rig.seed_is_heard();
    rig.cluster
        .join(&password(), Role::Server, seed(), false)
        .await
        .unwrap();
    let (watched, served) = CLIMB.split_at(10);
    let first: &[&str] = &["overlay.preflight", "admission.join"];
    let (reconciled, facilities) = served.split_at(2);
    assert_eq!(
        rig.journal.calls(),
        [
            first,
            watched,
            &["overlay.connect 0.1"],
            reconciled,
            &["overlay.wait_reachable 0.1"],
            facilities,
            &ARRIVE
        ]
        .concat()
    );
}

#[tokio::test(start_paused = true)]
async fn a_boot_node_does_not_join() {
    let rig = Rig::new();
    let joined = rig
        .cluster
        .join(&password(), Role::Boot, seed(), false)
        .await;
    assert_eq!(joined.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(rig.journal.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn resume_asks_nobody() {
    let rig = Rig::new();
    let info = NodeInfo::new(me(), "n2".parse().unwrap(), Role::Server);
    rig.cluster.resume(membership(&info)).await.unwrap();
    let first: &[&str] = &["overlay.preflight"];
    assert_eq!(rig.journal.calls(), [first, &CLIMB, &ARRIVE].concat());
}
