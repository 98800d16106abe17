//! Sessions, locks and leadership.

use std::time::Duration;

use super::{Rig, key, needs_cuts};
use crate::ErrorKind;
use crate::conformance::check::{
    Broken, Check, INTERRUPTIONS, Verdict, check, ensure, interrupted, refused, until,
};
use crate::kv::SessionId;

pub(super) fn checks() -> Vec<Check<Rig>> {
    vec![
        check!(
            a_lock_has_one_holder,
            "Takes a lock if it is free; None while another session holds it. A second call by the holder answers with the lock as it is held."
        ),
        check!(
            only_its_holder_frees_a_lock,
            "Frees a lock, if this session holds it. A second call does nothing."
        ),
        check!(
            fencing_numbers_grow,
            "Grows with every holder of this lock."
        ),
        check!(
            a_session_that_is_not_renewed_ends,
            "Opens a session that ends when it has not been renewed for ttl."
        ),
        check!(
            a_session_of_no_time_is_refused,
            "InvalidInput for a ttl of zero, or that the backend can't keep."
        ),
        check!(
            a_closed_session_frees_its_locks,
            "Ends a session and frees its locks. A second call does nothing."
        ),
        check!(
            a_campaign_waits_for_the_lock,
            "Waits for the lock, and takes it: leadership, whose holder renews its session. A second call by the holder answers at once."
        ),
        check!(
            a_campaign_ends_with_its_session,
            "NotFound when the session ended, also while waiting."
        ),
        check!(
            a_dropped_campaign_takes_nothing_later,
            "Dropping a call's future at any point leaves nothing behind, or something that the same call finishes."
        ),
        check!(
            a_leader_that_is_cut_off_is_replaced,
            "A resource that refuses lower numbers than it has seen is safe from a holder that does not know yet that it lost the lock.",
            needs_cuts
        ),
    ]
}

/// Long enough not to end in a check by itself.
fn long(rig: &Rig) -> Duration {
    (rig.patience() + rig.shortest_ttl()) * 20
}

async fn session(rig: &Rig, node: usize, ttl: Duration) -> Verdict<SessionId> {
    Ok(rig.key_value(node).open_session(ttl).await?)
}

async fn a_lock_has_one_holder(rig: &Rig) -> Verdict {
    let key = key("lock")?;
    let (one, other) = (
        session(rig, 0, long(rig)).await?,
        session(rig, 1, long(rig)).await?,
    );
    ensure!(one != other, "two sessions are one");
    let held = rig.key_value(0).try_lock(&key, &one).await?;
    ensure!(held.is_some(), "a free lock was not to be had");
    let again = rig.key_value(0).try_lock(&key, &one).await?;
    ensure!(again == held, "{held:?} became {again:?}");
    let refused = rig.key_value(1).try_lock(&key, &other).await?;
    ensure!(
        refused.is_none(),
        "a lock that is held was had as {refused:?}"
    );
    for node in 0..rig.size() {
        let holder = rig.key_value(node).holder(&key).await?;
        ensure!(holder == held, "node {node} sees it held as {holder:?}");
    }
    Ok(())
}

async fn only_its_holder_frees_a_lock(rig: &Rig) -> Verdict {
    let key = key("lock")?;
    let (one, other) = (
        session(rig, 0, long(rig)).await?,
        session(rig, 1, long(rig)).await?,
    );
    rig.key_value(0).try_lock(&key, &one).await?;
    rig.key_value(1).unlock(&key, &other).await?;
    ensure!(
        rig.key_value(1).holder(&key).await?.is_some(),
        "another session freed it"
    );
    for _ in 0..2 {
        rig.key_value(0).unlock(&key, &one).await?;
    }
    ensure!(
        rig.key_value(1).holder(&key).await?.is_none(),
        "it is still held"
    );
    until(rig.patience(), async || {
        let held = rig.key_value(1).try_lock(&key, &other).await?;
        ensure!(held.is_some(), "a lock that was freed is not to be had");
        Ok(())
    })
    .await
}

async fn fencing_numbers_grow(rig: &Rig) -> Verdict {
    let key = key("lock")?;
    let mut last = None;
    for node in [0, 1, 0, 2] {
        let session = session(rig, node, long(rig)).await?;
        let held = rig.key_value(node).campaign(&key, &session).await?;
        ensure!(
            Some(held.fencing) > last,
            "{} came after {last:?}",
            held.fencing
        );
        last = Some(held.fencing);
        rig.key_value(node).unlock(&key, &session).await?;
    }
    Ok(())
}

async fn a_session_that_is_not_renewed_ends(rig: &Rig) -> Verdict {
    let (key, ttl) = (key("lock")?, rig.shortest_ttl());
    let kv = rig.key_value(0);
    let (renewed, left) = (session(rig, 0, ttl).await?, session(rig, 0, ttl).await?);
    kv.try_lock(&key, &left).await?;
    let begun = tokio::time::Instant::now();
    until(rig.patience() + ttl * 4, async || {
        kv.renew_session(&renewed).await?;
        let holder = kv.holder(&key).await?;
        ensure!(
            holder.is_none(),
            "a session that nobody renews still holds {holder:?}"
        );
        Ok(())
    })
    .await?;
    ensure!(
        begun.elapsed() + Duration::from_millis(100) >= ttl,
        "it ended after {:?} of {ttl:?}",
        begun.elapsed()
    );
    let answer = kv.renew_session(&left).await;
    refused("renew_session", answer, &[ErrorKind::NotFound])?;
    let answer = kv.try_lock(&key, &left).await;
    refused("try_lock", answer, &[ErrorKind::NotFound])?;
    kv.renew_session(&renewed).await?;
    Ok(())
}

async fn a_session_of_no_time_is_refused(rig: &Rig) -> Verdict {
    let answer = rig.key_value(0).open_session(Duration::ZERO).await;
    refused("open_session", answer, &[ErrorKind::InvalidInput]).map(drop)
}

async fn a_closed_session_frees_its_locks(rig: &Rig) -> Verdict {
    let one = session(rig, 0, long(rig)).await?;
    for name in ["one", "two"] {
        rig.key_value(0).try_lock(&key(name)?, &one).await?;
    }
    for _ in 0..2 {
        rig.key_value(0).close_session(&one).await?;
    }
    for name in ["one", "two"] {
        let holder = rig.key_value(1).holder(&key(name)?).await?;
        ensure!(holder.is_none(), "{name} is still held: {holder:?}");
    }
    let answer = rig.key_value(0).renew_session(&one).await;
    refused("renew_session", answer, &[ErrorKind::NotFound]).map(drop)
}

async fn a_campaign_waits_for_the_lock(rig: &Rig) -> Verdict {
    let key = key("leader")?;
    let (one, other) = (
        session(rig, 0, long(rig)).await?,
        session(rig, 1, long(rig)).await?,
    );
    let (first, second) = (rig.key_value(0), rig.key_value(1));
    let held = first.campaign(&key, &one).await?;
    let again = first.campaign(&key, &one).await?;
    ensure!(held == again, "{held:?} became {again:?}");
    let waiting = tokio::time::timeout(Duration::from_millis(300), second.campaign(&key, &other));
    ensure!(
        waiting.await.is_err(),
        "a campaign did not wait for the holder"
    );
    let campaign = second.campaign(&key, &other);
    let (elected, freed) = tokio::join!(
        tokio::time::timeout(rig.patience(), campaign),
        first.unlock(&key, &one)
    );
    freed?;
    let elected = elected.map_err(|_| Broken::new("the lock was freed, and nobody told"))??;
    ensure!(
        elected.session == other && elected.fencing > held.fencing,
        "after {held:?} came {elected:?}"
    );
    Ok(())
}

async fn a_campaign_ends_with_its_session(rig: &Rig) -> Verdict {
    let key = key("leader")?;
    let one = session(rig, 0, long(rig)).await?;
    rig.key_value(0).campaign(&key, &one).await?;
    let other = session(rig, 1, rig.shortest_ttl()).await?;
    let kv = rig.key_value(1);
    let limit = rig.patience() + rig.shortest_ttl() * 4;
    let campaign = tokio::time::timeout(limit, kv.campaign(&key, &other)).await;
    let answer = campaign.map_err(|_| Broken::new("it waits on for a session that ended"))?;
    refused("campaign", answer, &[ErrorKind::NotFound]).map(drop)
}

async fn a_dropped_campaign_takes_nothing_later(rig: &Rig) -> Verdict {
    let key = key("leader")?;
    let (one, other) = (
        session(rig, 0, long(rig)).await?,
        session(rig, 1, long(rig)).await?,
    );
    rig.key_value(0).campaign(&key, &one).await?;
    let kv = rig.key_value(1);
    for polls in INTERRUPTIONS {
        interrupted(
            tokio::time::timeout(Duration::ZERO, kv.campaign(&key, &other)),
            polls,
        )
        .await;
    }
    rig.key_value(0).unlock(&key, &one).await?;
    let third = session(rig, 2, long(rig)).await?;
    let elected = rig.key_value(2).campaign(&key, &third).await?;
    ensure!(
        elected.session == third,
        "{elected:?} was elected after it had given up"
    );
    Ok(())
}

async fn a_leader_that_is_cut_off_is_replaced(rig: &Rig) -> Verdict {
    let key = key("leader")?;
    let one = session(rig, 0, rig.shortest_ttl()).await?;
    let held = rig.key_value(0).campaign(&key, &one).await?;
    rig.cut(0).await;
    let other = session(rig, 1, long(rig)).await?;
    let kv = rig.key_value(1);
    let limit = rig.patience() + rig.shortest_ttl() * 4;
    let elected = tokio::time::timeout(limit, kv.campaign(&key, &other)).await;
    let elected = elected.map_err(|_| Broken::new("nobody takes over from it"))??;
    ensure!(
        elected.fencing > held.fencing,
        "after {held:?} came {elected:?}"
    );
    rig.heal(0).await;
    until(rig.patience(), async || {
        let holder = rig.key_value(0).holder(&key).await?;
        // Whoever was cut off may have taken the others for dead, and so ended the session of the one that took over.
        let is_over = holder.as_ref().is_none_or(|holder| *holder == elected);
        ensure!(is_over, "it sees {holder:?} as the holder");
        Ok(())
    })
    .await?;
    let answer = rig.key_value(0).renew_session(&one).await;
    refused(
        "renew_session of the first one",
        answer,
        &[ErrorKind::NotFound],
    )
    .map(drop)
}
