//! All owners' records, and how far each owner's are known.
//!
//! An owner numbers its changes. A *delta* says: these are all of the owner's records with versions in `(from, to]`. So
//! a receiver that has everything up to `from` has everything up to `to` afterwards (its *watermark*), and what it holds
//! from that range and is not named has been superseded: by a later change, or by a removal so old that it was dropped.
//!
//! Who may have missed a removal that was dropped is told *the whole*: a series of deltas from nothing on, which counts only once
//! it is through, whatever of it was lost meanwhile. From then on its receiver tells others the whole, too, since it knows of
//! that removal no more than they do.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::NodeAddr;
use bytes::Bytes;

use crate::record::{MAX_RECORDS, MAX_VALUE, is_key};
use crate::wire::{BURST, Delta, FILL, Mark, WireRecord, mix};

/// Removals an owner may have before the oldest are dropped.
const MAX_TOMBSTONES: usize = 1_024;
/// Ranges known beyond a gap.
const MAX_ISLANDS: usize = 32;

/// One owner's records.
#[derive(Debug, Clone, Default)]
struct Owner {
    generation: u32,
    watermark: u64,
    records: BTreeMap<String, Stored>,
    by_version: BTreeMap<u64, String>,
    tombstones: usize,
    /// Up to here, removals may have been dropped: here, or where the whole was told.
    floor: u64,
    /// The whole that is being told.
    whole: Option<Whole>,
    /// Of a whole the beginning is missing.
    missed: bool,
    islands: Vec<(u64, u64)>,
    doubted: BTreeMap<String, u64>,
}

/// How far somebody has told the whole.
#[derive(Debug, Clone)]
struct Whole {
    by: NodeAddr,
    told: u64,
    end: u64,
    /// What arrived before what it follows.
    ahead: Vec<(u64, u64)>,
}

impl Whole {
    /// A part of the series, in whatever order they arrive.
    fn take(&mut self, from: u64, to: u64) {
        if from <= self.told {
            self.told = self.told.max(to);
        } else if self.ahead.len() < BURST {
            self.ahead.push((from, to));
        }
        while let Some(next) = self.ahead.iter().position(|(from, _)| *from <= self.told) {
            self.told = self.told.max(self.ahead.swap_remove(next).1);
        }
    }
}

/// What somebody lacks.
#[derive(Debug)]
pub(crate) struct Lacking {
    pub(crate) deltas: Vec<Delta>,
    /// There is no more.
    pub(crate) all: bool,
}

impl Lacking {
    const fn nothing() -> Self {
        Self {
            deltas: Vec::new(),
            all: true,
        }
    }
}

/// What somebody has of an owner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) mark: Mark,
    /// Of the whole it has been told everything up to here, in a series that ends there.
    pub(crate) told: Option<(u64, u64)>,
}

impl Held {
    /// What this list of marks says of an owner, as it stands in a request.
    pub(crate) fn of(nothing: Mark, marks: &[Mark]) -> Self {
        let mut marks = marks.iter().filter(|mark| mark.owner == nothing.owner);
        Self {
            mark: marks.next().copied().unwrap_or(nothing),
            told: marks
                .next()
                .zip(marks.next())
                .map(|(told, end)| (told.version, end.version)),
        }
    }
}

impl From<Mark> for Held {
    fn from(mark: Mark) -> Self {
        Self { mark, told: None }
    }
}

#[derive(Debug, Clone)]
struct Stored {
    record: WireRecord,
    since: Duration,
}

/// What a delta changed, key by key: the new value, or `None` for a removal.
pub(crate) type Changes = Vec<(String, Option<Bytes>)>;

/// What came of a delta.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// These changes, perhaps none.
    Changes(Changes),
    /// A signature was wrong or a bound was broken: nothing was taken in.
    Refused,
    /// It is of another holder of the owner's address.
    OtherHolder,
}

/// The records of all owners. What is alike in two clones is kept once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    owners: BTreeMap<NodeAddr, Arc<Owner>>,
}

impl Store {
    /// Sees to it that an owner's records are of this holder; another holder's are dropped and returned as changes.
    pub(crate) fn set_holder(&mut self, owner: NodeAddr, generation: u32) -> Changes {
        let known = self.owners.entry(owner).or_default();
        if known.generation == generation {
            return Changes::new();
        }
        let anew = Owner {
            generation,
            ..Owner::default()
        };
        Arc::unwrap_or_clone(std::mem::replace(known, Arc::new(anew))).into_removals()
    }

    /// Drops an owner's records.
    pub(crate) fn drop_owner(&mut self, owner: NodeAddr) -> Changes {
        self.owners
            .remove(&owner)
            .map(|owner| Arc::unwrap_or_clone(owner).into_removals())
            .unwrap_or_default()
    }

    #[cfg(test)]
    pub(crate) fn watermark(&self, owner: NodeAddr) -> u64 {
        self.owners.get(&owner).map_or(0, |owner| owner.watermark)
    }

    /// The newest version seen of an owner, contiguous or not.
    pub(crate) fn newest(&self, owner: NodeAddr) -> u64 {
        self.owners.get(&owner).map_or(0, |owner| {
            let last = owner.by_version.last_key_value().map_or(0, |(v, _)| *v);
            owner.watermark.max(last)
        })
    }

    /// Whether changes of this owner are known to be missing.
    pub(crate) fn has_gap(&self, owner: NodeAddr) -> bool {
        self.owners
            .get(&owner)
            .is_some_and(|owner| !owner.islands.is_empty() || owner.whole.is_some() || owner.missed)
    }

    /// An owner's live records with their versions.
    pub(crate) fn live_of(&self, owner: NodeAddr) -> impl Iterator<Item = (&str, u64, &Bytes)> {
        self.owners
            .get(&owner)
            .into_iter()
            .flat_map(|owner| owner.records.values())
            .filter_map(|stored| {
                let record = &stored.record;
                Some((record.key.as_str(), record.version, record.value.as_ref()?))
            })
    }

    /// One live value.
    pub(crate) fn get(&self, owner: NodeAddr, key: &str) -> Option<&Bytes> {
        let stored = self.owners.get(&owner)?.records.get(key)?;
        stored.record.value.as_ref()
    }

    /// Whether the owner has room for one more live record.
    pub(crate) fn has_room(&self, owner: NodeAddr) -> bool {
        self.owners
            .get(&owner)
            .is_none_or(|owner| owner.records.len() - owner.tombstones < MAX_RECORDS)
    }

    /// Puts a record of this node's own, whose version is above all before, and returns the delta to spread.
    pub(crate) fn put_own(&mut self, me: NodeAddr, record: WireRecord, now: Duration) -> Delta {
        let owner = Arc::make_mut(self.owners.entry(me).or_default());
        let (from, to) = (owner.watermark, record.version);
        owner.insert(record.clone(), now);
        owner.watermark = to;
        owner.islands.clear();
        (owner.whole, owner.missed) = (None, false);
        Delta {
            owner: me.index(),
            generation: owner.generation,
            from,
            to,
            target: to,
            records: vec![record],
        }
    }

    /// Takes in a delta that somebody sends. `verify` checks a record's signature; it is asked only about records that would be
    /// taken.
    pub(crate) fn apply(
        &mut self,
        by: NodeAddr,
        owner: NodeAddr,
        delta: &Delta,
        now: Duration,
        verify: impl Fn(&WireRecord) -> bool,
    ) -> Applied {
        let Some(known) = self.owners.get_mut(&owner) else {
            return Applied::OtherHolder;
        };
        if known.generation != delta.generation {
            return Applied::OtherHolder;
        }
        if delta.from > delta.to || delta.to > delta.end() {
            return Applied::Refused;
        }
        let mut news = Vec::new();
        for record in &delta.records {
            let sound = record.version > delta.from
                && is_key(&record.key)
                && record.value.as_ref().is_none_or(|v| v.len() <= MAX_VALUE);
            if !sound {
                return Applied::Refused;
            }
            let is_news = match known.records.get(&record.key) {
                Some(held) => record.version > held.record.version,
                // A removal that is not remembered any more, or another change since.
                None => record.version > known.watermark,
            };
            if is_news {
                if !verify(record) {
                    return Applied::Refused;
                }
                news.push(record);
            }
        }
        if known.records.len() + news.len() > MAX_RECORDS + 2 * MAX_TOMBSTONES {
            return Applied::Refused;
        }
        let known = Arc::make_mut(known);
        known.doubt(delta);
        let mut changes = Changes::new();
        for record in news {
            let before = known.insert(record.clone(), now);
            if before != record.value {
                changes.push((record.key.clone(), record.value.clone()));
            }
        }
        if delta.is_of_whole() {
            known.follow(by, delta);
        } else {
            known.advance(delta.from, delta.to);
        }
        if known.watermark >= delta.end() && known.whole.is_none() {
            changes.extend(known.settle_doubts());
        }
        Applied::Changes(changes)
    }

    /// Forgets removals older than `keep`, and the oldest where there are too many.
    pub(crate) fn collect(&mut self, now: Duration, keep: Duration) {
        for owner in self.owners.values_mut() {
            if owner.tombstones == 0 {
                continue;
            }
            let owner = Arc::make_mut(owner);
            let excess = owner.tombstones.saturating_sub(MAX_TOMBSTONES);
            let mut old: Vec<u64> = owner
                .by_version
                .iter()
                .filter(|(_, key)| {
                    owner
                        .records
                        .get(*key)
                        .is_some_and(|stored| stored.record.value.is_none())
                })
                .enumerate()
                .filter(|(nth, (_, key))| {
                    *nth < excess
                        || owner
                            .records
                            .get(*key)
                            .is_some_and(|stored| stored.since + keep <= now)
                })
                .map(|(_, (version, _))| *version)
                .collect();
            // What is not known contiguously yet must stay: it would be taken for news again.
            old.retain(|version| *version <= owner.watermark);
            for version in old {
                if let Some(key) = owner.by_version.remove(&version) {
                    owner.records.remove(&key);
                    owner.tombstones -= 1;
                    owner.floor = owner.floor.max(version);
                }
            }
        }
    }

    /// A hash over how far every owner's records are known.
    pub(crate) fn hash(&self) -> u64 {
        self.owners
            .iter()
            .filter(|(_, owner)| owner.watermark > 0)
            .fold(0, |sum, (node, owner)| {
                sum.wrapping_add(mix(&[
                    u64::from(node.index()),
                    u64::from(owner.generation),
                    owner.watermark,
                ]))
            })
    }

    /// How far owners are known, from this one on.
    pub(crate) fn marks_from(&self, from: u16) -> impl Iterator<Item = Mark> {
        let from = NodeAddr::from_index(from.max(1));
        from.into_iter()
            .flat_map(|from| self.owners.range(from..))
            .map(|(node, owner)| Mark {
                owner: node.index(),
                generation: owner.generation,
                version: owner.watermark,
            })
    }

    pub(crate) fn mark(&self, owner: NodeAddr) -> Option<Mark> {
        self.owners.get(&owner).map(|known| Mark {
            owner: owner.index(),
            generation: known.generation,
            version: known.watermark,
        })
    }

    /// How far this node has told the whole of an owner here, if it has not told all of it, and where that series ends: to go
    /// on there, in a request to it, after the owner's own mark.
    pub(crate) fn told_by(&self, by: NodeAddr, owner: NodeAddr) -> Option<[Mark; 2]> {
        let known = self.owners.get(&owner)?;
        let whole = known.whole.as_ref().filter(|whole| whole.by == by)?;
        Some([whole.told, whole.end].map(|version| Mark {
            owner: owner.index(),
            generation: known.generation,
            version,
        }))
    }

    /// What somebody lacks who has so much, in at most `limit` deltas.
    pub(crate) fn lacking(&self, held: Held, limit: usize) -> Lacking {
        let mark = held.mark;
        let Some(owner) = NodeAddr::from_index(mark.owner).and_then(|node| self.owners.get(&node))
        else {
            return Lacking::nothing();
        };
        let newest = owner.watermark;
        if owner.generation != mark.generation || newest <= mark.version {
            return Lacking::nothing();
        }
        // Whoever may have missed a removal that is forgotten here compares the whole; so does who has the owner as it was
        // before it started last: what it had said then and not again since, it may not know of itself.
        let needs_whole = mark.version < owner.floor || life(mark.version) < life(newest);
        if !needs_whole {
            return owner.deltas(mark, newest, false, limit);
        }
        // A removal that was dropped since the series began may be of what was told in it as being there.
        let goes_on = |(_, end): &(u64, u64)| owner.floor <= *end && *end <= newest;
        let (start, end) = held.told.filter(goes_on).unwrap_or((0, newest));
        let start = Mark {
            version: start.min(end),
            ..mark
        };
        owner.deltas(start, end, true, limit)
    }

    /// All live records.
    pub(crate) fn live(&self) -> impl Iterator<Item = (NodeAddr, &str, &Bytes)> {
        self.owners.iter().flat_map(|(node, owner)| {
            owner.records.values().filter_map(|stored| {
                Some((
                    *node,
                    stored.record.key.as_str(),
                    stored.record.value.as_ref()?,
                ))
            })
        })
    }
}

/// The start of its owner in which a version was made.
pub(crate) const fn life(version: u64) -> u64 {
    version >> 32
}

impl Owner {
    fn into_removals(self) -> Changes {
        self.records
            .into_values()
            .filter(|stored| stored.record.value.is_some())
            .map(|stored| (stored.record.key, None))
            .collect()
    }

    /// All from `start` on, as a series that ends there, in at most `limit` deltas.
    fn deltas(&self, start: Mark, end: u64, whole: bool, limit: usize) -> Lacking {
        let mut deltas = Vec::new();
        let mut open = Delta {
            owner: start.owner,
            generation: self.generation,
            from: start.version,
            to: start.version,
            target: end | if whole { Delta::WHOLE } else { 0 },
            records: Vec::new(),
        };
        let mut weight = 0;
        for (version, key) in self.by_version.range((Excluded(start.version), Unbounded)) {
            let Some(stored) = self.records.get(key) else {
                continue;
            };
            let record = &stored.record;
            if weight > 0 && weight + record.weight() > FILL {
                let next = Delta {
                    from: open.to,
                    to: open.to,
                    records: Vec::new(),
                    ..open.clone()
                };
                deltas.push(std::mem::replace(&mut open, next));
                weight = 0;
                if deltas.len() >= limit {
                    return Lacking { deltas, all: false };
                }
            }
            weight += record.weight();
            open.records.push(record.clone());
            // Beyond the end something may be missing: such records come along, but nothing is said of the range.
            open.to = (*version).min(end).max(open.to);
        }
        open.to = end;
        deltas.push(open);
        let all = end == self.watermark;
        Lacking { deltas, all }
    }

    /// Notes how far the whole is told. A part of another series than the one that is being told does not count.
    fn follow(&mut self, by: NodeAddr, delta: &Delta) {
        let end = delta.end();
        let same = |whole: &&mut Whole| whole.by == by && whole.end == end;
        if self.whole.as_mut().filter(same).is_none() {
            // Of one that is through, and came late.
            if delta.from > 0 && self.watermark >= end && self.floor >= end {
                return;
            }
            if delta.from > 0 && self.whole.is_some() {
                self.missed = true;
                return;
            }
            self.whole = Some(Whole {
                by,
                told: 0,
                end,
                ahead: Vec::new(),
            });
        }
        let Some(whole) = &mut self.whole else {
            return;
        };
        whole.take(delta.from, delta.to);
        let told = whole.told;
        self.missed = told == 0 && end > 0;
        if told >= end {
            self.whole = None;
            self.floor = self.floor.max(end);
            self.advance(0, end);
        }
    }

    /// Puts a record in place of the one with its key, whose value is returned.
    fn insert(&mut self, record: WireRecord, now: Duration) -> Option<Bytes> {
        self.by_version.insert(record.version, record.key.clone());
        self.tombstones += usize::from(record.value.is_none());
        let stored = Stored { record, since: now };
        let before = self.records.insert(stored.record.key.clone(), stored)?;
        self.by_version.remove(&before.record.version);
        self.tombstones -= usize::from(before.record.value.is_none());
        before.record.value
    }

    /// Notes what is held of the delta's range and not named in it.
    fn doubt(&mut self, delta: &Delta) {
        if delta.from >= delta.to {
            return;
        }
        for (version, key) in self.by_version.range(delta.from + 1..=delta.to) {
            if !delta
                .records
                .iter()
                .any(|record| record.version == *version)
            {
                self.doubted.insert(key.clone(), *version);
            }
        }
    }

    /// Removes what is still doubted once everything is known.
    fn settle_doubts(&mut self) -> Changes {
        let mut changes = Changes::new();
        for (key, version) in std::mem::take(&mut self.doubted) {
            if self
                .records
                .get(&key)
                .is_some_and(|held| held.record.version == version)
            {
                self.by_version.remove(&version);
                if let Some(held) = self.records.remove(&key) {
                    if held.record.value.is_some() {
                        changes.push((key, None));
                    } else {
                        self.tombstones -= 1;
                    }
                }
            }
        }
        changes
    }

    fn advance(&mut self, from: u64, to: u64) {
        if from > self.watermark {
            if self.islands.len() < MAX_ISLANDS {
                self.islands.push((from, to));
            }
            return;
        }
        self.watermark = self.watermark.max(to);
        while let Some(joined) = self
            .islands
            .iter()
            .position(|(from, _)| *from <= self.watermark)
        {
            let (_, to) = self.islands.swap_remove(joined);
            self.watermark = self.watermark.max(to);
        }
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
