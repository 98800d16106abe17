//! A guest with Debian's kernel: it runs what it is given, says what that came to, keeps to its time, and can what this machine's
//! kernel may not.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::time::Duration;

use arpanet_core::conformance::live;
use arpanet_lab::Guest;

const LIMIT: Duration = Duration::from_secs(60);

/// The guest with the kernel that `ARPANET_KERNEL` names. `None`, with a word why, where it names none and none is promised.
fn guest() -> Option<Guest> {
    live::kernel().map(Guest::new)
}

#[tokio::test]
async fn a_command_runs_under_the_other_kernel() {
    let Some(guest) = guest() else { return };
    let guest = guest
        .modules(["wireguard", "dummy"])
        .program("/usr/sbin/ip")
        .file("/etc/motto", 0o600, "it's here\n")
        .env("GREETING", "good  day");
    let script = "cat /etc/motto; echo \"$GREETING\"; echo aside >&2; stat -c %a /etc/motto
        /usr/sbin/ip link add wg0 type wireguard && /usr/sbin/ip -o link show wg0
        /usr/sbin/ip link add quiet type dummy && cat /sys/class/net/lo/operstate
        exit 3";
    let run = guest
        .run(&["/bin/busybox", "sh", "-c", script], LIMIT)
        .await
        .unwrap();
    assert_eq!(run.code, Some(3), "{run:?}");
    let (begin, rest) = run.output.split_once("wg0: ").unwrap();
    assert!(
        begin.starts_with("it's here\ngood  day\naside\n600\n"),
        "{run:?}"
    );
    assert!(rest.contains("POINTOPOINT"), "{run:?}");
    assert!(rest.ends_with("unknown\n"), "{run:?}");
}

#[tokio::test]
async fn a_command_that_does_not_end_is_ended() {
    let Some(guest) = guest() else { return };
    let limit = Duration::from_secs(1);
    let command = ["/bin/busybox", "sh", "-c", "echo begun; sleep 600"];
    let run = guest.run(&command, limit).await.unwrap();
    assert_eq!(run.code, Some(128 + 9), "{run:?}");
    assert_eq!(run.output, "begun\n");
}

#[tokio::test]
async fn a_kernel_that_breaks_down_is_told_from_a_command_that_fails() {
    let Some(guest) = guest() else { return };
    let crash = "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger";
    let run = guest
        .run(&["/bin/busybox", "sh", "-c", crash], LIMIT)
        .await
        .unwrap();
    assert_eq!(run.code, None, "{run:?}");
    assert!(run.console.contains("Kernel panic"), "{run:?}");
}
