//! What only the real router can show, where `ARPANET_WEAVER` names it: passwords, restarts, and what it leaves behind.

use arpanet_core::{ErrorKind, Overlay};

use crate::site::{Fate, Host, LIMIT, Site, becomes, connect, probe, real_router};

async fn two_hosts() -> Option<[Host; 2]> {
    let program = real_router()?;
    let site = Site::with(2, Some(&program)).await;
    let site = site.unwrap_or_else(|| panic!("the real router needs root"));
    Some(<[Host; 2]>::try_from(site.hosts).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_router_carries_packets_as_soon_as_a_peer_is_reachable() {
    let Some([mut one, two]) = two_hosts().await else {
        return;
    };
    connect(&one, &two).await;
    assert_eq!(probe(one.namespace(), two.node.overlay()), Fate::Reached);
    let router = one.router();
    one.kill().await;
    one.launch().await;
    assert_eq!(one.router(), router, "the router was launched again");
    becomes(two.namespace(), one.node.overlay(), Fate::Reached);
    one.overlay.connect(two.peer()).await.unwrap();
    one.crash_router();
    becomes(two.namespace(), one.node.overlay(), Fate::Reached);
    one.leave_nothing_behind().await;
    two.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_router_tells_of_another_password() {
    let Some([one, mut two]) = two_hosts().await else {
        return;
    };
    two.key = 8;
    one.launch().await;
    two.launch().await;
    one.overlay.connect(two.peer()).await.unwrap();
    let error = one
        .overlay
        .wait_reachable(two.node, LIMIT)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    one.leave_nothing_behind().await;
    two.leave_nothing_behind().await;
}
