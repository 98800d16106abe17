//! The key of consul's gossip, which follows the cluster's.
//!
//! Which key a process speaks under is told by nothing but its own life: it begins with the one of its configuration, and keeps
//! none on disk (`disable_keyring_file`), so that no old key outlives a restart. While a process is being told of another, a marker
//! stands; one that is found there at a start says that the process may not have it, and the process is started again.

use arpanet_core::admission::{ClusterKey, Membership};
use arpanet_core::roster::ClusterId;
use arpanet_core::{ErrorKind, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::own;

/// The key of consul's gossip, as consul writes it.
pub(super) fn gossip_key(membership: &Membership) -> Result<Zeroizing<String>> {
    derived(&membership.cluster, &membership.key)
}

/// Derived from a key of the cluster, so that whoever was admitted has it.
pub(super) fn derived(cluster: &ClusterId, from: &ClusterKey) -> Result<Zeroizing<String>> {
    let mut key = Zeroizing::new([0; 32]);
    let salt = Some(cluster.as_bytes().as_slice());
    Hkdf::<Sha256>::new(salt, from.key.expose())
        .expand(b"arpanet2 consul gossip v1", key.as_mut_slice())
        .map_err(|_| own(ErrorKind::Internal, "no key can be derived"))?;
    Ok(Zeroizing::new(STANDARD.encode(key.as_slice())))
}

#[cfg(test)]
mod tests {
    use arpanet_core::admission::Secret;

    use super::*;

    #[test]
    fn every_key_of_every_cluster_has_one_of_its_own() {
        let key = |cluster: u8, key: u8| {
            let cluster = ClusterId::from_bytes([cluster; 16]);
            let key = ClusterKey::new(1, Secret::from_bytes([key; 32]));
            derived(&cluster, &key).unwrap()
        };
        assert_eq!(key(1, 1), key(1, 1));
        assert_ne!(key(1, 1), key(1, 2));
        assert_ne!(key(1, 1), key(2, 1));
        // As consul wants it: 32 bytes.
        assert_eq!(STANDARD.decode(key(1, 1).as_bytes()).unwrap().len(), 32);
    }
}
