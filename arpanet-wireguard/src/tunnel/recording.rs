//! A tunnel that carries nothing and remembers everything.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arpanet_core::Result;

use super::engine::stopped;
use super::routes::Routes;
use super::{PeerConfig, PeerStatus, PublicKey, Tunnel};

/// What was asked of a [`RecordingTunnel`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// [`Tunnel::set_peer`].
    SetPeer(PeerConfig),
    /// [`Tunnel::remove_peer`].
    RemovePeer(PublicKey),
    /// [`Tunnel::nudge`].
    Nudge(PublicKey),
    /// [`Tunnel::stop`].
    Stop,
}

/// The fake that the overlay's tests run on: same rules for peers and addresses, no packets.
#[derive(Debug, Default)]
pub struct RecordingTunnel(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    peers: BTreeMap<PublicKey, PeerStatus>,
    routes: Routes<PublicKey>,
    stopped: bool,
}

impl RecordingTunnel {
    /// A tunnel without peers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every call so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// The peer that packets for this address would go to.
    #[must_use]
    pub fn peer_for(&self, addr: Ipv4Addr) -> Option<PublicKey> {
        self.state().routes.lookup(addr).copied()
    }

    /// Lets it look as if a handshake with a peer had ended this long ago, or as if there were no session.
    pub fn set_last_handshake(&self, public_key: &PublicKey, ago: Option<Duration>) {
        if let Some(peer) = self.state().peers.get_mut(public_key) {
            peer.last_handshake = ago;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, call: Call) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        if state.stopped {
            return Err(stopped());
        }
        state.calls.push(call);
        Ok(state)
    }
}

impl Tunnel for RecordingTunnel {
    fn set_peer(&self, peer: PeerConfig) -> Result<()> {
        let mut state = self.record(Call::SetPeer(peer.clone()))?;
        let key = peer.public_key;
        state.routes.remove(|owner| *owner == key);
        for net in peer.allowed_ips {
            state.routes.set(net, key);
        }
        let status = state
            .peers
            .entry(key)
            .or_insert_with(|| PeerStatus::new(key));
        status.endpoint = peer.endpoint.or(status.endpoint);
        Ok(())
    }

    fn remove_peer(&self, public_key: &PublicKey) -> Result<()> {
        let mut state = self.record(Call::RemovePeer(*public_key))?;
        state.routes.remove(|owner| owner == public_key);
        state.peers.remove(public_key);
        Ok(())
    }

    fn peers(&self) -> Vec<PeerStatus> {
        self.state().peers.values().cloned().collect()
    }

    fn nudge(&self, public_key: &PublicKey) -> Result<()> {
        self.record(Call::Nudge(*public_key)).map(drop)
    }

    fn stop(&self) -> Result<()> {
        let mut state = self.state();
        if !state.stopped {
            *state = State {
                calls: std::mem::take(&mut state.calls),
                stopped: true,
                ..State::default()
            };
            state.calls.push(Call::Stop);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_moves_with_the_last_word() {
        let (one, two) = (
            PublicKey::from_bytes([1; 32]),
            PublicKey::from_bytes([2; 32]),
        );
        let addr = Ipv4Addr::new(10, 1, 0, 9);
        let tunnel = RecordingTunnel::new();
        for key in [one, two] {
            tunnel
                .set_peer(PeerConfig::new(key, None, vec![addr.into()]))
                .unwrap();
        }
        assert_eq!(tunnel.peer_for(addr), Some(two));
        tunnel.remove_peer(&one).unwrap();
        assert_eq!(tunnel.peer_for(addr), Some(two));
        tunnel.remove_peer(&two).unwrap();
        assert_eq!(tunnel.peer_for(addr), None);
    }

    #[test]
    fn nothing_but_stop_works_after_stop() {
        let tunnel = RecordingTunnel::new();
        tunnel.stop().unwrap();
        tunnel.stop().unwrap();
        assert_eq!(tunnel.calls(), [Call::Stop]);
        let error = tunnel.nudge(&PublicKey::from_bytes([1; 32])).unwrap_err();
        assert_eq!(error.kind(), arpanet_core::ErrorKind::Unavailable);
    }
}
