//! A real lab: hosts that reach each other, are cut, blocked, killed and removed.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Output;

use arpanet_core::ErrorKind;
use arpanet_lab::{HolderCommand, Lab, LabConfig, Protocol};

/// Skips where there is no root, and fails instead where root is promised.
macro_rules! require_root {
    () => {
        if !nix::unistd::geteuid().is_root() {
            let promised = std::env::var("ARPANET_LIVE").unwrap_or_default();
            assert!(
                !promised.split(',').any(|name| name == "root"),
                "ARPANET_LIVE promises root"
            );
            eprintln!("skipped: a lab needs root");
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
        let folder =
            std::env::temp_dir().join(format!("arpanet-lab-{name}-{}", std::process::id()));
        let config = LabConfig::new(
            folder,
            HolderCommand::new(env!("CARGO_BIN_EXE_arpanet-lab-holder"), [""; 0]),
        );
        Self {
            lab: Lab::up(config.clone(), hosts).await.unwrap(),
            config,
        }
    }

    fn run(&self, host: &str, command: &str) -> Output {
        self.lab.output(host, &["sh", "-c", command]).unwrap()
    }

    fn pings(&self, host: &str, ip: &str) -> bool {
        self.run(host, &format!("ping -c1 -W1 {ip}"))
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
    assert!(lab.pings("node1", "192.168.8.121") && lab.pings("node3", "192.168.8.120"));

    lab.lab.cut("node3", None).await.unwrap();
    assert!(!lab.pings("node1", "192.168.8.122") && lab.pings("node1", "192.168.8.121"));
    lab.lab.heal(Some("node3")).await.unwrap();
    assert!(lab.pings("node1", "192.168.8.122"));

    lab.lab.cut("node1", Some("node2")).await.unwrap();
    assert!(!lab.pings("node1", "192.168.8.121") && !lab.pings("node2", "192.168.8.120"));
    assert!(lab.pings("node1", "192.168.8.122") && lab.pings("node2", "192.168.8.122"));
    lab.lab.heal(None).await.unwrap();
    assert!(lab.pings("node1", "192.168.8.121"));

    lab.lab.block("node2", Protocol::Udp).await.unwrap();
    assert!(lab.pings("node1", "192.168.8.121"), "icmp is not udp");
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
    assert!(!lab.pings("node1", "192.168.8.121"));
    assert_eq!(
        lab.lab.output("node2", &["true"]).unwrap_err().kind(),
        ErrorKind::Unavailable
    );

    lab.lab
        .readdress("node2", "192.168.8.200".parse().unwrap())
        .await
        .unwrap();
    lab.lab.start("node2").await.unwrap();
    assert!(lab.pings("node1", "192.168.8.200") && !lab.pings("node1", "192.168.8.121"));
    assert_eq!(
        lab.run("node2", "cat /var/lib/arpanet2/disk").stdout,
        b"kept\n"
    );
    assert!(!lab.run("node2", "test -e /run/memory").status.success());
}

#[tokio::test]
async fn a_host_sees_neither_the_machine_s_resolver_nor_its_processes_and_leaves_nothing() {
    require_root!();
    let before = mounts();
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
    assert!(!std::path::Path::new("/etc/arpanet2").exists() || before.contains("arpanet2"));
    let folder: PathBuf = lab.config.folder.clone();
    lab.lab.down().await.unwrap();
    lab.lab.down().await.unwrap();
    assert!(!folder.exists());
    assert_eq!(mounts(), before);
}
