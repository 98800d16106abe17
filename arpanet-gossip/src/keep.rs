//! What a node keeps on disk between its starts.

use std::io::{ErrorKind as IoKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use arpanet_core::roster::{ClusterId, Identity};
use arpanet_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::engine::GossipState;

/// The layout of the file.
const LAYOUT: u32 = 1;

/// The file with a node's [`GossipState`], readable by its owner alone.
#[derive(Debug, Clone)]
pub(crate) struct StateFile(PathBuf);

/// What is in it: whose state it is, and the state.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    layout: u32,
    cluster: ClusterId,
    identity: Identity,
    state: GossipState,
}

impl StateFile {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// What this node kept of this cluster; nothing when there is no file, or when it is of another life of this host.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) names the file, which stays as it is.
    pub(crate) fn load(&self, cluster: ClusterId, identity: Identity) -> Result<GossipState> {
        let bytes = match std::fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == IoKind::NotFound => return Ok(GossipState::default()),
            Err(source) => return Err(refused(&self.0, "can't be read", source)),
        };
        let kept: Kept = serde_json::from_slice(&bytes).map_err(|source| {
            Error::new(
                ErrorKind::Corrupt,
                format!("the gossip state in {} is damaged", self.0.display()),
            )
            .with_hint("move the file away and start again: the other nodes tell what was in it")
            .with_source(source)
        })?;
        if kept.layout != LAYOUT {
            return Err(Error::new(
                ErrorKind::Incompatible,
                format!(
                    "the gossip state in {} has layout {}, and this version reads {LAYOUT}",
                    self.0.display(),
                    kept.layout
                ),
            )
            .with_hint("move the file away and start again: the other nodes tell what was in it"));
        }
        if (kept.cluster, kept.identity) != (cluster, identity) {
            tracing::info!(file = %self.0.display(), "the kept gossip state is of another cluster or identity and is not used");
            return Ok(GossipState::default());
        }
        Ok(kept.state)
    }

    /// Whole and durable when it returns; what was there before stays when it fails.
    ///
    /// # Errors
    /// [`Exhausted`](ErrorKind::Exhausted) on a full disk.
    pub(crate) fn save(
        &self,
        cluster: ClusterId,
        identity: Identity,
        state: GossipState,
    ) -> Result<()> {
        let kept = Kept {
            layout: LAYOUT,
            cluster,
            identity,
            state,
        };
        let folder = match self.0.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let attempt = || -> std::io::Result<()> {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
            let mut file = tempfile::Builder::new()
                .permissions(std::fs::Permissions::from_mode(0o600))
                .tempfile_in(folder)?;
            file.write_all(&serde_json::to_vec(&kept)?)?;
            file.as_file().sync_all()?;
            file.persist(&self.0)?;
            std::fs::File::open(folder)?.sync_all()
        };
        attempt().map_err(|source| refused(&self.0, "can't be written", source))
    }

    /// Removes it; it may be gone already.
    ///
    /// # Errors
    /// As the system says.
    pub(crate) fn remove(&self) -> Result<()> {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != IoKind::NotFound => {
                Err(refused(&self.0, "can't be removed", error))
            }
            _ => Ok(()),
        }
    }
}

fn refused(path: &Path, what: &str, source: std::io::Error) -> Error {
    let kind = match source.kind() {
        IoKind::StorageFull | IoKind::QuotaExceeded => ErrorKind::Exhausted,
        IoKind::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Internal,
    };
    Error::new(
        kind,
        format!("the gossip state in {} {what}", path.display()),
    )
    .with_source(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
    const ME: Identity = Identity::from_bytes([2; 32]);

    fn state(generation: u32) -> GossipState {
        let mut state = GossipState {
            generation,
            ..GossipState::default()
        };
        let at = "192.168.8.121:51820".parse().unwrap();
        state.endpoints.insert("0.2".parse().unwrap(), at);
        state
    }

    #[test]
    fn what_was_saved_is_read_again_and_is_the_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/gossip.json");
        let file = StateFile::new(path.clone());
        assert_eq!(file.load(CLUSTER, ME).unwrap(), GossipState::default());
        file.save(CLUSTER, ME, state(1)).unwrap();
        file.save(CLUSTER, ME, state(2)).unwrap();
        assert_eq!(file.load(CLUSTER, ME).unwrap(), state(2));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            std::fs::read_dir(folder.path().join("new"))
                .unwrap()
                .count(),
            1
        );
        file.remove().unwrap();
        file.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_damaged_file_is_refused_with_its_path_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gossip.json");
        let file = StateFile::new(path.clone());
        file.save(CLUSTER, ME, state(7)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for damaged in [&whole[..whole.len() / 2], b"".as_slice(), b"{}".as_slice()] {
            std::fs::write(&path, damaged).unwrap();
            let error = file.load(CLUSTER, ME).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains("gossip.json"), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), damaged);
        }
    }

    #[test]
    fn the_state_of_another_cluster_or_identity_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().join("gossip.json"));
        file.save(CLUSTER, ME, state(7)).unwrap();
        let (other, stranger) = (
            ClusterId::from_bytes([9; 16]),
            Identity::from_bytes([9; 32]),
        );
        assert_eq!(file.load(other, ME).unwrap(), GossipState::default());
        assert_eq!(
            file.load(CLUSTER, stranger).unwrap(),
            GossipState::default()
        );
    }

    #[test]
    fn what_can_not_be_written_is_an_error_and_not_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let blocked = folder.path().join("file");
        std::fs::write(&blocked, b"").unwrap();
        let file = StateFile::new(blocked.join("gossip.json"));
        assert!(file.save(CLUSTER, ME, state(1)).is_err());
    }
}
