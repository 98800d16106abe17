//! Asking containers in the simulated world.

use std::net::{Ipv4Addr, SocketAddrV4};

use async_trait::async_trait;

use super::router::ip_of;
use super::state::Seat;
use crate::health::{HttpAnswer, Prober};
use crate::runtime::ContainerState;
use crate::{Error, ErrorKind, Result};

/// What a container of a [`World`](super::World) answers to checks while a test has it ail.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ailment {
    /// It refuses connections, answers 503 with this text, and commands print it and end with 1.
    Fails(String),
    /// It answers nothing, ever.
    Hangs,
}

/// [`Prober`] of one host of a [`World`](super::World). Containers answer well, unless a test has them
/// [ail](super::World::set_ailment).
#[derive(Debug, Clone)]
pub struct MemoryProber {
    seat: Seat,
}

impl MemoryProber {
    pub(super) const fn new(seat: Seat) -> Self {
        Self { seat }
    }

    /// How the container with this address ails.
    fn ailment(&self, ip: Ipv4Addr) -> Result<Option<Ailment>> {
        self.seat.enter(|state, index| {
            let node = state.overlay(index).map(|overlay| overlay.node);
            let host = &mut state.hosts[index];
            let mut attached = host.router.attached().iter();
            let found = attached.find(|one| node.is_some_and(|node| ip_of(node, one.addr) == ip));
            let name = found.map(|one| one.container.clone());
            let simulated = name.and_then(|name| host.engine.containers.get(&name));
            match simulated {
                Some(one) if one.container.state == ContainerState::Running => {
                    Ok(one.ailment.clone())
                }
                _ => {
                    let message = format!("there is no way to {ip}");
                    Err(Error::new(ErrorKind::Unavailable, message))
                }
            }
        })
    }
}

#[async_trait]
impl Prober for MemoryProber {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn connect(&self, to: SocketAddrV4) -> Result<()> {
        match self.ailment(*to.ip())? {
            None => Ok(()),
            Some(Ailment::Fails(_)) => {
                let message = format!("{to} refuses the connection");
                Err(Error::new(ErrorKind::Unavailable, message))
            }
            Some(Ailment::Hangs) => std::future::pending().await,
        }
    }

    async fn get(&self, to: SocketAddrV4, _: &str) -> Result<HttpAnswer> {
        match self.ailment(*to.ip())? {
            None => Ok(HttpAnswer::new(200, "")),
            Some(Ailment::Fails(why)) => Ok(HttpAnswer::new(503, why)),
            Some(Ailment::Hangs) => std::future::pending().await,
        }
    }
}
