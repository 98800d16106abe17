//! The cluster's key, and how it turns over.

use super::{Rig, needs_cuts, node, sees, start, started};
use crate::ErrorKind;
use crate::admission::{Credential, Keys};
use crate::conformance::check::{Broken, Check, Verdict, check, ensure, refused, until};
use crate::discovery::MemberState;

pub(super) fn checks() -> Vec<Check<Rig>> {
    vec![
        check!(
            a_new_key_is_everybodys,
            "Gives the cluster a new key, and with a credential a new password; returns who of the living has not confirmed it in time.",
            needs_turning
        ),
        check!(
            who_was_away_gets_the_key_when_it_is_back,
            "Members that are not there get the key when they are back, from any member that admits others.",
            needs_turning
        ),
        check!(
            of_keys_made_apart_one_stands,
            "Of keys that were made apart from each other, one stands in the end.",
            |rig| needs_turning(rig).or_else(|| needs_cuts(rig))
        ),
        check!(
            a_departure_turns_the_key_over,
            "After a departure (a node was forgotten, has left for good, or its address has another holder) the members that are left turn the key over by themselves.",
            needs_turning
        ),
        check!(
            where_the_key_stays_it_is_said,
            "Unsupported where the key stays; nothing is changed then.",
            |rig| rig
                .discovery(0)
                .capabilities()
                .turns_keys
                .then_some("its keys turn over")
        ),
    ]
}

fn needs_turning(rig: &Rig) -> Option<&'static str> {
    let able = rig.discovery(0).capabilities().turns_keys;
    (!able).then_some("the backend's keys don't turn over")
}

async fn keys(rig: &Rig, at: usize) -> Verdict<Keys> {
    Ok(rig.discovery(at).watch_keys().await?.borrow().clone())
}

/// Whether these have one key, another than this one, and those that admit others one credential.
async fn agree(rig: &Rig, nodes: &[usize], other_than: &Keys) -> Verdict {
    until(rig.patience(), async || {
        let first = keys(rig, nodes[0]).await?;
        ensure!(
            first.key.rank() > other_than.key.rank(),
            "the key {} was not turned over",
            first.key.id
        );
        for at in nodes {
            let theirs = keys(rig, *at).await?;
            ensure!(
                theirs.key == first.key,
                "node {at} has the key {} instead of {}",
                theirs.key.id,
                first.key.id
            );
            let admits = rig.memberships()[*at].me.role.admits();
            ensure!(
                admits || theirs.credential.is_none(),
                "node {at} admits nobody and has what passwords are checked by"
            );
            ensure!(
                !admits || theirs.credential == first.credential,
                "node {at} checks another password than node {}",
                nodes[0]
            );
        }
        Ok(())
    })
    .await
}

fn password(text: &str) -> Verdict<Option<Credential>> {
    Ok(Some(Credential::from_bytes(text.as_bytes().to_vec())?))
}

async fn a_new_key_is_everybodys(rig: &Rig) -> Verdict {
    started(rig).await?;
    let before = keys(rig, 0).await?;
    let mut watch = rig.discovery(1).watch_keys().await?;
    watch.mark_unchanged();
    let spread = rig.discovery(0).turn_over(None).await?;
    ensure!(
        spread.unconfirmed.is_empty(),
        "not confirmed by {:?}",
        spread.unconfirmed
    );
    agree(rig, &[0, 1, 2], &before).await?;
    ensure!(
        keys(rig, 0).await?.credential == before.credential,
        "a new key brought another password"
    );
    let told = tokio::time::timeout(rig.patience(), watch.changed()).await;
    ensure!(
        matches!(told, Ok(Ok(()))),
        "node 1 was not told of its new key"
    );
    let between = keys(rig, 0).await?;
    rig.discovery(0).turn_over(password("Pears")?).await?;
    agree(rig, &[0, 1, 2], &between).await?;
    ensure!(
        keys(rig, 0).await?.credential == password("Pears")?,
        "the new password did not come"
    );
    Ok(())
}

async fn who_was_away_gets_the_key_when_it_is_back(rig: &Rig) -> Verdict {
    started(rig).await?;
    let before = keys(rig, 0).await?;
    rig.kill(2).await;
    for _ in 0..2 {
        rig.discovery(0).turn_over(password("Pears")?).await?;
    }
    rig.restart(2).await;
    start(rig, 2).await?;
    agree(rig, &[0, 1, 2], &before).await
}

async fn of_keys_made_apart_one_stands(rig: &Rig) -> Verdict {
    started(rig).await?;
    let before = keys(rig, 0).await?;
    rig.cut(2).await;
    until(rig.patience(), async || {
        sees(rig, 0, 2, MemberState::Down).await?;
        sees(rig, 2, 0, MemberState::Down).await
    })
    .await?;
    for at in [0, 2] {
        if rig.memberships()[at].me.role.admits() {
            rig.discovery(at).turn_over(None).await?;
        }
    }
    rig.heal(2).await;
    agree(rig, &[0, 1, 2], &before).await
}

async fn a_departure_turns_the_key_over(rig: &Rig) -> Verdict {
    started(rig).await?;
    let before = keys(rig, 0).await?;
    rig.kill(2).await;
    until(rig.patience(), async || {
        sees(rig, 0, 2, MemberState::Down).await
    })
    .await?;
    rig.discovery(0).forget(node(rig, 2)).await?;
    agree(rig, &[0, 1], &before).await?;
    let covers = keys(rig, 0).await?.key.covers;
    let departures = rig.discovery(0).roster().await?.departures();
    if covers != departures {
        return Err(Broken::new(format!(
            "the key covers {covers} of {departures}"
        )));
    }
    Ok(())
}

async fn where_the_key_stays_it_is_said(rig: &Rig) -> Verdict {
    started(rig).await?;
    let turned = rig.discovery(0).turn_over(None).await;
    refused("turn_over", turned, &[ErrorKind::Unsupported])?;
    Ok(())
}
