//! Having addresses to pick from: this node's ranges, asking for more, giving some away.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant;

use super::ranges::{Deed, Owner, Title};
use super::reconcile::{Applied, Outcome};
use super::view::View;
use super::{Node, address, record};
use crate::discovery::MemberState;
use crate::roster::Role;
use crate::{AppAddr, AppNet, Error, ErrorKind, NodeAddr, Result};

/// How long a node that has no address left waits for another to give some.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a want stands that is not said again.
const WANT: Duration = Duration::from_secs(10);

/// How long all members are in reach before the ranges of those that are gone are taken over.
const WHOLE: Duration = Duration::from_secs(2);

/// How long a picked address is kept for the container that is being made.
const PICKED: Duration = Duration::from_secs(30);

/// What this node knows and does about ranges.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// What is durable, and may be told.
    pub(super) kept: BTreeMap<AppNet, Vec<Deed>>,
    /// Networks that this node has no free address of: since when, and when that was last said.
    wants: BTreeMap<AppNet, (Instant, Instant)>,
    /// Picked, for containers that are not there yet.
    picked: BTreeMap<Ipv4Addr, Instant>,
    /// Since when all members are in reach.
    whole: Option<Instant>,
    /// Something is to be looked at again.
    pub(super) due: bool,
}

impl View {
    fn owner(&self, node: NodeAddr) -> Option<Owner> {
        let holder = self.roster.holder(node)?;
        Some(Owner::new(node, holder.generation))
    }

    fn title(&self, net: AppNet) -> Title {
        let boot = self.roster.entries();
        let boot = boot.filter(|entry| entry.role == Role::Boot);
        let founder = boot
            .min_by_key(|entry| (entry.epoch, entry.node))
            .map(|entry| Owner::new(entry.node, entry.generation));
        let own = self.holdings.ranges.get(&net).into_iter().flatten();
        let others = self.records.deeds(net);
        Title::resolve(net, founder, own.chain(others).copied())
    }

    /// Picks a free address of this node's own ranges. It is kept for a while, for the container that is being made.
    pub(super) fn pick(
        &mut self,
        me: NodeAddr,
        net: AppNet,
        taken: &BTreeSet<Ipv4Addr>,
    ) -> Result<AppAddr> {
        // Without a roster there are no owners: as far apart as can be, and claims decide.
        let Some(owner) = self.owner(me) else {
            return address::pick(net, me, |ip| taken.contains(&ip));
        };
        let ip = self.title(net).pick(owner, taken);
        let ip = ip.ok_or_else(|| self.no_space(net))?;
        self.ranges.picked.insert(ip, Instant::now());
        net.addr(ip)
    }

    /// The containers that these were picked for are there, or will not be.
    pub(super) fn settled(&mut self, ips: impl IntoIterator<Item = Ipv4Addr>) {
        for ip in ips {
            self.ranges.picked.remove(&ip);
        }
    }

    /// What was picked lately.
    pub(super) fn picked(&self) -> impl Iterator<Item = Ipv4Addr> {
        let picked = self.ranges.picked.iter();
        let recent = picked.filter(|(_, since)| since.elapsed() < PICKED);
        recent.map(|(ip, _)| *ip)
    }

    /// Whether an address can be picked.
    pub(super) fn has_space(&self, me: NodeAddr, net: AppNet) -> bool {
        let Some(owner) = self.owner(me) else {
            return true;
        };
        self.title(net).pick(owner, &self.taken()).is_some()
    }

    /// Asks the others for addresses; since when.
    pub(super) fn want(&mut self, net: AppNet) -> Instant {
        let now = Instant::now();
        self.ranges.due = true;
        let want = self.ranges.wants.entry(net).or_insert((now, now));
        want.1 = now;
        want.0
    }

    /// Why there is no address to be picked.
    fn no_space(&self, net: AppNet) -> Error {
        let title = self.title(net);
        let taken = self.taken();
        for owner in title.owners() {
            let Some(owner) = owner.filter(|owner| self.owner(owner.node) == Some(*owner)) else {
                let message = format!(
                    "the addresses of {net} that are left were those of a node that is gone"
                );
                return Error::new(ErrorKind::Unavailable, message)
                    .with_hint("they are taken over as soon as all members are in reach; forget those that are dead");
            };
            if title.free(owner, &taken) > 0 {
                let node = owner.node;
                let alive = self.alive().contains(&node);
                let why = if alive {
                    "did not give any in time"
                } else {
                    "is out of reach"
                };
                let message = format!(
                    "the addresses of {net} that are left are those of node {node}, which {why}"
                );
                return Error::new(ErrorKind::Unavailable, message).with_hint(format!(
                    "ask for an address of {net} by its ip, or wait for node {node}"
                ));
            }
        }
        Error::new(
            ErrorKind::Exhausted,
            format!("every address of {net} is taken"),
        )
        .with_hint("remove containers from it, or use a wider network")
    }

    fn asking(&self, net: AppNet) -> BTreeSet<Owner> {
        let key = record::want_key(net);
        let nodes = self.members.keys();
        nodes
            .filter(|node| {
                let want = self.records.get(**node, &key);
                want.is_some_and(|want| !want.suspended)
            })
            .filter_map(|node| self.owner(*node))
            .collect()
    }

    /// Takes over what is made out to this node, and gives away what others are to have.
    fn work_ranges(&mut self, me: NodeAddr) {
        let Some(owner) = self.owner(me) else { return };
        let alive: BTreeSet<Owner> = self
            .members
            .values()
            .filter(|member| member.state == MemberState::Alive)
            .filter_map(|member| self.owner(member.node))
            .collect();
        let whole = self.roster.holders().count() == alive.len();
        let since = match (whole, self.ranges.whole) {
            (false, _) => None,
            (true, None) => Some(Instant::now()),
            (true, since) => since,
        };
        self.ranges.whole = since;
        let is_heir = self.roster.holders().map(|holder| holder.node).min() == Some(me);
        let mut nets: BTreeSet<AppNet> =
            self.networks().iter().map(|network| network.net).collect();
        nets.extend(self.records.nets());
        nets.extend(self.holdings.ranges.keys());
        nets.extend(self.ranges.wants.keys());
        self.ranges.due = false;
        let taken = self.taken();
        for net in nets {
            let mut title = self.title(net);
            let mut own = self.holdings.ranges.get(&net).cloned().unwrap_or_default();
            let heard = self.records.deeds(net);
            let mine: Vec<Deed> = heard
                .filter(|deed| deed.owner == owner && !own.contains(deed) && title.stands(deed))
                .copied()
                .collect();
            own.extend(mine);
            let is_gone =
                |one: Option<Owner>| one.is_none_or(|one| self.owner(one.node) != Some(one));
            if is_heir && whole && title.owners().into_iter().any(is_gone) {
                if since.is_some_and(|since| since.elapsed() >= WHOLE) {
                    own.extend(title.inherit(owner, is_gone));
                } else {
                    self.ranges.due = true;
                }
            }
            let asking = self.asking(net);
            // Until it is answered, whatever changes may help.
            self.ranges.due |= !asking.is_empty();
            own.extend(title.donate(owner, &alive, &asking, &taken, own.len()));
            own.retain(|deed| deed.owner != owner || title.stands(deed));
            own.sort();
            own.dedup();
            if own.is_empty() {
                self.holdings.ranges.remove(&net);
            } else {
                self.holdings.ranges.insert(net, own);
            }
        }
    }
}

impl Node {
    /// Returns when an address of this network can be picked here: at once, or when another node gave some.
    ///
    /// # Errors
    /// [`ErrorKind::Exhausted`] when all are taken; [`ErrorKind::Unavailable`] when those that are left belong to a node out of
    /// reach, which is named.
    pub(super) async fn space(&self, net: AppNet) -> Result<()> {
        let mut rounds = self.rounds.subscribe();
        if self.view().has_space(self.me, net) {
            return Ok(());
        }
        self.view().want(net);
        self.kick.notify_one();
        let given = async {
            while !self.view().has_space(self.me, net) {
                if rounds.changed().await.is_err() {
                    return;
                }
            }
        };
        match tokio::time::timeout(PATIENCE, given).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.view().no_space(net)),
        }
    }

    /// Whether a container has to wait for addresses that were just asked for, and nobody need be told.
    pub(super) fn asks_for(&self, net: AppNet) -> Option<Result<(), Error>> {
        let mut view = self.view();
        if view.has_space(self.me, net) {
            return None;
        }
        let since = view.want(net);
        Some(match since.elapsed() < PATIENCE {
            true => Ok(()),
            false => Err(view.no_space(net)),
        })
    }

    /// Keeps, then tells what this node owns and gives away, and what it wants.
    pub(super) async fn reconcile_ranges(&self, applied: &mut Applied, outcome: &mut Outcome) {
        if !self.discovery.capabilities().records {
            return;
        }
        let changed = {
            let mut view = self.view();
            if view.records.take_ranges_changed() || view.ranges.due {
                view.work_ranges(self.me);
            }
            let changed = view.ranges.kept != view.holdings.ranges;
            changed.then(|| view.holdings.clone())
        };
        if let Some(holdings) = changed {
            match self.save_holdings(&holdings).await {
                Ok(true) => self.view().ranges.kept = holdings.ranges,
                // Nothing is told that could be forgotten.
                Ok(false) => outcome.again = true,
                Err(error) => outcome
                    .rest
                    .push(error.context("could not keep what addresses this node owns")),
            }
        }
        let (mut said, due) = {
            let mut view = self.view();
            let told = view.ranges.kept.iter();
            let mut said = Vec::new();
            for (net, deeds) in told {
                match record::encode(deeds) {
                    Ok(value) => said.push((record::range_key(*net), value)),
                    Err(error) => outcome.rest.push(error),
                }
            }
            let answered: Vec<AppNet> = view
                .ranges
                .wants
                .iter()
                .filter(|(net, (_, last))| last.elapsed() > WANT || view.has_space(self.me, **net))
                .map(|(net, _)| *net)
                .collect();
            for net in answered {
                view.ranges.wants.remove(&net);
            }
            for net in view.ranges.wants.keys() {
                said.push((record::want_key(*net), bytes::Bytes::from_static(b"1")));
            }
            (said, view.ranges.due)
        };
        outcome.again |= due;
        let keys: BTreeSet<String> = said.iter().map(|(key, _)| key.clone()).collect();
        said.retain(|(key, value)| applied.ranges.get(key) != Some(value));
        for (key, value) in said {
            match self.discovery.publish(&key, value.clone()).await {
                Ok(_) => {
                    applied.ranges.insert(key, value);
                }
                Err(error) => outcome.rest.push(error),
            }
        }
        let stale: Vec<String> = applied
            .ranges
            .keys()
            .filter(|key| !keys.contains(*key))
            .cloned()
            .collect();
        for key in stale {
            match self.discovery.retract(&key).await {
                Ok(()) => {
                    applied.ranges.remove(&key);
                }
                Err(error) => outcome.rest.push(error),
            }
        }
    }
}
