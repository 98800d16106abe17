//! What makes the tunnel of a launch: where another kind of tunnel goes in.

use std::fmt;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, PoisonError};

use arpanet_core::{Datagrams, Error, ErrorKind, Result};
use arpanet_netlink::Namespace;
use arpanet_router::UNDERLAY_MARK;
use async_trait::async_trait;

use crate::preflight;
use crate::tunnel::{
    KernelTunnel, KernelTunnelConfig, PlainPort, PrivateKey, PublicKey, RecordingTunnel, Tunnel,
    UserTunnel, UserTunnelConfig, kernel_has_wireguard, make_device, remove_kernel_device,
};

/// A tunnel that runs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Launched {
    /// The tunnel.
    pub tunnel: Arc<dyn Tunnel>,
    /// Its key, as peers have to know it.
    pub public_key: PublicKey,
    /// Its UDP port, where that is not the overlay's own.
    pub port: Option<u16>,
    /// What carries datagrams that are not the tunnel's, if there is something.
    pub side_channel: Option<Arc<dyn Datagrams>>,
}

impl Launched {
    /// A tunnel on the overlay's own port, which has no other use.
    #[must_use]
    pub const fn new(tunnel: Arc<dyn Tunnel>, public_key: PublicKey) -> Self {
        Self {
            tunnel,
            public_key,
            port: None,
            side_channel: None,
        }
    }

    /// On another UDP port.
    #[must_use]
    pub const fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// With something that carries other datagrams.
    #[must_use]
    pub fn side_channel(mut self, channel: Arc<dyn Datagrams>) -> Self {
        self.side_channel = Some(channel);
        self
    }
}

/// What a tunnel is made of, whatever its kind.
#[derive(Debug)]
#[non_exhaustive]
pub struct TunnelSpec {
    /// The host.
    pub host: Namespace,
    /// The UDP socket on the overlay's port there.
    pub socket: UdpSocket,
    /// The router, in which the device is.
    pub router: Namespace,
    /// The device's name.
    pub device: String,
    /// Its MTU, in bytes.
    pub mtu: u16,
    /// Whose it is: node and cluster.
    pub owner: String,
    /// The UDP port of a tunnel that can't share the socket.
    pub own_port: u16,
}

impl TunnelSpec {
    /// In this process, with a key of its own. A new one at each launch: WireGuard's timestamps come from a clock that may
    /// have gone back, and a peer that saw a later one would refuse in silence.
    fn in_process(self) -> Result<UserTunnelConfig> {
        let key = PrivateKey::generate()?;
        Ok(UserTunnelConfig::new(key, self.socket, self.router)
            .device(self.device)
            .mtu(self.mtu)
            .spread(self.host))
    }
}

/// Makes tunnels for a [`WireGuardOverlay`](crate::WireGuardOverlay), one a launch.
#[async_trait]
pub trait TunnelFactory: fmt::Debug + Send + Sync + 'static {
    /// Looks for what would make a launch fail. Changes nothing.
    ///
    /// # Errors
    /// Those of [`launch`](Self::launch).
    async fn preflight(&self) -> Result<()> {
        Ok(())
    }

    /// Makes the device, or opens the one that an earlier process left, and starts. When it returns, the device is there
    /// and up.
    ///
    /// # Errors
    /// Those of [`UserTunnel::launch`] and [`KernelTunnel::launch`].
    async fn launch(&self, spec: TunnelSpec) -> Result<Launched>;
}

/// WireGuard in this process. Its UDP port is the overlay's, and has another use.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct UserTunnels;

#[async_trait]
impl TunnelFactory for UserTunnels {
    async fn preflight(&self) -> Result<()> {
        preflight::tun()
    }

    async fn launch(&self, spec: TunnelSpec) -> Result<Launched> {
        remove_kernel_device(&spec.router, &spec.device).await?;
        let config = spec.in_process()?;
        let key = config.private_key.public_key();
        let tunnel = UserTunnel::launch(config)?;
        let side = tunnel.side_channel();
        Ok(Launched::new(Arc::new(tunnel), key).side_channel(Arc::new(side)))
    }
}

/// WireGuard in the kernel, which goes on while no agent runs. It has a UDP port of its own, since nobody shares one with the
/// kernel: the overlay's is left to the other use.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct KernelTunnels;

#[async_trait]
impl TunnelFactory for KernelTunnels {
    async fn preflight(&self) -> Result<()> {
        match kernel_has_wireguard().await? {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Unsupported,
                "this host's kernel has no WireGuard",
            )
            .with_hint(
                "load its module wireguard (modprobe wireguard), or do without: --tunnel user",
            )),
        }
    }

    async fn launch(&self, spec: TunnelSpec) -> Result<Launched> {
        self.preflight().await?;
        let port = spec.own_port;
        let config = KernelTunnelConfig::new(spec.host, spec.router, spec.owner, port)
            .device(spec.device)
            .mark(UNDERLAY_MARK)
            .mtu(spec.mtu);
        let tunnel = KernelTunnel::launch(config).await?;
        let key = tunnel.public_key();
        let side = PlainPort::new(spec.socket)?;
        Ok(Launched::new(Arc::new(tunnel), key)
            .port(port)
            .side_channel(Arc::new(side)))
    }
}

/// WireGuard in the kernel where it is there, and in this process where not.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct AnyTunnels;

impl AnyTunnels {
    async fn choose(self) -> &'static dyn TunnelFactory {
        match kernel_has_wireguard().await {
            Ok(true) => &KernelTunnels,
            Ok(false) => &UserTunnels,
            Err(error) => {
                tracing::info!(%error, "whether the kernel has WireGuard can't be said");
                &UserTunnels
            }
        }
    }
}

#[async_trait]
impl TunnelFactory for AnyTunnels {
    async fn preflight(&self) -> Result<()> {
        self.choose().await.preflight().await
    }

    async fn launch(&self, spec: TunnelSpec) -> Result<Launched> {
        self.choose().await.launch(spec).await
    }
}

/// Tunnels that remember what they are asked, for tests: the device is made and stays, but nobody reads from it.
#[derive(Debug, Default)]
pub struct RecordingTunnels {
    made: Mutex<Vec<Arc<RecordingTunnel>>>,
}

impl RecordingTunnels {
    /// None made yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All that were made, the first first.
    #[must_use]
    pub fn made(&self) -> Vec<Arc<RecordingTunnel>> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.clone()
    }
}

#[async_trait]
impl TunnelFactory for RecordingTunnels {
    async fn launch(&self, spec: TunnelSpec) -> Result<Launched> {
        let config = spec.in_process()?;
        make_device(&config)?;
        let tunnel = Arc::new(RecordingTunnel::new());
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.push(Arc::clone(&tunnel));
        Ok(Launched::new(tunnel, config.private_key.public_key()))
    }
}
