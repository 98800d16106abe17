//! Consul that wants a token, and consul whose agents show certificates.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::site::{BINARY, Outcome, SEED, Site, consul, until};

const LIMIT: Duration = Duration::from_secs(30);
pub(crate) const TOKEN: &str = "8f4b2b5c-6f0e-4a53-9d34-0a3c5c0d9a11";
const WRONG: &str = "c0ffee00-0000-4000-8000-000000000000";

/// Gives a host a file with this token.
pub(crate) fn give(site: &Site, host: &str, token: &str) {
    site.run(host, "mkdir -p /etc/arpanet2");
    let file = "/etc/arpanet2/consul.token";
    let script = format!("umask 077; printf '%s\\n' {token} > {file}");
    let written = site.command(host, &["sh", "-c", &script]);
    assert_eq!(written.code, Some(0), "{written:?}");
}

fn refused(outcome: &Outcome, code: i32, words: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    for word in words {
        assert!(outcome.err.contains(word), "{word}: {outcome:?}");
    }
    assert!(outcome.err.contains("hint: "), "{outcome:?}");
}

/// How many servers node1's consul has, those that it can't reach too.
fn servers(site: &Site) -> usize {
    let peers = site.ok("node1", "consul -- operator raft list-peers");
    peers.matches(":8300").count()
}

#[tokio::test]
async fn a_token_is_wanted_from_everybody_and_told_to_nobody() {
    let Some(site) = Site::up_with_consul(3).await else {
        return;
    };
    for host in ["node1", "node2", "node3"] {
        site.set(host, "consul_token_file = \"/etc/arpanet2/consul.token\"");
        give(&site, host, TOKEN);
    }
    site.command("node1", &["chmod", "644", "/etc/arpanet2/consul.token"]);
    let readable = site.arpanet2("node1", "boot 0.1 Apples");
    refused(
        &readable,
        2,
        &["consul.token", "its mode is 644", "chmod 600"],
    );
    give(&site, "node1", TOKEN);
    site.command("node1", &["chmod", "600", "/etc/arpanet2/consul.token"]);

    site.ok("node1", "boot 0.1 Apples");
    site.ok("node2", &format!("server 0.2 Apples 0.1 {SEED}"));
    site.ok("node2", "register web --port 80");
    let name = || site.arpanet2("node1", "resolve web").out;
    until("the name is there", LIMIT, name, |ip| ip == "10.255.0.2");
    site.ok("node2", "kv put paas/web one");
    assert_eq!(site.ok("node1", "kv get paas/web"), "one");
    let anonymous = site.run(
        "node1",
        &format!("{BINARY} fetch http://127.0.0.1:8500/v1/kv/paas/web"),
    );
    assert_eq!(anonymous.out, "Permission denied", "{anonymous:?}");
    assert_eq!(servers(&site), 2);

    let join = format!("server 0.3 Apples 0.1 {SEED}");
    give(&site, "node3", WRONG);
    refused(
        &site.arpanet2("node3", &join),
        1,
        &["ACL not found", "ACL token"],
    );
    let left = site
        .run("node3", "ls -A /var/lib/arpanet2 /run/arpanet2")
        .out;
    assert!(!left.contains("consul"), "{left}");
    until(
        "it is no server",
        LIMIT,
        || servers(&site),
        |count| *count == 2,
    );
    // With none at all.
    let settings = "grep -v token /etc/arpanet2/config.toml > /etc/arpanet2/none.toml";
    site.command("node3", &["sh", "-c", settings]);
    let without = site.arpanet2("node3", &format!("--config /etc/arpanet2/none.toml {join}"));
    refused(&without, 1, &["Permission denied", "ACL token"]);
    give(&site, "node3", TOKEN);
    // Its own DNS asks without one.
    site.ok("node3", &format!("{join} --dns consul"));
    assert_eq!(site.ok("node3", "kv get paas/web"), "one");
    let advice = || site.ok("node3", "status");
    let said = "advice: consul's DNS answers no names of services: with an ACL token";
    until("it is told", LIMIT, advice, |advice| advice.contains(said));
    assert!(site.log("node3").contains("the anonymous token"));
    assert_eq!(site.arpanet2("node3", "resolve web").out, "");
    assert_eq!(site.arpanet2("node1", "resolve web").out, "10.255.0.2");
    let rules = "service_prefix \"\" { policy = \"read\" } node_prefix \"\" { policy = \"read\" }";
    let create = ["acl", "policy", "create", "-name", "names", "-rules", rules];
    let update = [
        "acl",
        "token",
        "update",
        "-id",
        "anonymous",
        "-policy-name",
        "names",
    ];
    for words in [create, update] {
        let consul = [&[BINARY, "consul", "--"][..], &words].concat();
        let allowed = site.command("node3", &consul);
        assert_eq!(allowed.code, Some(0), "{allowed:?}");
    }
    let name = || site.arpanet2("node3", "resolve web").out;
    until("the name is there", LIMIT, name, |ip| ip == "10.255.0.2");
    until("nothing is told", LIMIT, advice, |advice| {
        !advice.contains(said)
    });

    // It comes back with what it was given.
    let agent = site.run("node2", "cat /run/arpanet2/agent.lock").out;
    site.run("node2", &format!("kill -9 {agent}"));
    site.ok("node2", "start");
    site.ok("node2", "kv put paas/web two");
    for host in ["node1", "node2", "node3"] {
        for token in [TOKEN, WRONG] {
            let logs = "/var/lib/arpanet2/agent.log /var/lib/arpanet2/consul/log";
            let said = site.run(host, &format!("grep -rl {token} {logs}"));
            assert_eq!(said.out, "", "{host}: {said:?}");
            let argued = site.run(host, &format!("pgrep -af {token}"));
            assert_eq!(argued.out, "", "{host}: {argued:?}");
        }
        let open = site.run(
            host,
            "find /var/lib/arpanet2/consul -type f -perm /077 -name *.json",
        );
        assert_eq!(open.out, "", "{host}: {open:?}");
    }
}

/// Certificates of an authority of their own, by consul itself.
pub(crate) fn certificates(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    for line in [
        "tls ca create",
        "tls cert create -server",
        "tls cert create -client",
    ] {
        let output = Command::new(consul().unwrap())
            .args(line.split(' '))
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// Settings with the certificate of a server or a client.
pub(crate) fn shown(folder: &Path, kind: &str) -> String {
    let folder = folder.display();
    format!(
        "consul_ca = \"{folder}/consul-agent-ca.pem\"\nconsul_certificate = \"{folder}/dc1-{kind}-consul-0.pem\"\nconsul_key = \"{folder}/dc1-{kind}-consul-0-key.pem\""
    )
}

#[tokio::test]
async fn agents_with_a_certificate_of_another_authority_are_refused() {
    let Some(site) = Site::up_with_consul(3).await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (own, other) = (folder.path().join("own"), folder.path().join("other"));
    certificates(&own);
    certificates(&other);
    let settings = site.run("node1", "cat /etc/arpanet2/config.toml").out;
    site.set("node1", &shown(&own, "server"));
    site.ok("node1", "boot 0.1 Apples");
    site.set("node2", &shown(&own, "client"));
    site.ok("node2", &format!("client 0.2 Apples 0.1 {SEED}"));
    site.ok("node2", "kv put paas/web one");
    assert_eq!(site.ok("node1", "kv get paas/web"), "one");
    let https = "exec 3<>/dev/tcp/127.0.0.1/8501";
    let https = site.command("node2", &["bash", "-c", https]);
    assert_eq!(https.code, Some(0), "{https:?}");

    let try_to = |role: &str, lines: &str| {
        let file = "/etc/arpanet2/other.toml";
        let script = format!("printf '%s\\n' '{settings}' '{lines}' > {file}");
        site.command("node3", &["sh", "-c", &script]);
        site.arpanet2(
            "node3",
            &format!("--config {file} {role} 0.3 Apples 0.1 {SEED}"),
        )
    };
    let half = shown(&own, "client");
    let (half, _) = half.rsplit_once('\n').unwrap();
    refused(
        &try_to("client", half),
        2,
        &["consul_ca, consul_certificate and consul_key"],
    );
    let missing = shown(Path::new("/nowhere"), "client");
    refused(
        &try_to("client", &missing),
        2,
        &["/nowhere/consul-agent-ca.pem can't be read"],
    );
    for role in ["client", "server"] {
        let wrong = try_to(role, &shown(&other, role));
        refused(&wrong, 1, &["certificate", "one authority"]);
        until(
            "it is no server",
            LIMIT,
            || servers(&site),
            |count| *count == 1,
        );
    }
    // A server's certificate has its name.
    let nameless = try_to("client", "");
    refused(&nameless, 1, &[]);
    site.ok("node2", "kv put paas/web two");
    let right = try_to("server", &shown(&own, "server"));
    assert_eq!(right.code, Some(0), "{right:?}");
    assert_eq!(site.ok("node3", "kv get paas/web"), "two");
}

#[tokio::test]
async fn a_datacenter_is_the_same_on_all_nodes() {
    let Some(site) = Site::up_with_consul(2).await else {
        return;
    };
    site.set("node1", "consul_datacenter = \"a b\"");
    let impossible = site.arpanet2("node1", "boot 0.1 Apples");
    refused(&impossible, 2, &["\"a b\" can't be a datacenter"]);
    let script = "sed -i s/a.b/east/ /etc/arpanet2/config.toml";
    site.command("node1", &["sh", "-c", script]);
    site.ok("node1", "boot 0.1 Apples");
    let other = site.arpanet2("node2", &format!("server 0.2 Apples 0.1 {SEED}"));
    refused(&other, 1, &["wrong datacenter", "the same datacenter"]);
    site.set("node2", "consul_datacenter = \"east\"");
    site.ok("node2", &format!("server 0.2 Apples 0.1 {SEED}"));
    site.ok("node2", "kv put k v");
}
