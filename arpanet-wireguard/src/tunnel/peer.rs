//! One peer: its sessions, its endpoint, what waits for it, and when something is due.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::protocol::{
    Initiation, KEEPALIVE_TIMEOUT, Keypair, REKEY_ATTEMPT_TIME, REKEY_TIMEOUT, Seal, Timestamp,
};
use super::socket::Singly;
use super::{PeerStatus, PublicKey};

/// Packets that wait for a session: enough for connections to begin without a retry, little enough for a thousand
/// peers that are gone.
const WAITING: usize = 32;
/// How long an initiation has before another may be begun without need.
const PATIENCE: Duration = Duration::from_millis(300);
/// Initiations of this side that may still be answered: both sides may have begun twice before they heard of the other.
const INITIATIONS: usize = 2;
/// Sessions that packets may still come by: what was agreed on last may not be known to the other side yet.
const KEYPAIRS: usize = 4;

pub(super) struct Peer {
    pub(super) key: PublicKey,
    pub(super) singly: Singly,
    pub(super) traffic: Traffic,
    way: RwLock<Way>,
    state: Mutex<State>,
}

/// All that it takes to send. Changed only while [`State`] is locked.
#[derive(Debug, Clone, Default)]
pub(super) struct Way {
    pub(super) keypair: Option<Arc<Keypair>>,
    pub(super) endpoint: Option<SocketAddr>,
}

impl Way {
    /// The session to send with.
    pub(super) fn usable(&self, now: Instant) -> Option<&Arc<Keypair>> {
        self.keypair
            .as_ref()
            .filter(|keypair| keypair.is_usable(now))
    }
}

impl Peer {
    pub(super) fn new(key: PublicKey, now: Instant) -> Self {
        Self {
            key,
            singly: Singly::default(),
            traffic: Traffic::new(now),
            way: RwLock::default(),
            state: Mutex::new(State {
                seal: Seal::new(&key),
                initiations: VecDeque::new(),
                attempt: None,
                called: None,
                heard: None,
                keypairs: VecDeque::new(),
                waiting: VecDeque::new(),
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn way(&self) -> Way {
        let way = self.way.read().unwrap_or_else(PoisonError::into_inner);
        way.clone()
    }

    /// Changes how it is reached. The state that was locked for it shows that nobody else does.
    pub(super) fn change_way(&self, _: &mut State, change: impl FnOnce(&mut Way)) {
        change(&mut self.way.write().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn status(&self, now: Instant) -> PeerStatus {
        let way = self.way();
        PeerStatus {
            public_key: self.key,
            endpoint: way.endpoint,
            last_handshake: way
                .keypair
                .map(|keypair| now.saturating_duration_since(keypair.since)),
            rx_bytes: self.traffic.received.load(Ordering::Relaxed),
            tx_bytes: self.traffic.sent.load(Ordering::Relaxed),
        }
    }
}

/// What has passed, and since when an answer is due from either side. Written by the threads that carry packets, without
/// a lock.
#[derive(Debug)]
pub(super) struct Traffic {
    start: Instant,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    /// When data was sent after which nothing has come, in milliseconds after `start` and one more; 0 if something has.
    unheard: AtomicU64,
    /// When data came after which nothing was sent; the same.
    unanswered: AtomicU64,
}

impl Traffic {
    const fn new(start: Instant) -> Self {
        Self {
            start,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            unheard: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
        }
    }

    fn mark(&self, now: Instant) -> u64 {
        let millis = now.saturating_duration_since(self.start).as_millis();
        u64::try_from(millis).map_or(u64::MAX, |millis| millis.saturating_add(1))
    }

    /// Counts what was sent by a session: data, or nothing but a sign of life.
    pub(super) fn sent(&self, bytes: u64, data: bool, now: Instant) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        clear(&self.unanswered);
        if data && self.unheard.load(Ordering::Relaxed) == 0 {
            self.unheard.store(self.mark(now), Ordering::Relaxed);
        }
    }

    /// Counts what came by a session.
    pub(super) fn received(&self, bytes: u64, data: bool, now: Instant) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
        clear(&self.unheard);
        if data && self.unanswered.load(Ordering::Relaxed) == 0 {
            self.unanswered.store(self.mark(now), Ordering::Relaxed);
        }
    }

    fn is_over(&self, since: &AtomicU64, limit: Duration, now: Instant) -> bool {
        let since = since.load(Ordering::Relaxed);
        since != 0 && Duration::from_millis(self.mark(now).saturating_sub(since)) >= limit
    }

    /// Whether the other side waits for a sign of life.
    pub(super) fn owes_an_answer(&self, now: Instant) -> bool {
        self.is_over(&self.unanswered, KEEPALIVE_TIMEOUT, now)
    }

    /// Whether nothing has come for so long that the session is to be doubted. True once.
    pub(super) fn is_unheard(&self, now: Instant) -> bool {
        let over = self.is_over(&self.unheard, KEEPALIVE_TIMEOUT + REKEY_TIMEOUT, now);
        if over {
            clear(&self.unheard);
        }
        over
    }
}

/// Without writing to what other threads read where there is nothing to clear.
fn clear(mark: &AtomicU64) {
    if mark.load(Ordering::Relaxed) != 0 {
        mark.store(0, Ordering::Relaxed);
    }
}

/// Initiations that are repeated until one is answered.
#[derive(Debug)]
struct Attempt {
    since: Instant,
    next: Instant,
}

/// What is due of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Retry,
    /// It has given up, and what waited is gone. The next packet or nudge begins another.
    GivenUp,
}

/// What changes with handshakes only.
pub(super) struct State {
    pub(super) seal: Seal,
    /// The latest last.
    initiations: VecDeque<Initiation>,
    attempt: Option<Attempt>,
    /// When this side's last initiation was sent.
    called: Option<Instant>,
    /// The last initiation of the peer.
    heard: Option<Timestamp>,
    /// The latest last.
    keypairs: VecDeque<Arc<Keypair>>,
    waiting: VecDeque<Box<[u8]>>,
}

/// Numbers that lead nowhere any more.
type Gone = Vec<u32>;

impl State {
    /// Whether one is under way, which will be repeated.
    pub(super) const fn is_calling(&self) -> bool {
        self.attempt.is_some()
    }

    /// Whether an initiation is so young that another would only cross it.
    pub(super) fn has_just_called(&self, now: Instant) -> bool {
        self.called
            .is_some_and(|at| now.saturating_duration_since(at) < PATIENCE)
    }

    /// Remembers an initiation that is sent now. `jitter` is added to the time after which it is repeated; an attempt
    /// that goes on ends when it would have.
    pub(super) fn call(
        &mut self,
        initiation: Initiation,
        jitter: Duration,
        goes_on: bool,
        now: Instant,
    ) -> Gone {
        self.called = Some(now);
        let since = self.attempt.as_ref().filter(|_| goes_on);
        self.attempt = Some(Attempt {
            since: since.map_or(now, |attempt| attempt.since),
            next: now + REKEY_TIMEOUT + jitter,
        });
        self.initiations.push_back(initiation);
        let over = self.initiations.len().saturating_sub(INITIATIONS);
        self.initiations
            .drain(..over)
            .map(|old| old.index())
            .collect()
    }

    /// Whether an initiation of the peer is no replay.
    pub(super) fn is_new(&self, timestamp: Timestamp) -> bool {
        self.heard.is_none_or(|before| timestamp > before)
    }

    /// Remembers an initiation of the peer.
    pub(super) const fn hear(&mut self, timestamp: Timestamp) {
        self.heard = Some(timestamp);
    }

    /// This side's initiation with that index, if it may still be answered.
    pub(super) fn initiation(&mut self, index: u32) -> Option<&mut Initiation> {
        self.initiations
            .iter_mut()
            .find(|initiation| initiation.index() == index)
    }

    /// The initiation was answered: those before it will not be, one after it may.
    pub(super) fn answered(&mut self, index: u32) -> Gone {
        self.attempt = None;
        let at = self.initiations.iter().position(|one| one.index() == index);
        let mut gone: Gone = self
            .initiations
            .drain(..at.map_or(0, |at| at + 1))
            .map(|old| old.index())
            .collect();
        // This one leads to the session now.
        gone.retain(|old| *old != index);
        gone
    }

    /// Keeps a session that was agreed on; the one that is sent with stays, however many are agreed on in vain.
    pub(super) fn agree(&mut self, keypair: Arc<Keypair>, current: Option<&Arc<Keypair>>) -> Gone {
        let is_current =
            |old: &Arc<Keypair>| current.is_some_and(|current| Arc::ptr_eq(current, old));
        self.keypairs.push_back(keypair);
        let mut gone = Gone::new();
        while self.keypairs.len() > KEYPAIRS {
            let Some(at) = self.keypairs.iter().position(|old| !is_current(old)) else {
                break;
            };
            gone.extend(self.keypairs.remove(at).map(|old| old.index));
        }
        gone
    }

    /// Keeps a packet until there is a session. `false` if enough are kept.
    pub(super) fn keep(&mut self, packet: &[u8]) -> bool {
        let room = self.waiting.len() < WAITING;
        if room {
            self.waiting.push_back(packet.into());
        }
        room
    }

    pub(super) fn take_waiting(&mut self) -> VecDeque<Box<[u8]>> {
        std::mem::take(&mut self.waiting)
    }

    /// What is due now.
    pub(super) fn due(&mut self, now: Instant) -> (Due, Gone) {
        match &self.attempt {
            Some(attempt) if now >= attempt.next => {
                if now.saturating_duration_since(attempt.since) < REKEY_ATTEMPT_TIME {
                    return (Due::Retry, Gone::new());
                }
                self.attempt = None;
                self.waiting.clear();
                let gone = self.initiations.drain(..).map(|old| old.index());
                (Due::GivenUp, gone.collect())
            }
            _ => (Due::Nothing, Gone::new()),
        }
    }

    /// Forgets sessions that are too old to be used.
    pub(super) fn expire(&mut self, now: Instant) -> Gone {
        let mut gone = Gone::new();
        self.keypairs.retain(|keypair| {
            let usable = keypair.is_usable(now);
            if !usable {
                gone.push(keypair.index);
            }
            usable
        });
        gone
    }
}

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
