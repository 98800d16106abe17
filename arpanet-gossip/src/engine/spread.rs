//! Deliveries: what is sent to all that live at once, acknowledged, and sent again to who has not.

use std::collections::BTreeSet;
use std::time::Duration;

use arpanet_core::{Error, NodeAddr, RosterEntry};

use super::{Engine, Event, Outcome, Ticket};
use crate::config::ms;
use crate::wire::Message;

/// The first repetition; each one after takes twice as long, up to the last.
const FIRST: Duration = Duration::from_millis(20);
const LAST: Duration = Duration::from_millis(320);
/// After these repetitions a change is left to comparison.
const REPETITIONS: u32 = 5;
/// Deliveries under way; the oldest beyond are left to comparison.
const MAX_DELIVERIES: usize = 4_096;

/// What is delivered.
#[derive(Debug, Clone)]
pub(super) enum Parcel {
    Message(Message),
    /// The cluster's key as it stands: each gets a letter of its own.
    Key,
}

/// One parcel on its way to many.
#[derive(Debug)]
pub(super) struct Delivery {
    ticket: Ticket,
    parcel: Parcel,
    waiting: BTreeSet<NodeAddr>,
    repetitions: u32,
    next: Duration,
    /// When the caller gets an answer, whoever is missing.
    deadline: Duration,
    told: bool,
    objection: Option<RosterEntry>,
}

impl Engine {
    /// A ticket that is settled already.
    pub(super) fn settled(&mut self) -> Ticket {
        let ticket = Ticket(self.fresh_id());
        let outcome = Outcome::Spread {
            unconfirmed: BTreeSet::new(),
        };
        self.events.push_back(Event::Settled { ticket, outcome });
        ticket
    }

    /// Sends something to all that live, for a new ticket.
    pub(super) fn deliver(&mut self, id: u64, parcel: Parcel, now: Duration) -> Ticket {
        self.deliver_for(Ticket(id), id, parcel, now);
        Ticket(id)
    }

    /// Sends something to all that live, for this ticket.
    pub(super) fn deliver_for(&mut self, ticket: Ticket, id: u64, parcel: Parcel, now: Duration) {
        let waiting: BTreeSet<NodeAddr> = self.alive_others().collect();
        let wait = match &parcel {
            Parcel::Message(Message::Push { .. }) => self.config.publish_wait_ms,
            _ => self.config.admit_wait_ms,
        };
        for node in &waiting {
            self.hand_over(*node, &parcel, id);
        }
        self.deliveries.insert(
            id,
            Delivery {
                ticket,
                parcel,
                waiting,
                repetitions: 0,
                next: now + FIRST,
                deadline: now + ms(wait),
                told: false,
                objection: None,
            },
        );
        if self.deliveries.len() > MAX_DELIVERIES
            && let Some((oldest, _)) = self.deliveries.first_key_value()
        {
            let oldest = *oldest;
            self.end_delivery(oldest, now);
        }
        self.check_delivery(id, now);
    }

    fn hand_over(&mut self, node: NodeAddr, parcel: &Parcel, id: u64) {
        match parcel {
            Parcel::Message(message) => self.send(node, message, id),
            Parcel::Key => self.deliver_key(node, id),
        }
    }

    pub(super) fn next_delivery(&self) -> Option<Duration> {
        self.deliveries
            .values()
            .map(|delivery| {
                if delivery.told {
                    delivery.next
                } else {
                    delivery.next.min(delivery.deadline)
                }
            })
            .min()
    }

    pub(super) fn acknowledged(
        &mut self,
        node: NodeAddr,
        id: u64,
        objection: Option<RosterEntry>,
        now: Duration,
    ) {
        if let Some(delivery) = self.deliveries.get_mut(&id) {
            delivery.waiting.remove(&node);
            if objection.is_some() {
                delivery.objection = objection;
            }
            self.check_delivery(id, now);
        }
    }

    /// A node is down: nothing waits for it. Whether anything did.
    pub(super) fn drop_from_deliveries(&mut self, node: NodeAddr, now: Duration) -> bool {
        let concerned: Vec<u64> = self
            .deliveries
            .iter_mut()
            .filter_map(|(id, delivery)| delivery.waiting.remove(&node).then_some(*id))
            .collect();
        let any = !concerned.is_empty();
        for id in concerned {
            self.check_delivery(id, now);
        }
        any
    }

    pub(super) fn repeat_deliveries(&mut self, now: Duration) {
        let due: Vec<u64> = self
            .deliveries
            .iter()
            .filter(|(_, delivery)| {
                now >= delivery.next || (!delivery.told && now >= delivery.deadline)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.repeat(id, now);
        }
    }

    fn repeat(&mut self, id: u64, now: Duration) {
        let Some(delivery) = self.deliveries.get_mut(&id) else {
            return;
        };
        if !delivery.told && now >= delivery.deadline {
            self.tell_delivery(id, now);
        }
        let Some(delivery) = self.deliveries.get_mut(&id) else {
            return;
        };
        if now < delivery.next {
            return;
        }
        if delivery.repetitions >= REPETITIONS && delivery.told {
            return self.end_delivery(id, now);
        }
        delivery.repetitions += 1;
        delivery.next = now + (FIRST * 2u32.pow(delivery.repetitions.min(5))).min(LAST);
        let targets: Vec<NodeAddr> = delivery.waiting.iter().copied().collect();
        let parcel = delivery.parcel.clone();
        for node in targets {
            self.hand_over(node, &parcel, id);
        }
    }

    /// Ends a delivery that nobody is waited for in, or that has met an objection.
    fn check_delivery(&mut self, id: u64, now: Duration) {
        if self
            .deliveries
            .get(&id)
            .is_some_and(|delivery| delivery.waiting.is_empty() || delivery.objection.is_some())
        {
            self.end_delivery(id, now);
        }
    }

    fn end_delivery(&mut self, id: u64, now: Duration) {
        if self
            .deliveries
            .get(&id)
            .is_some_and(|delivery| !delivery.told)
        {
            self.tell_delivery(id, now);
        }
        // Whoever has not confirmed gets it by comparison as soon as it is heard from.
        if let Some(delivery) = self.deliveries.remove(&id)
            && matches!(delivery.parcel, Parcel::Message(Message::Push { .. }))
        {
            let waiting = delivery.waiting.into_iter();
            self.behind.extend(waiting.map(|node| (node, now)));
        }
    }

    /// Answers the caller.
    fn tell_delivery(&mut self, id: u64, now: Duration) {
        let Some(delivery) = self.deliveries.get_mut(&id) else {
            return;
        };
        delivery.told = true;
        let ticket = delivery.ticket;
        let unconfirmed = delivery.waiting.clone();
        let outcome = match &delivery.parcel {
            Parcel::Message(Message::Propose { entry, .. }) => {
                let entry = (**entry).clone();
                let objection = delivery.objection.take();
                self.deliveries.remove(&id);
                return self.decide_admission(ticket, entry, objection, &unconfirmed, now);
            }
            Parcel::Message(Message::Push { .. }) => Outcome::Spread { unconfirmed },
            parcel if !unconfirmed.is_empty() => {
                let names: Vec<String> = unconfirmed.iter().map(ToString::to_string).collect();
                let what = match parcel {
                    Parcel::Key => "the cluster's new key",
                    Parcel::Message(_) => "a change of the roster",
                };
                tracing::warn!(missing = %names.join(", "), "{what} is not confirmed by all yet");
                Outcome::Spread { unconfirmed }
            }
            _ => Outcome::Spread { unconfirmed },
        };
        self.events.push_back(Event::Settled { ticket, outcome });
    }

    pub(super) fn settle_refused(&mut self, ticket: Ticket, error: Error) {
        self.events.push_back(Event::Settled {
            ticket,
            outcome: Outcome::Refused(error),
        });
    }
}
