//! What keeps a node from joining.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use arpanet_lab::Protocol;

use super::{PORT, refused};
use crate::site::{SEED, Site};

const AT: &str = "192.168.8.120 port 51820/tcp";

/// Answers the next applicant on a host with these bytes, and then waits until it is gone.
fn stranger(site: &Site, host: &str, says: &'static [u8]) -> std::thread::JoinHandle<()> {
    let host = site.lab.namespace(host).unwrap();
    let listener = host.run(|| TcpListener::bind(PORT)).unwrap().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(says).unwrap();
        // It may be gone at once.
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

#[tokio::test]
async fn a_seed_that_can_t_be_reached_is_named_with_its_port_and_how_to_test_it() {
    let Some(site) = Site::up(2).await else {
        return;
    };
    let join = format!("server 0.2 Apples 0.1 {SEED}");
    let refuses = |words: &[&str]| {
        let took = refused(&site, "node2", &join, 1, words);
        assert!(took < Duration::from_secs(10), "{words:?} took {took:?}");
    };
    let test_it = "nc -vz -w 3 192.168.8.120 51820";
    refuses(&[AT, "nothing listens", test_it]);
    site.lab.block("node1", Protocol::Tcp).await.unwrap();
    refuses(&[AT, "no answer", "firewall", test_it]);
    site.lab.heal(None).await.unwrap();
    site.lab.cut("node1", None).await.unwrap();
    refuses(&[AT, "can't be reached", test_it]);
    site.lab.heal(None).await.unwrap();

    let strangers: [(&[u8], &str); 4] = [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is not arpanet2"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not arpanet2"),
        (
            b"arpanet2\0\x07\0\x03",
            "speaks version 7.3 of the join protocol",
        ),
        (b"", "did not answer within 9 s"),
    ];
    for (says, words) in strangers {
        let listening = stranger(&site, "node1", says);
        refuses(&[AT, words]);
        listening.join().unwrap();
    }
}

#[tokio::test]
async fn a_seed_says_whom_it_does_not_admit_and_why() {
    let Some(site) = Site::up(3).await else {
        return;
    };
    site.ok("node1", "boot 0.1 Apples");
    site.ok("node2", &format!("client 0.2 Apples 0.1 {SEED}"));
    let refuses =
        |line: &str, code: i32, words: &[&str]| refused(&site, "node3", line, code, words);

    refuses(
        &format!("server 0.2 Apples 0.1 {SEED}"),
        1,
        &["the address 0.2 is held by node2, which is alive"],
    );
    refuses(
        &format!("server 0.3 Apples 0.1 {SEED} --name node2"),
        1,
        &["the name node2 is held by node 0.2", "--name"],
    );
    refuses(
        &format!("server 0.3 Apples 0.9 {SEED}"),
        2,
        &[&format!("node 0.1 answers at {AT}, not 0.9")],
    );
    refuses(
        "server 0.3 Apples 0.2 192.168.8.121",
        1,
        &[
            "node 0.2 at 192.168.8.121 port 51820/tcp is a client and admits nobody",
            "0.1 at 192.168.8.120:51820",
        ],
    );

    let wrong = format!("server 0.3 Pears 0.1 {SEED}");
    for _ in 0..5 {
        let took = refuses(&wrong, 1, &["the password is wrong", "node 0.1", AT]);
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    refuses(&wrong, 1, &["too many wrong passwords", AT, "try again in"]);
    let known = site.ok("node1", "nodes");
    assert!(!known.contains("0.3"), "{known}");
    // Each source is counted for itself.
    site.ok("node2", "reset");
    site.ok("node2", &format!("server 0.2 Apples 0.1 {SEED}"));
}

#[tokio::test]
async fn udp_that_is_blocked_while_tcp_works_is_told_and_the_seed_forgets_who_could_not_come() {
    let Some(site) = Site::up(2).await else {
        return;
    };
    site.ok("node1", "boot 0.1 Apples");
    let join = format!("server 0.2 Apples 0.1 {SEED}");
    let at = "192.168.8.120 port 51820";
    let refuses = |words: &[&str]| {
        let took = refused(&site, "node2", &join, 1, words);
        assert!(took < Duration::from_secs(12), "{words:?} took {took:?}");
        // As if it had never asked.
        let known = site.ok("node1", "nodes");
        assert!(!known.contains("node2"), "{known}");
    };
    site.lab.block("node2", Protocol::Udp).await.unwrap();
    refuses(&[
        "over tcp",
        &format!("nothing from {at}/udp arrives here"),
        "the seed does not see this node",
        "tcpdump",
    ]);
    site.lab.heal(None).await.unwrap();

    let rule = |change: &'static str| {
        let switch = site.lab.switch_namespace().unwrap();
        let words = "priority 50 iif node1 to 192.168.8.121 ipproto udp blackhole";
        let status = switch.run(|| {
            Command::new("ip")
                .args(["rule", change])
                .args(words.split(' '))
                .status()
        });
        assert!(status.unwrap().unwrap().success());
    };
    rule("add");
    refuses(&[
        "over tcp",
        &format!("nothing from {at}/udp arrives here"),
        "tcpdump",
    ]);
    rule("del");
    site.ok("node2", &join);
}

#[tokio::test]
async fn a_host_that_lost_its_state_does_not_found_a_second_cluster_beside_its_own() {
    let Some(site) = Site::up(2).await else {
        return;
    };
    site.cluster();
    let wipe = async || {
        site.lab.kill("node2").await.unwrap();
        site.lab.start("node2").await.unwrap();
        assert_eq!(site.run("node2", "rm -r /var/lib/arpanet2").code, Some(0));
    };
    wipe().await;
    refused(
        &site,
        "node2",
        "boot 0.2 Apples",
        1,
        &[
            "192.168.8.120:51820",
            "takes this host for a member of its cluster",
            "--replace",
        ],
    );
    crate::site::until(
        "its death is noticed",
        Duration::from_secs(10),
        || site.status("node1")["nodes"][1]["state"].clone(),
        |state| state == "down",
    );
    refused(
        &site,
        "node2",
        &format!("server 0.2 Apples 0.1 {SEED}"),
        1,
        &[
            "the address 0.2 is held by node2, which is down",
            "--replace",
        ],
    );

    // Cut off, it can't know. The two never merge, and say so when they meet.
    site.lab.cut("node2", None).await.unwrap();
    site.ok("node2", "boot 0.2 Apples");
    site.lab.heal(None).await.unwrap();
    crate::site::until(
        "the other cluster is named",
        Duration::from_secs(10),
        || site.log("node2"),
        |log| log.contains("two clusters never merge") && log.contains("192.168.8.120:51820"),
    );
    let ids = ["node1", "node2"].map(|host| site.status(host)["nodes"].as_array().unwrap().len());
    assert_eq!(ids, [2, 1]);
    site.ok("node2", "reset");
    site.ok("node2", &format!("server 0.2 Apples 0.1 {SEED} --replace"));
}
