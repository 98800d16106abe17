//! A node's long-lived signing key (ed25519, RFC 8032).

use std::fmt;

use arpanet_core::admission::Secret;
use arpanet_core::roster::Identity;
use arpanet_core::{Error, ErrorKind, Result};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use rand::TryRngCore;
use zeroize::Zeroizing;

/// An ed25519 signature.
pub type Signature = [u8; 64];

/// A node's long-lived key: what it signs with, and by whose public half everybody knows it.
///
/// Keep [`secret`](Self::secret) where only root reads it; whoever has it is this node.
#[derive(Clone)]
pub struct NodeIdentity(SigningKey);

impl NodeIdentity {
    /// A new one.
    ///
    /// # Errors
    /// [`Internal`](ErrorKind::Internal) when the system gives no randomness.
    pub fn generate() -> Result<Self> {
        Ok(Self::from_secret(&Secret::from_bytes(*random()?)))
    }

    /// From the seed that [`secret`](Self::secret) gave.
    #[must_use]
    pub fn from_secret(seed: &Secret<32>) -> Self {
        Self(SigningKey::from_bytes(seed.expose()))
    }

    /// The seed to be kept.
    #[must_use]
    pub fn secret(&self) -> Secret<32> {
        Secret::from_bytes(self.0.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> Identity {
        Identity::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// Signs a message. `purpose` keeps a signature made for one protocol from counting in another.
    #[must_use]
    pub fn sign(&self, purpose: &str, message: &[u8]) -> Signature {
        self.0.sign(&framed(purpose, message)).to_bytes()
    }
}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeIdentity").field(&self.public()).finish()
    }
}

/// Whether `identity` has signed this message for this purpose. Weak keys and malleable signatures don't count.
///
/// ```
/// use arpanet_join::{NodeIdentity, verify};
/// let node = NodeIdentity::generate()?;
/// let signature = node.sign("greeting", b"hello");
/// assert!(verify(&node.public(), "greeting", b"hello", &signature));
/// assert!(!verify(&node.public(), "farewell", b"hello", &signature));
/// # Ok::<(), arpanet_core::Error>(())
/// ```
#[must_use]
pub fn verify(identity: &Identity, purpose: &str, message: &[u8], signature: &Signature) -> bool {
    VerifyingKey::from_bytes(identity.as_bytes()).is_ok_and(|key| {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        key.verify_strict(&framed(purpose, message), &signature)
            .is_ok()
    })
}

fn framed(purpose: &str, message: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(purpose.len() + 1 + message.len());
    framed.extend_from_slice(purpose.as_bytes());
    framed.push(0);
    framed.extend_from_slice(message);
    framed
}

/// Bytes from the system's generator.
pub(crate) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    rand::rngs::OsRng
        .try_fill_bytes(bytes.as_mut())
        .map_err(|source| {
            Error::new(ErrorKind::Internal, "the system gives no randomness").with_source(source)
        })?;
    Ok(bytes)
}
