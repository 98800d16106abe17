//! Sealing: every datagram is encrypted and authenticated under the cluster's key.
//!
//! ```text
//! 0        1         2              6        10       34
//! | 0xA2 | version | cluster tag  | key id | nonce  | XChaCha20-Poly1305 of sender, boot, sequence and packet |
//! ```
//! The header is authenticated. The cluster tag is the start of a hash of the cluster id, which is no secret: with it a
//! datagram of another cluster can be told from a forged one and be named. The key is derived from the cluster's key and
//! id with HKDF-SHA256; nonces are random, so neither a restart nor a clock can repeat one.

use std::fmt;

use arpanet_core::admission::ClusterKey;
use arpanet_core::roster::ClusterId;
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use rand::RngExt;
use rand::rngs::StdRng;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The first byte of every datagram: WireGuard's are 1 to 4, so both can share a port.
pub const MAGIC: u8 = 0xA2;
const VERSION: u8 = 1;
const NONCE: usize = 24;
const HEADER: usize = 10 + NONCE;
const TAG: usize = 16;
const MAX_KEYS: usize = 4;

/// Why a datagram was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unopened {
    /// Not one of ours, or of a version that is not known here.
    NotOurs,
    /// Of another cluster, which has this tag.
    Foreign([u8; 4]),
    /// Under a key that is not known here.
    UnknownKey,
    /// It does not verify.
    Forged,
}

/// Seals and opens with the cluster's keys.
pub(crate) struct Sealer {
    tag: [u8; 4],
    cluster: ClusterId,
    keys: Vec<(u32, XChaCha20Poly1305)>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl Sealer {
    pub(crate) fn new(cluster: ClusterId, key: &ClusterKey) -> Self {
        let mut sealer = Self {
            tag: cluster_tag(&cluster),
            cluster,
            keys: Vec::new(),
        };
        sealer.turn_over(key);
        sealer
    }

    /// Seals with this key from now on; opens with the last few.
    pub(crate) fn turn_over(&mut self, key: &ClusterKey) {
        let mut derived = Zeroizing::new([0; 32]);
        let expanded = Hkdf::<Sha256>::new(Some(self.cluster.as_bytes()), key.key.expose())
            .expand(b"arpanet2 gossip v1", derived.as_mut_slice());
        debug_assert!(
            expanded.is_ok(),
            "32 bytes are a valid length for HKDF-SHA256"
        );
        self.keys.retain(|(id, _)| *id != key.id);
        self.keys.insert(
            0,
            (key.id, XChaCha20Poly1305::new(derived.as_slice().into())),
        );
        self.keys.truncate(MAX_KEYS);
    }

    pub(crate) fn seal(&self, plain: &[u8], rng: &mut StdRng) -> Vec<u8> {
        let Some((id, cipher)) = self.keys.first() else {
            return Vec::new();
        };
        let nonce: [u8; NONCE] = rng.random();
        let mut datagram = Vec::with_capacity(HEADER + plain.len() + TAG);
        datagram.extend_from_slice(&[MAGIC, VERSION]);
        datagram.extend_from_slice(&self.tag);
        datagram.extend_from_slice(&id.to_be_bytes());
        datagram.extend_from_slice(&nonce);
        datagram.extend_from_slice(plain);
        let (header, body) = datagram.split_at_mut(HEADER);
        match cipher.encrypt_in_place_detached(&XNonce::from(nonce), header, body) {
            Ok(tag) => {
                datagram.extend_from_slice(&tag);
                datagram
            }
            // Only a message of 256 GiB fails.
            Err(_) => Vec::new(),
        }
    }

    pub(crate) fn open(&self, datagram: &[u8]) -> Result<Vec<u8>, Unopened> {
        if datagram.len() < HEADER + TAG || datagram[0] != MAGIC || datagram[1] != VERSION {
            return Err(Unopened::NotOurs);
        }
        let (header, rest) = datagram.split_at(HEADER);
        let (body, tag) = rest.split_at(rest.len() - TAG);
        let cluster = [header[2], header[3], header[4], header[5]];
        if cluster != self.tag {
            return Err(Unopened::Foreign(cluster));
        }
        let id = u32::from_be_bytes([header[6], header[7], header[8], header[9]]);
        let (_, cipher) = self
            .keys
            .iter()
            .find(|(known, _)| *known == id)
            .ok_or(Unopened::UnknownKey)?;
        let mut plain = body.to_vec();
        cipher
            .decrypt_in_place_detached(
                XNonce::from_slice(&header[10..]),
                header,
                &mut plain,
                Tag::from_slice(tag),
            )
            .map_err(|_| Unopened::Forged)?;
        Ok(plain)
    }
}

/// The tag of a cluster in the header of its datagrams.
#[must_use]
pub fn cluster_tag(cluster: &ClusterId) -> [u8; 4] {
    let hash = Sha256::new()
        .chain_update(b"arpanet2 gossip cluster tag\0")
        .chain_update(cluster.as_bytes())
        .finalize();
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    use arpanet_core::admission::Secret;
    use rand::SeedableRng;

    use super::*;

    fn sealer(cluster: u8, key: u8) -> Sealer {
        Sealer::new(
            ClusterId::from_bytes([cluster; 16]),
            &ClusterKey::new(1, Secret::from_bytes([key; 32])),
        )
    }

    #[test]
    fn opens_what_was_sealed_and_nothing_else() {
        let mut rng = StdRng::seed_from_u64(1);
        let datagram = sealer(1, 1).seal(b"hello", &mut rng);
        assert_eq!(sealer(1, 1).open(&datagram).unwrap(), b"hello");
        assert_eq!(sealer(1, 2).open(&datagram), Err(Unopened::Forged));
        assert_eq!(
            sealer(2, 1).open(&datagram),
            Err(Unopened::Foreign(cluster_tag(&ClusterId::from_bytes(
                [1; 16]
            ))))
        );
        for at in 0..datagram.len() {
            let mut changed = datagram.clone();
            changed[at] ^= 1;
            assert!(sealer(1, 1).open(&changed).is_err(), "byte {at}");
        }
        assert!(!datagram.windows(5).any(|window| window == b"hello"));
    }

    #[test]
    fn a_key_that_was_turned_over_still_opens() {
        let mut rng = StdRng::seed_from_u64(1);
        let old = sealer(1, 1).seal(b"old", &mut rng);
        let mut turned = sealer(1, 1);
        turned.turn_over(&ClusterKey::new(2, Secret::from_bytes([2; 32])));
        assert_eq!(turned.open(&old).unwrap(), b"old");
        let new = turned.seal(b"new", &mut rng);
        assert_eq!(sealer(1, 1).open(&new), Err(Unopened::UnknownKey));
    }
}
