//! Comparison: two nodes find out how they differ and mend it, both ways. `answering` is the other side.
//!
//! The asker drives it: first hashes over everything, then, for what differs, requests that each cover a range of nodes
//! and fit a datagram. The other answers each with at most a burst of datagrams and a `Done` that says where to go on.
//! What got lost on the way shows in the hashes of the next round.

use std::time::Duration;

use arpanet_core::NodeAddr;
use rand::RngExt;
use rand::seq::IteratorRandom;

use super::membership::CALLED_BACK;
use super::{Engine, Event};
use crate::wire::{self, Hashes, Mark, Message};

/// Above every rank that comes of a node's starts: whoever claims one is wrong.
const MAX_RANK: u64 = 1 << 53;
/// How soon "soon" is: spread out, so that a change is not compared by all at once.
const SOON_MS: std::ops::Range<u64> = 100..500;
/// When one that lacked something is asked whether it has it now.
pub(super) const SOON: Duration = Duration::from_millis(SOON_MS.start);
const FIRST_PATIENCE: Duration = Duration::from_millis(60);
/// Short: whoever does not answer holds up what waits for its turn.
pub(super) const TRIES: u32 = 3;
const ROUNDS: u32 = 6;
const MAX_JOBS: usize = 256;
/// How many members a node that starts asks at once.
const ASKED_AT_ONCE: usize = 3;
/// What a request holds: marks and hashes take at most about 16 bytes each.
pub(super) const MARKS: usize = 60;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Everything.
    Everything,
    /// One owner's records.
    Owner(NodeAddr),
}

/// A comparison that waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Job {
    with: NodeAddr,
    purpose: Purpose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Compare,
    Roster(u16),
    Members(u16),
    Records(u16),
}

/// The comparison under way.
#[derive(Debug)]
pub(super) struct Session {
    /// `None`: whoever answers first.
    with: Option<NodeAddr>,
    purpose: Purpose,
    stage: Stage,
    /// What differed, in the order in which it is mended.
    differs: Vec<Stage>,
    id: u64,
    tries: u32,
    round: u32,
    before: Hashes,
    /// What of an owner was there when it was asked for last.
    had: Vec<Mark>,
    deadline: Duration,
}

impl Session {
    pub(super) const fn deadline(&self) -> Duration {
        self.deadline
    }

    #[cfg(any(test, fuzzing))]
    pub(super) const fn id(&self) -> u64 {
        self.id
    }
}

impl Engine {
    /// Compares with this member now, or after what is under way. `None`: with whichever known node answers first.
    pub(super) fn start_session(
        &mut self,
        with: Option<NodeAddr>,
        purpose: Purpose,
        now: Duration,
    ) {
        if self.session.is_some() {
            if let Some(with) = with {
                let job = Job { with, purpose };
                if self.jobs.len() < MAX_JOBS && !self.jobs.contains(&job) {
                    self.jobs.push_back(job);
                }
            }
            return;
        }
        let stage = match purpose {
            Purpose::Everything => Stage::Compare,
            Purpose::Owner(owner) => Stage::Records(owner.index()),
        };
        self.session = Some(Session {
            with,
            purpose,
            stage,
            differs: Vec::new(),
            id: 0,
            tries: 0,
            round: 0,
            before: Hashes::default(),
            had: Vec::new(),
            deadline: now,
        });
        self.ask(now);
    }

    /// Compares in a moment: something has changed that others may not know, or this node not from others. It goes on
    /// until a comparison finds no difference.
    pub(super) fn sync_soon(&mut self, now: Duration) {
        let at = now + Duration::from_millis(self.rng.random_range(SOON_MS));
        self.next_sync = self.next_sync.min(at);
    }

    /// The periodic comparison.
    pub(super) fn sync_with_anyone(&mut self, now: Duration) {
        let alive: Vec<NodeAddr> = self.alive_others().collect();
        if let Some(with) = alive.into_iter().choose(&mut self.rng) {
            self.start_session(Some(with), Purpose::Everything, now);
        }
    }

    /// Asks again, or gives up.
    pub(super) fn drive_session(&mut self, now: Duration) {
        let Some(session) = &mut self.session else {
            return;
        };
        if now < session.deadline {
            return;
        }
        if session.with.is_none() && self.joining_until.is_some() {
            return self.ask(now);
        }
        if session.tries < TRIES {
            session.tries += 1;
            return self.repeat_request(now);
        }
        if let (Purpose::Owner(_), Some(with)) = (session.purpose, session.with)
            && self.is_alive(with)
        {
            self.behind.insert(with, now);
        }
        self.session = None;
        self.sync_soon(now);
        if self.joining_until.is_some() {
            // Whoever had answered is gone again.
            return self.start_session(None, Purpose::Everything, now);
        }
        self.next_job(now);
    }

    fn next_job(&mut self, now: Duration) {
        while self.session.is_none() {
            let Some(job) = self.jobs.pop_front() else {
                return;
            };
            if self.is_alive(job.with) {
                self.start_session(Some(job.with), job.purpose, now);
            }
        }
    }

    /// Sends the request of the stage that the session is in.
    fn ask(&mut self, now: Duration) {
        let id = self.fresh_id();
        if let Some(session) = &mut self.session {
            session.id = id;
            session.tries = 0;
        }
        self.repeat_request(now);
    }

    fn repeat_request(&mut self, now: Duration) {
        let Some(session) = &mut self.session else {
            return;
        };
        session.deadline = now + FIRST_PATIENCE * 2u32.pow(session.tries);
        let (id, with, purpose, stage) = (session.id, session.with, session.purpose, session.stage);
        let message = match stage {
            Stage::Compare => Message::Compare { id },
            Stage::Roster(from) => self.roster_request(id, from),
            Stage::Members(from) => Message::MembersAsk { id, from },
            Stage::Records(from) => match purpose {
                Purpose::Everything => self.records_request(with, id, from),
                Purpose::Owner(owner) => Message::Digest {
                    id,
                    from: owner.index(),
                    to: owner.index(),
                    owners: self.has_of(owner, with),
                },
            },
        };
        match with {
            Some(with) => self.send_new(with, &message),
            None => {
                let known: Vec<NodeAddr> = self
                    .endpoints
                    .keys()
                    .copied()
                    .filter(|node| *node != self.me && self.roster().holder(*node).is_some())
                    .collect();
                for node in known.into_iter().sample(&mut self.rng, ASKED_AT_ONCE) {
                    self.send_new(node, &message);
                }
            }
        }
    }

    /// How far this node has an owner's records, and how far this one has told it the whole of them.
    fn has_of(&self, owner: NodeAddr, with: Option<NodeAddr>) -> Vec<Mark> {
        let told = with.and_then(|with| self.store.told_by(with, owner));
        let has = self.store.mark(owner).into_iter();
        has.chain(told.into_iter().flatten()).collect()
    }

    fn roster_request(&self, id: u64, from: u16) -> Message {
        let mut hashes = self.roster.hashes_from(from);
        let entries: Vec<(u16, u64)> = hashes.by_ref().take(MARKS).collect();
        let to = end_of_range(
            entries.last().map(|(node, _)| *node),
            hashes.next().is_some(),
        );
        Message::RosterDigest {
            id,
            from,
            to,
            entries,
        }
    }

    fn records_request(&self, with: Option<NodeAddr>, id: u64, from: u16) -> Message {
        let mut marks = self.store.marks_from(from);
        let mut owners: Vec<Mark> = marks.by_ref().take(MARKS).collect();
        let to = end_of_range(owners.last().map(|mark| mark.owner), marks.next().is_some());
        // What goes on is at the beginning of a request.
        let told = with
            .zip(wire::node(from))
            .and_then(|(with, owner)| self.store.told_by(with, owner));
        owners.extend(told.into_iter().flatten());
        Message::Digest {
            id,
            from,
            to,
            owners,
        }
    }

    pub(super) fn hashes(&self) -> Hashes {
        Hashes {
            roster: self.roster.hash(),
            members: self.swim.hash(),
            records: self.store.hash(),
        }
    }

    pub(super) fn compared(
        &mut self,
        node: NodeAddr,
        id: u64,
        theirs: Hashes,
        my_rank: u64,
        now: Duration,
    ) {
        let mine = self.hashes();
        let Some(session) = &mut self.session else {
            return;
        };
        if session.id != id
            || session.stage != Stage::Compare
            || session.with.is_some_and(|with| with != node)
        {
            return;
        }
        // The same as in the round before: what still differs, the other side lacks or won't take.
        let stuck = session.round > 0 && session.before == mine;
        session.with = Some(node);
        session.before = mine;
        session.round += 1;
        session.differs = [
            (mine.records != theirs.records, Stage::Records(1)),
            (mine.members != theirs.members, Stage::Members(1)),
            (mine.roster != theirs.roster, Stage::Roster(1)),
        ]
        .into_iter()
        .filter_map(|(differs, stage)| (differs && !stuck).then_some(stage))
        .collect();
        if session.round > ROUNDS {
            session.differs.clear();
        }
        if my_rank > self.swim.me().rank && my_rank < MAX_RANK {
            // What this node was before: foca would take it for the newer one.
            self.renew_swim(my_rank + 1);
        }
        self.next_stage(now);
    }

    fn next_stage(&mut self, now: Duration) {
        let Some(session) = &mut self.session else {
            return;
        };
        session.stage = match session.differs.pop() {
            Some(stage) => stage,
            None if session.stage == Stage::Compare || session.purpose != Purpose::Everything => {
                return self.end_session(now);
            }
            None => Stage::Compare,
        };
        self.ask(now);
    }

    fn end_session(&mut self, now: Duration) {
        let ended = self.session.take();
        if ended.as_ref().is_some_and(|session| session.round > 1) {
            self.sync_soon(now);
        }
        if self.joining_until.is_some()
            && ended.is_some_and(|session| session.purpose == Purpose::Everything)
        {
            self.finish_join(true, now);
        }
        self.next_job(now);
    }

    /// The catalogue is as full as it gets: this node goes on from what it had said before.
    pub(super) fn finish_join(&mut self, filled: bool, now: Duration) {
        self.joining_until = None;
        if self.inherited_until.is_some() {
            self.inherited_until = Some(now + crate::config::ms(self.config.inherit_ms));
        }
        self.drop_farewell(now);
        self.events.push_back(Event::Ready { filled });
        self.announce(now);
        // Whoever filled this node may have begun as late as it, or have been cut off.
        let met: Vec<NodeAddr> = self.alive_others().take(CALLED_BACK).collect();
        for node in met {
            self.ask_of_itself(node, true, now);
        }
    }

    /// The answers to a request are through.
    pub(super) fn request_done(
        &mut self,
        node: NodeAddr,
        id: u64,
        next: Option<u16>,
        now: Duration,
    ) {
        let Some(session) = &mut self.session else {
            return;
        };
        if session.id != id || session.with != Some(node) {
            return;
        }
        let Some(next) = next else {
            return self.next_stage(now);
        };
        match session.purpose {
            Purpose::Owner(owner) if owner == self.me => {
                // It lacks something. What it is sent may get lost, and so may what it wanted.
                self.behind.entry(node).or_insert(now + SOON);
                return self.end_session(now);
            }
            Purpose::Owner(owner) => {
                let has = self.has_of(owner, Some(node));
                let Some(session) = &mut self.session else {
                    return;
                };
                let stuck = session.had == has;
                session.round = if stuck { session.round + 1 } else { 0 };
                session.had = has;
                if session.round > ROUNDS {
                    // All of it gets lost, or this node takes none of it.
                    self.sync_soon(now);
                    return self.end_session(now);
                }
            }
            Purpose::Everything => {}
        }
        let Some(session) = &mut self.session else {
            return;
        };
        session.stage = match session.stage {
            Stage::Compare => return,
            Stage::Roster(_) => Stage::Roster(next),
            Stage::Members(_) => Stage::Members(next),
            Stage::Records(_) => Stage::Records(next),
        };
        self.ask(now);
    }
}

/// The last node that a request covers.
const fn end_of_range(last: Option<u16>, more: bool) -> u16 {
    match last {
        Some(last) if more => last,
        _ => u16::MAX,
    }
}
