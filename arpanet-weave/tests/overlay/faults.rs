//! Routers that are slow, that fail, break off, lie or hang: calls end in time, nothing wrong is believed, and all mends.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use arpanet_core::overlay::PeerState;
use arpanet_core::{ErrorKind, Overlay};

use crate::site::{Fate, LIMIT, becomes, connect, one_host, probe, two_hosts, until};

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
        // The other's router may have connected meanwhile, by itself. Then it is so.
        if peers[0].state == PeerState::Up {
            let fate = probe(one.namespace(), two.node.overlay());
            assert_eq!(fate, Fate::Reached, "{mood}");
        }
        let limit = Duration::from_secs(1);
        // A report that breaks off does not mean that the router has not heard.
        if let Err(error) = one.overlay.wait_reachable(two.node, limit).await {
            assert_eq!(error.kind(), ErrorKind::Timeout, "{mood}: {error}");
        }
        assert!(asked.elapsed() < BOUND, "{mood}: {:?}", asked.elapsed());
        // It is done, with no other call, once the router is well.
        one.wish("mood", "");
        becomes(one.namespace(), two.node.overlay(), Fate::Reached);
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

/// Polls a call this many times, then drops it; whether it had ended by then.
async fn interrupted<F: Future>(call: F, mut polls: usize) -> bool {
    let mut call = pin!(call);
    std::future::poll_fn(move |context| {
        if polls == 0 {
            return Poll::Ready(false);
        }
        polls -= 1;
        call.as_mut().poll(context).map(|_| true)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_is_cut_short_anywhere_is_taken_back_by_reset() {
    let Some(one) = one_host().await else {
        return;
    };
    let mut polls = 1;
    loop {
        let has_ended = interrupted(one.overlay.launch(&one.membership()), polls).await;
        one.leave_nothing_behind().await;
        if has_ended {
            break;
        }
        // Closer where more happens: at the start.
        polls += 1 + polls / 4;
    }
    assert!(polls > 20, "a launch has only {polls} awaits");
}

/// A list that is another one for another seed (Knuth's MMIX constants).
fn shuffled(seed: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(seed), |last| {
        Some(
            last.wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407),
        )
    })
    .skip(1)
    .map(|number| number >> 33)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_any_mix_of_faults_all_is_as_it_was_wished_last() {
    const MOODS: [&str; 7] = ["", "slow", "500", "503", "half", "garbage", "hang"];
    for seed in [1, 2] {
        let Some((mut one, two)) = two_hosts().await else {
            return;
        };
        one.configure(one.config.clone().request_ms(REQUEST_MS));
        connect(&one, &two).await;
        let mut is_wished = true;
        for number in shuffled(seed).take(12) {
            one.wish("mood", MOODS[(number % 7) as usize]);
            let asked = Instant::now();
            match number / 7 % 5 {
                0 => one.crash_router(),
                1 => {
                    let _ = one.overlay.connect(two.peer()).await;
                    is_wished = true;
                }
                2 => {
                    let _ = one.overlay.forget(two.node).await;
                    is_wished = false;
                }
                3 => {
                    let _ = one.overlay.nudge(two.node).await;
                }
                _ => {
                    let reached = one
                        .overlay
                        .wait_reachable(two.node, Duration::from_millis(500))
                        .await;
                    assert!(
                        is_wished
                            || reached.is_err_and(|error| error.kind() == ErrorKind::NotFound)
                    );
                }
            }
            assert_eq!(
                one.overlay.peers().await.unwrap().len(),
                usize::from(is_wished)
            );
            assert!(
                asked.elapsed() < BOUND,
                "seed {seed}, {number}: {:?}",
                asked.elapsed()
            );
        }
        one.wish("mood", "");
        if !is_wished {
            assert_ne!(
                probe(one.namespace(), two.node.overlay()),
                Fate::Reached,
                "seed {seed}"
            );
            until("nothing is left to be connected with", async || {
                one.answers() && one.targets().is_empty()
            })
            .await;
            one.overlay.connect(two.peer()).await.unwrap();
        }
        one.overlay.wait_reachable(two.node, LIMIT).await.unwrap();
        one.leave_nothing_behind().await;
        two.leave_nothing_behind().await;
    }
}
