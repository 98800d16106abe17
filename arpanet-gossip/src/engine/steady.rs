//! Engines of a large cluster as they are after a while, for simulations: what all have alike is made once and shared, so
//! that thousands fit into one process, and nobody has to join one by one.
//!
//! What an engine does from then on is its own: only the beginning is made here.

use std::collections::BTreeMap;
use std::sync::Arc;

use arpanet_core::admission::NodeInfo;
use arpanet_core::roster::ClusterId;
use foca::Member as Swimmer;

use super::*;
use crate::record::{Signature, record_message};
use crate::roster::summed;
use crate::wire::WireRecord;

/// A cluster in which all are alive and have everybody's records.
#[derive(Debug, Clone)]
pub struct Steady {
    cluster: ClusterId,
    roster: Arc<Roster>,
    roster_hash: (u64, u64),
    store: Store,
    told: BTreeMap<NodeAddr, Arc<Member>>,
    boots: Arc<BTreeMap<Sender, u64>>,
}

impl Steady {
    /// The cluster of these, each with its secret and what it says of itself. Their endpoints are those of their entries.
    pub fn new<R>(
        cluster: ClusterId,
        nodes: impl IntoIterator<Item = (RosterEntry, Secret<32>, R)>,
    ) -> Self
    where
        R: IntoIterator<Item = (String, Bytes)>,
    {
        let mut roster = Roster::new();
        let mut store = Store::default();
        let mut told = BTreeMap::new();
        let mut boots = BTreeMap::new();
        for (entry, secret, records) in nodes {
            let key = SigningKey::from_bytes(secret.expose());
            let node = entry.node;
            store.set_holder(node, entry.generation);
            for (version, (name, value)) in (1 << 32 | 1..).zip(records) {
                let signed = record_message(&cluster, node.index(), &name, version, Some(&value));
                let record = WireRecord {
                    key: name,
                    version,
                    value: Some(value),
                    signature: Signature::sign(&key, &signed),
                };
                store.put_own(node, record, Duration::ZERO);
            }
            let member = Member::new(node, entry.name.clone(), entry.role).at(entry.endpoint);
            told.insert(node, Arc::new(member));
            let sender = Sender::new(node, &entry.identity);
            boots.insert(sender, u64::from(node.index()));
            roster.merge(entry);
        }
        Self {
            cluster,
            roster_hash: summed(&roster),
            roster: Arc::new(roster),
            store,
            told,
            boots: Arc::new(boots),
        }
    }

    /// They know each other from their rosters only: each has to show to each that it is there, as after all of them began
    /// at one moment.
    #[must_use]
    pub fn strangers(mut self) -> Self {
        self.boots = Arc::default();
        self
    }

    /// The engine of one of them, with what it says of itself at hand. Nothing it knows is told as an event.
    ///
    /// # Errors
    /// As [`Engine::new`], and [`NotFound`](ErrorKind::NotFound) for who is not one of them.
    pub fn engine(
        &self,
        config: GossipConfig,
        node: NodeAddr,
        cluster_key: &arpanet_core::admission::ClusterKey,
        secret: &Secret<32>,
        now: Duration,
        seed: [u8; 32],
    ) -> Result<Engine> {
        let missing = || Error::new(ErrorKind::NotFound, format!("{node} is none of them"));
        let entry = self.roster.holder(node).ok_or_else(missing)?;
        let membership = Membership::new(
            NodeInfo::new(node, entry.name.clone(), entry.role).advertise(entry.endpoint),
            entry.identity,
            self.cluster,
            cluster_key.clone(),
            Roster::from_iter([entry.clone()]),
        );
        let mut engine = Engine::new(
            config,
            &membership,
            secret,
            &GossipState::default(),
            now,
            seed,
        )?;
        engine.roster = ProvenRoster::shared(
            self.cluster,
            node,
            Arc::clone(&self.roster),
            self.roster_hash,
        );
        engine.store = self.store.clone();
        engine.told = self.told.clone();
        engine.boot = node.index().into();
        engine.peers.proven = Arc::clone(&self.boots);
        engine.own = self
            .store
            .live_of(node)
            .map(|(key, _, value)| (key.to_owned(), value.clone()))
            .collect();
        let others = || self.roster.holders().filter(|other| other.node != node);
        let id = |other: &RosterEntry| SwimId {
            node: other.node.index(),
            rank: RANK,
            endpoint: other.endpoint,
        };
        engine.lives = others()
            .map(|other| (other.node, Life::alive(RANK, now)))
            .collect();
        engine.endpoints = others()
            .filter_map(|other| {
                Some((
                    other.node,
                    Endpoint {
                        at: other.endpoint?,
                        rank: RANK,
                    },
                ))
            })
            .collect();
        engine.renew_swim(RANK);
        engine.swim.know(
            others().map(|other| Swimmer::alive(id(other))).collect(),
            now,
        );
        // Somewhere between two comparisons.
        let sync = ms(engine.config.sync_ms);
        engine.next_sync = now + sync.mul_f64(engine.rng.random_range(0.0..1.0));
        engine.events.clear();
        engine.transmits.clear();
        engine.traffic = Traffic::default();
        Ok(engine)
    }
}

/// That of a first start.
const RANK: u64 = 1 << 20;
