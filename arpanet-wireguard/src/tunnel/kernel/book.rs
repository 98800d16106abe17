//! What the kernel's device was told of its peers, and so what it has to be told next: no input, no output, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use arpanet_netlink::{DeviceChange, PeerChange, WireGuardDevice, WireGuardPeer};
use ipnet::{IpNet, Ipv4Net};

use crate::tunnel::{PeerConfig, PublicKey};

/// How long a session can be used at most: WireGuard's `REJECT_AFTER_TIME`.
const SESSION: Duration = Duration::from_secs(180);
/// How often each peer is sent something in any case, in seconds: it keeps a NAT open while no agent runs, and has the
/// kernel begin the first handshake at once.
const KEEPALIVE: u16 = 25;
/// How long a session of which nothing comes is believed in.
const SUSPICION: Duration = Duration::from_secs(1);
/// How long a handshake has before it is begun again. The kernel knows one handshake a peer: when two cross, both are lost.
/// So the side with the higher key waits for longer.
const PATIENCE: Duration = Duration::from_millis(900);
const MORE_PATIENCE: Duration = Duration::from_millis(1_600);
/// How far in the future a handshake may have been, by a clock that is set all the time.
const SLACK: Duration = Duration::from_secs(1);

/// How long ago the session in use was agreed on. `None` without one.
pub(super) fn session_age(last_handshake: Option<SystemTime>, now: SystemTime) -> Option<Duration> {
    let age = now.duration_since(last_handshake?).unwrap_or_default();
    Some(age).filter(|age| *age < SESSION)
}

/// Whether a device that an earlier process left can go on as it is: it is that node's, and was made to the end. Not where the
/// clock went back since: WireGuard's timestamps come from it, and peers that saw a later one with this key would refuse in
/// silence.
pub(super) fn may_go_on(
    device: &WireGuardDevice,
    note: Option<&str>,
    owner: &str,
    now: SystemTime,
) -> bool {
    let latest = device
        .peers
        .iter()
        .filter_map(|peer| peer.last_handshake)
        .max();
    let clock_went_on = latest.is_none_or(|latest| latest <= now + SLACK);
    note == Some(owner) && device.private_key.is_some() && clock_went_on
}

/// The peers of the device, as they were told to the kernel.
#[derive(Debug)]
pub(super) struct Book {
    own: PublicKey,
    /// A key that nobody has. A peer by that name takes addresses away from others, and is removed in the same breath:
    /// where a peer's addresses are replaced instead, the kernel has none of them for a moment, and drops packets.
    nobody: PublicKey,
    peers: BTreeMap<PublicKey, Entry>,
    owners: BTreeMap<Ipv4Net, PublicKey>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Where it was last said to be.
    told: Option<SocketAddr>,
    /// Where the kernel had it, by an earlier process.
    found: Option<SocketAddr>,
    allowed: BTreeSet<Ipv4Net>,
    /// When a handshake was last begun by hand.
    began: Option<Instant>,
    /// Somebody doubted its session then, when so many bytes had been received.
    doubted: Option<(u64, Instant)>,
}

impl Book {
    pub(super) fn new(own: PublicKey, nobody: PublicKey) -> Self {
        Self {
            own,
            nobody,
            peers: BTreeMap::new(),
            owners: BTreeMap::new(),
        }
    }

    /// Takes over what the kernel has.
    pub(super) fn read(&mut self, device: &WireGuardDevice) {
        self.peers.clear();
        self.owners.clear();
        for peer in &device.peers {
            let key = PublicKey::from_bytes(peer.public_key);
            let allowed = peer.allowed_ips.iter().filter_map(|net| match net {
                IpNet::V4(net) => Some(*net),
                IpNet::V6(_) => None,
            });
            let entry = Entry {
                found: peer.endpoint,
                allowed: allowed.collect(),
                ..Entry::default()
            };
            self.owners
                .extend(entry.allowed.iter().map(|net| (*net, key)));
            self.peers.insert(key, entry);
        }
    }

    /// What to tell the kernel for a peer to be as wanted. `None` if it is so.
    pub(super) fn want(&mut self, peer: &PeerConfig, now: Instant) -> Option<DeviceChange> {
        let key = peer.public_key;
        let is_new = !self.peers.contains_key(&key);
        let entry = self.peers.entry(key).or_default();
        let wanted: BTreeSet<Ipv4Net> = peer.allowed_ips.iter().copied().collect();
        let gone: Vec<Ipv4Net> = entry.allowed.difference(&wanted).copied().collect();
        let added: Vec<Ipv4Net> = wanted.difference(&entry.allowed).copied().collect();
        let moves_to = peer.endpoint.filter(|endpoint| entry.moves_to(*endpoint));
        entry.told = peer.endpoint.or(entry.told);
        entry.allowed = wanted;
        if is_new {
            entry.began = Some(now);
        }
        for net in &gone {
            self.owners.remove(net);
        }
        for net in &added {
            if let Some(before) = self.owners.insert(*net, key)
                && let Some(before) = self.peers.get_mut(&before)
            {
                before.allowed.remove(net);
            }
        }
        let mut change = DeviceChange::new();
        if !gone.is_empty() {
            let nobody = PeerChange::new(*self.nobody.as_bytes());
            change = change
                .peer(nobody.clone().allow(nets(gone)))
                .peer(nobody.remove());
        } else if added.is_empty() && moves_to.is_none() && !is_new {
            return None;
        }
        let mut told = PeerChange::new(*key.as_bytes())
            .keepalive(KEEPALIVE)
            .allow(nets(added));
        if let Some(endpoint) = moves_to {
            told = told.endpoint(endpoint);
        }
        Some(change.peer(told))
    }

    /// What to tell the kernel for a peer to be gone. `None` if it is.
    pub(super) fn unwant(&mut self, key: &PublicKey) -> Option<DeviceChange> {
        let entry = self.peers.remove(key)?;
        for net in &entry.allowed {
            self.owners.remove(net);
        }
        Some(DeviceChange::new().peer(PeerChange::new(*key.as_bytes()).remove()))
    }

    /// What to tell the kernel for a handshake to begin now. The kernel itself begins one every 5 s at most; a peer that was
    /// just made it sends one at once, as it does accept one with any timestamp. `None` where there is a session of which
    /// something comes, and while a handshake has just begun.
    pub(super) fn nudge(
        &mut self,
        seen: &WireGuardPeer,
        has_session: bool,
        now: Instant,
    ) -> Option<DeviceChange> {
        let key = PublicKey::from_bytes(seen.public_key);
        let patience = if self.own < key {
            PATIENCE
        } else {
            MORE_PATIENCE
        };
        let entry = self.peers.get_mut(&key)?;
        let has_begun = |began| now.saturating_duration_since(began) < patience;
        if entry.began.is_some_and(has_begun) {
            return None;
        }
        if has_session {
            match entry.doubted {
                Some((received, since)) if received == seen.rx_bytes => {
                    if now.saturating_duration_since(since) < SUSPICION {
                        return None;
                    }
                }
                _ => {
                    entry.doubted = Some((seen.rx_bytes, now));
                    return None;
                }
            }
        }
        entry.doubted = None;
        entry.began = Some(now);
        let fresh = PeerChange::new(*key.as_bytes());
        let mut again = fresh
            .clone()
            .keepalive(KEEPALIVE)
            .allow(nets(entry.allowed.iter().copied()));
        if let Some(endpoint) = seen.endpoint.or(entry.told) {
            again = again.endpoint(endpoint);
        }
        Some(DeviceChange::new().peer(fresh.remove()).peer(again))
    }
}

impl Entry {
    /// Whether the kernel has to be told this endpoint. Not twice: the peer may have been heard from elsewhere since. And one
    /// that an earlier process found may stay at another port of the same host, where a NAT has put it.
    fn moves_to(&self, endpoint: SocketAddr) -> bool {
        match (self.told, self.found) {
            (Some(told), _) => told != endpoint,
            (None, Some(found)) => found.ip() != endpoint.ip(),
            (None, None) => true,
        }
    }
}

fn nets(nets: impl IntoIterator<Item = Ipv4Net>) -> impl Iterator<Item = IpNet> {
    nets.into_iter().map(IpNet::V4)
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
