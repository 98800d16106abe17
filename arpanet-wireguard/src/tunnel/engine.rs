//! What the threads of a tunnel share: peers, keys, the socket.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use arpanet_core::{Error, ErrorKind, Result};
use gotatun::noise::Tunn;
use gotatun::noise::index_table::IndexTable;
use gotatun::noise::rate_limiter::RateLimiter;
use gotatun::packet::{Packet, WgKind};
use gotatun::x25519;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::MsgFlags;

use super::peer::{Peer, Session};
use super::routes::Routes;
use super::socket::Socket;
use super::{PeerConfig, PeerStatus, PrivateKey, PublicKey};

/// Handshakes a second from one address before it has to show that the address is its own.
const HANDSHAKES_A_SECOND: u64 = 100;
/// How long an initiation has before another may be begun without need. The protocol remembers two: when both sides begin
/// twice at the same moment, each forgets what the other answers, and both wait 15 s with sessions of which the other
/// knows nothing.
const PATIENCE: Duration = Duration::from_millis(300);
/// How often retries, rekeying and keepalives are looked at.
const TICK: Duration = Duration::from_millis(250);

pub(super) fn stopped() -> Error {
    Error::new(ErrorKind::Unavailable, "the tunnel has been stopped").backend("wireguard")
}

/// What was dropped, and why.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) no_peer: AtomicU64,
    pub(super) no_session: AtomicU64,
    pub(super) not_sent: AtomicU64,
    pub(super) spoofed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) side_full: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[derive(Default)]
pub(super) struct Table {
    by_key: BTreeMap<PublicKey, Arc<Peer>>,
    pub(super) routes: Routes<Arc<Peer>>,
}

pub(super) struct Engine {
    pub(super) socket: Socket,
    pub(super) counters: Counters,
    pub(super) limiter: Arc<RateLimiter>,
    pub(super) mtu: u16,
    secret: x25519::StaticSecret,
    public: x25519::PublicKey,
    table: RwLock<Table>,
    /// Which peer a session or handshake index of ours was given to.
    indices: RwLock<HashMap<u32, Arc<Peer>>>,
    index_table: IndexTable,
    stopping: AtomicBool,
    /// Readable for ever once the tunnel stops.
    wake: EventFd,
}

impl Engine {
    pub(super) fn new(key: &PrivateKey, socket: Socket, mtu: u16) -> Result<Self> {
        let public = x25519::PublicKey::from(key.secret());
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            socket,
            counters: Counters::default(),
            limiter: Arc::new(RateLimiter::new(&public, HANDSHAKES_A_SECOND)),
            mtu,
            secret: key.secret().clone(),
            public,
            table: RwLock::default(),
            indices: RwLock::default(),
            index_table: IndexTable::from_os_rng(),
            stopping: AtomicBool::new(false),
            wake: EventFd::from_flags(flags).map_err(|error| {
                Error::new(ErrorKind::Exhausted, "no event descriptor can be made")
                    .with_source(error)
            })?,
        })
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // It can only fail on a counter that is full, which is readable too.
        let _ = self.wake.write(1);
    }

    /// Waits until a descriptor can be read, the tunnel stops, or the time is over.
    pub(super) fn wait(&self, fd: Option<BorrowedFd<'_>>, limit: Option<Duration>) {
        let wake = PollFd::new(self.wake.as_fd(), PollFlags::POLLIN);
        let limit = limit.map_or(PollTimeout::NONE, |limit| {
            PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)
        });
        let result = match fd {
            Some(fd) => poll(&mut [wake, PollFd::new(fd, PollFlags::POLLIN)], limit),
            None => poll(&mut [wake], limit),
        };
        if let Err(error) = result
            && error != Errno::EINTR
        {
            tracing::error!(%error, "the tunnel can't wait for packets");
        }
    }

    pub(super) fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn peer(&self, key: &PublicKey) -> Option<Arc<Peer>> {
        self.table().by_key.get(key).cloned()
    }

    pub(super) fn peer_by_index(&self, index: u32) -> Option<Arc<Peer>> {
        let indices = self.indices.read().unwrap_or_else(PoisonError::into_inner);
        indices.get(&index).cloned()
    }

    /// The peer that began a handshake.
    pub(super) fn initiator(&self, init: &gotatun::packet::WgHandshakeInit) -> Option<Arc<Peer>> {
        let half =
            gotatun::noise::handshake::parse_handshake_anon(&self.secret, &self.public, init);
        self.peer(&PublicKey::from_bytes(half.ok()?.peer_static_public))
    }

    pub(super) fn set_peer(&self, wanted: PeerConfig) {
        let peer = {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            let key = wanted.public_key;
            let peer = Arc::clone(table.by_key.entry(key).or_insert_with(|| {
                Arc::new(Peer::new(
                    key,
                    Tunn::new(
                        self.secret.clone(),
                        x25519::PublicKey::from(*key.as_bytes()),
                        None,
                        None,
                        self.index_table.clone(),
                        Arc::clone(&self.limiter),
                    ),
                ))
            }));
            table.routes.remove(|owner| owner.key == key);
            for net in wanted.allowed_ips {
                table.routes.set(net, Arc::clone(&peer));
            }
            peer
        };
        let mut session = peer.lock();
        if wanted.endpoint.is_some() && wanted.endpoint != session.endpoint {
            session.endpoint = wanted.endpoint;
            // Packets may be waiting for a handshake that went nowhere.
            if session.tunn.time_since_last_handshake().is_none() {
                self.handshake(&peer, &mut session);
            }
        }
    }

    pub(super) fn remove_peer(&self, key: &PublicKey) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.by_key.remove(key);
        table.routes.remove(|owner| owner.key == *key);
        drop(table);
        let mut indices = self.indices.write().unwrap_or_else(PoisonError::into_inner);
        indices.retain(|_, peer| peer.key != *key);
    }

    pub(super) fn peers(&self) -> Vec<PeerStatus> {
        let table = self.table();
        table.by_key.values().map(|peer| peer.status()).collect()
    }

    /// Begins a handshake, unless one has just begun.
    pub(super) fn handshake(&self, peer: &Arc<Peer>, session: &mut Session) {
        if session
            .began
            .is_some_and(|began| began.elapsed() < PATIENCE)
        {
            return;
        }
        if let Some(init) = session.tunn.format_handshake_initiation(true) {
            self.emit(peer, session, init.into());
        }
    }

    /// Sends what the protocol wants sent, and remembers whose index it carries.
    pub(super) fn emit(&self, peer: &Arc<Peer>, session: &mut Session, message: WgKind) {
        let index = match &message {
            WgKind::HandshakeInit(init) => {
                session.began = Some(Instant::now());
                Some(init.sender_idx.get())
            }
            WgKind::HandshakeResp(response) => Some(response.sender_idx.get()),
            WgKind::CookieReply(_) | WgKind::Data(_) => None,
        };
        if let Some(index) = index {
            let mut indices = self.indices.write().unwrap_or_else(PoisonError::into_inner);
            indices.retain(|index, _| self.index_table.in_use(*index));
            indices.insert(index, Arc::clone(peer));
        }
        match session.endpoint {
            Some(to) => self.send(message, to),
            None => count(&self.counters.not_sent),
        }
    }

    pub(super) fn send(&self, message: WgKind, to: SocketAddr) {
        let packet = Packet::from(message);
        if self.socket.send(&packet, to, MsgFlags::empty()).is_err() {
            count(&self.counters.not_sent);
        }
    }

    /// Sends what waited for the session.
    pub(super) fn send_waiting(&self, peer: &Arc<Peer>, session: &mut Session) {
        for message in session.take_waiting(self.mtu) {
            self.emit(peer, session, message);
        }
    }

    /// The thread for retries, rekeying and keepalives.
    pub(super) fn run_timers(&self) {
        while !self.is_stopped() {
            let peers: Vec<_> = self.table().by_key.values().cloned().collect();
            for peer in peers {
                let mut session = peer.lock();
                if let Some(message) = session.tick() {
                    self.emit(&peer, &mut session, message);
                }
            }
            self.wait(None, Some(TICK));
        }
    }
}
