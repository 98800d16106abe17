//! What a node keeps on its disk: damaged, or with no room for more.

use super::{refused, told};
use crate::site::{SEED, Site};

const STATE: &str = "/var/lib/arpanet2";

fn sh(site: &Site, host: &str, line: &str) -> String {
    let output = site.lab.output(host, &["sh", "-c", line]).unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn a_damaged_state_file_is_refused_with_its_path_and_stays_as_it_is() {
    let Some(site) = Site::up(1).await else {
        return;
    };
    let host = "node1";
    // Before a first start: whose ever it was, it is not this node's to replace.
    sh(&site, host, &format!("mkdir -m 700 {STATE}"));
    for file in ["node.json", "identity.json", "gossip.json", "ledger.jsonl"] {
        let path = format!("{STATE}/{file}");
        sh(&site, host, &format!("printf '{{\"half\\nof it' > {path}"));
        let before = sh(&site, host, &format!("cat {path}"));
        refused(&site, host, "boot 0.1 Apples", 1, &[&path]);
        assert_eq!(sh(&site, host, &format!("cat {path}; rm {path}")), before);
    }
    sh(&site, host, &format!("rmdir {STATE}"));

    // And of a member that was killed: half written, as by a disk that lied.
    site.ok(host, "boot 0.1 Apples");
    site.lab.kill(host).await.unwrap();
    site.lab.start(host).await.unwrap();
    for file in ["node.json", "identity.json", "gossip.json", "ledger.jsonl"] {
        let path = format!("{STATE}/{file}");
        sh(
            &site,
            host,
            &format!("cp -p {path} /run/whole; head -c 20 /run/whole > {path}; echo >> {path}"),
        );
        let before = sh(&site, host, &format!("cat {path}"));
        told(&site.arpanet2(host, "start"), file, 1, &[&path]);
        assert_eq!(sh(&site, host, &format!("cat {path}")), before);
        sh(&site, host, &format!("cp -p /run/whole {path}"));
    }
    site.ok(host, "start");
}

#[tokio::test]
async fn on_a_full_disk_tunnel_and_dns_go_on_and_writes_fail_loudly() {
    let Some(site) = Site::up(2).await else {
        return;
    };
    let host = "node2";
    sh(
        &site,
        host,
        &format!("mkdir {STATE}; mount -t tmpfs -o size=1m,mode=700 tmpfs {STATE}"),
    );
    let fill = format!("dd if=/dev/zero of={STATE}/fill bs=1k 2>/dev/null; test -s {STATE}/fill");
    let join = format!("server 0.2 Apples 0.1 {SEED}");
    site.ok("node1", "boot 0.1 Apples");

    // A node that can't keep its membership is none.
    sh(&site, host, &fill);
    told(
        &site.arpanet2(host, &join),
        &join,
        1,
        &[STATE, "No space left"],
    );
    assert_eq!(sh(&site, host, &format!("ls -A {STATE}")), "fill\n");
    assert_eq!(site.run(host, "ip link show arpanet0").code, Some(1));
    sh(&site, host, &format!("rm {STATE}/fill"));
    site.ok(host, &join);
    site.ok(
        host,
        "run --net 10.1.0.0/16 --service web --port 80 --name w1 -- sleep 600",
    );

    sh(&site, host, &fill);
    let line = "run --net 10.1.0.0/16 --name w2 -- sleep 600";
    told(
        &site.arpanet2(host, line),
        line,
        1,
        &[STATE, "No space left"],
    );
    assert!(!site.ok(host, "ps").contains("w2"));
    for host in ["node1", "node2"] {
        assert!(site.ok(host, "resolve web").starts_with("10.1."));
    }
    assert_eq!(site.run(host, "ping -c1 -W2 10.255.0.1").code, Some(0));
    site.ok("node1", "register db --port 5432");
    crate::site::until(
        "a name that is new is known on the full host",
        std::time::Duration::from_secs(5),
        || site.arpanet2(host, "resolve db").out,
        |ip| ip == "10.255.0.1",
    );
    let doctor = site.arpanet2(host, "doctor");
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    assert!(
        doctor.out.contains("FAIL disk") && doctor.out.contains(STATE),
        "{doctor:?}"
    );

    sh(&site, host, &format!("rm {STATE}/fill"));
    site.ok(host, line);
    site.ok(host, "rm w2");
}
