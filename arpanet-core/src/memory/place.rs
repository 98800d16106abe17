//! How tests name hosts and containers: `"0.1"`, a [`NodeAddr`], a [`Host`], `("0.1", "w1")`.

use super::network::HostIndex;
use super::world::{Host, World};
use crate::{ContainerName, NodeAddr};

mod sealed {
    pub trait Sealed {}
}

/// A host of the world, by its node address or by itself. An address that no host has yet makes one.
///
/// Text that is no node address panics: a world is for tests.
pub trait Place: sealed::Sealed {
    #[doc(hidden)]
    fn host(&self, world: &World) -> usize;
}

impl sealed::Sealed for NodeAddr {}

impl Place for NodeAddr {
    fn host(&self, world: &World) -> HostIndex {
        world.labelled(*self)
    }
}

impl sealed::Sealed for &str {}

impl Place for &str {
    #[track_caller]
    fn host(&self, world: &World) -> HostIndex {
        match self.parse::<NodeAddr>() {
            Ok(node) => node.host(world),
            Err(error) => panic!("{error}"),
        }
    }
}

impl sealed::Sealed for &Host {}

impl Place for &Host {
    fn host(&self, _: &World) -> HostIndex {
        self.index()
    }
}

/// Where a packet comes from: a host, or a container of one.
pub trait Origin: sealed::Sealed {
    #[doc(hidden)]
    fn origin(&self, world: &World) -> (usize, Option<ContainerName>);
}

impl<P: Place> Origin for P {
    fn origin(&self, world: &World) -> (HostIndex, Option<ContainerName>) {
        (self.host(world), None)
    }
}

impl<P: Place> sealed::Sealed for (P, &str) {}

impl<P: Place> Origin for (P, &str) {
    #[track_caller]
    fn origin(&self, world: &World) -> (HostIndex, Option<ContainerName>) {
        match self.1.parse() {
            Ok(container) => (self.0.host(world), Some(container)),
            Err(error) => panic!("{error}"),
        }
    }
}

impl<P: Place> sealed::Sealed for (P, &ContainerName) {}

impl<P: Place> Origin for (P, &ContainerName) {
    fn origin(&self, world: &World) -> (HostIndex, Option<ContainerName>) {
        (self.0.host(world), Some(self.1.clone()))
    }
}
