//! `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s`, as WireGuard speaks it (sections 5.4.2 and 5.4.3).

use std::time::{Duration, SystemTime};

use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use super::super::{PrivateKey, PublicKey};
use super::message::{
    INITIATION, INITIATION_NOISE, Kind, RESPONSE, RESPONSE_NOISE, head, receiver, sender,
};

const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
/// What those agree on who have agreed on nothing.
const NO_PRESHARED_KEY: &[u8; 32] = &[0; 32];

/// When an initiation was made, TAI64N: an older one than the last is a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in super::super) struct Timestamp([u8; 12]);

impl Timestamp {
    /// A time, exact: whoever begins anew right after it has gone down must not seem to be a replay.
    pub(in super::super) fn of(time: SystemTime) -> Self {
        /// The epoch in TAI64, with the ten seconds that TAI was ahead of UTC.
        const EPOCH: u64 = (1 << 62) + 10;
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&(EPOCH + since.as_secs()).to_be_bytes());
        bytes[8..].copy_from_slice(&since.subsec_nanos().to_be_bytes());
        Self(bytes)
    }

    /// The next one after this that there is.
    fn next(self) -> Self {
        let mut bytes = self.0;
        for byte in bytes.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                break;
            }
        }
        Self(bytes)
    }
}

/// Gives the initiations of one tunnel their times: each later than all before, whatever the clock says. To whom they go makes
/// no difference: a peer that was removed and is wanted again still knows the last one that it heard.
#[derive(Debug, Default)]
pub(in super::super) struct Times {
    last: Timestamp,
}

impl Times {
    /// For the next initiation.
    pub(in super::super) fn next(&mut self, clock: SystemTime) -> Timestamp {
        self.last = Timestamp::of(clock).max(self.last.next());
        self.last
    }
}

/// What a handshake leads to.
pub(in super::super) struct Keys {
    /// The session's index here.
    pub(in super::super) local: u32,
    /// The session's index there.
    pub(in super::super) remote: u32,
    pub(super) send: Zeroizing<[u8; 32]>,
    pub(super) receive: Zeroizing<[u8; 32]>,
}

fn builder(key: &[u8; 32]) -> Result<Builder<'_>, snow::Error> {
    Builder::new(PATTERN.parse()?)
        .prologue(PROLOGUE)?
        .psk(2, NO_PRESHARED_KEY)?
        .local_private_key(key)
}

/// A handshake that this side has begun.
pub(in super::super) struct Initiation {
    noise: Box<HandshakeState>,
    index: u32,
}

impl Initiation {
    /// Begins one with a peer, under an index of this side. The message still lacks its MACs.
    pub(in super::super) fn begin(
        key: &PrivateKey,
        peer: &PublicKey,
        index: u32,
        timestamp: Timestamp,
    ) -> Result<(Self, [u8; INITIATION]), snow::Error> {
        let secret = key.to_bytes();
        let mut noise = builder(&secret)?
            .remote_public_key(peer.as_bytes())?
            .build_initiator()?;
        let mut message = [0; INITIATION];
        message[..4].copy_from_slice(&head(Kind::Initiation));
        message[4..8].copy_from_slice(&index.to_le_bytes());
        noise.write_message(&timestamp.0, &mut message[INITIATION_NOISE])?;
        let noise = Box::new(noise);
        Ok((Self { noise, index }, message))
    }

    /// By which the other side answers.
    pub(in super::super) const fn index(&self) -> u32 {
        self.index
    }

    /// What the response leads to. One that is not genuine changes nothing.
    pub(in super::super) fn finish(&mut self, response: &[u8]) -> Result<Keys, snow::Error> {
        if Kind::of(response) != Some(Kind::Response)
            || receiver(Kind::Response, response) != self.index
        {
            return Err(snow::Error::Input);
        }
        // Room for the payload, of which there is none.
        self.noise
            .read_message(&response[RESPONSE_NOISE], &mut [0; 16])?;
        let (send, receive) = self.noise.dangerously_get_raw_split();
        Ok(Keys {
            local: self.index,
            remote: sender(response),
            send: send.into(),
            receive: receive.into(),
        })
    }
}

/// A handshake that another side has begun.
pub(in super::super) struct Call {
    noise: HandshakeState,
    remote: u32,
    /// Who it is: proven, but an earlier call may have been recorded.
    pub(in super::super) from: PublicKey,
    /// When it was made: later than the last one, or it is a recording.
    pub(in super::super) timestamp: Timestamp,
}

impl Call {
    /// Reads an initiation.
    pub(in super::super) fn read(key: &PrivateKey, message: &[u8]) -> Result<Self, snow::Error> {
        if Kind::of(message) != Some(Kind::Initiation) {
            return Err(snow::Error::Input);
        }
        let secret = key.to_bytes();
        let mut noise = builder(&secret)?.build_responder()?;
        let mut timestamp = [0; 12 + 16];
        noise.read_message(&message[INITIATION_NOISE], &mut timestamp)?;
        let from = noise
            .get_remote_static()
            .and_then(<[u8]>::first_chunk)
            .ok_or(snow::Error::Dh)?;
        Ok(Self {
            remote: sender(message),
            from: PublicKey::from_bytes(*from),
            timestamp: Timestamp(timestamp[..12].try_into().map_err(|_| snow::Error::Input)?),
            noise,
        })
    }

    /// Answers it, under an index of this side. The message still lacks its MACs.
    pub(in super::super) fn answer(
        mut self,
        index: u32,
    ) -> Result<([u8; RESPONSE], Keys), snow::Error> {
        let mut message = [0; RESPONSE];
        message[..4].copy_from_slice(&head(Kind::Response));
        message[4..8].copy_from_slice(&index.to_le_bytes());
        message[8..12].copy_from_slice(&self.remote.to_le_bytes());
        self.noise
            .write_message(&[], &mut message[RESPONSE_NOISE])?;
        let (receive, send) = self.noise.dangerously_get_raw_split();
        let keys = Keys {
            local: index,
            remote: self.remote,
            send: send.into(),
            receive: receive.into(),
        };
        Ok((message, keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(timestamp: Timestamp) -> (PrivateKey, PrivateKey, Initiation, [u8; INITIATION]) {
        let keys = || PrivateKey::generate().unwrap();
        let (a, b) = (keys(), keys());
        let (initiation, message) = Initiation::begin(&a, &b.public_key(), 7, timestamp).unwrap();
        (a, b, initiation, message)
    }

    #[test]
    fn both_sides_come_to_the_same_keys() {
        let now = Timestamp::of(SystemTime::now());
        let (a, b, mut initiation, message) = begin(now);
        let call = Call::read(&b, &message).unwrap();
        assert_eq!((call.from, call.timestamp), (a.public_key(), now));
        let (response, there) = call.answer(8).unwrap();
        let here = initiation.finish(&response).unwrap();
        assert_eq!((here.local, here.remote), (7, 8));
        assert_eq!((there.local, there.remote), (8, 7));
        assert_eq!(here.send, there.receive);
        assert_eq!(here.receive, there.send);
        assert_ne!(here.send, here.receive);
        assert!(Call::read(&a, &message).is_err(), "it was for another");
    }

    #[test]
    fn a_response_that_was_changed_is_refused_and_the_genuine_one_still_taken() {
        let (_, b, mut initiation, message) = begin(Timestamp::default());
        let (response, _) = Call::read(&b, &message).unwrap().answer(8).unwrap();
        for at in (0..4).chain(8..RESPONSE - 32) {
            let mut changed = response;
            changed[at] ^= 1;
            assert!(initiation.finish(&changed).is_err(), "byte {at}");
        }
        assert!(initiation.finish(&response[..60]).is_err());
        assert!(initiation.finish(&response).is_ok());
    }

    #[test]
    fn an_initiation_that_was_changed_is_refused() {
        let (_, b, _, message) = begin(Timestamp::default());
        for at in (0..4).chain(8..INITIATION - 32) {
            let mut changed = message;
            changed[at] ^= 1;
            assert!(Call::read(&b, &changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn initiations_have_later_times_also_after_the_clock_went_back() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut times = Times::default();
        let first = times.next(at(90_000));
        assert_eq!(first, Timestamp::of(at(90_000)));
        let mut last = first;
        for seconds in [90_000, 3_600, 0, 3_601] {
            let next = times.next(at(seconds));
            assert!(next > last, "{seconds}");
            last = next;
        }
        assert!(last < Timestamp::of(at(90_001)), "it does not run ahead");
        assert_eq!(times.next(at(90_001)), Timestamp::of(at(90_001)));
    }

    #[test]
    fn timestamps_are_in_the_order_of_time() {
        let at = |millis| Timestamp::of(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        assert!(at(0) < at(1) && at(999) < at(1_000) && at(300_000) < at(300_020));
        assert_eq!(at(0).0[..8], [0x40, 0, 0, 0, 0, 0, 0, 10]);
        assert!(at(1_000) < at(1_000).next() && at(1_000).next() < at(1_100));
        assert!(Timestamp([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255]).next() > Timestamp::default());
    }
}
