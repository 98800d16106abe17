//! Namespaces in the place of containers.

use std::path::PathBuf;

use arpanet_core::AppAddr;
use arpanet_core::overlay::{AttachAddr, Attachment, NetNamespace};
use arpanet_netlink::{Namespace, Netlink};
use tempfile::TempDir;

/// A pinned namespace in the place of a container. Dropping it removes it.
#[derive(Debug)]
pub struct Container {
    /// What it is called.
    pub name: String,
    /// Its network.
    pub net: Netlink,
    path: PathBuf,
    _folder: TempDir,
}

impl Container {
    /// One with nothing but its loopback.
    ///
    /// # Panics
    /// Where it can't be made.
    pub async fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let namespace = Namespace::create().unwrap();
        namespace.pin(&path).unwrap();
        let net = namespace.handle().unwrap();
        net.set_up("lo", true).await.unwrap();
        Self {
            name: name.to_owned(),
            net,
            path,
            _folder: folder,
        }
    }

    /// It with an address, as `10.1.0.5/16`.
    ///
    /// # Panics
    /// Where that is no address.
    #[must_use]
    pub fn with(&self, addr: &str) -> Attachment {
        let addr: AppAddr = addr.parse().unwrap();
        let name = self.name.parse().unwrap();
        Attachment::new(name, self.path(), AttachAddr::Application(addr))
    }

    /// Where its namespace is found.
    #[must_use]
    pub fn path(&self) -> NetNamespace {
        NetNamespace::Path(self.path.clone())
    }

    /// Its namespace.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        self.net.namespace()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Namespace::unpin(&self.path);
    }
}
