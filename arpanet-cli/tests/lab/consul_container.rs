//! Consul in a container of a real engine, whose only network is the router's.

use std::path::Path;
use std::time::Duration;

use arpanet_lab::Ending;

use crate::consul::consul_of;
use crate::consul_access::{TOKEN, certificates, give, shown};
use crate::site::{BINARY, SEED, Site, consul, until};

const LIMIT: Duration = Duration::from_secs(60);

/// The test's own image: Debian's consul, with the libraries that it needs, and a shell as consul's own image has one.
const IMAGE: &str = "arpanet2-test-consul";

/// What the container is called.
const NAME: &str = "arpanet2-consul";

fn import(site: &Site, host: &str, program: &Path) {
    let script = format!(
        "set -e; tree=$(mktemp -d); mkdir $tree/bin $tree/tmp
        cp /bin/busybox {0} $tree/bin/; ln -s busybox $tree/bin/sh; ln -s busybox $tree/bin/sleep
        for library in $(ldd {0} | grep -o '/[^ ]*'); do
            mkdir -p $tree$(dirname $library); cp $library $tree$library
        done
        tar -C $tree -c . | /usr/bin/docker import - {IMAGE}; rm -r $tree",
        program.display()
    );
    let imported = site.command(host, &["sh", "-c", &script]);
    assert_eq!(imported.code, Some(0), "{imported:?}");
}

fn settle(site: &Site, host: &str, image: &str) {
    let settings = format!("discovery = \"consul\"\nconsul_image = \"{image}\"\n");
    let script =
        format!("mkdir -p /etc/arpanet2 && printf '%s' '{settings}' > /etc/arpanet2/config.toml");
    let written = site.command(host, &["sh", "-c", &script]);
    assert_eq!(written.code, Some(0), "{written:?}");
}

/// What docker says of the container.
fn inspect(site: &Site, host: &str, what: &str) -> String {
    site.docker(host, &format!("inspect -f {{{{{what}}}}} {NAME}"))
}

#[tokio::test]
async fn consul_in_a_container_lives_as_a_process_of_the_host_does() {
    let Some(site) = Site::up_with_docker(2).await else {
        return;
    };
    let Some(program) = consul() else { return };
    for host in ["node1", "node2"] {
        import(&site, host, &program);
        settle(&site, host, IMAGE);
    }
    site.ok("node1", "boot 0.1 Apples");
    site.ok("node2", &format!("client 0.2 Apples 0.1 {SEED}"));
    assert_eq!(site.status("node2")["stack"]["discovery"], "consul");
    site.ok("node2", "kv put paas/web one");
    site.ok("node2", "register web --port 80");
    let value = |host: &str| site.arpanet2(host, "kv get paas/web").out;
    let resolved = || site.arpanet2("node1", "resolve web").out;
    let comes_back = |what: &str| {
        until(what, LIMIT, || value("node1"), |value| value == "one");
        until(what, LIMIT, resolved, |ip| ip == "10.255.0.2");
    };
    comes_back("all is there");

    // It is in the container, which has no network, and consul nothing of root's power.
    assert_eq!(inspect(&site, "node1", ".HostConfig.NetworkMode"), "none");
    let links = site.docker("node1", &format!("exec {NAME} busybox ip -o link"));
    assert_eq!(links.lines().count(), 1, "{links}");
    let inside = site.docker("node1", &format!("exec {NAME} busybox ps"));
    assert!(inside.contains("consul agent"), "{inside}");
    let process = consul_of(&site, "node1");
    let power = site.run("node1", &format!("grep CapEff /proc/{process}/status"));
    assert!(power.out.ends_with("0000000000000000"), "{power:?}");
    let members = site.ok("node1", "consul -- members");
    assert_eq!(members.matches("alive").count(), 2, "{members}");

    // Nobody else reaches it, as where it is a process of the host.
    let app = "run --image arpanet2-lab --net 10.1.0.0/16 --name app -- sleep 600";
    site.ok("node1", app);
    for at in ["10.253.0.1", "10.253.0.2", "127.0.0.1"] {
        let fetch = format!("exec app -- wget -qO - http://{at}:8500/v1/status/leader");
        let outcome = site.arpanet2("node1", &fetch);
        assert_eq!(outcome.code, Some(1), "{at}: {outcome:?}");
    }

    // Killed, it is started again; so it is when its container, or the engine, ends.
    let another = |host: &str, before: i64| {
        let now = || consul_of(&site, host);
        until("another consul", LIMIT, now, |now| *now != before);
        comes_back("all is there again");
    };
    site.run("node1", &format!("kill -9 {process}"));
    another("node1", process);
    let process = consul_of(&site, "node1");
    site.docker("node1", &format!("kill {NAME}"));
    another("node1", process);
    assert_eq!(inspect(&site, "node1", ".State.Running"), "true");
    let process = consul_of(&site, "node1");
    site.lab.end_docker("node1", Ending::InOrder).await.unwrap();
    site.lab.start_docker("node1").await.unwrap();
    another("node1", process);

    // An agent that is killed finds it again.
    let process = consul_of(&site, "node2");
    let agent = site.run("node2", "cat /run/arpanet2/agent.lock").out;
    site.run("node2", &format!("kill -9 {agent}"));
    site.ok("node2", "start");
    assert_eq!(consul_of(&site, "node2"), process);
    comes_back("all is there after the agent");

    // A stop ends it, and keeps its data.
    site.ok("node1", "stop");
    assert_eq!(inspect(&site, "node1", ".State.Running"), "false");
    site.ok("node1", "start");
    comes_back("all is there after a stop");

    for host in ["node2", "node1"] {
        site.ok(host, "reset");
        for what in ["ps -aq", "volume ls -q"] {
            assert_eq!(site.docker(host, what), "", "{host}: {what}");
        }
        let left = site.run(host, "ls /var/lib/arpanet2 /run/arpanet2");
        assert_eq!(left.out, "", "{left:?}");
    }
}

#[tokio::test]
async fn three_hosts_with_consul_in_containers_want_its_token_and_its_certificates() {
    let Some(site) = Site::up_with_docker(3).await else {
        return;
    };
    let Some(program) = consul() else { return };
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    for (host, kind) in [
        ("node1", "server"),
        ("node2", "server"),
        ("node3", "client"),
    ] {
        import(&site, host, &program);
        settle(&site, host, IMAGE);
        give(&site, host, TOKEN);
        let token = "consul_token_file = \"/etc/arpanet2/consul.token\"";
        site.set(host, &format!("{token}\n{}", shown(folder.path(), kind)));
    }
    // Somebody has the port of DNS at docker's bridge.
    let other = "import socket,time\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\ns.bind(('172.17.0.1',53))\ntime.sleep(3600)";
    let python = site.lab.command("node3", 0, &["python3", "-c", other]);
    let mut other = python.unwrap().spawn().unwrap();
    site.cluster();
    let log = || site.log("node3");
    until("a word of it", LIMIT, log, |log| {
        log.contains("DNS can't serve docker's bridge: python3 (process ")
    });
    other.kill().unwrap();
    other.wait().unwrap();

    site.ok("node3", "kv put paas/web one");
    site.ok("node3", "register web --port 80");
    let resolved = || site.arpanet2("node2", "resolve web").out;
    until("the name is there", LIMIT, resolved, |ip| {
        ip == "10.255.0.14"
    });
    let anonymous = format!("{BINARY} fetch http://127.0.0.1:8500/v1/kv/paas/web");
    let anonymous = site.run("node2", &anonymous);
    assert!(
        anonymous.out.ends_with("Permission denied"),
        "{anonymous:?}"
    );
    let https = "exec 3<>/dev/tcp/127.0.0.1/8501";
    let https = site.command("node2", &["bash", "-c", https]);
    assert_eq!(https.code, Some(0), "{https:?}");

    // The key turns in there as well, and one that is started again has it.
    let keys = || site.arpanet2("node1", "consul -- keyring -list").out;
    let before = keys();
    assert!(before.contains("[3/3]"), "{before}");
    site.ok("node1", "rekey");
    until("another key", LIMIT, keys, |keys| {
        *keys != before && keys.matches("[3/3]").count() == 1
    });
    let process = consul_of(&site, "node2");
    site.docker("node2", &format!("kill {NAME}"));
    let another = || consul_of(&site, "node2");
    until("another consul", LIMIT, another, |now| *now != process);
    let members = || site.arpanet2("node1", "consul -- members").out;
    until("all are met", LIMIT, members, |members| {
        members.matches("alive").count() == 3
    });
    let value = || site.arpanet2("node2", "kv get paas/web").out;
    until("all is there", LIMIT, value, |value| value == "one");
}

#[tokio::test]
async fn an_image_of_consul_that_can_not_be_had_is_said_and_nothing_is_left() {
    let Some(site) = Site::up_with_docker(1).await else {
        return;
    };
    settle(&site, "node1", "registry.invalid/consul:1");
    let refused = site.arpanet2("node1", "boot 0.1 Apples");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for told in [
        "consul's container can't be made",
        "its registry is out of reach",
        "or install consul on this host",
    ] {
        assert!(refused.err.contains(told), "{told}: {refused:?}");
    }
    let left = site.run("node1", "ls /var/lib/arpanet2 /run/arpanet2");
    assert_eq!(left.out, "", "{left:?}");
    for what in ["ps -aq", "volume ls -q"] {
        assert_eq!(site.docker("node1", what), "", "{what}");
    }

    // Without an engine there is no container.
    let line = "boot --runtime process 0.1 Apples";
    let refused = site.arpanet2("node1", line);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("needs a docker engine"), "{refused:?}");
}
