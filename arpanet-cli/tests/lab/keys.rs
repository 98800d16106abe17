//! The cluster's key and password become others while it runs.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::site::{SEED, Site, until};

const LIMIT: Duration = Duration::from_secs(30);
/// How far apart echo requests are.
const ECHOES: Duration = Duration::from_millis(20);
/// The underlay address of `node2`.
const SECOND: &str = "192.168.8.121";

fn key(site: &Site, host: &str) -> u64 {
    site.status(host)["key"].as_u64().unwrap()
}

fn agree(site: &Site, hosts: &[&str]) -> u64 {
    let keys = || hosts.iter().map(|host| key(site, host)).collect::<Vec<_>>();
    until("one key", LIMIT, keys, |keys| {
        keys.windows(2).all(|two| two[0] == two[1])
    });
    key(site, hosts[0])
}

/// Echo requests from one host to another, until they are counted.
struct Pings(Child);

impl Pings {
    fn begin(site: &Site, host: &str, ip: &str) -> Self {
        let namespace = site.lab.namespace(host).unwrap();
        let spawned = namespace.run(|| {
            Command::new("ping")
                .args(["-q", "-i", &ECHOES.as_secs_f64().to_string(), ip])
                .stdout(Stdio::piped())
                .spawn()
        });
        Self(spawned.unwrap().unwrap())
    }

    /// How many were sent, and how many came back.
    fn count(mut self) -> (u32, u32) {
        kill(
            Pid::from_raw(self.0.id().try_into().unwrap()),
            Signal::SIGINT,
        )
        .unwrap();
        let mut said = String::new();
        let mut out = self.0.stdout.take().unwrap();
        std::io::Read::read_to_string(&mut out, &mut said).unwrap();
        self.0.wait().unwrap();
        let numbers = said
            .lines()
            .find(|line| line.contains("packets transmitted"))
            .unwrap_or_else(|| panic!("{said}"));
        let mut numbers = numbers
            .split(|sign: char| !sign.is_ascii_digit())
            .filter_map(|word| word.parse().ok());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }
}

impl Drop for Pings {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn key_and_password_turn_over_and_no_packet_is_lost() {
    let Some(site) = Site::up(3).await else {
        return;
    };
    site.cluster();
    let all = ["node1", "node2", "node3"];
    assert_eq!(agree(&site, &all), 1);
    let pings = Pings::begin(&site, "node3", "10.255.0.2");

    let said = site.ok("node1", "rekey");
    assert!(!said.contains("confirmed"), "{said}");
    let second = agree(&site, &all);
    assert!(second > 1 && said.contains(&second.to_string()), "{said}");
    // For long enough that echo requests meet all of it.
    let begun = Instant::now();
    for host in ["node2", "node1"].into_iter().cycle() {
        site.ok(host, "rekey");
        if begun.elapsed() > ECHOES * 30 {
            break;
        }
    }
    let told: serde_json::Value =
        serde_json::from_str(&site.ok("node2", "passwd Pears --json")).unwrap();
    let third = agree(&site, &all);
    assert_eq!(told["key"], third);
    assert_eq!(told["unconfirmed"], serde_json::json!([]));
    assert!(third > second);

    let refused = site.arpanet2("node3", "rekey");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.err.contains("hint: do it on a boot or server node"),
        "{refused:?}"
    );

    let (sent, returned) = pings.count();
    // The last one is on its way when they are counted.
    assert!(sent > 20 && returned + 1 >= sent, "{returned} of {sent}");
    eprintln!("{returned} of {sent} echo requests were answered");

    // Nobody is taken for dead, and nothing of it is in a log.
    for host in all {
        let status = site.status(host);
        let nodes = status["nodes"].as_array().unwrap();
        assert!(
            nodes.iter().all(|node| node["state"] == "alive"),
            "{status}"
        );
        let log = site.run(host, "cat /var/lib/arpanet2/agent.log").out;
        assert!(!log.contains("Pears") && !log.contains("Apples"), "{log}");
    }

    // The new password is what counts, at every member and also after a restart.
    site.ok("node3", "reset");
    agree(&site, &["node1", "node2"]);
    site.lab.kill("node2").await.unwrap();
    site.lab.start("node2").await.unwrap();
    site.ok("node2", "start");
    for (seed, ip) in [("0.1", SEED), ("0.2", SECOND)] {
        let old = site.arpanet2("node3", &format!("client 0.14 Apples {seed} {ip}"));
        assert_eq!(old.code, Some(1), "{old:?}");
        assert!(old.err.contains("password"), "{old:?}");
        site.ok("node3", &format!("client 0.14 Pears {seed} {ip}"));
        agree(&site, &all);
        site.ok("node3", "reset");
    }
}

#[tokio::test]
async fn a_member_that_was_down_gets_the_key_and_one_that_was_forgotten_does_not() {
    let Some(site) = Site::up(3).await else {
        return;
    };
    site.cluster();
    let is_down = |node: &'static str| {
        let site = &site;
        until(
            "it is down",
            LIMIT,
            || site.status("node1")["nodes"].clone(),
            |nodes| {
                let nodes = nodes.as_array().unwrap();
                nodes
                    .iter()
                    .any(|one| one["address"] == node && one["state"] == "down")
            },
        );
    };
    site.lab.kill("node2").await.unwrap();
    is_down("0.2");
    for _ in 0..2 {
        let said = site.ok("node1", "rekey");
        assert!(said.contains("down, and given it when back: 0.2"), "{said}");
    }
    site.lab.start("node2").await.unwrap();
    site.ok("node2", "start");
    let before = agree(&site, &["node1", "node2", "node3"]);

    site.lab.kill("node3").await.unwrap();
    is_down("0.14");
    let said = site.ok("node1", "forget 0.14");
    assert!(said.contains("passwd"), "{said}");
    let after = agree(&site, &["node1", "node2"]);
    assert!(after > before);
    site.lab.start("node3").await.unwrap();
    let refused = site.arpanet2("node3", "start");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("forgotten"), "{refused:?}");
    // What it has is the key of before.
    let kept = site.run("node3", "cat /var/lib/arpanet2/node.json").out;
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept["membership"]["key"]["id"], before);
    // It would have to know the password.
    site.ok("node1", "passwd Pears");
    site.ok("node3", "reset");
    let again = site.arpanet2("node3", &format!("client 0.14 Apples 0.1 {SEED}"));
    assert_eq!(again.code, Some(1), "{again:?}");
    assert_eq!(site.status("node1")["nodes"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn where_weave_depends_on_the_key_it_stays() {
    let Some(site) = Site::up_over_weave(1).await else {
        return;
    };
    site.cluster();
    let before = key(&site, "node1");
    for line in ["rekey", "passwd Pears"] {
        let refused = site.arpanet2("node1", line);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.err.contains("hint: with weave"), "{refused:?}");
    }
    assert_eq!(key(&site, "node1"), before);
}
