//! What a node keeps between starts: files that only root reads, replaced whole or not at all.

use std::path::Path;
use std::sync::Arc;

use arpanet_core::admission::{Membership, MembershipStore, Secret};
use arpanet_core::{Error, ErrorKind, Result};
use arpanet_join::{JoinAdmission, NodeIdentity, Verifier};
use arpanet_weave::RouterPassword;
use arpanet_wireguard::TunnelKind;
use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::files::{self, Modes};
use crate::paths::Paths;

/// For root alone.
const PRIVATE: Modes = Modes {
    file: 0o600,
    folder: 0o700,
};

/// What brings a node back without a password.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeState {
    pub(crate) membership: Membership,
    pub(crate) verifier: Option<Verifier>,
    pub(crate) settings: Settings,
}

/// What was chosen when the node booted or joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) port: u16,
    #[serde(default)]
    pub(crate) runtime: RuntimeKind,
    #[serde(default)]
    pub(crate) discovery: DiscoveryKind,
    #[serde(default)]
    pub(crate) dns: DnsKind,
    #[serde(default)]
    pub(crate) overlay: OverlayKind,
    #[serde(default)]
    pub(crate) tunnel: Tunnel,
    /// Of a weave network that was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) weave_password: Option<RouterPassword>,
}

/// What carries packets between nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OverlayKind {
    /// WireGuard, in the kernel or the agent
    #[default]
    Wireguard,
    /// A weave router, which the agent launches
    Weave,
}

/// Which WireGuard carries them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tunnel {
    /// The kernel's where it is there, or else the agent's
    #[default]
    Auto,
    /// The kernel's, which goes on while no agent runs
    Kernel,
    /// The agent's
    User,
}

impl From<Tunnel> for TunnelKind {
    fn from(tunnel: Tunnel) -> Self {
        match tunnel {
            Tunnel::Auto => Self::Auto,
            Tunnel::Kernel => Self::Kernel,
            Tunnel::User => Self::User,
        }
    }
}

/// Everything at once: what is not chosen by itself follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StackKind {
    /// WireGuard and gossip: nothing to install
    Embedded,
    /// Weave, consul and docker
    Classic,
}

impl StackKind {
    pub(crate) const fn overlay(self) -> OverlayKind {
        match self {
            Self::Embedded => OverlayKind::Wireguard,
            Self::Classic => OverlayKind::Weave,
        }
    }

    pub(crate) const fn discovery(self) -> DiscoveryKind {
        match self {
            Self::Embedded => DiscoveryKind::Gossip,
            Self::Classic => DiscoveryKind::Consul,
        }
    }

    /// `None`: what is there.
    pub(crate) const fn runtime(self) -> Option<RuntimeKind> {
        match self {
            Self::Embedded => None,
            Self::Classic => Some(RuntimeKind::Docker),
        }
    }
}

impl Settings {
    /// Whether something beside gossip encrypts with what is made of the cluster's key, and reads that only when it starts.
    pub(crate) fn depends_on_key(&self) -> bool {
        self.overlay == OverlayKind::Weave
    }
}

/// Where services are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DiscoveryKind {
    /// In the agents themselves
    #[default]
    Gossip,
    /// In consul, which the agents run
    Consul,
}

/// Who answers names of services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DnsKind {
    /// The node, by a watch of the catalogue: sooner, and without consul's leader too
    #[default]
    Watch,
    /// Consul itself
    Consul,
}

impl DnsKind {
    /// As it is written.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Consul => "consul",
        }
    }
}

/// What the node's containers are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RuntimeKind {
    /// Processes in network namespaces of their own
    #[default]
    Process,
    /// Containers of a docker engine
    Docker,
}

#[derive(Serialize, Deserialize)]
struct IdentityFile {
    secret: Secret<32>,
}

/// Reads a state file; `None` where there is none.
///
/// # Errors
/// [`ErrorKind::Corrupt`] names a file that can't be read as what it should be. It is never replaced.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("{} can't be read", path.display()),
            )
            .with_source(error));
        }
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|source| {
        Error::new(ErrorKind::Corrupt, format!("the state file {} is damaged", path.display()))
            .with_hint("restore it from a backup, or give the node up with arpanet2 reset and join anew with --replace")
            .with_source(source)
    })
}

/// Writes a state file: whole and durable when it returns, untouched when it fails.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|source| {
        Error::new(
            ErrorKind::Internal,
            format!("{} can't be written", path.display()),
        )
        .with_source(source)
    })?;
    files::replace(path, &bytes, PRIVATE)
}

/// Removes a state file that may be gone already.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::new(
            ErrorKind::Internal,
            format!("{} can't be removed", path.display()),
        )
        .with_source(error)),
        _ => Ok(()),
    }
}

/// The node's long-lived identity; made and kept the first time.
pub(crate) fn identity(paths: &Paths) -> Result<NodeIdentity> {
    if let Some(file) = read::<IdentityFile>(&paths.identity())? {
        return Ok(NodeIdentity::from_secret(&file.secret));
    }
    let identity = NodeIdentity::generate()?;
    write(
        &paths.identity(),
        &IdentityFile {
            secret: identity.secret(),
        },
    )?;
    Ok(identity)
}

/// Keeps the membership in `node.json`, with what the admission layer needs beside it.
#[derive(Debug)]
pub(crate) struct StateFiles {
    pub(crate) paths: Paths,
    pub(crate) settings: Settings,
    pub(crate) admission: Arc<JoinAdmission>,
}

#[async_trait]
impl MembershipStore for StateFiles {
    async fn save(&self, membership: &Membership) -> Result<()> {
        let state = NodeState {
            membership: membership.clone(),
            verifier: self.admission.verifier(),
            settings: self.settings.clone(),
        };
        write(&self.paths.node(), &state)
    }

    // What else the node keeps goes with whoever made it: a damaged file of an earlier life is not this node's to remove.
    async fn clear(&self) -> Result<()> {
        remove(&self.paths.node())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_damaged_file_is_named_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.json");
        std::fs::write(&path, b"{\"membership\":").unwrap();
        let error = read::<NodeState>(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("node.json"));
        assert_eq!(std::fs::read(&path).unwrap(), b"{\"membership\":");
    }

    #[test]
    fn what_is_written_only_its_owner_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep").join("settings.json");
        let settings = Settings {
            port: 1,
            runtime: RuntimeKind::Docker,
            discovery: DiscoveryKind::Consul,
            dns: DnsKind::Consul,
            overlay: OverlayKind::Weave,
            tunnel: Tunnel::User,
            weave_password: Some(RouterPassword::new("Pears")),
        };
        write(&path, &settings).unwrap();
        assert_eq!(read::<Settings>(&path).unwrap(), Some(settings));
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1
        );
    }
}
