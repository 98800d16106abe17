//! A real docker engine in namespaces of its own: it starts, runs the lab's image, dies alone, and leaves nothing.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::path::Path;
use std::process::Command;

use arpanet_core::conformance::live;
use arpanet_lab::{Ending, Engine, IMAGE};

/// Skips where there is no engine, and fails instead where one is promised.
macro_rules! require_docker {
    () => {
        let is_there = nix::unistd::geteuid().is_root() && Path::new("/usr/sbin/dockerd").exists();
        if !live::have("docker", is_there, "root, and Debian's package docker.io") {
            return;
        }
    };
}

fn docker(engine: &Engine, args: &[&str]) -> String {
    let output = Command::new("/usr/bin/docker")
        .arg("--host")
        .arg(format!("unix://{}", engine.socket().display()))
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn an_engine_runs_the_image_dies_alone_and_leaves_nothing() {
    require_docker!();
    let mut engine = Engine::start().await.unwrap();
    let uptime = docker(&engine, &["run", "--rm", IMAGE, "cat", "/proc/uptime"]);
    assert!(uptime.contains('.'), "{uptime}");

    let id = docker(&engine, &["run", "-d", IMAGE, "sleep", "600"]);
    // One line a hierarchy: its number, its name, and the group.
    let own = docker(&engine, &["exec", &id, "cat", "/proc/1/cgroup"]);
    let group = own
        .split(['/', '\n'])
        .find(|part| part.starts_with("arpanet2-"))
        .unwrap()
        .to_owned();
    engine.end(Ending::AtOnce).await.unwrap();
    engine.start_again().await.unwrap();
    let listed = docker(&engine, &["ps", "-aq", "--no-trunc"]);
    assert_eq!(listed, id, "it has what it had");
    docker(&engine, &["start", &id]);

    let socket = engine.socket();
    let folder = engine.log().parent().unwrap().to_owned();
    drop(engine);
    assert!(!socket.exists() && !folder.exists());
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let left = hierarchy.path().join(&group);
        assert!(!left.exists(), "{}", left.display());
    }
}
