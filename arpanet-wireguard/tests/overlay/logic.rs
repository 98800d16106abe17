//! What the overlay asks of its tunnel: the same of one that carries packets and of one that only remembers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use arpanet_core::overlay::{Announcement, PeerSpec, PeerState};
use arpanet_core::{Error, ErrorKind, NodeAddr, Overlay, Result};
use arpanet_wireguard::tunnel::{Call, PeerConfig, PeerStatus, PublicKey, RecordingTunnel, Tunnel};
use arpanet_wireguard::{Launched, RecordingTunnels, TunnelFactory, TunnelSpec};
use async_trait::async_trait;

use crate::site::{Host, Site, ip, tunnels};

/// Notes what is asked of the tunnels that it makes.
#[derive(Debug)]
struct Spy {
    tunnels: Arc<dyn TunnelFactory>,
    notes: Mutex<Vec<Arc<RecordingTunnel>>>,
}

impl Spy {
    fn on(tunnels: Arc<dyn TunnelFactory>) -> Arc<Self> {
        Arc::new(Self {
            tunnels,
            notes: Mutex::default(),
        })
    }

    fn notes(&self) -> Vec<Arc<RecordingTunnel>> {
        self.notes.lock().unwrap().clone()
    }

    /// What the present tunnel was asked.
    fn calls(&self) -> Vec<Call> {
        self.notes().last().unwrap().calls()
    }
}

#[async_trait]
impl TunnelFactory for Spy {
    async fn launch(&self, spec: TunnelSpec) -> Result<Launched> {
        let mut launched = self.tunnels.launch(spec).await?;
        let notes = Arc::new(RecordingTunnel::new());
        self.notes.lock().unwrap().push(Arc::clone(&notes));
        let real = launched.tunnel;
        launched.tunnel = Arc::new(Spied { real, notes });
        Ok(launched)
    }
}

#[derive(Debug)]
struct Spied {
    real: Arc<dyn Tunnel>,
    notes: Arc<RecordingTunnel>,
}

impl Tunnel for Spied {
    fn set_peer(&self, peer: PeerConfig) -> Result<()> {
        self.notes.set_peer(peer.clone())?;
        self.real.set_peer(peer)
    }

    fn remove_peer(&self, public_key: &PublicKey) -> Result<()> {
        self.notes.remove_peer(public_key)?;
        self.real.remove_peer(public_key)
    }

    fn peers(&self) -> Vec<PeerStatus> {
        self.real.peers()
    }

    fn nudge(&self, public_key: &PublicKey) -> Result<()> {
        self.notes.nudge(public_key)?;
        self.real.nudge(public_key)
    }

    fn stop(&self) -> Result<()> {
        self.notes.stop()?;
        self.real.stop()
    }
}

/// Runs a test on a launched host over each kind of tunnel.
async fn on_each(test: impl AsyncFn(&mut Host, &Spy)) {
    for tunnels in [tunnels(), Arc::new(RecordingTunnels::new())] {
        let spy = Spy::on(tunnels);
        let Some(mut site) = Site::new(1).await else {
            return;
        };
        let host = &mut site.hosts[0];
        host.run_over(Arc::clone(&spy) as Arc<dyn TunnelFactory>);
        host.launch().await;
        test(host, &spy).await;
        host.leave_nothing_behind().await;
    }
}

fn key(byte: u8) -> PublicKey {
    PublicKey::from_bytes([byte; 32])
}

fn node(last: u8) -> NodeAddr {
    NodeAddr::new(0, last).unwrap()
}

fn endpoint(last: u8) -> Option<SocketAddr> {
    Some(SocketAddr::from(([192, 168, 9, last], 51820)))
}

/// Node 0.2, with this key.
fn two(byte: u8) -> PeerSpec {
    let announcement = Announcement(key(byte).as_bytes().to_vec().into());
    PeerSpec::new(node(2), endpoint(2), announcement)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_may_use_its_planes_its_plugins_and_what_it_holds() {
    on_each(async |host, spy| {
        let holds = vec![
            "10.1.0.9/16".parse().unwrap(),
            "10.3.0.1/8".parse().unwrap(),
        ];
        host.overlay.connect(two(1).holding(holds)).await.unwrap();
        let calls = spy.calls();
        let [Call::SetPeer(peer), Call::Nudge(nudged)] = &calls[..] else {
            panic!("{calls:?}");
        };
        assert_eq!((peer.public_key, *nudged), (key(1), key(1)));
        assert_eq!(peer.endpoint, endpoint(2));
        let mut wanted: Vec<Ipv4Addr> = (241..=255)
            .map(|octet| Ipv4Addr::new(10, octet, 0, 2))
            .collect();
        wanted.extend([ip("10.1.0.9"), ip("10.3.0.1")]);
        wanted.sort();
        let mut allowed: Vec<Ipv4Addr> = peer.allowed_ips.iter().map(|net| net.addr()).collect();
        assert!(peer.allowed_ips.iter().all(|net| net.prefix_len() == 32));
        allowed.sort();
        assert_eq!(allowed, wanted);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_another_key_takes_the_place_of_the_old_one() {
    on_each(async |host, spy| {
        host.overlay.connect(two(1)).await.unwrap();
        host.overlay.connect(two(2)).await.unwrap();
        let calls = spy.calls();
        assert!(
            matches!(
                &calls[2..],
                [Call::RemovePeer(old), Call::SetPeer(new), Call::Nudge(nudged)]
                    if *old == key(1) && new.public_key == key(2) && *nudged == key(2)
            ),
            "{calls:?}"
        );
        let peers = host.overlay.peers().await.unwrap();
        assert_eq!(peers.len(), 1);
        assert_eq!(
            (peers[0].node, peers[0].state),
            (node(2), PeerState::Connecting)
        );
        assert_eq!(peers[0].endpoint, endpoint(2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_again_is_no_reason_for_a_handshake_and_a_new_endpoint_is() {
    on_each(async |host, spy| {
        host.overlay.connect(two(1)).await.unwrap();
        host.overlay.connect(two(1)).await.unwrap();
        assert_eq!(spy.calls().len(), 3, "{:?}", spy.calls());
        assert!(matches!(spy.calls()[2], Call::SetPeer(_)));
        let mut moved = two(1);
        moved.endpoint = endpoint(3);
        host.overlay.connect(moved).await.unwrap();
        assert_eq!(spy.calls()[4..], [Call::Nudge(key(1))]);
        assert_eq!(host.overlay.peers().await.unwrap()[0].endpoint, endpoint(3));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_goes_to_the_peer_that_was_last_said_to_hold_it() {
    on_each(async |host, spy| {
        let addr = "10.1.0.9/16".parse().unwrap();
        let three = PeerSpec::new(
            node(3),
            endpoint(3),
            Announcement(key(3).as_bytes().to_vec().into()),
        );
        host.overlay
            .connect(two(1).holding(vec![addr]))
            .await
            .unwrap();
        host.overlay
            .connect(three.clone().holding(vec![addr]))
            .await
            .unwrap();
        let notes = spy.notes();
        assert_eq!(notes[0].peer_for(addr.ip()), Some(key(3)));
        // Late news of the old holder take nothing from the new one.
        host.overlay.connect(two(1)).await.unwrap();
        assert_eq!(notes[0].peer_for(addr.ip()), Some(key(3)));
        host.overlay.connect(three).await.unwrap();
        assert_eq!(notes[0].peer_for(addr.ip()), None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_peer_is_removed_once_and_a_stranger_is_not_nudged() {
    on_each(async |host, spy| {
        host.overlay.connect(two(1)).await.unwrap();
        host.overlay.nudge(node(2)).await.unwrap();
        host.overlay.nudge(node(3)).await.unwrap();
        for _ in 0..2 {
            host.overlay.forget(node(2)).await.unwrap();
        }
        host.overlay.nudge(node(2)).await.unwrap();
        assert_eq!(
            spy.calls()[2..],
            [Call::Nudge(key(1)), Call::RemovePeer(key(1))]
        );
        assert!(host.overlay.peers().await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_changes_nothing_and_a_node_is_no_peer_of_itself() {
    on_each(async |host, spy| {
        for bytes in [&[][..], &[1; 31], &[1; 33]] {
            let mut spec = two(1);
            spec.announcement = Announcement(bytes.to_vec().into());
            let refused: Error = host.overlay.connect(spec).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
            assert!(refused.to_string().contains("0.2"), "{refused}");
        }
        let mut own = two(1);
        own.node = host.node;
        host.overlay.connect(own).await.unwrap();
        assert_eq!(spy.calls(), []);
        assert!(host.overlay.peers().await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_membership_keeps_the_tunnel_and_another_node_gets_a_new_one() {
    on_each(async |host, spy| {
        host.overlay.connect(two(1)).await.unwrap();
        let first = host.launch().await;
        assert_eq!(first, host.launch().await);
        assert_eq!(spy.notes().len(), 1);
        host.node = node(9);
        let second = host.launch().await;
        assert_ne!(first, second);
        let notes = spy.notes();
        assert_eq!(notes.len(), 2);
        assert_eq!(notes[0].calls().last(), Some(&Call::Stop));
        assert!(host.overlay.peers().await.unwrap().is_empty());
        let addresses = host.net.addresses().await.unwrap();
        let ours: Vec<_> = addresses
            .iter()
            .filter(|address| address.link == "arpanet0")
            .collect();
        assert!(
            ours.iter()
                .any(|address| address.address.to_string() == "10.255.0.9/32"),
            "{ours:?}"
        );
        assert!(
            !ours
                .iter()
                .any(|address| address.address.to_string() == "10.255.0.1/32"),
            "{ours:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_and_reset_end_the_tunnel_once() {
    on_each(async |host, spy| {
        let first = host.launch().await;
        for _ in 0..2 {
            host.overlay.stop().await.unwrap();
        }
        assert_eq!(spy.calls(), [Call::Stop]);
        let error = host.overlay.connect(two(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        // WireGuard's timestamps may have gone back: a new start has a new key.
        assert_ne!(host.launch().await, first);
        for _ in 0..2 {
            host.overlay.reset().await.unwrap();
        }
        assert_eq!(spy.notes().len(), 2);
        assert_eq!(spy.calls(), [Call::Stop]);
    })
    .await;
}

/// Only the tunnel that remembers can be told that there is one.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_up_only_with_a_session() {
    let Some(mut site) = Site::new(1).await else {
        return;
    };
    let tunnels = Arc::new(RecordingTunnels::new());
    let host = &mut site.hosts[0];
    host.run_over(Arc::clone(&tunnels) as Arc<dyn TunnelFactory>);
    host.launch().await;
    host.overlay.connect(two(1)).await.unwrap();
    let state = async |host: &Host| host.overlay.peers().await.unwrap()[0].state;
    assert_eq!(state(host).await, PeerState::Connecting);
    let tunnel = &tunnels.made()[0];
    tunnel.set_last_handshake(&key(1), Some(std::time::Duration::from_secs(1)));
    assert_eq!(state(host).await, PeerState::Up);
    tunnel.set_last_handshake(&key(1), None);
    assert_eq!(state(host).await, PeerState::Connecting);
    host.leave_nothing_behind().await;
}
