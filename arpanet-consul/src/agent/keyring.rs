//! The key of consul's gossip, which follows the cluster's.

use std::fs;
use std::path::Path;

use arpanet_core::admission::Membership;
use arpanet_core::{ErrorKind, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hkdf::Hkdf;
use serde_json::json;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::files;
use crate::error::own;

/// The key of consul's gossip, as consul writes it: derived from the cluster's, so that whoever was admitted has it.
pub(super) fn gossip_key(membership: &Membership) -> Result<Zeroizing<String>> {
    let mut key = Zeroizing::new([0; 32]);
    let salt = Some(membership.cluster.as_bytes().as_slice());
    Hkdf::<Sha256>::new(salt, membership.key.key.expose())
        .expand(b"arpanet2 consul gossip v1", key.as_mut_slice())
        .map_err(|_| own(ErrorKind::Internal, "no key can be derived"))?;
    Ok(Zeroizing::new(STANDARD.encode(key.as_slice())))
}

/// Has a consul that is about to start speak under this key. What it has kept goes before its configuration, and a node may
/// have been away while the key turned; those that it had it still understands.
pub(super) fn prefer(data: &Path, key: &str) -> Result<()> {
    let file = data.join("serf").join("local.keyring");
    let Ok(kept) = fs::read(&file) else {
        return Ok(());
    };
    // Consul itself says what is wrong with one that can't be read.
    let Ok(kept) = serde_json::from_slice::<Vec<String>>(&kept) else {
        return Ok(());
    };
    if kept.first().is_some_and(|first| first == key) {
        return Ok(());
    }
    let others = kept.iter().map(String::as_str).filter(|kept| *kept != key);
    let keys: Vec<&str> = std::iter::once(key).chain(others).collect();
    files::replace(&file, &json!(keys)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_before_those_that_were_kept() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        prefer(data, "new").unwrap();
        assert!(!data.join("serf").exists());
        fs::create_dir(data.join("serf")).unwrap();
        let file = data.join("serf/local.keyring");
        for (kept, wanted) in [
            (r#"["old"]"#, r#"["new","old"]"#),
            (r#"["older","new"]"#, r#"["new","older"]"#),
            (r#"["new","old"]"#, r#"["new","old"]"#),
            ("torn", "torn"),
        ] {
            fs::write(&file, kept).unwrap();
            prefer(data, "new").unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), wanted);
        }
    }
}
