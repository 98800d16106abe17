//! One peer's session, endpoint and queue.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use gotatun::noise::Tunn;
use gotatun::packet::{Packet, WgKind};
use gotatun::tun::MtuWatcher;

use super::engine::count;
use super::socket::Singly;
use super::{PeerStatus, PublicKey};

pub(super) struct Peer {
    pub(super) key: PublicKey,
    pub(super) singly: Singly,
    session: Mutex<Session>,
}

/// Packets that wait for a session: enough for connections to begin without a retry, little enough for a thousand
/// peers that are gone.
const WAITING: usize = 32;

pub(super) struct Session {
    pub(super) tunn: Tunn,
    pub(super) endpoint: Option<SocketAddr>,
    /// When this side last began a handshake.
    pub(super) began: Option<Instant>,
    waiting: usize,
}

impl Session {
    /// Keeps a packet until there is a session, or drops it where enough are kept. Begins a handshake if none is under
    /// way.
    pub(super) fn keep(&mut self, packet: &[u8], dropped: &AtomicU64) -> Option<WgKind> {
        if self.waiting < WAITING {
            self.waiting += 1;
            // As small as it is: the buffer it came in goes back.
            let packet = Packet::copy_from(packet);
            return self.tunn.handle_outgoing_packet(packet, None);
        }
        count(dropped);
        self.tunn.format_handshake_initiation(false).map(Into::into)
    }

    /// What was kept, sealed, or a handshake for it.
    pub(super) fn take_waiting(&mut self, mtu: u16) -> Vec<WgKind> {
        if self.waiting == 0 {
            return Vec::new();
        }
        self.waiting = 0;
        self.tunn
            .get_queued_packets(&mut MtuWatcher::new(mtu))
            .collect()
    }

    /// Retries, rekeying and keepalives that are due.
    pub(super) fn tick(&mut self) -> Option<WgKind> {
        match self.tunn.update_timers() {
            Ok(message) => message,
            // It has given up, and what was kept is gone. Not an error here: the next packet or nudge begins another.
            Err(_) => {
                self.waiting = 0;
                None
            }
        }
    }
}

impl Peer {
    pub(super) fn new(key: PublicKey, tunn: Tunn) -> Self {
        Self {
            key,
            singly: Singly::default(),
            session: Mutex::new(Session {
                tunn,
                endpoint: None,
                waiting: 0,
                began: None,
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
