//! What `bench` tells, in as few rounds as there can be: what figures say is for whoever reads them.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use crate::site::{BINARY, Outcome, WEAVER, root};

fn bench(arguments: &[&str]) -> Outcome {
    let mut command = Command::new(BINARY);
    for named in ["ARPANET_CONSUL", "ARPANET_WIREGUARD_GO", "ARPANET_WEAVER"] {
        command.env_remove(named);
    }
    let output = command.arg("bench").args(arguments).output();
    output.unwrap().into()
}

#[test]
fn a_run_has_every_row_and_peer_and_says_who_is_missing() {
    if !root() {
        return;
    }
    let only = "register/arpanet2,register/consul,memory/arpanet2,cpu/veth,stream/veth,round-trip/veth,\
                round-trip/arpanet2,round-trip/weave,round-trip/consul,boot/vxlan";
    let outcome = bench(&[
        "--quick",
        "--json",
        "--rounds",
        "1",
        "--consul",
        "/nonexistent",
        "--only",
        only,
    ]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let told: serde_json::Value = serde_json::from_str(&outcome.out).unwrap();
    assert!(told["machine"]["cores"].as_u64().unwrap() > 0, "{told}");
    let rows = told["tables"][0]["rows"].as_array().unwrap();
    let cells = |name: &str| {
        let row = rows.iter().find(|row| row["row"] == name);
        &row.unwrap_or_else(|| panic!("no {name}: {told}"))["cells"]
    };
    for (row, peer) in [
        ("register", "arpanet2"),
        ("memory", "arpanet2"),
        ("stream", "veth"),
        ("cpu", "veth"),
        ("round-trip", "veth"),
        ("round-trip", "arpanet2"),
    ] {
        let cell = &cells(row)[peer];
        assert!(
            cell["median"].as_f64().unwrap() > 0.0,
            "{row} {peer}: {cell}"
        );
        assert_eq!(cell["samples"].as_array().unwrap().len(), 1, "{cell}");
    }
    assert!(
        cells("round-trip")["veth"]["ratio"].as_f64().unwrap() > 1.0,
        "{told}"
    );
    for (row, peer, begins) in [
        (
            "register",
            "consul",
            "not installed: there is no /nonexistent",
        ),
        (
            "round-trip",
            "consul",
            "not installed: there is no /nonexistent",
        ),
        ("round-trip", "weave", "not installed: no weave router"),
        ("boot", "vxlan", "not applicable: "),
    ] {
        let why = cells(row)[peer]["why"].as_str().unwrap_or_default();
        assert!(why.starts_with(begins), "{row} {peer}: {told}");
    }
    assert_eq!(rows.len(), 6, "{told}");
}

#[test]
fn a_weave_router_that_is_given_is_measured_on_hosts_of_its_own() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let weaver = folder.path().join("weaver");
    symlink(WEAVER, &weaver).unwrap();
    symlink(
        std::env::current_exe().unwrap(),
        folder.path().join("program"),
    )
    .unwrap();
    let only = "boot/weave,round-trip/weave,round-trip/veth";
    let weaver = weaver.to_str().unwrap();
    let arguments = [
        "--quick", "--json", "--rounds", "1", "--weaver", weaver, "--only", only,
    ];
    let outcome = bench(&arguments);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let told: serde_json::Value = serde_json::from_str(&outcome.out).unwrap();
    let rows = told["tables"][0]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{told}");
    for row in rows {
        assert!(
            row["cells"]["weave"]["median"].as_f64().unwrap() > 0.0,
            "{told}"
        );
    }
}

#[test]
fn what_it_can_t_measure_it_refuses() {
    for arguments in [
        &["--only", "speed"][..],
        &["--only", "boot/k8s"],
        &["--rounds", "0"],
        &["--nodes", "2"],
        &["--markdown", "--json"],
    ] {
        let outcome = bench(arguments);
        assert_eq!(outcome.code, Some(2), "{arguments:?}: {outcome:?}");
        assert!(outcome.out.is_empty(), "{outcome:?}");
    }
    // Who may not measure is told that first.
    if root() {
        let outcome = bench(&["--into", "/nonexistent"]);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
    }
}

#[test]
fn an_ordinary_user_is_told_in_a_sentence() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Where the user can reach it.
    let program = folder.path().join("arpanet2");
    std::fs::copy(BINARY, &program).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut command = Command::new("setpriv");
    command
        .args(user)
        .arg(&program)
        .arg("bench")
        .current_dir("/");
    let output = command.output();
    let outcome = Outcome::from(output.unwrap());
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(
        outcome.err,
        "error: only root can make the hosts that it measures on\nhint: try it with sudo"
    );
}
