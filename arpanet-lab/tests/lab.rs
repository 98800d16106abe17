//! A real lab: hosts that reach each other, are cut, blocked, killed and removed.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::path::PathBuf;
use std::process::Output;

use arpanet_core::ErrorKind;
use arpanet_core::conformance::live;
use arpanet_lab::{Ending, HolderCommand, Lab, LabConfig, Protocol};

/// Skips where there is no root, and fails instead where root is promised.
macro_rules! require_root {
    () => {
        if !live::have("root", nix::unistd::geteuid().is_root(), "root") {
            return;
        }
    };
}

/// A lab that is removed also when its test fails.
struct Guard {
    lab: Lab,
    config: LabConfig,
}

impl Guard {
    async fn up(name: &str, hosts: u8) -> Self {
        Self::with(name, hosts, false).await
    }

    async fn with(name: &str, hosts: u8, docker: bool) -> Self {
        let folder =
            std::env::temp_dir().join(format!("arpanet-lab-{name}-{}", std::process::id()));
        let config = LabConfig::new(
            folder,
            HolderCommand::new(env!("CARGO_BIN_EXE_arpanet-lab-holder"), [""; 0]),
        )
        .docker(docker);
        Self {
            lab: Lab::up(config.clone(), hosts).await.unwrap(),
            config,
        }
    }

    fn run(&self, host: &str, command: &str) -> Output {
        self.lab.output(host, &["sh", "-c", command]).unwrap()
    }

    /// Within ten seconds, for a machine that does much else.
    fn reaches(&self, host: &str, ip: &str) -> bool {
        self.run(host, &format!("ping -c1 -w10 {ip}"))
            .status
            .success()
    }

    fn misses(&self, host: &str, ip: &str) -> bool {
        !self
            .run(host, &format!("ping -c1 -W1 {ip}"))
            .status
            .success()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let config = self.config.clone();
        let down = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            match Lab::open(config) {
                Ok(lab) => runtime.block_on(lab.down()).unwrap(),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
            }
        });
        let ended = down.join();
        assert!(std::thread::panicking() || ended.is_ok());
    }
}

fn mounts() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap()
}

#[tokio::test]
async fn hosts_reach_each_other_until_they_are_cut_or_blocked() {
    require_root!();
    let lab = Guard::up("cut", 3).await;
    assert!(lab.reaches("node1", "192.168.8.121") && lab.reaches("node3", "192.168.8.120"));

    lab.lab.cut("node3", None).await.unwrap();
    assert!(lab.misses("node1", "192.168.8.122") && lab.reaches("node1", "192.168.8.121"));
    lab.lab.heal(Some("node3")).await.unwrap();
    assert!(lab.reaches("node1", "192.168.8.122"));

    lab.lab.cut("node1", Some("node2")).await.unwrap();
    assert!(lab.misses("node1", "192.168.8.121") && lab.misses("node2", "192.168.8.120"));
    assert!(lab.reaches("node1", "192.168.8.122") && lab.reaches("node2", "192.168.8.122"));
    lab.lab.heal(None).await.unwrap();
    assert!(lab.reaches("node1", "192.168.8.121"));

    lab.lab.block("node2", Protocol::Udp).await.unwrap();
    assert!(lab.reaches("node1", "192.168.8.121"), "icmp is not udp");
    let status = lab.lab.status().unwrap();
    assert_eq!(status[1].blocked, [Protocol::Udp]);
    assert_eq!(
        lab.lab.cut("node9", None).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn a_killed_host_loses_its_processes_and_keeps_its_disk() {
    require_root!();
    let lab = Guard::up("kill", 2).await;
    lab.run("node2", "mkdir -p /var/lib/arpanet2 && echo kept > /var/lib/arpanet2/disk && echo lost > /run/memory");
    assert_eq!(lab.run("node2", "hostname").stdout, b"node2\n");
    lab.lab.kill("node2").await.unwrap();
    lab.lab.kill("node2").await.unwrap();
    assert!(lab.misses("node1", "192.168.8.121"));
    assert_eq!(
        lab.lab.output("node2", &["true"]).unwrap_err().kind(),
        ErrorKind::Unavailable
    );

    lab.lab
        .readdress("node2", "192.168.8.200".parse().unwrap())
        .await
        .unwrap();
    lab.lab.start("node2").await.unwrap();
    assert!(lab.reaches("node1", "192.168.8.200") && lab.misses("node1", "192.168.8.121"));
    assert_eq!(
        lab.run("node2", "cat /var/lib/arpanet2/disk").stdout,
        b"kept\n"
    );
    assert!(!lab.run("node2", "test -e /run/memory").status.success());
}

#[tokio::test]
async fn a_host_sees_neither_the_machine_s_resolver_nor_its_processes_and_leaves_nothing() {
    require_root!();
    let configured = || std::path::Path::new("/etc/arpanet2").exists();
    let before = configured();
    let lab = Guard::up("clean", 1).await;
    assert!(
        !lab.run("node1", "grep -q ^nameserver /etc/resolv.conf")
            .status
            .success()
    );
    assert_eq!(lab.run("node1", "cat /proc/1/comm").stdout, b"exe\n");
    assert_eq!(
        lab.lab
            .output("node1", &["no-such-command"])
            .unwrap()
            .status
            .code(),
        Some(127)
    );
    assert_eq!(configured(), before);
    let folder: PathBuf = lab.config.folder.clone();
    lab.lab.down().await.unwrap();
    lab.lab.down().await.unwrap();
    assert!(!folder.exists());
    // Other tests mount elsewhere meanwhile.
    let mounts = mounts();
    assert!(!mounts.contains(folder.to_str().unwrap()), "{mounts}");
}

#[tokio::test]
async fn each_host_has_an_engine_that_dies_and_comes_back_with_it() {
    require_root!();
    let is_there = std::path::Path::new("/usr/sbin/dockerd").exists();
    if !live::have("docker", is_there, "Debian's package docker.io") {
        return;
    }
    let guard = Guard::with("docker", 2, true).await;
    let docker = |host: &str, args: &str| {
        let output = guard.run(host, &format!("/usr/bin/docker {args}"));
        assert!(output.status.success(), "{host}: {args}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let id = docker("node1", "run -d --restart always arpanet2-lab sleep 600");
    assert_eq!(docker("node2", "ps -aq"), "", "each has its own");
    let group = docker("node1", &format!("exec {id} cat /proc/1/cgroup"))
        .split(['/', '\n'])
        .find(|part| part.starts_with("arpanet2-"))
        .unwrap()
        .to_owned();

    // The engine alone.
    guard.lab.end_docker("node1", Ending::AtOnce).await.unwrap();
    guard.lab.end_docker("node1", Ending::AtOnce).await.unwrap();
    assert!(!guard.run("node1", "/usr/bin/docker ps").status.success());
    guard.lab.start_docker("node1").await.unwrap();
    guard.lab.start_docker("node1").await.unwrap();
    assert_eq!(docker("node1", "ps -q --no-trunc"), id);
    guard
        .lab
        .end_docker("node1", Ending::InOrder)
        .await
        .unwrap();
    guard.lab.start_docker("node1").await.unwrap();

    // The whole host.
    guard.lab.kill("node1").await.unwrap();
    let left = || {
        std::fs::read_dir("/sys/fs/cgroup")
            .unwrap()
            .flatten()
            .filter(|hierarchy| hierarchy.path().join(&group).exists())
            .count()
    };
    assert_eq!(left(), 0);
    guard.lab.start("node1").await.unwrap();
    assert_eq!(docker("node1", "ps -q --no-trunc"), id);
    guard.lab.down().await.unwrap();
    assert_eq!(left(), 0);
}
