//! What one node of the simulated world knows of all others: their words as last heard, and whether they are there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::network::HostIndex;
use super::state::Detection;
use crate::admission::{Keys, Membership};
use crate::discovery::{Health, Instance, Member, MemberState, Record, RecordKey};
use crate::roster::{Identity, Merged, Roster, RosterEntry};
use crate::watch::WatchHub;
use crate::{Error, ErrorKind, InstanceId, NodeAddr, Result};

/// All that a node says of itself. The higher (boot, version) is the newer.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnerState {
    pub(super) boot: u64,
    pub(super) version: u64,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) instances: BTreeMap<InstanceId, Instance>,
    pub(super) records: BTreeMap<RecordKey, Bytes>,
    /// It went in order: it is no member until it starts again.
    pub(super) left: bool,
}

impl OwnerState {
    pub(super) fn newer_than(&self, other: &Self) -> bool {
        (self.boot, self.version) > (other.boot, other.version)
    }
}

/// What taking in another's roster did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    /// It held nothing new.
    Nothing,
    /// Both are the same now.
    Adopted,
    /// Each held something that the other lacked.
    Combined,
}

/// Another node, as one node sees it.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) identity: Identity,
    /// The address it says it has.
    pub(super) node: NodeAddr,
    pub(super) state: Arc<OwnerState>,
    /// Since when there is no way to it.
    pub(super) lost: Option<Instant>,
    /// Since when there is no direct way to it.
    pub(super) unreached: Option<Instant>,
}

/// How an owner's word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It holds no address, or left.
    Hidden,
    Live(NodeAddr),
    Suspended(NodeAddr),
}

/// The discovery backend's process on one host.
#[derive(Debug)]
pub(super) struct DiscoveryProcess {
    pub(super) membership: Membership,
    pub(super) me: HostIndex,
    pub(super) roster: Arc<Roster>,
    /// This node's own word is the one under its own index.
    pub(super) views: BTreeMap<HostIndex, View>,
    /// Admissions that this node is asking the others about.
    pub(super) pending: Vec<RosterEntry>,
    pub(super) keys: tokio::sync::watch::Sender<Keys>,
    detection: Detection,
    instances: Option<WatchHub<InstanceId, Instance>>,
    members: Option<WatchHub<NodeAddr, Member>>,
    records: Option<WatchHub<(NodeAddr, RecordKey), Record>>,
}

impl DiscoveryProcess {
    pub(super) fn new(
        (me, endpoint): (HostIndex, SocketAddr),
        membership: &Membership,
        boot: u64,
        detection: Detection,
    ) -> Self {
        let own = View {
            identity: membership.identity,
            node: membership.me.node,
            state: Arc::new(OwnerState {
                boot,
                endpoint: membership.me.advertise.or(Some(endpoint)),
                ..OwnerState::default()
            }),
            lost: None,
            unreached: None,
        };
        Self {
            me,
            roster: Arc::new(membership.roster.clone()),
            membership: membership.clone(),
            views: BTreeMap::from([(me, own)]),
            pending: Vec::new(),
            keys: tokio::sync::watch::Sender::new(membership.keys()),
            detection,
            instances: None,
            members: None,
            records: None,
        }
    }

    /// Refuses a node that has lost its place: to another holder, or by `forget`.
    pub(super) fn check(&self) -> Result<()> {
        let me = &self.membership.me;
        let Some(entry) = self.roster.entry(me.node) else {
            return Ok(());
        };
        if entry.identity != self.membership.identity {
            let message = format!("the address {} is held by {}", me.node, entry.name);
            return Err(Error::new(ErrorKind::Conflict, message)
                .with_hint("reset this node and join with another address"));
        }
        if entry.forgotten {
            let message = format!("{} was forgotten by its cluster", me.node);
            return Err(Error::new(ErrorKind::PermissionDenied, message)
                .with_hint("reset this node and join again"));
        }
        Ok(())
    }

    pub(super) fn own(&self) -> Arc<OwnerState> {
        Arc::clone(&self.views[&self.me].state)
    }

    /// Changes this node's own word; `None` when that changed nothing.
    pub(super) fn say(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut OwnerState) -> bool,
    ) -> Option<Arc<OwnerState>> {
        let mut own = OwnerState::clone(&self.views[&self.me].state);
        if !act(&mut own) {
            return None;
        }
        own.version += 1;
        let own = Arc::new(own);
        let me = self.me;
        self.alter(me, now, |view| view.state = Arc::clone(&own));
        Some(own)
    }

    /// Takes in an owner's word; whether it was news.
    pub(super) fn hear(
        &mut self,
        owner: HostIndex,
        (identity, node): (Identity, NodeAddr),
        state: &Arc<OwnerState>,
        lost: Option<Instant>,
        now: Instant,
    ) -> bool {
        match self.views.get(&owner) {
            Some(view) if !state.newer_than(&view.state) => false,
            Some(_) => {
                self.alter(owner, now, |view| view.state = Arc::clone(state));
                true
            }
            None => {
                let view = View {
                    identity,
                    node,
                    state: Arc::default(),
                    lost,
                    unreached: lost,
                };
                self.views.insert(owner, view);
                self.alter(owner, now, |view| view.state = Arc::clone(state));
                self.tell_member(owner, now);
                true
            }
        }
    }

    /// Changes what is known of one node and tells the watchers what is different.
    pub(super) fn alter(&mut self, owner: HostIndex, now: Instant, act: impl FnOnce(&mut View)) {
        let Some(before) = self.views.get(&owner).cloned() else {
            return;
        };
        let standing = self.standing(&before, now);
        let Some(view) = self.views.get_mut(&owner) else {
            return;
        };
        act(view);
        let membership = |view: &View| {
            let state = &view.state;
            (state.left, state.endpoint, view.lost, view.unreached)
        };
        let same_membership = membership(&before) == membership(view);
        self.tell(owner, &before.state, standing, now);
        if !same_membership {
            self.tell_member(owner, now);
        }
    }

    /// Merges a roster, and tells what that did to this node's own.
    pub(super) fn merge(&mut self, other: &Arc<Roster>, now: Instant) -> Merge {
        if Arc::ptr_eq(&self.roster, other) {
            return Merge::Nothing;
        }
        let news = other
            .entries()
            .filter(|entry| self.roster.entry(entry.node) != Some(*entry));
        let mut merged = Roster::clone(&self.roster);
        let taken: BTreeSet<NodeAddr> = news
            .filter(|entry| merged.merge(RosterEntry::clone(entry)) == Merged::Taken)
            .map(|entry| entry.node)
            .collect();
        if taken.is_empty() {
            return Merge::Nothing;
        }
        let concerned = self.views.iter();
        let before: Vec<_> = concerned
            .filter(|(_, view)| taken.contains(&view.node))
            .map(|(owner, view)| (*owner, Arc::clone(&view.state), self.standing(view, now)))
            .collect();
        let adopted = merged == **other;
        self.roster = if adopted {
            Arc::clone(other)
        } else {
            Arc::new(merged)
        };
        for (owner, state, standing) in before {
            self.tell(owner, &state, standing, now);
        }
        for node in taken {
            self.tell_holder(node, now);
        }
        if adopted {
            Merge::Adopted
        } else {
            Merge::Combined
        }
    }

    pub(super) fn member_state(&self, view: &View, now: Instant) -> MemberState {
        match view.lost.map(|lost| now.saturating_duration_since(lost)) {
            Some(gone) if gone >= self.detection.down => MemberState::Down,
            Some(gone) if gone >= self.detection.suspect => MemberState::Suspect,
            _ => MemberState::Alive,
        }
    }

    fn standing(&self, view: &View, now: Instant) -> Standing {
        if view.state.left {
            return Standing::Hidden;
        }
        let holds = match self.roster.entry(view.node) {
            Some(entry) => entry.identity == view.identity && !entry.forgotten,
            // A node that was started outside of every roster still has itself.
            None => view.identity == self.membership.identity,
        };
        match self.member_state(view, now) {
            _ if !holds => Standing::Hidden,
            MemberState::Down => Standing::Suspended(view.node),
            _ => Standing::Live(view.node),
        }
    }

    fn tell(&self, owner: HostIndex, before: &OwnerState, was: Standing, now: Instant) {
        let view = &self.views[&owner];
        let is = self.standing(view, now);
        if was == is && std::ptr::eq(before, Arc::as_ptr(&view.state)) {
            return;
        }
        if let Some(hub) = &self.instances {
            for id in before.instances.keys() {
                let kept = is != Standing::Hidden && view.state.instances.contains_key(id);
                if was != Standing::Hidden && !kept {
                    match self.find(id, now) {
                        Some(other) => hub.upsert(id.clone(), other),
                        None => hub.remove(id),
                    }
                }
            }
            for (id, instance) in &view.state.instances {
                if let Some(shown) = show(instance, is) {
                    hub.upsert(id.clone(), shown);
                }
            }
        }
        if let Some(hub) = &self.records {
            if let Standing::Live(node) | Standing::Suspended(node) = was {
                for key in before.records.keys() {
                    if was_moved(was, is) || !view.state.records.contains_key(key) {
                        hub.remove(&(node, key.clone()));
                    }
                }
            }
            if let Standing::Live(node) | Standing::Suspended(node) = is {
                for (key, value) in &view.state.records {
                    let suspended = matches!(is, Standing::Suspended(_));
                    hub.upsert(
                        (node, key.clone()),
                        Record::new(value.clone()).suspended(suspended),
                    );
                }
            }
        }
    }

    /// What the watchers of members are told of one address.
    fn tell_holder(&self, node: NodeAddr, now: Instant) {
        let Some(hub) = &self.members else { return };
        let member = self.roster.holder(node).and_then(|entry| {
            let mut views = self.views.values();
            let view = views.find(|view| view.identity == entry.identity);
            self.member(entry, view, now)
        });
        match member {
            Some(member) => hub.upsert(node, member),
            None => hub.remove(&node),
        }
    }

    /// What the watchers of members are told of one owner.
    fn tell_member(&self, owner: HostIndex, now: Instant) {
        let Some(hub) = &self.members else { return };
        let view = &self.views[&owner];
        let Some(entry) = self.roster.holder(view.node) else {
            return hub.remove(&view.node);
        };
        if entry.identity == view.identity {
            match self.member(entry, Some(view), now) {
                Some(member) => hub.upsert(entry.node, member),
                None => hub.remove(&entry.node),
            }
        }
    }

    /// The holder of an address as a member; `None` for one that left.
    fn member(&self, entry: &RosterEntry, view: Option<&View>, now: Instant) -> Option<Member> {
        let member = Member::new(entry.node, entry.name.clone(), entry.role).at(entry.endpoint);
        Some(match view {
            Some(view) if view.state.left => return None,
            Some(view) => member
                .at(view.state.endpoint.or(entry.endpoint))
                .state(self.member_state(view, now))
                .reachable(!self.out_of_own_reach(view, now)),
            None => member.state(MemberState::Down).reachable(false),
        })
    }

    fn find(&self, id: &InstanceId, now: Instant) -> Option<Instance> {
        self.views
            .values()
            .find_map(|view| show(view.state.instances.get(id)?, self.standing(view, now)))
    }

    /// All members, this node included.
    pub(super) fn all_members(&self, now: Instant) -> BTreeMap<NodeAddr, Member> {
        let by_identity: BTreeMap<Identity, &View> = self
            .views
            .values()
            .map(|view| (view.identity, view))
            .collect();
        self.roster
            .holders()
            .filter_map(|entry| {
                let view = by_identity.get(&entry.identity).copied();
                Some((entry.node, self.member(entry, view, now)?))
            })
            .collect()
    }

    /// The others that count as alive.
    pub(super) fn living(&self, now: Instant) -> impl Iterator<Item = (HostIndex, NodeAddr)> {
        self.views
            .iter()
            .filter(|(owner, _)| **owner != self.me)
            .filter_map(move |(owner, view)| match self.standing(view, now) {
                Standing::Live(node) => Some((*owner, node)),
                Standing::Hidden | Standing::Suspended(_) => None,
            })
    }

    fn out_of_own_reach(&self, view: &View, now: Instant) -> bool {
        view.unreached
            .is_some_and(|lost| now.saturating_duration_since(lost) >= self.detection.down)
    }

    /// All instances, whatever their health.
    pub(super) fn all_instances(&self, now: Instant) -> BTreeMap<InstanceId, Instance> {
        let mut all = BTreeMap::new();
        for view in self.views.values() {
            let standing = self.standing(view, now);
            for (id, instance) in &view.state.instances {
                if let Some(shown) = show(instance, standing) {
                    all.entry(id.clone()).or_insert(shown);
                }
            }
        }
        all
    }

    /// Instances that a test of each, before its health is looked at, lets pass.
    pub(super) fn passing(
        &self,
        now: Instant,
        wanted: impl Fn(&Instance) -> bool,
    ) -> BTreeMap<InstanceId, Instance> {
        let mut found = BTreeMap::new();
        for view in self.views.values() {
            let standing = self.standing(view, now);
            for (id, instance) in &view.state.instances {
                if !wanted(instance) {
                    continue;
                }
                if let Some(shown) = show(instance, standing)
                    && shown.health == Health::Passing
                {
                    found.entry(id.clone()).or_insert(shown);
                }
            }
        }
        found
    }

    fn all_records(&self, now: Instant) -> BTreeMap<(NodeAddr, RecordKey), Record> {
        let mut all = BTreeMap::new();
        for view in self.views.values() {
            let (node, suspended) = match self.standing(view, now) {
                Standing::Hidden => continue,
                Standing::Live(node) => (node, false),
                Standing::Suspended(node) => (node, true),
            };
            for (key, value) in &view.state.records {
                let record = Record::new(value.clone()).suspended(suspended);
                all.insert((node, key.clone()), record);
            }
        }
        all
    }

    pub(super) fn instance_hub(&mut self, now: Instant) -> WatchHub<InstanceId, Instance> {
        if let Some(hub) = &self.instances {
            return hub.clone();
        }
        let hub = WatchHub::new();
        hub.replace(self.all_instances(now));
        self.instances.insert(hub).clone()
    }

    pub(super) fn member_hub(&mut self, now: Instant) -> WatchHub<NodeAddr, Member> {
        if let Some(hub) = &self.members {
            return hub.clone();
        }
        let hub = WatchHub::new();
        hub.replace(self.all_members(now));
        self.members.insert(hub).clone()
    }

    pub(super) fn record_hub(&mut self, now: Instant) -> WatchHub<(NodeAddr, RecordKey), Record> {
        if let Some(hub) = &self.records {
            return hub.clone();
        }
        let hub = WatchHub::new();
        hub.replace(self.all_records(now));
        self.records.insert(hub).clone()
    }

    /// The time has passed: members and healths may have changed without a word.
    pub(super) fn review(&mut self, now: Instant) {
        for (owner, view) in &self.views {
            // One that was lost before was told before; telling it again tells nobody.
            if let Standing::Suspended(node) = self.standing(view, now) {
                self.tell(*owner, &view.state, Standing::Live(node), now);
            }
            if view.lost.is_some() || view.unreached.is_some() {
                self.tell_member(*owner, now);
            }
        }
    }
}

impl Drop for DiscoveryProcess {
    /// Whoever still watches is told that nothing more comes.
    fn drop(&mut self) {
        if let Some(hub) = &self.instances {
            hub.close();
        }
        if let Some(hub) = &self.members {
            hub.close();
        }
        if let Some(hub) = &self.records {
            hub.close();
        }
    }
}

fn show(instance: &Instance, standing: Standing) -> Option<Instance> {
    match standing {
        Standing::Hidden => None,
        Standing::Live(_) => Some(instance.clone()),
        Standing::Suspended(_) => Some(instance.clone().health(Health::Suspended)),
    }
}

fn was_moved(was: Standing, is: Standing) -> bool {
    match (was, is) {
        (_, Standing::Hidden) => true,
        (
            Standing::Live(before) | Standing::Suspended(before),
            Standing::Live(after) | Standing::Suspended(after),
        ) => before != after,
        (Standing::Hidden, _) => false,
    }
}
