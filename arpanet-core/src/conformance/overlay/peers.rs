//! Peers: connecting, reaching and forgetting them, and the host's addresses.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Ping, PingFrom, Rig, answers, comes_to_answer, connected, launched, needs_cuts, node, peer,
};
use crate::conformance::check::{Check, Verdict, check, ensure, refused};
use crate::overlay::{Announcement, PeerState};
use crate::{ErrorKind, Plane};

pub(super) fn checks() -> Vec<Check<Rig>> {
    vec![
        check!(
            hosts_reach_each_other,
            "Brings the node onto the overlay as 10.255.A.B and says what others must know."
        ),
        check!(
            connecting_does_not_wait,
            "Returns before the peer is reachable."
        ),
        check!(
            connecting_again_breaks_nothing,
            "a second call replaces the first's wishes and breaks no running connection."
        ),
        check!(
            an_unreadable_announcement_is_refused,
            "InvalidInput for an announcement that can't be read.",
            |rig| {
                let able = rig.overlay(0).capabilities().announcements;
                (!able).then_some("the backend reads no announcements")
            }
        ),
        check!(
            a_forgotten_peer_is_gone,
            "Wants this peer no longer. A second call does nothing."
        ),
        check!(unknown_peers_are_not_nudged, "Unknown peers are ignored."),
        check!(
            waiting_for_a_peer_ends,
            "Timeout after limit, saying how far it came;"
        ),
        check!(
            nobody_waits_for_a_stranger,
            "NotFound for a peer that was never wanted."
        ),
        check!(
            a_healed_peer_is_reached_again,
            "A sign of life of this peer was seen: try at once, not at the next retry.",
            needs_cuts
        ),
        check!(
            a_plane_is_exposed_and_hidden,
            "Gives this node its address in a plane. A second call does nothing."
        ),
    ]
}

async fn hosts_reach_each_other(rig: &Rig) -> Verdict {
    connected(rig).await?;
    for from in 0..rig.memberships().len() {
        for to in 0..rig.memberships().len() {
            let to = node(rig, to).overlay();
            answers(rig, PingFrom::Host(from), to, &[Ping::Answered]).await?;
        }
    }
    for observer in 0..rig.memberships().len() {
        let peers = rig.overlay(observer).peers().await?;
        ensure!(
            peers.len() == rig.memberships().len() - 1
                && peers.iter().all(|peer| peer.state == PeerState::Up),
            "node {observer} has answers from all others, and lists {peers:?}"
        );
    }
    Ok(())
}

async fn connecting_does_not_wait(rig: &Rig) -> Verdict {
    let announcements = launched(rig).await?;
    // The other one is gone, but what it announced can be read.
    rig.overlay(1).stop().await?;
    let spec = peer(rig, 1, &announcements[1]);
    let overlay = rig.overlay(0);
    let ended = tokio::time::timeout(Duration::from_secs(2), overlay.connect(spec)).await;
    ensure!(ended.is_ok(), "it waited for a peer that is not there");
    ended.unwrap_or(Ok(()))?;
    let peers = rig.overlay(0).peers().await?;
    ensure!(
        peers.len() == 1 && peers[0].node == node(rig, 1) && peers[0].state != PeerState::Up,
        "the peer that is not there is listed as {peers:?}"
    );
    Ok(())
}

async fn connecting_again_breaks_nothing(rig: &Rig) -> Verdict {
    let announcements = connected(rig).await?;
    for held in [&["10.1.0.5/16"][..], &["10.1.0.5/16", "10.2.0.5/16"], &[]] {
        let mut holds = Vec::new();
        for addr in held {
            holds.push(super::app(addr)?);
        }
        let spec = peer(rig, 1, &announcements[1]).holding(holds);
        for _ in 0..2 {
            rig.overlay(0).connect(spec.clone()).await?;
            answers(
                rig,
                PingFrom::Host(0),
                node(rig, 1).overlay(),
                &[Ping::Answered],
            )
            .await?;
        }
    }
    let peers = rig.overlay(0).peers().await?;
    ensure!(peers.len() == 2, "it lists {peers:?}");
    Ok(())
}

async fn an_unreadable_announcement_is_refused(rig: &Rig) -> Verdict {
    launched(rig).await?;
    for bytes in [&b""[..], b"?", &[0xff; 513]] {
        let spec = peer(rig, 1, &Announcement(Bytes::copy_from_slice(bytes)));
        let answer = rig.overlay(0).connect(spec).await;
        refused("connect", answer, &[ErrorKind::InvalidInput])?;
    }
    let peers = rig.overlay(0).peers().await?;
    ensure!(peers.is_empty(), "it lists {peers:?}");
    Ok(())
}

async fn a_forgotten_peer_is_gone(rig: &Rig) -> Verdict {
    connected(rig).await?;
    for _ in 0..2 {
        rig.overlay(0).forget(node(rig, 1)).await?;
    }
    let peers = rig.overlay(0).peers().await?;
    ensure!(
        peers.len() == 1 && peers[0].node == node(rig, 2),
        "after one of two was forgotten, {peers:?} are left"
    );
    let gone = [Ping::Silent, Ping::Refused];
    comes_to_answer(rig, PingFrom::Host(0), node(rig, 1).overlay(), &gone).await?;
    answers(
        rig,
        PingFrom::Host(0),
        node(rig, 2).overlay(),
        &[Ping::Answered],
    )
    .await
}

async fn unknown_peers_are_not_nudged(rig: &Rig) -> Verdict {
    launched(rig).await?;
    rig.overlay(0).nudge(node(rig, 1)).await?;
    let peers = rig.overlay(0).peers().await?;
    ensure!(peers.is_empty(), "a nudge made {peers:?}");
    Ok(())
}

async fn waiting_for_a_peer_ends(rig: &Rig) -> Verdict {
    let announcements = launched(rig).await?;
    rig.overlay(1).stop().await?;
    rig.overlay(0)
        .connect(peer(rig, 1, &announcements[1]))
        .await?;
    let limit = Duration::from_secs(1);
    let asked = Instant::now();
    let answer = rig.overlay(0).wait_reachable(node(rig, 1), limit).await;
    refused("wait_reachable", answer, &[ErrorKind::Timeout])?;
    let took = asked.elapsed();
    ensure!(
        (limit..limit * 3).contains(&took),
        "with a limit of {limit:?} it took {took:?}"
    );
    Ok(())
}

async fn nobody_waits_for_a_stranger(rig: &Rig) -> Verdict {
    launched(rig).await?;
    let limit = rig.patience() * 2;
    let asked = Instant::now();
    let answer = rig.overlay(0).wait_reachable(node(rig, 1), limit).await;
    refused("wait_reachable", answer, &[ErrorKind::NotFound])?;
    ensure!(
        asked.elapsed() < limit / 2,
        "it waited {:?}",
        asked.elapsed()
    );
    Ok(())
}

async fn a_healed_peer_is_reached_again(rig: &Rig) -> Verdict {
    connected(rig).await?;
    rig.cut(1).await;
    let limit = Duration::from_secs(1);
    let answer = rig.overlay(0).wait_reachable(node(rig, 1), limit).await;
    refused("wait_reachable", answer, &[ErrorKind::Timeout])?;
    rig.heal(1).await;
    rig.overlay(0).nudge(node(rig, 1)).await?;
    rig.overlay(0)
        .wait_reachable(node(rig, 1), rig.patience())
        .await?;
    answers(
        rig,
        PingFrom::Host(0),
        node(rig, 1).overlay(),
        &[Ping::Answered],
    )
    .await
}

async fn a_plane_is_exposed_and_hidden(rig: &Rig) -> Verdict {
    connected(rig).await?;
    let away = [Ping::Refused, Ping::Silent];
    for plane in [Plane::Docker, Plane::Discovery] {
        let to = node(rig, 1).in_plane(plane);
        answers(rig, PingFrom::Host(0), to, &away).await?;
        for _ in 0..2 {
            rig.overlay(1).expose(plane).await?;
        }
        comes_to_answer(rig, PingFrom::Host(0), to, &[Ping::Answered]).await?;
        for _ in 0..2 {
            rig.overlay(1).hide(plane).await?;
        }
        comes_to_answer(rig, PingFrom::Host(0), to, &away).await?;
    }
    Ok(())
}
