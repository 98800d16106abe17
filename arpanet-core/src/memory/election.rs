//! Taking in a new node: all living members are asked, and of two who ask at once the same one yields everywhere.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::catalogue::DiscoveryProcess;
use super::discovery::{not_running, process};
use super::network::HostIndex;
use super::state::{Seat, State};
use crate::discovery::MemberState;
use crate::roster::{Identity, Roster, RosterEntry};
use crate::{Error, ErrorKind, NodeAddr, Result};

/// How long living members that can't be reached are waited for: until they are down, usually.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes the question back when the call ends, however it ends.
struct Question<'a> {
    seat: &'a Seat,
    identity: Identity,
    node: NodeAddr,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        // A process that is gone has no questions.
        let _ = self.seat.enter(|state, host| {
            if let Some(process) = state.hosts[host].discovery.as_mut() {
                process
                    .pending
                    .retain(|entry| (entry.identity, entry.node) != (self.identity, self.node));
            }
            Ok(())
        });
    }
}

pub(super) async fn admit(seat: &Seat, entry: RosterEntry) -> Result<()> {
    let asked = seat.enter(|state, host| {
        let now = Instant::now();
        let process = process(state, host)?;
        process.check()?;
        if admitted(&process.roster, &entry) {
            return Ok(None);
        }
        free(process, &entry, now)?;
        process.pending.push(entry.clone());
        let audience = state.audience(host);
        let longest = audience
            .iter()
            .map(|other| state.network.delay(host, *other))
            .max();
        Ok(Some(now + longest.unwrap_or_default() * 2))
    })?;
    let Some(answered) = asked else {
        return Ok(());
    };
    let question = Question {
        seat,
        identity: entry.identity,
        node: entry.node,
    };
    tokio::time::sleep_until(answered).await;
    wait_for_the_living(seat).await?;
    let confirmed = seat.enter(|state, host| {
        let now = Instant::now();
        let audience = state.audience(host);
        for other in std::iter::once(host).chain(audience) {
            let Some(voter) = state.discovery(other) else {
                continue;
            };
            if !admitted(&voter.roster, &entry) {
                free(voter, &entry, now)?;
            }
            yield_to(voter, other == host, &entry)?;
        }
        let process = process(state, host)?;
        let mut roster = Roster::clone(&process.roster);
        roster.merge(entry.clone());
        process.merge(&Arc::new(roster), now);
        Ok(state.broadcast_roster(host, now))
    })?;
    drop(question);
    tokio::time::sleep_until(confirmed).await;
    Ok(())
}

fn admitted(roster: &Roster, entry: &RosterEntry) -> bool {
    roster
        .holder(entry.node)
        .is_some_and(|held| held.identity == entry.identity && held.generation >= entry.generation)
}

/// Refuses what is taken. A dead node's address is free for the next generation, and a forgotten one's for all but who
/// was forgotten.
fn free(process: &DiscoveryProcess, entry: &RosterEntry, now: Instant) -> Result<()> {
    let taken = |what: String, held: &RosterEntry| {
        let message = format!("{what} is taken by {} ({})", held.name, held.node);
        Err(Error::new(ErrorKind::AlreadyExists, message))
    };
    if let Some(held) = process.roster.entry(entry.node) {
        let outbid = entry.generation > held.generation;
        let down = process
            .all_members(now)
            .get(&entry.node)
            .is_none_or(|member| member.state == MemberState::Down);
        if held.forgotten && held.identity == entry.identity {
            let message = format!("{} was forgotten by this cluster", entry.node);
            return Err(Error::new(ErrorKind::PermissionDenied, message)
                .with_hint("reset this node and join again"));
        }
        // The holder itself may come again under another name, or in another role.
        let own = held.identity == entry.identity;
        if !outbid || !(held.forgotten || down || own) {
            return taken(format!("the address {}", entry.node), held);
        }
    }
    match process.roster.by_name(&entry.name) {
        Some(held) if held.node != entry.node => taken(format!("the name {}", entry.name), held),
        _ => Ok(()),
    }
}

/// Of two questions about one address or name, the one with the lower epoch, then the lower identity, goes on.
fn yield_to(voter: &DiscoveryProcess, own: bool, entry: &RosterEntry) -> Result<()> {
    let rank = |entry: &RosterEntry| (entry.epoch, entry.identity, entry.node);
    let rival = voter.pending.iter().find(|other| {
        (other.node == entry.node && other.identity != entry.identity)
            || (other.name == entry.name && other.node != entry.node)
    });
    match rival {
        Some(rival) if rank(rival) < rank(entry) => {
            let whom = if own { "this node" } else { "another member" };
            let message = format!(
                "{whom} admits {} to {} at this moment",
                rival.name, rival.node
            );
            Err(Error::new(ErrorKind::Conflict, message).with_hint("try again"))
        }
        _ => Ok(()),
    }
}

/// Waits until every member that is thought alive can be asked.
async fn wait_for_the_living(seat: &Seat) -> Result<()> {
    let limit = Instant::now() + PATIENCE;
    loop {
        let missing = seat.enter(|state, host| missing(state, host))?;
        let Some(missing) = missing else {
            return Ok(());
        };
        if Instant::now() >= limit {
            let message = format!("{missing} counts as alive and did not answer");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn missing(state: &State, host: HostIndex) -> Result<Option<NodeAddr>> {
    let audience = state.audience(host);
    let now = Instant::now();
    let process = state.discovery(host).ok_or_else(not_running)?;
    Ok(process
        .all_members(now)
        .into_values()
        .filter(|member| member.state != MemberState::Down)
        .map(|member| member.node)
        .filter(|node| *node != process.membership.me.node)
        .find(|node| {
            process
                .roster
                .holder(*node)
                .and_then(|entry| state.by_identity(entry.identity))
                .is_none_or(|other| !audience.contains(&other))
        }))
}
