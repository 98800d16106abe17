//! The roster: admitting nodes and forgetting them.

use std::time::Duration;

use super::{Rig, needs_admission, node, sees, started};
use crate::conformance::check::{Broken, Check, Verdict, check, ensure, refused, until};
use crate::discovery::MemberState;
use crate::roster::{Identity, RosterEntry};
use crate::{ErrorKind, NodeAddr};

pub(super) fn checks() -> Vec<Check<Rig>> {
    vec![
        check!(
            an_admitted_node_is_in_every_roster,
            "Takes a new node into the roster once every living member has agreed. The same entry again is taken again.",
            needs_admission
        ),
        check!(
            what_is_taken_is_refused_and_its_holder_named,
            "AlreadyExists names who holds the address or the name;",
            needs_admission
        ),
        check!(
            of_two_at_the_same_moment_one_is_admitted,
            "Conflict when another member admitted somebody else at the same moment.",
            needs_admission
        ),
        check!(
            a_dead_member_is_forgotten_for_good,
            "Removes a dead member for good: its address is free, its identity is refused from then on. A second call does nothing.",
            needs_admission
        ),
        check!(
            who_lives_or_was_never_there_is_not_forgotten,
            "Conflict while the member is alive and another node;"
        ),
        check!(
            a_node_may_forget_itself,
            "A node may forget itself: it gives its address up, and leaves after that.",
            needs_admission
        ),
    ]
}

/// An address that no node of the rig has.
fn free_address(rig: &Rig) -> Verdict<NodeAddr> {
    let taken: Vec<NodeAddr> = rig.memberships().iter().map(|one| one.me.node).collect();
    (1..u16::MAX)
        .rev()
        .filter_map(NodeAddr::from_index)
        .find(|node| !taken.contains(node))
        .ok_or_else(|| Broken::new("no address is free"))
}

fn applicant(rig: &Rig, node: NodeAddr, name: &str) -> Verdict<RosterEntry> {
    rig.applicant(node, name)
        .ok_or_else(|| Broken::new("the rig makes no applicants any more"))
}

/// An applicant for an address that was forgotten: the generation after that.
async fn next_holder(rig: &Rig, node: NodeAddr) -> Verdict<RosterEntry> {
    let roster = rig.discovery(0).roster().await?;
    let mut entry = applicant(rig, node, "newcomer")?;
    entry.generation = roster.entry(node).map_or(1, |held| held.generation + 1);
    Ok(entry)
}

async fn holder(rig: &Rig, observer: usize, of: NodeAddr) -> Verdict<Option<Identity>> {
    let roster = rig.discovery(observer).roster().await?;
    Ok(roster.holder(of).map(|entry| entry.identity))
}

async fn all_hold(
    rig: &Rig,
    of: NodeAddr,
    wanted: Option<Identity>,
    observers: &[usize],
) -> Verdict {
    for observer in observers {
        until(rig.patience(), async || {
            let found = holder(rig, *observer, of).await?;
            ensure!(
                found == wanted,
                "in node {observer}'s roster {of} is held by {found:?} instead of {wanted:?}"
            );
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn an_admitted_node_is_in_every_roster(rig: &Rig) -> Verdict {
    started(rig).await?;
    let entry = applicant(rig, free_address(rig)?, "newcomer")?;
    for _ in 0..2 {
        rig.discovery(0).admit(entry.clone()).await?;
        ensure!(
            holder(rig, 0, entry.node).await? == Some(entry.identity),
            "the node that admitted it has it not in its own roster"
        );
        all_hold(rig, entry.node, Some(entry.identity), &[0, 1, 2]).await?;
    }
    Ok(())
}

async fn what_is_taken_is_refused_and_its_holder_named(rig: &Rig) -> Verdict {
    started(rig).await?;
    let taken = &rig.memberships()[1].me;
    let by_address = applicant(rig, taken.node, "newcomer")?;
    let by_name = applicant(rig, free_address(rig)?, taken.name.as_str())?;
    for entry in [by_address, by_name] {
        let answer = rig.discovery(0).admit(entry).await;
        let error = refused("admit", answer, &[ErrorKind::AlreadyExists])?;
        let mut told = error.to_string();
        told.push_str(error.hint().unwrap_or_default());
        ensure!(
            told.contains(taken.name.as_str()) || told.contains(&taken.node.to_string()),
            "{told:?} does not name {} or {}",
            taken.name,
            taken.node
        );
    }
    let identity = rig.memberships()[1].identity;
    all_hold(rig, taken.node, Some(identity), &[0, 1, 2]).await
}

async fn of_two_at_the_same_moment_one_is_admitted(rig: &Rig) -> Verdict {
    started(rig).await?;
    let address = free_address(rig)?;
    let first = applicant(rig, address, "first")?;
    let second = applicant(rig, address, "second")?;
    let (here, there) = (rig.discovery(0), rig.discovery(1));
    let (one, other) = tokio::join!(here.admit(first.clone()), there.admit(second.clone()));
    let admitted = match (one, other) {
        (Ok(()), Ok(())) => return Err(Broken::new("both were admitted to one address")),
        (Ok(()), Err(_)) => Some(first.identity),
        (Err(_), Ok(())) => Some(second.identity),
        (Err(_), Err(_)) => None,
    };
    all_hold(rig, address, admitted, &[0, 1, 2]).await?;
    // Whoever was refused was refused for this, and one of them gets in when it asks alone.
    let again = rig.discovery(2).admit(second).await;
    match admitted {
        Some(holder) if holder == first.identity => {
            refused("a later admit", again, &[ErrorKind::AlreadyExists]).map(drop)
        }
        _ => Ok(again?),
    }
}

async fn a_dead_member_is_forgotten_for_good(rig: &Rig) -> Verdict {
    started(rig).await?;
    let dead = &rig.memberships()[2];
    let address = dead.me.node;
    rig.kill(2).await;
    until(rig.patience(), async || {
        sees(rig, 0, 2, MemberState::Down).await
    })
    .await?;
    for _ in 0..2 {
        rig.discovery(0).forget(address).await?;
    }
    all_hold(rig, address, None, &[0, 1]).await?;
    for observer in 0..2 {
        let members = rig.discovery(observer).members().await?;
        ensure!(
            members.iter().all(|member| member.node != address),
            "node {observer} still lists the forgotten one"
        );
    }
    // Its identity is refused, also when it comes back by itself.
    let entry = next_holder(rig, address).await?;
    let returning = RosterEntry {
        identity: dead.identity,
        ..entry.clone()
    };
    let answer = rig.discovery(0).admit(returning).await;
    ensure!(answer.is_err(), "the forgotten identity was admitted again");
    // And the address is free for another.
    rig.discovery(1).admit(entry.clone()).await?;
    all_hold(rig, address, Some(entry.identity), &[0, 1]).await
}

async fn who_lives_or_was_never_there_is_not_forgotten(rig: &Rig) -> Verdict {
    started(rig).await?;
    let alive = rig.discovery(0).forget(node(rig, 1)).await;
    refused("forget of a living member", alive, &[ErrorKind::Conflict])?;
    let never = rig.discovery(0).forget(free_address(rig)?).await;
    refused("forget of nobody", never, &[ErrorKind::NotFound])?;
    sees(rig, 0, 1, MemberState::Alive).await
}

async fn a_node_may_forget_itself(rig: &Rig) -> Verdict {
    started(rig).await?;
    let address = node(rig, 2);
    rig.discovery(2).forget(address).await?;
    rig.discovery(2).leave(Duration::from_secs(5)).await?;
    all_hold(rig, address, None, &[0, 1]).await?;
    let entry = next_holder(rig, address).await?;
    rig.discovery(0).admit(entry.clone()).await?;
    all_hold(rig, address, Some(entry.identity), &[0, 1]).await
}
