//! From the PAKE to a sealed channel: what both sides have said, the keys bound to it, and the frames under them.

use arpanet_core::NodeAddr;
use arpanet_core::admission::Secret;
use chacha20poly1305::aead::Aead;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

use crate::error::Fault;
use crate::wire::{read_frame, write_frame};

/// The most plain bytes in one sealed frame.
const CHUNK: usize = 32 * 1024;
const TAG: usize = 16;
const MORE: u8 = 0;
const LAST: u8 = 1;

/// Which side of the PAKE one is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Joiner,
    Seed,
}

/// Starts the PAKE between these two nodes; gives the message for the other side.
pub(crate) fn start_pake(
    side: Side,
    hash: &Secret<32>,
    joiner: NodeAddr,
    seed: NodeAddr,
) -> (Spake2<Ed25519Group>, Vec<u8>) {
    let password = Password::new(hash.expose());
    let joiner = Identity::new(format!("arpanet2 joiner {joiner}").as_bytes());
    let seed = Identity::new(format!("arpanet2 seed {seed}").as_bytes());
    match side {
        Side::Joiner => Spake2::start_a(&password, &joiner, &seed),
        Side::Seed => Spake2::start_b(&password, &joiner, &seed),
    }
}

/// All that both sides have said, in order.
#[derive(Clone, Default)]
pub(crate) struct Transcript(Sha256);

impl Transcript {
    /// Adds what was said next.
    pub(crate) fn add(&mut self, said: &[u8]) {
        self.0.update((said.len() as u64).to_be_bytes());
        self.0.update(said);
    }

    fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// What follows from the PAKE's key and the transcript. A side that has seen or said another byte has other keys.
pub(crate) struct Keys {
    expand: Hkdf<Sha256>,
    transcript: [u8; 32],
}

impl Keys {
    /// Ends the PAKE with the other side's message.
    pub(crate) fn agree(
        pake: Spake2<Ed25519Group>,
        theirs: &[u8],
        transcript: Transcript,
    ) -> Result<Self, Fault> {
        let key = Zeroizing::new(pake.finish(theirs).map_err(|_| Fault::Pake)?);
        let transcript = transcript.finish();
        Ok(Self {
            expand: Hkdf::new(Some(&transcript), &key),
            transcript,
        })
    }

    /// What both sides sign with their identities.
    pub(crate) const fn transcript(&self) -> &[u8; 32] {
        &self.transcript
    }

    /// What only a side with these keys can say: a MAC of the transcript, since the keys depend on it.
    pub(crate) fn confirmation(&self, of: Side) -> Zeroizing<[u8; 32]> {
        self.derive(match of {
            Side::Joiner => b"arpanet2 join confirm joiner",
            Side::Seed => b"arpanet2 join confirm seed",
        })
    }

    /// The channel as seen from one side.
    pub(crate) fn channel(&self, side: Side) -> Channel {
        let joiner = self.derive(b"arpanet2 join channel joiner");
        let seed = self.derive(b"arpanet2 join channel seed");
        let (mine, theirs) = match side {
            Side::Joiner => (joiner, seed),
            Side::Seed => (seed, joiner),
        };
        Channel {
            sealing: Direction::new(&mine),
            opening: Direction::new(&theirs),
        }
    }

    fn derive(&self, purpose: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        // Fails only for outputs longer than 255 hashes.
        let expanded = self.expand.expand(purpose, key.as_mut());
        debug_assert!(expanded.is_ok());
        key
    }
}

struct Direction {
    cipher: ChaCha20Poly1305,
    frames: u64,
}

impl Direction {
    fn new(key: &[u8; 32]) -> Self {
        Self {
            cipher: ChaCha20Poly1305::new(key.into()),
            frames: 0,
        }
    }

    /// The key is used in one connection and one direction only, so a counter never repeats.
    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.frames.to_be_bytes());
        self.frames += 1;
        nonce.into()
    }
}

/// Sealed messages in both directions (ChaCha20-Poly1305, RFC 8439).
pub(crate) struct Channel {
    sealing: Direction,
    opening: Direction,
}

impl Channel {
    /// Sends a message in as many frames as it needs.
    pub(crate) async fn send(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        message: &[u8],
    ) -> Result<(), Fault> {
        let mut rest = message;
        loop {
            let (chunk, after) = rest.split_at(rest.len().min(CHUNK));
            rest = after;
            let mut plain = Zeroizing::new(Vec::with_capacity(1 + chunk.len()));
            plain.push(if rest.is_empty() { LAST } else { MORE });
            plain.extend_from_slice(chunk);
            let nonce = self.sealing.next_nonce();
            let sealed = self
                .sealing
                .cipher
                .encrypt(&nonce, plain.as_slice())
                .map_err(|_| Fault::Tampered)?;
            write_frame(stream, &sealed).await?;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Receives a message of at most `most` bytes.
    pub(crate) async fn receive(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        most: usize,
    ) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let mut message = Zeroizing::new(Vec::new());
        loop {
            let sealed = read_frame(stream, 1 + CHUNK + TAG).await?;
            let nonce = self.opening.next_nonce();
            let plain = self
                .opening
                .cipher
                .decrypt(&nonce, sealed.as_slice())
                .map(Zeroizing::new)
                .map_err(|_| Fault::Tampered)?;
            let (flag, chunk) = plain.split_first().ok_or(Fault::Tampered)?;
            if message.len() + chunk.len() > most {
                return Err(Fault::TooLong(message.len() + chunk.len()));
            }
            message.extend_from_slice(chunk);
            match (*flag, chunk.is_empty()) {
                (LAST, _) => return Ok(message),
                (MORE, false) => {}
                _ => return Err(Fault::Tampered),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(joiner_said: &[u8], seed_heard: &[u8], hashes: [u8; 2]) -> (Keys, Keys) {
        let [one, two] = ["0.1", "0.2"].map(|node| node.parse().unwrap());
        let [a, b] = hashes.map(|byte| Secret::from_bytes([byte; 32]));
        let (joiner, from_joiner) = start_pake(Side::Joiner, &a, two, one);
        let (seed, from_seed) = start_pake(Side::Seed, &b, two, one);
        let [said, heard] = [joiner_said, seed_heard].map(|bytes| {
            let mut transcript = Transcript::default();
            transcript.add(bytes);
            transcript
        });
        (
            Keys::agree(joiner, &from_seed, said).unwrap(),
            Keys::agree(seed, &from_joiner, heard).unwrap(),
        )
    }

    #[test]
    fn the_same_password_and_words_confirm_each_other_and_nothing_else_does() {
        let confirms = |(one, two): (Keys, Keys)| {
            [Side::Joiner, Side::Seed].map(|side| one.confirmation(side) == two.confirmation(side))
        };
        assert_eq!(confirms(keys(b"hello", b"hello", [7, 7])), [true, true]);
        assert_eq!(confirms(keys(b"hello", b"hallo", [7, 7])), [false, false]);
        assert_eq!(confirms(keys(b"hello", b"hello", [7, 8])), [false, false]);
        let (one, _) = keys(b"hello", b"hello", [7, 7]);
        assert_ne!(one.confirmation(Side::Joiner), one.confirmation(Side::Seed));
    }

    #[tokio::test]
    async fn messages_of_any_size_pass_in_order_and_only_unchanged() {
        let (one, two) = keys(b"", b"", [7, 7]);
        let (mut joiner, mut seed) = (one.channel(Side::Joiner), two.channel(Side::Seed));
        for size in [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let message = vec![5; size];
            let mut wire = Vec::new();
            joiner.send(&mut wire, &message).await.unwrap();
            let got = seed.receive(&mut wire.as_slice(), size).await.unwrap();
            assert_eq!(*got, message);
        }
        let mut wire = Vec::new();
        joiner.send(&mut wire, &[5; 100]).await.unwrap();
        let last = wire.len() - 1;
        wire[last] ^= 1;
        let error = seed.receive(&mut wire.as_slice(), 100).await.unwrap_err();
        assert!(matches!(error, Fault::Tampered));
    }

    #[tokio::test]
    async fn a_message_longer_than_expected_is_refused_before_it_is_whole() {
        let (one, two) = keys(b"", b"", [7, 7]);
        let (mut joiner, mut seed) = (one.channel(Side::Joiner), two.channel(Side::Seed));
        let mut wire = Vec::new();
        joiner.send(&mut wire, &vec![5; 3 * CHUNK]).await.unwrap();
        let mut unread = wire.as_slice();
        let error = seed.receive(&mut unread, CHUNK + 1).await.unwrap_err();
        assert!(matches!(error, Fault::TooLong(_)) && !unread.is_empty());
    }

    #[tokio::test]
    async fn what_one_side_sent_can_t_be_played_back_to_it_or_twice() {
        let (one, two) = keys(b"", b"", [7, 7]);
        let (mut joiner, mut seed) = (one.channel(Side::Joiner), two.channel(Side::Seed));
        let mut wire = Vec::new();
        joiner.send(&mut wire, b"admit me").await.unwrap();
        assert!(joiner.receive(&mut wire.as_slice(), 100).await.is_err());
        assert!(seed.receive(&mut wire.as_slice(), 100).await.is_ok());
        assert!(seed.receive(&mut wire.as_slice(), 100).await.is_err());
    }
}
