//! Sealing: every datagram is encrypted and authenticated under the cluster's key.
//!
//! ```text
//! 0        1         2              6        10       34
//! | 0xA2 | version | cluster tag  | key id | nonce  | XChaCha20-Poly1305 of sender, boot, sequence and packet |
//! ```
//! The header is authenticated. The cluster tag is the start of a hash of the cluster id, which is no secret: with it a
//! datagram of another cluster can be told from a forged one and be named. The key is derived from the cluster's key and
//! id with HKDF-SHA256; nonces are random, so neither a restart nor a clock can repeat one.
//!
//! Keys turn over. What was sealed under the key before is believed for a moment more, for what was on its way; under
//! older keys a datagram still opens for a while, so that its sender can be told, and is believed no more.

use std::fmt;
use std::time::Duration;

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
/// Keys before the present one that still open.
const MAX_FORMER: usize = 8;

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

/// A datagram that opened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) plain: Vec<u8>,
    /// Under which key, where it was not the present one.
    pub(crate) under: Option<FormerKey>,
}

/// A key that was turned over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FormerKey {
    id: u32,
    /// What is sealed under it is believed still.
    pub(crate) is_believed: bool,
}

/// Seals and opens with the cluster's keys.
pub(crate) struct Sealer {
    tag: [u8; 4],
    cluster: ClusterId,
    present: (u32, XChaCha20Poly1305),
    /// The newest first.
    former: Vec<Former>,
}

struct Former {
    id: u32,
    cipher: XChaCha20Poly1305,
    believed_until: Duration,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("cluster", &self.cluster)
            .field("key", &self.present.0)
            .finish_non_exhaustive()
    }
}

impl Sealer {
    pub(crate) fn new(cluster: ClusterId, key: &ClusterKey) -> Self {
        Self {
            tag: cluster_tag(&cluster),
            cluster,
            present: (key.id, cipher(&cluster, key)),
            former: Vec::new(),
        }
    }

    /// The tag of its cluster.
    pub(crate) const fn tag(&self) -> [u8; 4] {
        self.tag
    }

    /// Seals with this key from now on; what comes under the one before is believed until then.
    pub(crate) fn turn_over(&mut self, key: &ClusterKey, believed_until: Duration) {
        let present = (key.id, cipher(&self.cluster, key));
        let (id, cipher) = std::mem::replace(&mut self.present, present);
        self.former.insert(
            0,
            Former {
                id,
                cipher,
                believed_until,
            },
        );
        self.former.retain(|former| former.id != key.id);
        self.former.truncate(MAX_FORMER);
    }

    pub(crate) fn seal(&self, plain: &[u8], rng: &mut StdRng) -> Vec<u8> {
        let (id, cipher) = &self.present;
        self.seal_with(*id, cipher, plain, rng)
    }

    /// Seals for one who has this key and none after it; nothing where it is too old.
    pub(crate) fn seal_under(
        &self,
        key: FormerKey,
        plain: &[u8],
        rng: &mut StdRng,
    ) -> Option<Vec<u8>> {
        let former = self.former.iter().find(|former| former.id == key.id)?;
        Some(self.seal_with(former.id, &former.cipher, plain, rng))
    }

    fn seal_with(
        &self,
        id: u32,
        cipher: &XChaCha20Poly1305,
        plain: &[u8],
        rng: &mut StdRng,
    ) -> Vec<u8> {
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

    pub(crate) fn open(&self, datagram: &[u8], now: Duration) -> Result<Opened, Unopened> {
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
        let (cipher, under) = if self.present.0 == id {
            (&self.present.1, None)
        } else {
            let former = self.former.iter().find(|former| former.id == id);
            let former = former.ok_or(Unopened::UnknownKey)?;
            let is_believed = now < former.believed_until;
            (&former.cipher, Some(FormerKey { id, is_believed }))
        };
        let mut plain = body.to_vec();
        cipher
            .decrypt_in_place_detached(
                XNonce::from_slice(&header[10..]),
                header,
                &mut plain,
                Tag::from_slice(tag),
            )
            .map_err(|_| Unopened::Forged)?;
        Ok(Opened { plain, under })
    }
}

fn cipher(cluster: &ClusterId, key: &ClusterKey) -> XChaCha20Poly1305 {
    let mut derived = Zeroizing::new([0; 32]);
    let expanded = Hkdf::<Sha256>::new(Some(cluster.as_bytes()), key.key.expose())
        .expand(b"arpanet2 gossip v1", derived.as_mut_slice());
    debug_assert!(
        expanded.is_ok(),
        "32 bytes are a valid length for HKDF-SHA256"
    );
    XChaCha20Poly1305::new(derived.as_slice().into())
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

    fn key(id: u32) -> ClusterKey {
        ClusterKey::new(id, Secret::from_bytes([id as u8; 32]))
    }

    fn open(sealer: &Sealer, datagram: &[u8]) -> Result<Vec<u8>, Unopened> {
        sealer
            .open(datagram, Duration::ZERO)
            .map(|opened| opened.plain)
    }

    #[test]
    fn opens_what_was_sealed_and_nothing_else() {
        let mut rng = StdRng::seed_from_u64(1);
        let datagram = sealer(1, 1).seal(b"hello", &mut rng);
        assert_eq!(open(&sealer(1, 1), &datagram).unwrap(), b"hello");
        assert_eq!(open(&sealer(1, 2), &datagram), Err(Unopened::Forged));
        assert_eq!(
            open(&sealer(2, 1), &datagram),
            Err(Unopened::Foreign(cluster_tag(&ClusterId::from_bytes(
                [1; 16]
            ))))
        );
        for at in 0..datagram.len() {
            let mut changed = datagram.clone();
            changed[at] ^= 1;
            assert!(open(&sealer(1, 1), &changed).is_err(), "byte {at}");
        }
        assert!(!datagram.windows(5).any(|window| window == b"hello"));
    }

    #[test]
    fn a_key_that_was_turned_over_is_believed_for_a_while_and_then_only_understood() {
        let mut rng = StdRng::seed_from_u64(1);
        let until = Duration::from_secs(5);
        let mut sealer = sealer(1, 1);
        let old = sealer.seal(b"old", &mut rng);
        sealer.turn_over(&key(2), until);
        let under = |sealer: &Sealer, now| sealer.open(&old, now).map(|opened| opened.under);
        let former = |is_believed| FormerKey { id: 1, is_believed };
        let before = until - Duration::from_nanos(1);
        assert_eq!(under(&sealer, before), Ok(Some(former(true))));
        assert_eq!(under(&sealer, until), Ok(Some(former(false))));

        let new = sealer.seal(b"new", &mut rng);
        assert_eq!(sealer.open(&new, until).unwrap().under, None);
        assert_eq!(open(&self::sealer(1, 1), &new), Err(Unopened::UnknownKey));
        let answer = sealer.seal_under(former(false), b"answer", &mut rng);
        assert_eq!(
            open(&self::sealer(1, 1), &answer.unwrap()).unwrap(),
            b"answer"
        );

        for id in 3..=2 + MAX_FORMER as u32 {
            sealer.turn_over(&key(id), until);
        }
        assert_eq!(under(&sealer, before), Err(Unopened::UnknownKey));
        assert_eq!(sealer.seal_under(former(true), b"", &mut rng), None);
    }

    #[test]
    fn no_key_shows_in_debug() {
        let mut sealer = sealer(1, 77);
        sealer.turn_over(&key(78), Duration::ZERO);
        let shown = format!("{sealer:?}");
        assert!(!shown.contains("77") && !shown.contains("[78"), "{shown}");
    }
}
