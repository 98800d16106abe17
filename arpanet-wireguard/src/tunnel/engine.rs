//! What the threads of a tunnel share: peers, keys, the socket.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant, SystemTime};

use arpanet_core::{Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::MsgFlags;

use super::index::Indices;
use super::peer::{Due, Peer, State};
use super::protocol::{
    Call, DATA_HEADER, DATA_OVERHEAD, Guard, Initiation, Keypair, Times, Timestamp, Verdict,
};
use super::routes::Routes;
use super::socket::Socket;
use super::{PeerConfig, PeerStatus, PrivateKey, PublicKey};

/// How often retries, rekeying and keepalives are looked at.
const TICK: Duration = Duration::from_millis(250);
/// What is added to the time between two initiations at most, in milliseconds.
const JITTER: u64 = 333;

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
    /// All on one port. One a queue of the device; the first is the one for everything else.
    pub(super) sockets: Vec<Socket>,
    pub(super) counters: Counters,
    pub(super) mtu: u16,
    pub(super) indices: Indices,
    key: PrivateKey,
    guard: Mutex<Guard>,
    times: Mutex<Times>,
    table: RwLock<Table>,
    stopping: AtomicBool,
    /// Readable for ever once the tunnel stops.
    wake: EventFd,
}

impl Engine {
    pub(super) fn new(key: &PrivateKey, sockets: Vec<Socket>, mtu: u16) -> Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            sockets,
            counters: Counters::default(),
            mtu,
            indices: Indices::default(),
            guard: Mutex::new(Guard::new(&key.public_key())),
            key: key.clone(),
            times: Mutex::default(),
            table: RwLock::default(),
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

    pub(super) fn set_peer(&self, wanted: PeerConfig) {
        let now = Instant::now();
        let peer = {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            let key = wanted.public_key;
            let new = || Arc::new(Peer::new(key, now));
            let peer = Arc::clone(table.by_key.entry(key).or_insert_with(new));
            table.routes.remove(|owner| owner.key == key);
            for net in wanted.allowed_ips {
                table.routes.set(net, Arc::clone(&peer));
            }
            peer
        };
        let mut state = peer.lock();
        let way = peer.way();
        if wanted.endpoint.is_some() && wanted.endpoint != way.endpoint {
            peer.change_way(&mut state, |way| way.endpoint = wanted.endpoint);
            // Packets may be waiting for a handshake that went nowhere.
            if way.usable(now).is_none() {
                self.handshake(&peer, &mut state, now);
            }
        }
    }

    pub(super) fn remove_peer(&self, key: &PublicKey) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let gone = table.by_key.remove(key);
        table.routes.remove(|owner| owner.key == *key);
        drop(table);
        if let Some(peer) = gone {
            self.indices.free_all_of(&peer);
        }
    }

    pub(super) fn peers(&self) -> Vec<PeerStatus> {
        let (table, now) = (self.table(), Instant::now());
        table.by_key.values().map(|peer| peer.status(now)).collect()
    }

    /// Begins a handshake, unless one has just begun.
    pub(super) fn handshake(&self, peer: &Arc<Peer>, state: &mut State, now: Instant) {
        if !state.has_just_called(now) {
            self.initiate(peer, state, false, now);
        }
    }

    /// Sees to it that there will be another session.
    fn renew(&self, peer: &Arc<Peer>, state: &mut State, now: Instant) {
        if !state.is_calling() {
            self.initiate(peer, state, false, now);
        }
    }

    fn initiate(&self, peer: &Arc<Peer>, state: &mut State, goes_on: bool, now: Instant) {
        let index = self.indices.allocate(peer);
        let timestamp = self.timestamp();
        match Initiation::begin(&self.key, &peer.key, index, timestamp) {
            Ok((initiation, mut message)) => {
                state.seal.put(&mut message, now);
                let jitter = Duration::from_millis(rand::random_range(0..=JITTER));
                let gone = state.call(initiation, jitter, goes_on, now);
                self.indices.free(&gone);
                self.send_to(peer, &message);
            }
            Err(error) => {
                tracing::error!(%error, "no handshake can be begun");
                self.indices.free(&[index]);
            }
        }
    }

    fn timestamp(&self) -> Timestamp {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.next(SystemTime::now())
    }

    /// Keeps packets until there is a session, and begins a handshake if none is under way.
    pub(super) fn keep<'a>(
        &self,
        peer: &Arc<Peer>,
        packets: impl Iterator<Item = &'a [u8]>,
        now: Instant,
    ) {
        let mut state = peer.lock();
        for packet in packets {
            if !state.keep(packet) {
                count(&self.counters.no_session);
            }
        }
        // It may have come since the session was asked for.
        if peer.way().usable(now).is_some() {
            self.send_waiting(peer, &mut state, now);
        } else {
            self.renew(peer, &mut state, now);
        }
    }

    /// After packets were sent: the session may have to be renewed.
    pub(super) fn sent(&self, peer: &Arc<Peer>, keypair: &Keypair, now: Instant) {
        if keypair.wants_another(now) {
            self.renew(peer, &mut peer.lock(), now);
        }
    }

    /// After packets came by a session, genuine ones: where from, and that the other side has the session too.
    pub(super) fn heard(
        &self,
        peer: &Arc<Peer>,
        keypair: &Arc<Keypair>,
        from: SocketAddr,
        now: Instant,
    ) {
        let is_better = |current: Option<&Arc<Keypair>>| {
            current.is_none_or(|current| current.since < keypair.since)
        };
        let way = peer.way();
        let better = is_better(way.keypair.as_ref());
        let late = keypair.is_late(now)
            && way
                .keypair
                .is_some_and(|current| Arc::ptr_eq(&current, keypair));
        if !better && way.endpoint == Some(from) && !late {
            return;
        }
        let mut state = peer.lock();
        peer.change_way(&mut state, |way| {
            way.endpoint = Some(from);
            if is_better(way.keypair.as_ref()) {
                way.keypair = Some(Arc::clone(keypair));
            }
        });
        if better {
            self.send_waiting(peer, &mut state, now);
        }
        if late {
            self.renew(peer, &mut state, now);
        }
    }

    /// Answers an initiation.
    pub(super) fn answer(&self, message: &[u8], from: SocketAddr, now: Instant) -> Option<()> {
        let call = Call::read(&self.key, message).ok()?;
        let peer = self.peer(&call.from)?;
        let mut state = peer.lock();
        let timestamp = call.timestamp;
        if !state.is_new(timestamp) {
            return None;
        }
        let index = self.indices.allocate(&peer);
        let answered = call.answer(index).ok();
        let agreed = answered.and_then(|(response, keys)| {
            Some((response, Arc::new(Keypair::new(&keys, false, now)?)))
        });
        let Some((mut response, keypair)) = agreed else {
            self.indices.free(&[index]);
            return None;
        };
        state.hear(timestamp);
        self.agree(&peer, &mut state, &keypair);
        peer.change_way(&mut state, |way| way.endpoint = Some(from));
        state.seal.put(&mut response, now);
        self.send_to(&peer, &response);
        Some(())
    }

    /// Takes the answer to an initiation of this side.
    pub(super) fn answered(
        &self,
        index: u32,
        message: &[u8],
        from: SocketAddr,
        now: Instant,
    ) -> Option<()> {
        let peer = self.indices.get(index)?.peer;
        let mut state = peer.lock();
        let keys = state.initiation(index)?.finish(message).ok()?;
        let keypair = Arc::new(Keypair::new(&keys, true, now)?);
        self.indices.free(&state.answered(index));
        self.agree(&peer, &mut state, &keypair);
        peer.change_way(&mut state, |way| {
            way.endpoint = Some(from);
            way.keypair = Some(keypair);
        });
        // The other side sends nothing before something has come.
        if !self.send_waiting(&peer, &mut state, now) {
            self.send_data(&peer, &[], now);
        }
        Some(())
    }

    /// Takes a cookie for the next initiation or response.
    pub(super) fn cookie(&self, index: u32, message: &[u8], now: Instant) -> Option<()> {
        let peer = self.indices.get(index)?.peer;
        peer.lock().seal.take(message, now).then_some(())
    }

    fn agree(&self, peer: &Arc<Peer>, state: &mut State, keypair: &Arc<Keypair>) {
        self.indices.set(peer, keypair);
        let way = peer.way();
        self.indices
            .free(&state.agree(Arc::clone(keypair), way.keypair.as_ref()));
    }

    /// Whether an initiation or a response is worth the work.
    pub(super) fn judge(&self, message: &[u8], from: SocketAddr, now: Instant) -> Verdict {
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        guard.judge(message, from, now)
    }

    pub(super) fn send(&self, message: &[u8], to: SocketAddr) {
        if self.send_flagged(message, to, MsgFlags::empty()).is_err() {
            count(&self.counters.not_sent);
        }
    }

    pub(super) fn send_flagged(
        &self,
        message: &[u8],
        to: SocketAddr,
        flags: MsgFlags,
    ) -> io::Result<()> {
        match self.sockets.first() {
            Some(socket) => socket.send(message, to, flags),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn send_to(&self, peer: &Peer, message: &[u8]) {
        match peer.way().endpoint {
            Some(to) => self.send(message, to),
            None => count(&self.counters.not_sent),
        }
    }

    /// Sends what waited for the session. `false` if nothing did.
    fn send_waiting(&self, peer: &Arc<Peer>, state: &mut State, now: Instant) -> bool {
        let waiting = state.take_waiting();
        for packet in &waiting {
            self.send_data(peer, packet, now);
        }
        !waiting.is_empty()
    }

    /// One packet on its own; an empty one is a sign of life.
    fn send_data(&self, peer: &Peer, packet: &[u8], now: Instant) {
        let way = peer.way();
        let Some((keypair, counters)) = way
            .usable(now)
            .and_then(|keypair| Some((keypair, keypair.reserve(1)?)))
        else {
            count(&self.counters.no_session);
            return;
        };
        let padded = self.padded(packet.len());
        let mut message = vec![0; DATA_OVERHEAD + padded];
        message[DATA_HEADER..][..packet.len()].copy_from_slice(packet);
        match keypair.seal(counters.start, &mut message) {
            Ok(()) => {
                peer.traffic
                    .sent(message.len() as u64, !packet.is_empty(), now);
                self.send_to(peer, &message);
            }
            Err(_) => count(&self.counters.not_sent),
        }
    }

    /// How long a packet is made, as the protocol asks, to hide its exact length: but not beyond the MTU.
    pub(super) fn padded(&self, length: usize) -> usize {
        length.next_multiple_of(16).min(self.mtu.into()).max(length)
    }

    /// The thread for retries, rekeying and keepalives.
    pub(super) fn run_timers(&self) {
        while !self.is_stopped() {
            let peers: Vec<_> = self.table().by_key.values().cloned().collect();
            let now = Instant::now();
            for peer in peers {
                self.tick(&peer, now);
            }
            self.wait(None, Some(TICK));
        }
    }

    fn tick(&self, peer: &Arc<Peer>, now: Instant) {
        let mut state = peer.lock();
        let (due, gone) = state.due(now);
        self.indices.free(&gone);
        if due == Due::Retry {
            self.initiate(peer, &mut state, true, now);
        }
        if peer.traffic.is_unheard(now) {
            self.renew(peer, &mut state, now);
        }
        let gone = state.expire(now);
        self.indices.free(&gone);
        let way = peer.way();
        if way.usable(now).is_none() {
            if way.keypair.is_some() {
                peer.change_way(&mut state, |way| way.keypair = None);
            }
        } else if peer.traffic.owes_an_answer(now) {
            self.send_data(peer, &[], now);
        }
    }
}
