//! Who gets in.

use std::sync::Arc;

use async_trait::async_trait;

use super::record;
use crate::admission::Gatekeeper;
use crate::discovery::MemberState;
use crate::roster::{Identity, Role, Roster, RosterEntry};
use crate::watch::Change;
use crate::{Discovery, Error, ErrorKind, NodeAddr, Result};

/// Decides by the roster that discovery keeps, and has every living member agree.
#[derive(Debug)]
pub(super) struct Gate {
    role: Role,
    me: NodeAddr,
    discovery: Arc<dyn Discovery>,
}

impl Gate {
    pub(super) fn new(role: Role, me: NodeAddr, discovery: Arc<dyn Discovery>) -> Self {
        Self {
            role,
            me,
            discovery,
        }
    }

    async fn is_down(&self, node: NodeAddr) -> Result<bool> {
        let members = self.discovery.members().await?;
        Ok(members
            .iter()
            .find(|member| member.node == node)
            .is_none_or(|member| member.state == MemberState::Down))
    }

    /// Whether anything that the node says of itself has come here.
    async fn has_announced(&self, node: NodeAddr) -> Result<bool> {
        let mut records = self.discovery.watch_records(record::NODE).await?;
        Ok(match records.next().await {
            Some(Change::Snapshot(records)) => records.keys().any(|(owner, _)| *owner == node),
            _ => false,
        })
    }
}

/// What an applicant is to the roster.
enum Standing {
    /// It holds the address already, as the same one.
    Member,
    /// The entry that can be taken in.
    New(RosterEntry),
    /// Somebody else's address; a dead one's can be taken over.
    Held(RosterEntry),
    /// Somebody else's name.
    Named(RosterEntry),
}

fn stand(roster: &Roster, mut applicant: RosterEntry) -> Standing {
    let epoch = record::later(roster.entries().map(|entry| entry.epoch).max());
    if let Some(other) = roster
        .by_name(&applicant.name)
        .filter(|entry| entry.node != applicant.node)
    {
        return Standing::Named(other.clone());
    }
    applicant.epoch = epoch;
    applicant.forgotten = false;
    match roster.entry(applicant.node) {
        None => {
            applicant.generation = 1;
            Standing::New(applicant)
        }
        Some(held) if held.forgotten => {
            applicant.generation = held.generation.saturating_add(1);
            Standing::New(applicant)
        }
        Some(held) if held.identity == applicant.identity => {
            if held.name == applicant.name && held.role == applicant.role {
                return Standing::Member;
            }
            applicant.generation = held.generation.saturating_add(1);
            Standing::New(applicant)
        }
        Some(held) => Standing::Held(held.clone()),
    }
}

#[async_trait]
impl Gatekeeper for Gate {
    async fn admit(&self, applicant: RosterEntry, replace: bool) -> Result<Roster> {
        if !self.role.admits() {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!("node {} is a client and admits nobody", self.me),
            ));
        }
        let roster = self.discovery.roster().await?;
        let entry = match stand(&roster, applicant.clone()) {
            Standing::Member => return Ok(roster),
            Standing::New(entry) => entry,
            Standing::Named(other) => {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!("the name {} is held by node {}", other.name, other.node),
                )
                .with_hint("choose another name with --name"));
            }
            Standing::Held(held) => {
                let down = self.is_down(held.node).await?;
                if !(replace && down) {
                    return Err(Error::new(
                        ErrorKind::AlreadyExists,
                        format!(
                            "the address {} is held by {}, which is {}",
                            held.node,
                            held.name,
                            if down { "down" } else { "alive" }
                        ),
                    )
                    .with_hint(if down {
                        "take it over from the dead node with --replace, or choose another address"
                    } else {
                        "choose another address"
                    }));
                }
                let mut entry = applicant;
                entry.generation = held.generation.saturating_add(1);
                entry.epoch = record::later(roster.entries().map(|entry| entry.epoch).max());
                entry
            }
        };
        self.discovery.admit(entry).await?;
        self.discovery.roster().await
    }

    async fn withdraw(&self, node: NodeAddr, identity: Identity) -> Result<bool> {
        let roster = self.discovery.roster().await?;
        if roster
            .holder(node)
            .is_none_or(|entry| entry.identity != identity)
        {
            return Ok(false);
        }
        let heard = !self.is_down(node).await? || self.has_announced(node).await?;
        match self.discovery.forget(node).await {
            // It still talks: it takes itself out.
            Err(error) if heard => tracing::debug!(%node, %error, "not taken out here"),
            outcome => outcome?,
        }
        Ok(heard)
    }
}
