//! Which engines there are on this machine.

use std::path::Path;

use arpanet_core::conformance::live;

/// Whether there is such an engine. Says that the test is skipped where not, and fails where one is promised.
pub(crate) fn have(engine: &str, program: &str) -> bool {
    let mut programs = [program, "/usr/bin/docker"].into_iter();
    let is_there =
        nix::unistd::geteuid().is_root() && programs.all(|path| Path::new(path).exists());
    let needs = "root, and Debian's docker.io, with podman for Podman";
    live::have(engine, is_there, needs)
}
