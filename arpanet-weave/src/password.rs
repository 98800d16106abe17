//! The router's password.

use std::fmt;

use arpanet_core::admission::{ClusterKey, Membership};
use arpanet_core::roster::ClusterId;
use hkdf::Hkdf;
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Sets it apart from everything else that is derived from the cluster's key.
const LABEL: &[u8] = b"arpanet2 weave v1";

/// A password of weave routers. Shown nowhere, and wiped when dropped.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct RouterPassword(Zeroizing<String>);

impl RouterPassword {
    /// From its text, for a weave network that was there before the cluster.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The one of a cluster: 64 hexadecimal digits, by HKDF-SHA256 (RFC 5869) from the cluster's key. So the human's password
    /// can't be guessed at the router.
    #[must_use]
    pub fn derive(cluster: &ClusterId, key: &ClusterKey) -> Self {
        let mut derived = Zeroizing::new([0; 32]);
        let expanded = Hkdf::<Sha256>::new(Some(cluster.as_bytes()), key.key.expose())
            .expand(LABEL, derived.as_mut_slice());
        debug_assert!(
            expanded.is_ok(),
            "32 bytes are a valid length for HKDF-SHA256"
        );
        Self(Zeroizing::new(hex(derived.as_slice())))
    }

    pub(crate) fn of(membership: &Membership) -> Self {
        Self::derive(&membership.cluster, &membership.key)
    }

    /// The password itself: never to be logged or shown.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for RouterPassword {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for RouterPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RouterPassword(secret)")
    }
}

/// Into a configuration file, which then has to be kept secret too.
impl Serialize for RouterPassword {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

/// What tells one set of arguments and password from another, and tells nothing of the password.
pub(crate) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use arpanet_core::admission::Secret;

    use super::*;

    fn key(byte: u8) -> ClusterKey {
        ClusterKey::new(1, Secret::from_bytes([byte; 32]))
    }

    #[test]
    fn a_password_is_the_clusters_and_never_shown() {
        let (one, other) = (
            ClusterId::from_bytes([7; 16]),
            ClusterId::from_bytes([8; 16]),
        );
        let password = RouterPassword::derive(&one, &key(9));
        // Computed apart from this code: HMAC-SHA256 twice, as RFC 5869 says.
        assert_eq!(
            password.expose(),
            "04f57c0041f57ccecc047e77fd112f4947c0b45be0e6b40d7e0dc07e4669c0f0"
        );
        assert_eq!(password, RouterPassword::derive(&one, &key(9)));
        for different in [
            RouterPassword::derive(&other, &key(9)),
            RouterPassword::derive(&one, &key(8)),
        ] {
            assert_ne!(password, different);
        }
        assert!(!format!("{password:?}").contains(password.expose()));
    }

    #[test]
    fn a_fingerprint_knows_where_a_part_ends() {
        assert_ne!(fingerprint(["ab", "c"]), fingerprint(["a", "bc"]));
        assert_eq!(fingerprint(["ab", "c"]), fingerprint(["ab", "c"]));
    }
}
