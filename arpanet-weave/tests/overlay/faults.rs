//! Routers that are slow, that fail, break off, lie or hang: calls end in time, nothing wrong is believed, and all mends.

use std::time::{Duration, Instant};

use arpanet_core::overlay::PeerState;
use arpanet_core::{ErrorKind, Overlay};

use crate::site::{Fate, LIMIT, becomes, one_host, probe, two_hosts, until};

/// How long the router may take for an answer, in these tests.
const REQUEST_MS: u32 = 700;
/// Longer than any call may take whose router does not answer: a few requests, on a machine that does other things too.
const BOUND: Duration = Duration::from_secs(15);

const KINDS: [ErrorKind; 4] = [
    ErrorKind::Timeout,
    ErrorKind::Unavailable,
    ErrorKind::Internal,
    ErrorKind::Incompatible,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_never_gets_well_is_not_launched_and_leaves_nothing() {
    let Some(mut one) = one_host().await else {
        return;
    };
    one.configure(one.config.clone().launch_ms(2_500).request_ms(REQUEST_MS));
    for mood in ["500", "503", "half", "garbage", "hang", "die"] {
        one.wish("mood", mood);
        let asked = Instant::now();
        let error = one.overlay.launch(&one.membership()).await.unwrap_err();
        assert!(asked.elapsed() < BOUND, "{mood}: {:?}", asked.elapsed());
        assert!(
            KINDS.contains(&error.kind()),
            "{mood}: {error} is {}",
            error.kind()
        );
        assert_eq!(one.traces().await, Vec::<String>::new(), "{mood}");
        let error = one.overlay.peers().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{mood}");
    }
    one.configure(one.config.clone().launch_ms(60_000).request_ms(3_000));
    one.wish("mood", "slow");
    one.launch().await;
    one.leave_nothing_behind().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_router_fails_calls_end_and_nothing_wrong_is_believed() {
    for mood in ["500", "503", "half", "garbage", "hang"] {
        let Some((mut one, two)) = two_hosts().await else {
            return;
        };
        one.configure(one.config.clone().request_ms(REQUEST_MS));
        one.launch().await;
        two.launch().await;
        two.overlay.connect(one.peer()).await.unwrap();
        one.wish("mood", mood);
        let asked = Instant::now();
        // A call may fail, but what was wished stands.
        for failed in [
            one.overlay.connect(two.peer()).await,
            one.overlay.nudge(two.node).await,
        ] {
            let kind = failed.map_err(|error| error.kind());
            assert!(
                kind.is_ok() || kind.is_err_and(|kind| KINDS.contains(&kind)),
                "{mood}: {kind:?}"
            );
        }
        let peers = one.overlay.peers().await.unwrap();
        assert_eq!(peers.len(), 1, "{mood}");
        assert_ne!(peers[0].state, PeerState::Up, "{mood}");
        let limit = Duration::from_secs(1);
        // A report that breaks off does not mean that the router has not heard.
        if let Err(error) = one.overlay.wait_reachable(two.node, limit).await {
            assert_eq!(error.kind(), ErrorKind::Timeout, "{mood}: {error}");
        }
        assert!(asked.elapsed() < BOUND, "{mood}: {:?}", asked.elapsed());
        // It is done, with no other call, once the router is well.
        one.wish("mood", "");
        becomes(one.namespace(), two.node.overlay(), Fate::Reached).await;
        one.overlay.wait_reachable(two.node, LIMIT).await.unwrap();
        one.wish("mood", mood);
        // What works goes on working, whatever the router says.
        assert_eq!(
            probe(one.namespace(), two.node.overlay()),
            Fate::Reached,
            "{mood}"
        );
        assert_eq!(
            one.overlay.peers().await.unwrap()[0].state,
            PeerState::Up,
            "{mood}"
        );
        let asked = Instant::now();
        let _ = one.overlay.forget(two.node).await;
        assert!(asked.elapsed() < BOUND, "{mood}: {:?}", asked.elapsed());
        assert!(one.overlay.peers().await.unwrap().is_empty(), "{mood}");
        assert_ne!(
            probe(one.namespace(), two.node.overlay()),
            Fate::Reached,
            "{mood}"
        );
        // Also what it could not be told to forget.
        one.wish("mood", "");
        until("the target is gone", async || one.targets().is_empty()).await;
        one.leave_nothing_behind().await;
        two.leave_nothing_behind().await;
    }
}
