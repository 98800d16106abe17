//! Handing the cluster's key to a member that has an older one, or that is to get the next.
//!
//! ```text
//! 0        1        2              6
//! | 0xA2 | 2      | cluster tag  | letter |
//! ```
//! A letter needs no key that both sides have: it is signed by its writer's identity, and a key in it is sealed to the
//! reader's (X25519 between a fresh key and the reader's identity, HKDF-SHA256, ChaCha20-Poly1305). So a member comes back
//! after any number of keys, and the keys before need not be kept anywhere.
//!
//! Letters can be recorded and sent again. An `Ask` says nothing but which key a member has, and is answered with a letter
//! that only this member can open; a key that is not newer than the reader's changes nothing.

use std::fmt;

use arpanet_core::admission::{ClusterKey, Credential};
use arpanet_core::roster::{ClusterId, Identity};
use bytes::Bytes;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};
use ed25519_dalek::{SigningKey, VerifyingKey};
use hkdf::Hkdf;
use rand::RngExt;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::record::Signature;
use crate::seal::MAGIC;
use crate::wire::{decode, encode};

/// The second byte of a letter; that of what is sealed under the cluster's key is 1.
const LETTER: u8 = 2;
const HEADER: usize = 6;

/// What [`ClusterKey::rank`] says.
pub(crate) type Rank = (u64, u32);

/// What is said in the clear, by one who signs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Letter {
    /// "My key is of this rank": whoever has a better one and may give it, gives it; whoever has an older one asks back.
    Ask(Ask),
    /// "Here is a better one."
    Give(Give),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) node: u16,
    pub(crate) rank: Rank,
    signature: Signature,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Give {
    pub(crate) by: u16,
    pub(crate) to: u16,
    pub(crate) rank: Rank,
    ephemeral: [u8; 32],
    sealed: Bytes,
    signature: Signature,
}

/// What only the reader sees.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) key: ClusterKey,
    /// For nodes that admit others.
    pub(crate) credential: Option<Credential>,
    /// What is to be acknowledged under the new key; 0: nothing.
    pub(crate) ack: u64,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("rank", &self.key.rank())
            .finish_non_exhaustive()
    }
}

impl Letter {
    /// The datagram that it is.
    pub(crate) fn write(&self, tag: [u8; 4]) -> Vec<u8> {
        let mut datagram = vec![MAGIC, LETTER];
        datagram.extend_from_slice(&tag);
        datagram.extend_from_slice(&encode(self));
        datagram
    }

    /// Whether a datagram is a letter of this cluster.
    pub(crate) fn is_one(datagram: &[u8], tag: [u8; 4]) -> bool {
        datagram.len() > HEADER && datagram[..2] == [MAGIC, LETTER] && datagram[2..HEADER] == tag
    }

    /// What a datagram that is one says.
    pub(crate) fn read(datagram: &[u8]) -> Option<Self> {
        decode(datagram.get(HEADER..)?)
    }
}

impl Ask {
    pub(crate) fn sign(cluster: &ClusterId, node: u16, rank: Rank, key: &SigningKey) -> Self {
        let signature = Signature::sign(key, &Self::message(cluster, node, rank));
        Self {
            node,
            rank,
            signature,
        }
    }

    pub(crate) fn is_by(&self, cluster: &ClusterId, identity: &Identity) -> bool {
        let message = Self::message(cluster, self.node, self.rank);
        self.signature.verifies(identity, &message)
    }

    fn message(cluster: &ClusterId, node: u16, rank: Rank) -> Vec<u8> {
        let mut message = b"arpanet2 gossip key asked v1\0".to_vec();
        message.extend_from_slice(cluster.as_bytes());
        message.extend_from_slice(&node.to_be_bytes());
        message.extend_from_slice(&rank.0.to_be_bytes());
        message.extend_from_slice(&rank.1.to_be_bytes());
        message
    }
}

/// From whom to whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address<'a> {
    pub(crate) cluster: &'a ClusterId,
    pub(crate) by: u16,
    pub(crate) to: u16,
    /// The reader's.
    pub(crate) identity: &'a Identity,
}

impl Give {
    /// Seals to the reader and signs; `None` for an identity that is no public key.
    pub(crate) fn sign(
        address: &Address<'_>,
        content: &Content,
        key: &SigningKey,
        rng: &mut StdRng,
    ) -> Option<Self> {
        let Address {
            cluster, by, to, ..
        } = *address;
        // Lives for this letter alone, as a pair for the exchange; nothing is ever signed with it.
        let secret = Zeroizing::new(rng.random::<[u8; 32]>());
        let fresh = SigningKey::from_bytes(&secret);
        let ephemeral = fresh.verifying_key().to_bytes();
        let rank = content.key.rank();
        let context = Self::context(cluster, by, to, rank);
        let cipher = shared(
            &fresh,
            address.identity.as_bytes(),
            &ephemeral,
            address.identity,
        )?;
        let plain = Zeroizing::new(encode(content));
        let payload = Payload {
            msg: &plain,
            aad: &context,
        };
        // The key is for this one message, so any nonce does.
        let sealed = Bytes::from(cipher.encrypt(&Nonce::default(), payload).ok()?);
        let signature = Signature::sign(key, &Self::message(context, &ephemeral, &sealed));
        Some(Self {
            by,
            to,
            rank,
            ephemeral,
            sealed,
            signature,
        })
    }

    pub(crate) fn is_by(&self, cluster: &ClusterId, identity: &Identity) -> bool {
        let context = Self::context(cluster, self.by, self.to, self.rank);
        let message = Self::message(context, &self.ephemeral, &self.sealed);
        self.signature.verifies(identity, &message)
    }

    /// What it says, to whom it was written to.
    pub(crate) fn open(&self, cluster: &ClusterId, key: &SigningKey) -> Option<Content> {
        let me = Identity::from_bytes(key.verifying_key().to_bytes());
        let context = Self::context(cluster, self.by, self.to, self.rank);
        let payload = Payload {
            msg: &self.sealed,
            aad: &context,
        };
        let cipher = shared(key, &self.ephemeral, &self.ephemeral, &me)?;
        let plain = Zeroizing::new(cipher.decrypt(&Nonce::default(), payload).ok()?);
        let content: Content = decode(&plain)?;
        (content.key.rank() == self.rank).then_some(content)
    }

    fn context(cluster: &ClusterId, by: u16, to: u16, rank: Rank) -> Vec<u8> {
        let mut context = b"arpanet2 gossip key given v1\0".to_vec();
        context.extend_from_slice(cluster.as_bytes());
        context.extend_from_slice(&by.to_be_bytes());
        context.extend_from_slice(&to.to_be_bytes());
        context.extend_from_slice(&rank.0.to_be_bytes());
        context.extend_from_slice(&rank.1.to_be_bytes());
        context
    }

    fn message(mut context: Vec<u8>, ephemeral: &[u8; 32], sealed: &[u8]) -> Vec<u8> {
        context.extend_from_slice(ephemeral);
        context.extend_from_slice(sealed);
        context
    }
}

/// The cipher that both ends come to: from one's secret and the other's public key.
fn shared(
    mine: &SigningKey,
    theirs: &[u8; 32],
    ephemeral: &[u8; 32],
    reader: &Identity,
) -> Option<ChaCha20Poly1305> {
    let theirs = VerifyingKey::from_bytes(theirs).ok()?;
    // With one of the few points of low order anybody would come to the same.
    if theirs.is_weak() {
        return None;
    }
    let secret = Zeroizing::new(mine.to_scalar_bytes());
    let secret = Zeroizing::new(theirs.to_montgomery().mul_clamped(*secret).to_bytes());
    let mut salt = ephemeral.to_vec();
    salt.extend_from_slice(reader.as_bytes());
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(&salt), secret.as_slice())
        .expand(b"arpanet2 gossip key handover v1", key.as_mut_slice())
        .ok()?;
    Some(ChaCha20Poly1305::new(key.as_slice().into()))
}

#[cfg(test)]
mod tests {
    use arpanet_core::admission::Secret;
    use rand::SeedableRng;

    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_bytes([9; 16]);

    fn signing(byte: u8) -> SigningKey {
        SigningKey::from_bytes(&[byte; 32])
    }

    fn identity(byte: u8) -> Identity {
        Identity::from_bytes(signing(byte).verifying_key().to_bytes())
    }

    fn content() -> Content {
        Content {
            key: ClusterKey::new(0x2_0001, Secret::from_bytes([0x5A; 32])).covering(3),
            credential: Some(Credential::from_bytes(vec![0x5B; Credential::MAX]).unwrap()),
            ack: 7,
        }
    }

    fn give() -> Give {
        let mut rng = StdRng::seed_from_u64(1);
        let reader = identity(2);
        let address = Address {
            cluster: &CLUSTER,
            by: 1,
            to: 2,
            identity: &reader,
        };
        Give::sign(&address, &content(), &signing(1), &mut rng).unwrap()
    }

    #[test]
    fn only_the_reader_opens_it_and_the_writer_is_known() {
        let give = give();
        assert!(give.is_by(&CLUSTER, &identity(1)));
        assert_eq!(give.open(&CLUSTER, &signing(2)), Some(content()));
        assert!(!give.is_by(&CLUSTER, &identity(2)));
        assert!(!give.is_by(&ClusterId::from_bytes([8; 16]), &identity(1)));
        assert_eq!(give.open(&CLUSTER, &signing(1)), None);
        assert_eq!(give.open(&CLUSTER, &signing(3)), None);
        assert_eq!(
            give.open(&ClusterId::from_bytes([8; 16]), &signing(2)),
            None
        );
    }

    #[test]
    fn no_bit_of_a_letter_can_be_changed() {
        let tag = [1, 2, 3, 4];
        let ask = Ask::sign(&CLUSTER, 2, (0, 1), &signing(1));
        for letter in [Letter::Give(give()), Letter::Ask(ask)] {
            let datagram = letter.write(tag);
            assert!(datagram.len() <= crate::wire::MAX_DATAGRAM);
            assert_eq!(Letter::read(&datagram), Some(letter));
            for bit in HEADER * 8..datagram.len() * 8 {
                let mut changed = datagram.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let stands = match Letter::read(&changed) {
                    Some(Letter::Give(give)) => give.is_by(&CLUSTER, &identity(1)),
                    Some(Letter::Ask(ask)) => ask.is_by(&CLUSTER, &identity(1)),
                    None => false,
                };
                assert!(!stands, "bit {bit}");
            }
            for (at, other) in [(0, 0xA3), (1, 1), (2, 9)] {
                let mut changed = datagram.clone();
                assert!(Letter::is_one(&changed, tag));
                changed[at] = other;
                assert!(!Letter::is_one(&changed, tag));
            }
        }
    }

    #[test]
    fn what_is_secret_neither_shows_nor_travels_in_the_clear() {
        let give = give();
        let shown = format!("{:?} {:?}", content(), give.open(&CLUSTER, &signing(2)));
        assert!(!shown.contains("90") && !shown.contains("91"), "{shown}");
        let datagram = Letter::Give(give).write([0; 4]);
        for secret in [[0x5A; 4], [0x5B; 4]] {
            assert!(!datagram.windows(4).any(|window| window == secret));
        }
    }

    #[test]
    fn nothing_is_sealed_to_a_key_of_low_order() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut weak = [0; 32];
        weak[0] = 1;
        for identity in [weak, [0; 32], [2; 32]].map(Identity::from_bytes) {
            let address = Address {
                cluster: &CLUSTER,
                by: 1,
                to: 2,
                identity: &identity,
            };
            let weak = VerifyingKey::from_bytes(identity.as_bytes());
            let give = Give::sign(&address, &content(), &signing(1), &mut rng);
            assert!(give.is_none() || weak.is_ok_and(|key| !key.is_weak()));
        }
        let mut given = give();
        given.ephemeral = weak;
        assert_eq!(given.open(&CLUSTER, &signing(2)), None);
    }
}
