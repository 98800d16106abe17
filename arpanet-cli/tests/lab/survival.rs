//! What goes on while agents die and come back, and what a listener on the wire gets of it.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::Duration;

use crate::site::{BINARY, Site, until};
use crate::stream::{Stream, stalls};

const LIMIT: Duration = Duration::from_secs(20);

/// The agent's process, as the machine numbers it.
fn agent_of(site: &Site, host: &str) -> nix::unistd::Pid {
    let inside = site.run(host, "cat /run/arpanet2/agent.lock").out;
    let found = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .find_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
            let ids = status
                .lines()
                .find_map(|line| line.strip_prefix("NSpid:"))?
                .to_owned();
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let ours = line.starts_with(BINARY.as_bytes())
                && ids.split_whitespace().nth(1) == Some(inside.as_str())
                && is_in(site, host, pid);
            ours.then_some(pid)
        });
    nix::unistd::Pid::from_raw(found.unwrap_or_else(|| panic!("no agent {inside} on {host}")))
}

/// Kills the agent of a host.
pub(crate) fn kill_agent(site: &Site, host: &str) {
    nix::sys::signal::kill(agent_of(site, host), nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn is_in(site: &Site, host: &str, pid: i32) -> bool {
    let path = format!("/proc/{pid}/ns/net");
    arpanet_netlink::Namespace::open(path)
        .is_ok_and(|namespace| namespace.same_as(&site.lab.namespace(host).unwrap()))
}

#[tokio::test]
async fn a_stream_survives_the_death_of_an_agent() {
    let Some(site) = Site::up(2).await else {
        return;
    };
    site.cluster();
    let (server, client) = (
        site.lab.namespace("node1").unwrap(),
        site.lab.namespace("node2").unwrap(),
    );
    let mut stream = Stream::open(&client, &server, "10.255.0.1".parse().unwrap());
    let [longest] = stalls([&mut stream], || {
        kill_agent(&site, "node2");
        site.ok("node2", "start");
    });
    // Two seconds are promised on a machine that does nothing else, which a test's is not.
    assert!(longest < Duration::from_secs(6), "stalled {longest:?}");
    eprintln!("the stream stalled {longest:?}");
}

#[tokio::test]
async fn a_host_that_lost_power_rejoins_by_itself_with_its_containers() {
    let Some(site) = Site::up(2).await else {
        return;
    };
    site.cluster();
    let line = format!(
        "run --net 10.1.0.0/16 --service web --port 80 --restart always --name w1 -- {BINARY} hello --port 80"
    );
    site.ok("node2", &line);
    let resolved = || site.arpanet2("node1", "resolve web").out;
    until("the name is there", LIMIT, resolved, |ip| !ip.is_empty());
    site.lab.kill("node2").await.unwrap();
    until("the name is gone", LIMIT, resolved, String::is_empty);
    site.lab.start("node2").await.unwrap();
    site.ok("node2", "start");
    until("the name is back", LIMIT, resolved, |ip| !ip.is_empty());
    site.ok("node1", "run --net 10.1.0.0/16 --name c1 -- sleep 600");
    let fetch = format!("exec c1 -- {BINARY} fetch http://web.service.consul/");
    until(
        "the service answers",
        LIMIT,
        || site.arpanet2("node1", &fetch).out,
        |page| page == "hello from w1",
    );
}

/// A secret that a container sends over the cluster, and the names of which its members talk.
const SECRET: &str = "THE-PAGE-THAT-NOBODY-READS";

#[tokio::test]
async fn nothing_on_the_wire_or_on_the_host_can_be_read() {
    let Some(site) = Site::up(2).await else {
        return;
    };
    let switch = site.lab.switch_namespace().unwrap();
    let mut capture = switch
        .run(|| {
            std::process::Command::new("tcpdump")
                .args([
                    "-i",
                    "any",
                    "-U",
                    "-w",
                    "-",
                    "--immediate-mode",
                    "-B",
                    "8192",
                ])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
        })
        .unwrap()
        .unwrap();
    let mut said = BufReader::new(capture.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening on") {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "tcpdump ended");
    }
    let mut wire = capture.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        wire.read_to_end(&mut bytes).unwrap();
        bytes
    });
    site.cluster();
    site.ok(
        "node2",
        &format!(
            "run --net 10.1.0.0/16 --service {} --port 80 --name w1 -- {BINARY} hello --port 80",
            "quietweb"
        ),
    );
    site.ok("node1", "run --net 10.1.0.0/16 --name c1 -- sleep 600");
    let fetch = format!("exec c1 -- {BINARY} fetch http://quietweb.service.consul/{SECRET}");
    until(
        "the page is there",
        LIMIT,
        || site.arpanet2("node1", &fetch).out,
        |page| page == "hello from w1",
    );
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(capture.id() as i32),
        nix::sys::signal::Signal::SIGINT,
    )
    .unwrap();
    capture.wait().unwrap();
    let bytes = reader.join().unwrap();
    assert!(bytes.len() > 10_000, "only {} bytes were seen", bytes.len());
    for text in [SECRET, "quietweb", "hello from", "Apples", "GET /"] {
        let found = bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes());
        assert!(!found, "{text} is readable on the wire");
    }
    for host in ["node1", "node2"] {
        for (what, line) in [
            ("ps", "ps -e -o args="),
            ("the log", "cat /var/lib/arpanet2/agent.log"),
        ] {
            let text = site.run(host, line).out;
            assert!(
                !text.contains("Apples"),
                "{host}: the password is in {what}"
            );
        }
        let readable = site.run(
            host,
            "find /var/lib/arpanet2 /run/arpanet2 -type f -perm /077 -not -path */containers/* -not -path /run/arpanet2/router",
        );
        assert_eq!(readable.out, "", "{host}: files that others may open");
        let folders = site.run(host, "stat -c %a /var/lib/arpanet2 /run/arpanet2");
        assert_eq!(folders.out, "700\n700", "{host}");
    }
}
