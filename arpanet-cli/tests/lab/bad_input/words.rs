//! What is wrong with the words themselves.

use super::refused;
use crate::site::{SEED, Site};

#[tokio::test]
async fn what_can_t_be_is_refused_with_what_could_be() {
    let Some(site) = Site::up(1).await else {
        return;
    };
    let wrong = |line: &str, words: &[&str]| {
        refused(&site, "node1", line, 2, words);
    };
    for address in ["0.0", "255.255"] {
        wrong(
            &format!("boot {address} Apples"),
            &[address, "reserved", "broadcast"],
        );
    }
    for address in ["1", "256.1", "01.2", "1.2.3", "+1.2", "a.b"] {
        wrong(
            &format!("boot {address} Apples"),
            &[address, "is not a node address", "2.12"],
        );
    }
    wrong("boot 0.1", &["no password", "ARPANET2_PASSWORD"]);
    wrong("boot 0.1 ", &["1 to 1,024 bytes"]);
    wrong(
        &format!("server 0.1 Apples 0.1 {SEED}"),
        &["0.1 is both this node and its seed"],
    );
    wrong(
        &format!("server 0.2 Apples 0.300 {SEED}"),
        &["0.300", "is not a node address"],
    );
    wrong(
        "server 0.2 Apples 0.1 nowhere",
        &["nowhere", "192.168.8.120:51820"],
    );

    wrong(
        "boot --dns consul 0.1 Apples",
        &["consul can't answer names", "--discovery consul"],
    );

    let long = "a".repeat(64);
    for name in ["my_host", "-a", "a-", "a.b", &long] {
        wrong(
            &format!("boot 0.1 Apples --name={name}"),
            &[name, "DNS label", "--name"],
        );
        // Nothing has to run for that.
        wrong(
            &format!("register --port 80 -- {name}"),
            &[name, "DNS label"],
        );
        wrong(
            &format!("run --service={name} -- true"),
            &[name, "DNS label"],
        );
    }
    let networks = [
        ("192.168.0.0/16", "outside the application range"),
        ("10.0.0.0/12", "prefix of 16 to 30"),
        ("10.1.0.0/31", "prefix of 16 to 30"),
        ("10.241.0.0/16", "system plane 10.241.0.0/16"),
        ("10.253.0.0/16", "system plane 10.253.0.0/16"),
        ("10.255.3.0/24", "system plane 10.255.0.0/16"),
        ("10.240.0.0/12", "prefix of 16 to 30"),
        ("sh!op", "is not a network"),
    ];
    for (network, why) in networks {
        wrong(
            &format!("networks create shop {network}"),
            &[network, why, "10."],
        );
        wrong(
            &format!("run --net {network} -- true"),
            &[network, why, "10."],
        );
    }
    wrong(
        "networks create shop 10.1.1.0/16",
        &["beyond its prefix", "10.1.0.0/16"],
    );
    wrong(
        "run --net 10.254.0.5/16 -- true",
        &["10.254.0.5", "10.240.255.255"],
    );
    wrong("run --net 10.0.0.0/8 -- true", &["10.0.0.0", "10.0.0.0/8"]);
}
