//! Taking nodes into the roster, and out of it.

use std::collections::BTreeSet;
use std::time::Duration;

use arpanet_core::{Error, ErrorKind, NodeAddr, Result, Roster, RosterEntry};

use super::spread::Parcel;
use super::{Engine, Event, Ticket};
use crate::config::ms;
use crate::peers::Sender;
use crate::roster::SignedEntry;
use crate::wire::Message;

impl Engine {
    /// Takes a new node into the roster once every living member has agreed. The same entry again is taken again.
    ///
    /// The ticket is settled with [`Outcome::Refused`](super::Outcome::Refused) when somebody else has or gets the
    /// address or the name, and then nobody was admitted.
    ///
    /// # Errors
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) on a node that admits nobody;
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) names who has the address or the name;
    /// [`Conflict`](ErrorKind::Conflict) while an older admission for the same address or name is under way.
    pub fn admit(&mut self, now: Duration, entry: RosterEntry) -> Result<Ticket> {
        self.check_admits("admit others")?;
        if self
            .roster()
            .holder(entry.node)
            .is_some_and(|held| held.identity == entry.identity && *held == entry)
        {
            return Ok(self.settled());
        }
        if let Some(objection) = self.objection(&entry) {
            return Err(refusal(&entry, &objection, self.roster()));
        }
        self.promise(&entry, now);
        let id = self.fresh_id();
        let proposal = Message::Propose {
            id,
            entry: Box::new(entry),
        };
        Ok(self.deliver(id, Parcel::Message(proposal), now))
    }

    /// Removes a node for good: its address is free, its records are gone, its datagrams are refused, and the cluster has
    /// another key. A second call does nothing. A node may forget itself.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for a node that was never there; [`Conflict`](ErrorKind::Conflict) for another
    /// node that is alive; [`PermissionDenied`](ErrorKind::PermissionDenied) on a node that admits nobody.
    pub fn forget(&mut self, now: Duration, node: NodeAddr) -> Result<Ticket> {
        let Some(entry) = self.roster().entry(node) else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("no node has ever been {node}"),
            ));
        };
        if entry.forgotten {
            return Ok(self.settled());
        }
        if node != self.me {
            self.check_admits("forget others")?;
            if self.is_alive(node) && self.told.contains_key(&node) {
                return Err(
                    Error::new(ErrorKind::Conflict, format!("node {node} is alive"))
                        .with_hint("stop it there first: a living node takes itself out"),
                );
            }
        }
        let entries = self.roster.forget(node, &self.key);
        self.roster_changed(node, now);
        let ticket = self.spread_roster(entries, now);
        if node != self.me && !self.config.keep_key {
            // Its machine has the key. Where that is for more departures than are known here, it is turned over as soon as they are.
            match self.turn_over(now, None) {
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                turned => drop(turned?),
            }
        }
        Ok(ticket)
    }

    pub(super) fn check_admits(&self, what: &str) -> Result<()> {
        if self
            .roster()
            .holder(self.me)
            .is_some_and(|entry| entry.role.admits())
        {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::PermissionDenied,
            format!("{} is a client and can't {what}", self.me),
        )
        .with_hint("do it on a boot or server node"))
    }

    /// What speaks against an admission here: who has the address or the name, or is about to get it.
    fn objection(&self, entry: &RosterEntry) -> Option<RosterEntry> {
        let roster = self.roster();
        if let Some(held) = roster.entry(entry.node) {
            let own = held.identity == entry.identity;
            // A forgotten node's address is free for all but itself, a dead one's for whoever replaces it.
            let free = if own {
                !held.forgotten
            } else {
                entry.generation > held.generation && (held.forgotten || !self.is_alive(held.node))
            };
            if !free {
                return Some(held.clone());
            }
        }
        if let Some(held) = roster.by_name(&entry.name)
            && held.node != entry.node
        {
            return Some(held.clone());
        }
        self.promises
            .values()
            .map(|(promised, _)| promised)
            .find(|promised| {
                promised.identity != entry.identity
                    && if promised.node == entry.node {
                        winner(promised, entry) != *entry
                    } else {
                        promised.name == entry.name
                            && (promised.epoch, promised.identity) < (entry.epoch, entry.identity)
                    }
            })
            .cloned()
    }

    fn promise(&mut self, entry: &RosterEntry, now: Duration) {
        // A moment longer than the proposer waits, so that no promise ends before its proposal.
        let until = now + ms(self.config.admit_wait_ms) * 2;
        self.promises.insert(entry.node, (entry.clone(), until));
    }

    pub(super) fn answer_proposal(
        &mut self,
        from: NodeAddr,
        id: u64,
        entry: RosterEntry,
        now: Duration,
    ) {
        let objection = self.objection(&entry);
        if objection.is_none() {
            self.promise(&entry, now);
        }
        let objection = objection.map(Box::new);
        self.send_new(from, &Message::Ack { id, objection });
    }

    /// All have agreed, or somebody has not.
    pub(super) fn decide_admission(
        &mut self,
        ticket: Ticket,
        entry: RosterEntry,
        objection: Option<RosterEntry>,
        silent: &BTreeSet<NodeAddr>,
        now: Duration,
    ) {
        // Meanwhile somebody better may have asked here, too.
        let objection = objection.or_else(|| self.objection(&entry));
        if self
            .promises
            .get(&entry.node)
            .is_some_and(|(promised, _)| promised.identity == entry.identity)
        {
            self.promises.remove(&entry.node);
        }
        if let Some(objection) = objection {
            let error = refusal(&entry, &objection, self.roster());
            return self.settle_refused(ticket, error);
        }
        if !silent.is_empty() {
            let names: Vec<String> = silent.iter().map(ToString::to_string).collect();
            let error = Error::new(
                ErrorKind::Timeout,
                format!(
                    "node {} was not admitted: no answer from {}",
                    entry.node,
                    names.join(", ")
                ),
            )
            .with_hint("members that are out of reach are down within seconds: try again then");
            return self.settle_refused(ticket, error);
        }
        let node = entry.node;
        let Some(signed) = self.roster.make(entry, &self.key) else {
            let error = Error::new(
                ErrorKind::Conflict,
                format!("node address {node} has another holder by now"),
            );
            return self.settle_refused(ticket, error);
        };
        self.roster_changed(node, now);
        let entries = vec![signed];
        let id = self.fresh_id();
        let message = Message::Roster { id, entries };
        self.deliver_for(ticket, id, Parcel::Message(message), now);
    }

    fn spread_roster(&mut self, entries: Vec<SignedEntry>, now: Duration) -> Ticket {
        let mut ticket = None;
        for part in entries.chunks(4) {
            let id = self.fresh_id();
            let entries = part.to_vec();
            let message = Message::Roster { id, entries };
            let spread = self.deliver(id, Parcel::Message(message), now);
            ticket.get_or_insert(spread);
        }
        match ticket {
            Some(ticket) => ticket,
            None => self.settled(),
        }
    }

    /// An entry of the roster is another one now.
    pub(super) fn roster_changed(&mut self, node: NodeAddr, now: Duration) {
        let holders: Vec<(NodeAddr, u32)> = self
            .roster()
            .holders()
            .map(|entry| (entry.node, entry.generation))
            .collect();
        for (holder, generation) in holders {
            let changes = self.store.set_holder(holder, generation);
            self.tell_changes(holder, changes);
            if holder != node {
                self.tell_member(holder);
            }
        }
        let Some(entry) = self.roster().entry(node).cloned() else {
            return;
        };
        if entry.forgotten {
            let changes = self.store.drop_owner(node);
            self.tell_changes(node, changes);
            self.endpoints.remove(&node);
            self.doubts.remove(&node);
            self.peers.remove(Sender::new(node, &entry.identity));
        } else if entry.identity != self.identity
            && let Some(at) = entry.endpoint
        {
            self.endpoints
                .entry(node)
                .or_insert(super::Endpoint { at, rank: 0 });
        }
        self.tell_member(node);
        if node == self.me && !entry.forgotten && entry.identity == self.identity {
            // Admitted anew, with another name or role: its records start anew, too.
            self.write_anew(now);
        }
        if node == self.me && (entry.forgotten || entry.identity != self.identity) {
            self.events.push_back(Event::Expelled(entry.clone()));
        }
        self.events.push_back(Event::Roster(entry));
    }
}

/// Which of two entries for one address stands, on every node alike.
fn winner(one: &RosterEntry, other: &RosterEntry) -> RosterEntry {
    let roster = Roster::from_iter([one.clone(), other.clone()]);
    roster
        .entry(one.node)
        .cloned()
        .unwrap_or_else(|| one.clone())
}

fn refusal(entry: &RosterEntry, objection: &RosterEntry, roster: &Roster) -> Error {
    if roster.holder(objection.node).is_none() {
        return if objection.forgotten && objection.identity == entry.identity {
            Error::new(
                ErrorKind::PermissionDenied,
                format!("{} was forgotten by this cluster", entry.node),
            )
            .with_hint("reset this node and join again")
        } else if objection.forgotten {
            Error::new(
                ErrorKind::Conflict,
                format!(
                    "node address {} was given up meanwhile: its next holder needs a higher generation",
                    entry.node
                ),
            )
        } else {
            Error::new(
                ErrorKind::Conflict,
                format!(
                    "{} ({}) is being admitted by another member",
                    objection.node, objection.name
                ),
            )
        };
    }
    if objection.node == entry.node {
        Error::new(
            ErrorKind::AlreadyExists,
            format!("node address {} is taken by {}", entry.node, objection.name),
        )
        .with_hint(
            "choose another address, or take it over from a node that is dead with --replace",
        )
    } else {
        Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "the name {} is taken by node {}",
                entry.name, objection.node
            ),
        )
        .with_hint("choose another name with --name")
    }
}
