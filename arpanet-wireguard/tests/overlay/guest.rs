//! All of this once more over the kernel's WireGuard: in a guest, since not every kernel has it.

use std::io::Write;
use std::time::Duration;

use arpanet_core::conformance::live;
use arpanet_lab::Guest;

/// For a machine that does much else meanwhile.
const LIMIT: Duration = Duration::from_secs(600);
/// What says little of the kernel's tunnel, and takes long where computing is slow.
const LEFT_OUT: &[&str] = &["isolation::", "plug::", "logic::", "leftovers::"];

#[tokio::test]
async fn the_kernels_wireguard_keeps_all_of_this() {
    if live::promises("wireguard") {
        return;
    }
    let Some(kernel) = live::kernel() else {
        return;
    };
    let tests = std::env::current_exe().unwrap();
    let guest = Guest::new(kernel)
        .modules(["wireguard", "tun", "veth", "bridge"])
        .program(&tests)
        .env("ARPANET_LIVE", "root,wireguard");
    let mut command = vec![tests.as_os_str()];
    for name in LEFT_OUT {
        command.extend(["--skip", *name].map(std::ffi::OsStr::new));
    }
    let run = guest.run(&command, LIMIT).await.unwrap();
    // Not by the macro, whose words nobody sees of a test that passes.
    let closing = run.passed();
    let _ = writeln!(
        std::io::stderr(),
        "in a guest, in {:?}: {closing}",
        run.took
    );
}
