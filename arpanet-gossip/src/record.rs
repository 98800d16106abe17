//! Records: what one node says of itself, signed by it.

use arpanet_core::roster::{ClusterId, Identity};
use ed25519_dalek::{Signer, SigningKey, Verifier, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use arpanet_core::{Error, ErrorKind, Result};

/// The longest value of a record.
pub const MAX_VALUE: usize = 16 * 1024;
/// The longest key of a record.
pub const MAX_KEY: usize = 160;
/// The most records of one node.
pub const MAX_RECORDS: usize = 4_096;

/// An ed25519 signature (RFC 8032).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signature([u8; 32], [u8; 32]);

impl Signature {
    fn to_bytes(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.0);
        bytes[32..].copy_from_slice(&self.1);
        bytes
    }

    pub(crate) fn sign(key: &SigningKey, message: &[u8]) -> Self {
        let signature = key.sign(message);
        Self(*signature.r_bytes(), *signature.s_bytes())
    }

    pub(crate) fn verifies(self, identity: &Identity, message: &[u8]) -> bool {
        VerifyingKey::from_bytes(identity.as_bytes()).is_ok_and(|key| {
            key.verify(
                message,
                &ed25519_dalek::Signature::from_bytes(&self.to_bytes()),
            )
            .is_ok()
        })
    }
}

/// What is signed for a record: a hash over all of it, its owner and the cluster, each part with its length.
pub(crate) fn record_message(
    cluster: &ClusterId,
    owner: u16,
    key: &str,
    version: u64,
    value: Option<&[u8]>,
) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"arpanet2 gossip record v1\0");
    hash.update(cluster.as_bytes());
    hash.update(owner.to_be_bytes());
    hash.update((key.len() as u64).to_be_bytes());
    hash.update(key.as_bytes());
    hash.update(version.to_be_bytes());
    match value {
        Some(value) => {
            hash.update([1]);
            hash.update(value);
        }
        None => hash.update([0]),
    }
    hash.finalize().into()
}

/// Checks a key: what others will accept.
pub(crate) fn check_key(key: &str) -> Result<()> {
    if is_key(key) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("{key:?} can't be the key of a record"),
    )
    .with_hint("a key has 1 to 160 printable ASCII characters without space"))
}

pub(crate) fn is_key(key: &str) -> bool {
    (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
}
