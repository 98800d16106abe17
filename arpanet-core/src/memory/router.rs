//! What the kernel of a simulated host holds: namespaces, and the container addresses in them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::network::HostIndex;
use crate::overlay::{AttachAddr, Attachment, NetNamespace};
use crate::{ContainerName, Error, ErrorKind, NodeAddr, Result};

/// The namespace of the host itself.
const HOST_NAMESPACE: u64 = 0;

#[derive(Debug, Clone)]
pub(super) struct Attached {
    pub(super) container: ContainerName,
    pub(super) addr: AttachAddr,
    namespace: u64,
}

#[derive(Debug, Default)]
pub(super) struct Router {
    namespaces: BTreeSet<u64>,
    made: u64,
    attached: Vec<Attached>,
}

impl Router {
    /// Makes a namespace; no two hosts make the same.
    pub(super) fn make_namespace(&mut self, host: HostIndex) -> NetNamespace {
        self.made += 1;
        let id = ((host as u64 + 1) << 32) | self.made;
        self.namespaces.insert(id);
        NetNamespace::Simulated(id)
    }

    /// Removes a namespace and with it what was attached in it; whether it was there.
    pub(super) fn remove_namespace(&mut self, namespace: &NetNamespace) -> bool {
        let NetNamespace::Simulated(id) = namespace else {
            return false;
        };
        self.attached.retain(|attached| attached.namespace != *id);
        self.namespaces.remove(id)
    }

    /// The power is gone.
    pub(super) fn lose_all(&mut self) {
        self.namespaces.clear();
        self.attached.clear();
    }

    /// Gives a container an address; whether that changed anything.
    pub(super) fn attach(&mut self, node: NodeAddr, attachment: &Attachment) -> Result<bool> {
        let NetNamespace::Simulated(id) = attachment.namespace else {
            let message = "the simulated world has no namespace files";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        };
        if id == HOST_NAMESPACE {
            let message = format!("{} shares the namespace of its host", attachment.container);
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if !self.namespaces.contains(&id) {
            let message = format!("the namespace of {} is gone", attachment.container);
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        let ip = ip_of(node, attachment.addr);
        let wanted = Attached {
            container: attachment.container.clone(),
            addr: attachment.addr,
            namespace: id,
        };
        let held = self
            .attached
            .iter_mut()
            .find(|attached| ip_of(node, attached.addr) == ip);
        match held {
            Some(held) if held.container != wanted.container => {
                let message = format!("{ip} belongs to the container {}", held.container);
                Err(Error::new(ErrorKind::Conflict, message))
            }
            Some(held) if held.addr == wanted.addr && held.namespace == id => Ok(false),
            Some(held) => {
                *held = wanted;
                Ok(true)
            }
            None => {
                self.attached.push(wanted);
                Ok(true)
            }
        }
    }

    pub(super) fn detach(&mut self, container: &ContainerName, addr: AttachAddr) -> bool {
        let before = self.attached.len();
        self.attached
            .retain(|attached| attached.container != *container || attached.addr != addr);
        self.attached.len() != before
    }

    pub(super) fn detach_all(&mut self) {
        self.attached.clear();
    }

    pub(super) fn attached(&self) -> &[Attached] {
        &self.attached
    }
}

/// The address that an attachment on this node gives.
pub(super) fn ip_of(node: NodeAddr, addr: AttachAddr) -> Ipv4Addr {
    match addr {
        AttachAddr::Application(addr) => addr.ip(),
        AttachAddr::Plugin(block) => node.plugin(block),
    }
}
