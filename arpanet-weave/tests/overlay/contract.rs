//! The suite that every overlay keeps.

use std::path::PathBuf;

use arpanet_core::conformance;

use crate::site::{self, Host, Rig, Site};

const NODES: u8 = 3;

async fn rig(program: Option<PathBuf>) -> Rig<Host> {
    let site = Site::with(NODES, program.as_deref()).await.unwrap();
    Rig::new(site.switch, site.hosts)
}

async fn is_kept_with(program: Option<PathBuf>) {
    let report = conformance::overlay(|| rig(program.clone())).await;
    report.assert_kept();
    let skipped: Vec<&str> = report.skipped().map(|check| check.name()).collect();
    let expected = [
        "an_unreadable_announcement_is_refused",
        "without_attach_it_answers_unsupported",
    ];
    assert_eq!(skipped, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept() {
    if site::namespace().is_some() {
        is_kept_with(None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_on_the_real_router() {
    if let Some(program) = site::real_router() {
        is_kept_with(Some(program)).await;
    }
}
