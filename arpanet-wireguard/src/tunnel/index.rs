//! The numbers by which peers call this side's handshakes and sessions.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, PoisonError, RwLock};

use super::peer::Peer;
use super::protocol::Keypair;

/// Whose a number is, and the session that it stands for, once there is one.
#[derive(Clone)]
pub(super) struct Indexed {
    pub(super) peer: Arc<Peer>,
    pub(super) keypair: Option<Arc<Keypair>>,
}

#[derive(Default)]
pub(super) struct Indices(RwLock<HashMap<u32, Indexed>>);

impl Indices {
    pub(super) fn get(&self, index: u32) -> Option<Indexed> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&index).cloned()
    }

    /// A number that nobody can guess, for a handshake with a peer.
    pub(super) fn allocate(&self, peer: &Arc<Peer>) -> u32 {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        loop {
            let index = rand::random();
            if let Entry::Vacant(free) = all.entry(index) {
                free.insert(Indexed {
                    peer: Arc::clone(peer),
                    keypair: None,
                });
                return index;
            }
        }
    }

    /// Lets a session's number lead to it.
    pub(super) fn set(&self, peer: &Arc<Peer>, keypair: &Arc<Keypair>) {
        let indexed = Indexed {
            peer: Arc::clone(peer),
            keypair: Some(Arc::clone(keypair)),
        };
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(keypair.index, indexed);
    }

    pub(super) fn free(&self, gone: &[u32]) {
        if gone.is_empty() {
            return;
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for index in gone {
            all.remove(index);
        }
    }

    pub(super) fn free_all_of(&self, peer: &Peer) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, indexed| indexed.peer.key != peer.key);
    }
}
