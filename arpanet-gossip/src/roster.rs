//! The roster as it is replicated: every entry signed by the member that let it in.
//!
//! Merging is arpanet-core's. What is added here is who may say it: an entry counts when a node that admits others has
//! signed it, and a removal also when the removed node has signed it itself. Entries that came with the membership are
//! trusted as they are: they came through the join, or from this node's own disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use arpanet_core::roster::{ClusterId, Identity, Merged};
use arpanet_core::{NodeAddr, Roster, RosterEntry};
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use crate::record::Signature;
use crate::wire::{encode, mix};

/// Entries whose signer is not known yet are kept for a while, and no more than these.
const MAX_UNPROVEN: usize = 64;

/// A roster entry with the word of the member that admitted or removed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedEntry {
    entry: RosterEntry,
    by: NodeAddr,
    signature: Signature,
}

impl SignedEntry {
    fn sign(cluster: &ClusterId, entry: RosterEntry, by: NodeAddr, key: &SigningKey) -> Self {
        let signature = Signature::sign(key, &message(cluster, &entry, by));
        Self {
            entry,
            by,
            signature,
        }
    }

    /// The entry.
    #[must_use]
    pub const fn entry(&self) -> &RosterEntry {
        &self.entry
    }
}

fn message(cluster: &ClusterId, entry: &RosterEntry, by: NodeAddr) -> Vec<u8> {
    let mut message = b"arpanet2 gossip roster v1\0".to_vec();
    message.extend_from_slice(cluster.as_bytes());
    message.extend_from_slice(&by.index().to_be_bytes());
    message.extend_from_slice(&encode(entry));
    message
}

/// What came of an entry heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is in the roster now.
    Taken,
    /// Nothing new.
    Known,
    /// A better one is in the roster.
    Refused,
    /// Its signature is wrong, or of one who may not admit.
    Forged,
    /// Its signer is unknown as yet.
    Unproven,
}

/// The roster with its proofs.
#[derive(Debug)]
pub(crate) struct ProvenRoster {
    cluster: ClusterId,
    me: NodeAddr,
    roster: Arc<Roster>,
    proofs: BTreeMap<NodeAddr, SignedEntry>,
    unproven: Vec<SignedEntry>,
    hash: u64,
    departures: u64,
}

impl ProvenRoster {
    /// The roster that this node trusts, with what proofs it has.
    pub(crate) fn new(
        cluster: ClusterId,
        me: NodeAddr,
        roster: Roster,
        proofs: Vec<SignedEntry>,
    ) -> Self {
        let mut proven = Self {
            cluster,
            me,
            roster: Arc::new(roster),
            proofs: BTreeMap::new(),
            unproven: Vec::new(),
            hash: 0,
            departures: 0,
        };
        for proof in proofs {
            proven.hear(proof);
        }
        proven.rehash();
        proven
    }

    /// The roster of many, who have nobody's word for it.
    #[cfg(feature = "simulation")]
    pub(crate) const fn shared(
        cluster: ClusterId,
        me: NodeAddr,
        roster: Arc<Roster>,
        (hash, departures): (u64, u64),
    ) -> Self {
        Self {
            cluster,
            me,
            roster,
            proofs: BTreeMap::new(),
            unproven: Vec::new(),
            hash,
            departures,
        }
    }

    pub(crate) fn roster(&self) -> &Roster {
        &self.roster
    }

    /// An entry with somebody's word for it. A node that admits others gives its own where there is no other: it trusts
    /// its roster.
    pub(crate) fn proof(&self, node: NodeAddr, key: &SigningKey) -> Option<SignedEntry> {
        if let Some(proof) = self.proofs.get(&node) {
            return Some(proof.clone());
        }
        let entry = self.roster.entry(node)?.clone();
        let mine = Identity::from_bytes(key.verifying_key().to_bytes());
        let admits = self
            .roster
            .holder(self.me)
            .is_some_and(|me| me.role.admits() && me.identity == mine);
        admits.then(|| SignedEntry::sign(&self.cluster, entry, self.me, key))
    }

    pub(crate) fn proofs(&self) -> impl Iterator<Item = &SignedEntry> {
        self.proofs.values()
    }

    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    /// [`Roster::departures`].
    pub(crate) const fn departures(&self) -> u64 {
        self.departures
    }

    /// Hashes of all entries, for comparing.
    pub(crate) fn hashes_from(&self, from: u16) -> impl Iterator<Item = (u16, u64)> {
        self.roster
            .entries()
            .map(|entry| (entry.node.index(), entry_hash(entry)))
            .filter(move |(node, _)| *node >= from)
    }

    /// Signs an entry of this node's making and takes it in; `None` when a better one is there.
    pub(crate) fn make(&mut self, entry: RosterEntry, key: &SigningKey) -> Option<SignedEntry> {
        if Arc::make_mut(&mut self.roster).merge(entry.clone()) == Merged::Refused {
            return None;
        }
        let entry = self.roster.entry(entry.node).cloned()?;
        let signed = SignedEntry::sign(&self.cluster, entry, self.me, key);
        self.proofs.insert(signed.entry.node, signed.clone());
        self.rehash();
        Some(signed)
    }

    /// Marks a node as forgotten and vouches for all that it had vouched for, which its word no longer proves.
    /// Returns what is to be spread.
    pub(crate) fn forget(&mut self, node: NodeAddr, key: &SigningKey) -> Vec<SignedEntry> {
        let Some(entry) = Arc::make_mut(&mut self.roster).forget(node).cloned() else {
            return Vec::new();
        };
        let orphans: Vec<RosterEntry> = self
            .proofs
            .values()
            .filter(|proof| proof.by == node && proof.entry.node != node && node != self.me)
            .map(|proof| proof.entry.clone())
            .collect();
        let signed: Vec<SignedEntry> = std::iter::once(entry)
            .chain(orphans)
            .map(|entry| SignedEntry::sign(&self.cluster, entry, self.me, key))
            .collect();
        for signed in &signed {
            self.proofs.insert(signed.entry.node, signed.clone());
        }
        self.rehash();
        signed
    }

    /// Takes in an entry heard of from anybody.
    pub(crate) fn hear(&mut self, signed: SignedEntry) -> Heard {
        let heard = self.hear_one(&signed);
        match heard {
            Heard::Unproven
                if self.unproven.len() < MAX_UNPROVEN && !self.unproven.contains(&signed) =>
            {
                self.unproven.push(signed);
            }
            Heard::Taken => {
                // Its holder may be the signer that others waited for.
                for waiting in std::mem::take(&mut self.unproven) {
                    if self.hear_one(&waiting) == Heard::Unproven {
                        self.unproven.push(waiting);
                    }
                }
                self.rehash();
            }
            _ => {}
        }
        heard
    }

    fn hear_one(&mut self, signed: &SignedEntry) -> Heard {
        if self.proofs.get(&signed.entry.node) == Some(signed) {
            return Heard::Known;
        }
        let held = self.roster.entry(signed.entry.node);
        let known = held == Some(&signed.entry);
        let signer = self.roster.holder(signed.by);
        let farewell = signed.by == signed.entry.node
            && signed.entry.forgotten
            && signer.is_some_and(|signer| {
                signer.identity == signed.entry.identity
                    && signer.generation.checked_add(1) == Some(signed.entry.generation)
            });
        let Some(signer) = signer else {
            return if known { Heard::Known } else { Heard::Unproven };
        };
        if !(signer.role.admits() || farewell)
            || !signed.signature.verifies(
                &signer.identity,
                &message(&self.cluster, &signed.entry, signed.by),
            )
        {
            return Heard::Forged;
        }
        let proof_stands = self
            .proofs
            .get(&signed.entry.node)
            .is_some_and(|proof| self.roster.holder(proof.by).is_some());
        match Arc::make_mut(&mut self.roster).merge(signed.entry.clone()) {
            Merged::Taken => {
                self.proofs.insert(signed.entry.node, signed.clone());
                Heard::Taken
            }
            Merged::Known => {
                if known && !proof_stands {
                    self.proofs.insert(signed.entry.node, signed.clone());
                }
                Heard::Known
            }
            Merged::Refused => Heard::Refused,
        }
    }

    fn rehash(&mut self) {
        (self.hash, self.departures) = summed(&self.roster);
    }
}

/// The hash of a roster, and its departures.
pub(crate) fn summed(roster: &Roster) -> (u64, u64) {
    let hash = roster
        .entries()
        .fold(0_u64, |sum, entry| sum.wrapping_add(entry_hash(entry)));
    (hash, roster.departures())
}

fn entry_hash(entry: &RosterEntry) -> u64 {
    let mut words = [0; 4];
    for (word, bytes) in words
        .iter_mut()
        .zip(entry.identity.as_bytes().chunks_exact(8))
    {
        *word = bytes
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    mix(&[
        u64::from(entry.node.index()),
        u64::from(entry.generation) << 1 | u64::from(entry.forgotten),
        entry.epoch,
        words[0] ^ words[1].rotate_left(1),
        words[2] ^ words[3].rotate_left(1),
    ])
}

#[cfg(test)]
#[path = "roster_tests.rs"]
mod tests;
