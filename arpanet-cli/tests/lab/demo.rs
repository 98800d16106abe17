//! The first thing that a newcomer runs.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::site::{BINARY, Outcome, root};

#[test]
fn the_demo_shows_every_step_with_its_time() {
    if !root() {
        return;
    }
    let outcome: Outcome = Command::new(BINARY)
        .args(["demo", "--json"])
        .output()
        .unwrap()
        .into();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let shown: serde_json::Value = serde_json::from_str(&outcome.out).unwrap();
    let steps = shown["steps"].as_array().unwrap();
    let names: Vec<&str> = steps
        .iter()
        .map(|step| step["step"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "lab", "boot", "server", "client", "run", "resolve", "fetch", "isolate", "cut", "heal",
            "reset", "down"
        ]
    );
    assert!(
        steps.iter().all(|step| step["ms"].as_f64().unwrap() > 0.0),
        "{shown}"
    );
}

/// An ordinary user, on a machine whose /dev/net/tun is for root alone, or for everybody.
fn as_user(tun_mode: &str) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    // Where the user can reach it.
    let program = folder.path().join("arpanet2");
    std::fs::copy(BINARY, &program).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let device = folder.path().join("device");
    std::fs::create_dir(&device).unwrap();
    let script = format!(
        "mount -t tmpfs none {device} && mknod {device}/tun c 10 200 && chmod {tun_mode} {device}/tun \
         && mount --bind {device}/tun /dev/net/tun && cd / \
         && exec setpriv --reuid 65534 --regid 65534 --clear-groups {program} demo",
        device = device.display(),
        program = program.display()
    );
    // The mounts go with the namespace.
    Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .output()
        .unwrap()
        .into()
}

#[test]
fn an_ordinary_user_sees_it_too_where_the_machine_allows_it() {
    if !root() {
        return;
    }
    let outcome = as_user("0666");
    if outcome.err.contains("it may not make a user namespace") {
        eprintln!("skipped: {}", outcome.err);
        return;
    }
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(
        outcome.out.contains("everything is removed again"),
        "{outcome:?}"
    );
}

#[test]
fn an_ordinary_user_is_told_clearly_where_it_does_not() {
    if !root() {
        return;
    }
    let outcome = as_user("0600");
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(
        outcome.err.lines().next(),
        Some("error: the demo can't run as an ordinary user here: /dev/net/tun can't be opened")
    );
    assert!(
        outcome.err.contains("hint: run it with sudo"),
        "{outcome:?}"
    );
}
