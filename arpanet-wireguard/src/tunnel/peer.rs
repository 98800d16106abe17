//! One peer's session, endpoint and queue.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gotatun::noise::Tunn;

use super::{PeerStatus, PublicKey};

pub(super) struct Peer {
    pub(super) key: PublicKey,
    session: Mutex<Session>,
}

pub(super) struct Session {
    pub(super) tunn: Tunn,
    pub(super) endpoint: Option<SocketAddr>,
}

impl Peer {
    pub(super) const fn new(key: PublicKey, tunn: Tunn) -> Self {
        Self {
            key,
            session: Mutex::new(Session {
                tunn,
                endpoint: None,
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn status(&self) -> PeerStatus {
        let session = self.lock();
        let (last_handshake, tx_bytes, rx_bytes, _, _) = session.tunn.stats();
        PeerStatus {
            public_key: self.key,
            endpoint: session.endpoint,
            last_handshake,
            rx_bytes: rx_bytes as u64,
            tx_bytes: tx_bytes as u64,
        }
    }
}
