//! The suite that every overlay keeps.

use arpanet_core::conformance;

use crate::site::{Host, Rig, Site, namespace};

const NODES: u8 = 3;

async fn rig() -> Rig<Host> {
    let site = Site::new(NODES).await.unwrap();
    Rig::new(site.switch, site.hosts)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept() {
    if namespace().is_none() {
        return;
    }
    let report = conformance::overlay(rig).await;
    report.assert_kept();
    let skipped: Vec<&str> = report.skipped().map(|check| check.name()).collect();
    assert_eq!(skipped, ["without_attach_it_answers_unsupported"]);
}
