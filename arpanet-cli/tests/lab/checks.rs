//! Checks of containers: what fails them leaves DNS and comes back, whatever runs the containers.

use std::path::Path;
use std::time::Duration;

use arpanet_core::conformance::live;

use crate::site::{Outcome, Site, until};

const LIMIT: Duration = Duration::from_secs(30);

/// A web server of the files in the folder `F`, which it makes.
const WEB: &str = "mkdir -p F && exec busybox httpd -f -p 80 -h F";

/// Listens, but not while there is a file `down`.
const LISTENER: &str = "mkdir -p F; while :; do while [ -e F/down ]; do sleep 0.1; done; busybox httpd -f -p 90 -h F & \
     until [ -e F/down ]; do sleep 0.1; done; kill $!; wait $!; done";

/// Only waits.
const IDLE: &str = "mkdir -p F; exec sleep 3600";

fn resolved(site: &Site, host: &str, name: &str) -> usize {
    let resolved = site.arpanet2(host, &format!("resolve {name}"));
    resolved.out.lines().count()
}

/// Waits until a service has so many addresses on a host; how long that took.
fn count(site: &Site, host: &str, name: &str, wanted: usize) -> Duration {
    let what = format!("{wanted} instances of {name} on {host}");
    let ask = || (resolved(site, host, name), site.ok("node1", "ps"));
    until(&what, LIMIT, ask, |(count, _)| *count == wanted)
}

/// What a host says of the first instance of a service.
fn instance(site: &Site, host: &str, name: &str) -> serde_json::Value {
    let status = site.status(host);
    let services = status["services"].as_array().unwrap().iter();
    let mut found = services.filter(|service| service["name"] == name);
    found.next().unwrap()["instances"][0].clone()
}

/// What `ps` says of a container.
fn verdict(site: &Site, host: &str, name: &str) -> serde_json::Value {
    let listed = site.ok(host, "ps --json");
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let mut found = listed.as_array().unwrap().iter();
    found.find(|one| one["name"] == name).unwrap()["verdict"].clone()
}

/// On node1 three containers with a check each, which are made to fail it and to pass it by files in a folder.
fn all_checks(site: &Site, image: &str, folder: &str) {
    let run = |name: &str, service: &str, port: &str, check: &str, command: &str| {
        let options = format!(
            "run {image}--net 10.1.0.0/16 --name {name} --service {service} --port {port} --check-interval 1 --check-timeout 2"
        );
        let command = command.replace('F', folder);
        let mut words: Vec<&str> = vec![crate::site::BINARY];
        words.extend(options.split(' '));
        words.extend(["--check", check, "--", "sh", "-c", &command]);
        let started = site.command("node1", &words);
        assert_eq!(started.code, Some(0), "{started:?}");
    };
    let inside = |name: &str, line: &str| {
        site.ok("node1", &format!("exec {name} -- {line}"));
    };
    let remove = |name: &str, file: &str| inside(name, &format!("rm {folder}/{file}"));
    let make = |name: &str, file: &str| inside(name, &format!("touch {folder}/{file}"));
    run("w1", "web", "80", "http:/health", WEB);
    run("d1", "db", "90", "tcp", LISTENER);
    let command = format!("cmd:test -e {folder}/well || (echo it is ill; false)");
    run("j1", "jobs", "0", &command, IDLE);

    // Each has to pass first.
    count(site, "node2", "db", 1);
    for (name, service) in [("w1", "web"), ("j1", "jobs")] {
        assert_eq!(resolved(site, "node2", service), 0);
        assert_eq!(verdict(site, "node1", name)["state"], "starting");
        assert_eq!(instance(site, "node2", service)["health"], "critical");
    }
    make("w1", "health");
    make("j1", "well");
    count(site, "node2", "web", 1);
    count(site, "node2", "jobs", 1);
    assert_eq!(instance(site, "node2", "web")["health"], "passing");

    remove("w1", "health");
    remove("j1", "well");
    make("d1", "down");
    for (name, service, reason) in [
        ("w1", "web", "http:/health: status 404"),
        ("d1", "db", "refused"),
        ("j1", "jobs", "exit code 1: it is ill"),
    ] {
        count(site, "node2", service, 0);
        let verdict = verdict(site, "node1", name);
        assert_eq!(verdict["state"], "failing");
        let why = verdict["why"].as_str().unwrap();
        assert!(why.contains(reason), "{why}");
        let told = instance(site, "node1", service)["why"].clone();
        assert!(told.as_str().unwrap().contains(reason), "{told}");
    }
    let shown = site.ok("node1", "ps");
    assert!(
        shown.contains("failing: http:/health: status 404"),
        "{shown}"
    );
    assert!(
        site.log("node1").contains("Health"),
        "{}",
        site.log("node1")
    );

    make("w1", "health");
    make("j1", "well");
    remove("d1", "down");
    for service in ["web", "db", "jobs"] {
        count(site, "node2", service, 1);
    }

    // An agent that takes over keeps what passes in DNS.
    let pid = site.run("node1", "cat /run/arpanet2/agent.lock").out;
    assert_eq!(site.run("node1", &format!("kill -9 {pid}")).code, Some(0));
    site.ok("node1", "start");
    for service in ["web", "db", "jobs"] {
        assert_eq!(resolved(site, "node2", service), 1, "{service}");
    }
    // One that ended is asked no more.
    site.ok("node1", "rm w1");
    count(site, "node2", "web", 0);
    assert!(!site.ok("node1", "ps").contains("http:/health"));
}

#[tokio::test]
async fn of_processes() {
    let Some(site) = Site::up(2).await else {
        return;
    };
    let is_there = Path::new("/bin/busybox").exists();
    if !live::have("docker", is_there, "Debian's package busybox-static") {
        return;
    }
    site.cluster();
    let folder = tempfile::tempdir().unwrap();
    all_checks(&site, "", &folder.path().join("f").to_string_lossy());
}

#[tokio::test]
async fn of_docker_s_containers() {
    let Some(site) = Site::up_with_docker(2).await else {
        return;
    };
    site.cluster();
    all_checks(&site, "--image arpanet2-lab ", "/tmp/f");

    // By labels of any client, together with docker's own check.
    let labels = [
        "arpanet.net=10.1.0.0/16",
        "arpanet.service=shop",
        "arpanet.port=80",
        "arpanet.check=http:/health",
        "arpanet.check.interval=500ms",
        "arpanet.check.fall=2",
    ];
    let labels: Vec<&str> = labels
        .into_iter()
        .flat_map(|label| ["--label", label])
        .collect();
    let health = [
        "--health-cmd=test -e /tmp/f/well",
        "--health-interval=500ms",
        "--health-retries=1",
    ];
    let web = WEB.replace('F', "/tmp/f");
    let words = [
        &["/usr/bin/docker", "run", "-d", "--name", "s1"],
        &labels[..],
        &health,
        &["arpanet2-lab", "sh", "-c", &web],
    ]
    .concat();
    let started = site.command("node1", &words);
    assert_eq!(started.code, Some(0), "{started:?}");
    let inside =
        |line: &str| -> Outcome { site.run("node1", &format!("/usr/bin/docker exec s1 {line}")) };
    for (line, found) in [
        ("touch /tmp/f/health", 0),
        ("touch /tmp/f/well", 1),
        ("rm /tmp/f/health", 0),
        ("touch /tmp/f/health", 1),
        ("rm /tmp/f/well", 0),
        ("touch /tmp/f/well", 1),
    ] {
        let done = inside(line);
        assert_eq!(done.code, Some(0), "{line}: {done:?}");
        count(&site, "node2", "shop", found);
    }
    inside("rm /tmp/f/well");
    count(&site, "node2", "shop", 0);
    let why = verdict(&site, "node1", "s1")["why"].clone();
    assert_eq!(why, "the engine's own check fails");
}

#[tokio::test]
async fn of_containers_wherever_they_are_attached() {
    let Some(site) = Site::up_with_docker(2).await else {
        return;
    };
    site.cluster();
    let network = "network create -d arpanet --ipam-driver arpanet --subnet 10.2.0.0/16 shop";
    site.docker("node1", network);
    // On a network of the driver, in a block of plugins, with an address of the whole range, and in two networks.
    let places = [
        ("shop", "--network shop"),
        ("plugin", "--label arpanet.plugin=241"),
        ("wide", "--label arpanet.ip=10.9.0.5/8"),
        ("both", "--label arpanet.net=10.3.0.0/16,10.4.0.0/16"),
    ];
    for (name, place) in places {
        let service = format!("--label arpanet.service={name} --label arpanet.port=80");
        for (kind, check) in [("http", "http:/busybox"), ("tcp", "tcp")] {
            let check = format!("--label arpanet.check={check} --label arpanet.check.interval=1s");
            let line = format!(
                "run -d --name {name}-{kind} {place} {service} {check} arpanet2-lab httpd -f -p 80 -h /bin"
            );
            // A plugin's address and an explicit one are one container's.
            if kind == "tcp" && matches!(name, "plugin" | "wide") {
                continue;
            }
            site.docker("node1", &line);
        }
    }
    for (name, wanted) in [("shop", 2), ("plugin", 1), ("wide", 1), ("both", 4)] {
        count(&site, "node2", name, wanted);
    }
}
