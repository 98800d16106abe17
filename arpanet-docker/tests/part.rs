//! A node's own container on a real engine.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod engines;

use arpanet_core::ErrorKind;
use arpanet_core::runtime::Runtime;
use arpanet_docker::{DockerConfig, DockerRuntime, Part, PartConfig};
use arpanet_lab::{Engine, IMAGE};

use self::engines::have;

fn docker(engine: &Engine, line: &[&str]) -> String {
    let done = engine.command("/usr/bin/docker").args(line).output();
    let done = done.unwrap();
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "docker {line:?}: {told}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_waits_without_a_network_and_keeps_its_volume_until_it_is_removed() {
    if !have("docker", "/usr/sbin/dockerd") {
        return;
    }
    let engine = Engine::start().await.unwrap();
    let config = DockerConfig::default().socket(engine.socket());
    let wanted = PartConfig::new("part".parse().unwrap(), IMAGE).volume("part", "/data");
    let part = Part::new(&config, wanted.clone()).unwrap();
    part.remove().await.unwrap();
    part.stop().await.unwrap();

    let first = part.run().await.unwrap();
    assert_eq!(part.run().await.unwrap(), first);
    let links = docker(&engine, &["exec", "part", "ip", "-o", "link"]);
    assert_eq!(links.lines().count(), 1, "{links}");
    // No list of containers has it.
    let runtime = DockerRuntime::connect(config.clone()).await.unwrap();
    assert!(runtime.list().await.unwrap().is_empty());

    let put = ["exec", "part", "sh", "-c", "echo kept > /data/file"];
    docker(&engine, &put);
    part.stop().await.unwrap();
    part.stop().await.unwrap();
    part.run().await.unwrap();
    // Made of something else it is another container, with the same data.
    let before = docker(&engine, &["inspect", "-f", "{{.Id}}", "part"]);
    let other = Part::new(&config, wanted.folder("/run")).unwrap();
    other.run().await.unwrap();
    let after = docker(&engine, &["inspect", "-f", "{{.Id}}", "part"]);
    assert_ne!(before, after);
    let kept = docker(&engine, &["exec", "part", "cat", "/data/file"]);
    assert_eq!(kept, "kept");
    for _ in 0..2 {
        other.remove().await.unwrap();
        assert_eq!(docker(&engine, &["ps", "-aq"]), "");
        assert_eq!(docker(&engine, &["volume", "ls", "-q"]), "");
    }

    // What somebody else calls so stays.
    docker(
        &engine,
        &["run", "-d", "--name", "part", IMAGE, "sleep", "600"],
    );
    for refused in [part.run().await.map(drop), part.remove().await] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.hint().is_some());
    }
    docker(&engine, &["exec", "part", "true"]);

    // An image that nobody has.
    let missing = PartConfig::new("other".parse().unwrap(), "registry.invalid/nothing:1");
    let missing = Part::new(&config, missing).unwrap();
    let error = missing.run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}
