//! Which engines there are on this machine.

use std::path::Path;

/// Whether there is such an engine. Says that the test is skipped where not, and fails where one is promised.
pub(crate) fn have(engine: &str, program: &str) -> bool {
    if nix::unistd::geteuid().is_root()
        && [program, "/usr/bin/docker"]
            .iter()
            .all(|path| Path::new(path).exists())
    {
        return true;
    }
    let promised = std::env::var("ARPANET_LIVE").unwrap_or_default();
    assert!(
        !promised.split(',').any(|name| name == engine),
        "ARPANET_LIVE promises {engine}"
    );
    eprintln!("skipped: it needs root, and Debian's docker.io, with podman for Podman");
    false
}
