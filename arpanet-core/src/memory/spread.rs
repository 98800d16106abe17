//! How words travel between nodes: at once to all that can be reached, and all of it when two meet again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::catalogue::{DiscoveryProcess, Merge, OwnerState};
use super::network::HostIndex;
use super::state::{Event, State};
use crate::NodeAddr;
use crate::roster::Roster;

/// How long a node waits for others to confirm before it goes on.
pub(super) const CONFIRMATION: Duration = Duration::from_millis(500);

impl State {
    pub(super) fn discovery(&self, host: HostIndex) -> Option<&DiscoveryProcess> {
        self.hosts[host].discovery.as_ref()
    }

    fn discovery_mut(&mut self, host: HostIndex) -> Option<&mut DiscoveryProcess> {
        self.hosts[host].discovery.as_mut()
    }

    /// Whether a word of one can get to the other: straight, or by way of others.
    pub(super) fn connected(&self, a: HostIndex, b: HostIndex) -> bool {
        if self.discovery(a).is_none() || self.discovery(b).is_none() {
            return false;
        }
        if self.network.linked(a, b) {
            return true;
        }
        let groups = self.groups();
        groups.get(&a) == groups.get(&b)
    }

    pub(super) fn same_cluster(&self, a: HostIndex, b: HostIndex) -> bool {
        match (self.discovery(a), self.discovery(b)) {
            (Some(a), Some(b)) => a.membership.cluster == b.membership.cluster,
            _ => false,
        }
    }

    /// All that a word of this node gets to, itself excepted.
    pub(super) fn audience(&self, host: HostIndex) -> Vec<HostIndex> {
        let groups = self.groups();
        let mine = groups.get(&host);
        groups
            .iter()
            .filter(|(other, group)| {
                **other != host && Some(*group) == mine && self.same_cluster(host, **other)
            })
            .map(|(other, _)| *other)
            .collect()
    }

    fn travel(&mut self, a: HostIndex, b: HostIndex) -> Duration {
        if self.network.linked(a, b) {
            return self.network.travel(a, b, &mut self.random);
        }
        // By way of a third one: two hops, told as the slower of the usual ones.
        self.network.travel(a, b, &mut self.random) * 2
    }

    /// Sends a node's own word to all it can reach; when the last of them has it and said so.
    pub(super) fn broadcast(
        &mut self,
        host: HostIndex,
        state: &Arc<OwnerState>,
        now: Instant,
    ) -> Instant {
        let audience = self.audience(host);
        self.send_word(host, host, state, &audience, now)
    }

    fn send_word(
        &mut self,
        from: HostIndex,
        owner: HostIndex,
        state: &Arc<OwnerState>,
        to: &[HostIndex],
        now: Instant,
    ) -> Instant {
        let mut confirmed = now;
        for (after, to) in self.by_travel(from, to) {
            confirmed = confirmed.max(now + after * 2);
            let state = Arc::clone(state);
            self.schedule(
                now + after,
                Event::Deliver {
                    from,
                    to,
                    owner,
                    state,
                },
            );
        }
        confirmed
    }

    pub(super) fn broadcast_roster(&mut self, host: HostIndex, now: Instant) -> Instant {
        let Some(roster) = self
            .discovery(host)
            .map(|process| Arc::clone(&process.roster))
        else {
            return now;
        };
        let audience = self.audience(host);
        let mut confirmed = now;
        for (after, to) in self.by_travel(host, &audience) {
            confirmed = confirmed.max(now + after * 2);
            let roster = Arc::clone(&roster);
            self.schedule(
                now + after,
                Event::Roster {
                    from: host,
                    to,
                    roster,
                },
            );
        }
        confirmed
    }

    pub(super) fn by_travel(
        &mut self,
        from: HostIndex,
        to: &[HostIndex],
    ) -> BTreeMap<Duration, Vec<HostIndex>> {
        let mut grouped: BTreeMap<Duration, Vec<HostIndex>> = BTreeMap::new();
        for to in to {
            let after = self.travel(from, *to);
            grouped.entry(after).or_default().push(*to);
        }
        grouped
    }

    pub(super) fn deliver(
        &mut self,
        from: HostIndex,
        to: &[HostIndex],
        owner: HostIndex,
        state: &Arc<OwnerState>,
        now: Instant,
    ) {
        let Some(who) = self.origin(from, owner) else {
            return;
        };
        let whole = self.network.whole();
        for to in to {
            if !self.same_cluster(from, *to) && self.discovery(from).is_some() {
                continue;
            }
            // What was under way when its sender died arrives; what met a cut does not.
            if !whole && self.discovery(from).is_some() && !self.connected(from, *to) {
                continue;
            }
            let lost = (self.discovery(owner).is_none()).then_some(now);
            let Some(process) = self.discovery_mut(*to) else {
                continue;
            };
            let news = process.hear(owner, who, state, lost, now);
            let orphan = process
                .views
                .get(&owner)
                .is_some_and(|view| view.lost.is_some());
            if news && orphan {
                // Its owner can't tell the others any more: those who heard it do.
                let audience = self.audience(*to);
                self.send_word(*to, owner, state, &audience, now);
            }
        }
    }

    fn origin(
        &self,
        from: HostIndex,
        owner: HostIndex,
    ) -> Option<(crate::roster::Identity, NodeAddr)> {
        let known = self
            .discovery(owner)
            .map(|process| (process.membership.identity, process.membership.me.node));
        known.or_else(|| {
            let view = self.discovery(from)?.views.get(&owner)?;
            Some((view.identity, view.node))
        })
    }

    pub(super) fn deliver_roster(
        &mut self,
        from: HostIndex,
        to: &[HostIndex],
        roster: &Arc<Roster>,
        now: Instant,
    ) {
        for to in to {
            if !self.connected(from, *to) {
                continue;
            }
            let Some(process) = self.discovery_mut(*to) else {
                continue;
            };
            match process.merge(roster, now) {
                Merge::Nothing => continue,
                Merge::Adopted => self.activity += 1,
                // The sender lacks something, and perhaps others do.
                Merge::Combined => {
                    self.broadcast_roster(*to, now);
                }
            }
            self.turn_if_stale(*to, now);
        }
    }

    /// Two nodes tell each other all they know.
    pub(super) fn sync(&mut self, a: HostIndex, b: HostIndex, now: Instant) {
        if !self.connected(a, b) || !self.same_cluster(a, b) {
            return;
        }
        for (from, to) in [(a, b), (b, a)] {
            self.meet(from, to, now);
        }
        for (from, to) in [(a, b), (b, a)] {
            let Some(teller) = self.discovery(from) else {
                continue;
            };
            let roster = Arc::clone(&teller.roster);
            let words: Vec<_> = teller
                .views
                .iter()
                .map(|(owner, view)| {
                    (
                        *owner,
                        (view.identity, view.node),
                        Arc::clone(&view.state),
                        view.lost,
                    )
                })
                .collect();
            let Some(listener) = self.discovery_mut(to) else {
                continue;
            };
            let merge = listener.merge(&roster, now);
            for (owner, who, state, lost) in words {
                if owner != to {
                    listener.hear(owner, who, &state, lost, now);
                }
            }
            if merge != Merge::Nothing {
                self.broadcast_roster(to, now);
            }
        }
        for (from, to) in [(a, b), (b, a)] {
            self.give_keys(from, to, now);
            self.turn_if_stale(to, now);
        }
    }

    /// One node has heard another itself.
    fn meet(&mut self, speaker: HostIndex, listener: HostIndex, now: Instant) {
        let direct = self.network.linked(speaker, listener);
        let Some(process) = self.discovery(speaker) else {
            return;
        };
        let who = (process.membership.identity, process.membership.me.node);
        let own = process.own();
        if let Some(process) = self.discovery_mut(listener) {
            process.hear(speaker, who, &own, None, now);
            process.alter(speaker, now, |view| {
                view.lost = None;
                view.unreached = (!direct).then(|| view.unreached.unwrap_or(now));
            });
        }
    }

    pub(super) fn review(&mut self, host: HostIndex, now: Instant) {
        if let Some(process) = self.discovery_mut(host) {
            process.review(now);
        }
    }

    /// Discovery on this host has started: it meets all it can reach. When it has met them.
    pub(super) fn appear(&mut self, host: HostIndex, now: Instant) -> Instant {
        if !self.network.whole() {
            // It may be the bridge between others.
            self.reassess(now);
        }
        let mut met = now;
        for other in self.audience(host) {
            let after = self.travel(host, other);
            met = met.max(now + after * 2);
            self.schedule(now + after, Event::Sync(host, other));
        }
        met
    }

    /// The network, or who runs on it, is another: notes who lost whom, and lets those meet who can again.
    pub(super) fn reassess(&mut self, now: Instant) {
        self.activity += 1;
        self.tell_agreed();
        let groups = self.groups();
        let running: Vec<HostIndex> = groups.keys().copied().collect();
        for (position, a) in running.iter().enumerate() {
            for b in &running[position + 1..] {
                if groups[a] == groups[b] && self.same_cluster(*a, *b) && self.estranged(*a, *b) {
                    let after = self.travel(*a, *b);
                    self.schedule(now + after, Event::Sync(*a, *b));
                }
            }
            self.note_losses(*a, &groups, now);
        }
    }

    /// Whether two nodes have something to tell each other, or one of them believes what is no longer so.
    fn estranged(&self, a: HostIndex, b: HostIndex) -> bool {
        let direct = self.network.linked(a, b);
        let stranger = |observer: HostIndex, other: HostIndex| {
            let view = self.discovery(observer)?.views.get(&other)?;
            Some(view.lost.is_some() || (direct && view.unreached.is_some()))
        };
        stranger(a, b).unwrap_or(true) || stranger(b, a).unwrap_or(true)
    }

    fn note_losses(
        &mut self,
        observer: HostIndex,
        groups: &BTreeMap<HostIndex, usize>,
        now: Instant,
    ) {
        let Some(process) = self.discovery(observer) else {
            return;
        };
        let changes: Vec<_> = process
            .views
            .iter()
            .filter(|(other, _)| **other != observer)
            .filter_map(|(other, view)| {
                let gone = groups.get(other) != groups.get(&observer);
                let unreached = gone || !self.network.linked(observer, *other);
                let news = (gone && view.lost.is_none()) || (unreached && view.unreached.is_none());
                news.then_some((*other, gone))
            })
            .collect();
        if changes.is_empty() {
            return;
        }
        let detection = self.detection;
        if let Some(process) = self.discovery_mut(observer) {
            for (other, gone) in changes {
                process.alter(other, now, |view| {
                    if gone {
                        view.lost.get_or_insert(now);
                    }
                    view.unreached.get_or_insert(now);
                });
            }
        }
        self.schedule(now + detection.suspect, Event::Review(observer));
        self.schedule(now + detection.down, Event::Review(observer));
    }
}
