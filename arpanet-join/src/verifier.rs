//! The password's hash: what a node keeps so that it can admit others (Argon2id, RFC 9106).

use argon2::{Algorithm, Argon2, Params};
use arpanet_core::admission::{Credential, Password, Secret};
use arpanet_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::identity::random;

/// What one guess of the password costs: Argon2id's memory, passes and lanes.
///
/// ```
/// use arpanet_join::KdfParams;
/// assert!(KdfParams::new(32 * 1024, 3, 1).is_ok());
/// assert!(KdfParams::new(64 * 1024 * 1024, 3, 1).is_err()); // 64 GiB
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KdfParams {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// The least and the most memory, in KiB.
const MEMORY: std::ops::RangeInclusive<u32> = 8 * 1024..=256 * 1024;
const PASSES: std::ops::RangeInclusive<u32> = 1..=16;
const LANES: std::ops::RangeInclusive<u32> = 1..=4;
/// Memory times passes, in KiB: a second or two of one core.
const WORK: u64 = 1024 * 1024;

impl KdfParams {
    /// Memory in KiB (8 to 256 MiB), passes over it (1 to 16), lanes (1 to 4), and at most 1 GiB in all passes together.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for what is too cheap to guess or too dear to join with.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self> {
        let params = Self {
            memory_kib,
            passes,
            lanes,
        };
        params.check()?;
        Ok(params)
    }

    /// Parameters come from files and, before any proof, from the network: they are checked where they are used.
    fn check(self) -> Result<()> {
        let sound = MEMORY.contains(&self.memory_kib)
            && PASSES.contains(&self.passes)
            && LANES.contains(&self.lanes)
            && u64::from(self.memory_kib) * u64::from(self.passes) <= WORK;
        if sound {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "Argon2id with {} KiB, {} passes and {} lanes is out of bounds",
                self.memory_kib, self.passes, self.lanes
            ),
        )
        .with_hint(
            "8 to 256 MiB, 1 to 16 passes and 1 to 4 lanes can be used, 1 GiB in all passes",
        ))
    }
}

impl Default for KdfParams {
    /// 32 MiB, 3 passes, 1 lane: 50 to 100 ms on a common machine.
    fn default() -> Self {
        Self {
            memory_kib: 32 * 1024,
            passes: 3,
            lanes: 1,
        }
    }
}

/// The Argon2id hash of a cluster's password with its salt and cost. As good as the password to whoever has it: it
/// joins and it admits. Keep it where only root reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verifier {
    kdf: KdfParams,
    salt: [u8; 16],
    hash: Secret<32>,
}

impl Verifier {
    /// The hash of this password with a new salt. Takes as long as a guess: run it where blocking is fine.
    pub(crate) fn new(password: &Password, kdf: KdfParams) -> Result<Self> {
        Self::of(password, kdf, *random()?)
    }

    /// The hash of this password as its cluster makes it. Takes as long as a guess: run it where blocking is fine.
    pub(crate) fn of(password: &Password, kdf: KdfParams, salt: [u8; 16]) -> Result<Self> {
        kdf.check()?;
        let failed = |source: argon2::Error| {
            Error::new(ErrorKind::Internal, "the password can't be hashed")
                .with_hint(source.to_string())
        };
        let params =
            Params::new(kdf.memory_kib, kdf.passes, kdf.lanes, Some(32)).map_err(failed)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, argon2::Version::V0x13, params);
        let mut hash = Zeroizing::new([0; 32]);
        argon2
            .hash_password_into(password.expose().as_bytes(), &salt, hash.as_mut())
            .map_err(failed)?;
        Ok(Self {
            kdf,
            salt,
            hash: Secret::from_bytes(*hash),
        })
    }

    /// As members pass it on when the password was changed.
    pub(crate) fn to_credential(&self) -> Result<Credential> {
        let bytes = serde_json::to_vec(self).map_err(|source| {
            Error::new(ErrorKind::Internal, "the password's hash can't be written")
                .with_source(source)
        })?;
        Credential::from_bytes(bytes)
    }

    /// What a member passed on.
    pub(crate) fn from_credential(credential: &Credential) -> Result<Self> {
        let verifier: Self = serde_json::from_slice(credential.expose()).map_err(|_| {
            // What could not be read is a secret, or close to one.
            Error::new(
                ErrorKind::Incompatible,
                "the hash of the new password is written in another way than this version reads",
            )
            .with_hint("run the same version of arpanet2 on all nodes")
        })?;
        verifier.kdf.check()?;
        Ok(verifier)
    }

    pub(crate) const fn kdf(&self) -> KdfParams {
        self.kdf
    }

    pub(crate) const fn salt(&self) -> [u8; 16] {
        self.salt
    }

    pub(crate) const fn hash(&self) -> &Secret<32> {
        &self.hash
    }
}

/// Hashes on a thread where blocking is fine. A dropped future lets the hash run out and forgets it.
pub(crate) async fn hash(
    password: &Password,
    kdf: KdfParams,
    salt: Option<[u8; 16]>,
) -> Result<Verifier> {
    let password = password.clone();
    tokio::task::spawn_blocking(move || match salt {
        Some(salt) => Verifier::of(&password, kdf, salt),
        None => Verifier::new(&password, kdf),
    })
    .await
    .map_err(|source| {
        Error::new(ErrorKind::Internal, "the password could not be hashed").with_source(source)
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_password_salt_and_cost_and_never_shows() {
        let password = Password::new("Apples").unwrap();
        let cheap = KdfParams::new(8 * 1024, 1, 1).unwrap();
        let one = Verifier::of(&password, cheap, [1; 16]).unwrap();
        assert_eq!(one, Verifier::of(&password, cheap, [1; 16]).unwrap());
        let others = [
            Verifier::of(&password, cheap, [2; 16]).unwrap(),
            Verifier::of(&password, KdfParams::new(8 * 1024, 2, 1).unwrap(), [1; 16]).unwrap(),
            Verifier::of(&Password::new("apples").unwrap(), cheap, [1; 16]).unwrap(),
        ];
        assert!(others.iter().all(|other| other.hash != one.hash));
        assert!(format!("{one:?}").contains("(secret)"));
    }

    #[test]
    fn a_hash_is_passed_on_as_it_is_and_a_bad_one_is_refused() {
        let password = Password::new("Apples").unwrap();
        let cheap = KdfParams::new(8 * 1024, 1, 1).unwrap();
        let verifier = Verifier::of(&password, cheap, [255; 16]).unwrap();
        let credential = verifier.to_credential().unwrap();
        assert_eq!(Verifier::from_credential(&credential).unwrap(), verifier);
        for bad in [
            "{}",
            "x",
            r#"{"kdf":{"memory_kib":4294967295,"passes":9,"lanes":9}"#,
        ] {
            let bad = Credential::from_bytes(bad.as_bytes().to_vec()).unwrap();
            let error = Verifier::from_credential(&bad).unwrap_err();
            assert!(!format!("{error:?} {error}").contains("4294967295"));
        }
        let mut absurd = verifier;
        absurd.kdf.memory_kib = u32::MAX;
        let absurd = absurd.to_credential().unwrap();
        let error = Verifier::from_credential(&absurd).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn absurd_costs_are_refused_before_any_memory_is_taken() {
        let password = Password::new("Apples").unwrap();
        for (memory_kib, passes, lanes) in [
            (u32::MAX, 1, 1),
            (8 * 1024, u32::MAX, 1),
            (8 * 1024, 1, 5),
            (256 * 1024, 16, 1),
            (8, 1, 1),
            (0, 0, 0),
        ] {
            let kdf = KdfParams {
                memory_kib,
                passes,
                lanes,
            };
            let error = Verifier::of(&password, kdf, [0; 16]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{kdf:?}");
        }
    }
}
