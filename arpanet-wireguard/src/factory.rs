//! What makes the tunnel of a launch: where another kind of tunnel goes in.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arpanet_core::{Datagrams, Result};

use crate::tunnel::{RecordingTunnel, Tunnel, UserTunnel, UserTunnelConfig, make_device};

/// A tunnel that runs, with the other use of its UDP port.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Launched {
    /// The tunnel.
    pub tunnel: Arc<dyn Tunnel>,
    /// What carries datagrams that are not the tunnel's, if it can.
    pub side_channel: Option<Arc<dyn Datagrams>>,
}

impl Launched {
    /// A tunnel whose port has no other use.
    #[must_use]
    pub const fn new(tunnel: Arc<dyn Tunnel>) -> Self {
        Self {
            tunnel,
            side_channel: None,
        }
    }

    /// With the other use of its port.
    #[must_use]
    pub fn side_channel(mut self, channel: Arc<dyn Datagrams>) -> Self {
        self.side_channel = Some(channel);
        self
    }
}

/// Makes tunnels for a [`WireGuardOverlay`](crate::WireGuardOverlay), one a launch.
pub trait TunnelFactory: fmt::Debug + Send + Sync + 'static {
    /// Makes the device, or opens the one that an earlier process left, and starts. When it returns, the device is there
    /// and up.
    ///
    /// # Errors
    /// Those of [`UserTunnel::launch`].
    fn launch(&self, config: UserTunnelConfig) -> Result<Launched>;
}

/// WireGuard in this process.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct UserTunnels;

impl TunnelFactory for UserTunnels {
    fn launch(&self, config: UserTunnelConfig) -> Result<Launched> {
        let tunnel = UserTunnel::launch(config)?;
        let side = tunnel.side_channel();
        Ok(Launched::new(Arc::new(tunnel)).side_channel(Arc::new(side)))
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

impl TunnelFactory for RecordingTunnels {
    fn launch(&self, config: UserTunnelConfig) -> Result<Launched> {
        make_device(&config)?;
        let tunnel = Arc::new(RecordingTunnel::new());
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.push(Arc::clone(&tunnel));
        Ok(Launched::new(tunnel))
    }
}
