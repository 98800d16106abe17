//! Real docker engines, one in each host.

use std::time::{Duration, Instant};

use arpanet_lab::Ending;

use crate::site::{BINARY, Site, until};

const LIMIT: Duration = Duration::from_secs(20);

/// The lab's image, and a service in it.
const WEB: &str = "run --image arpanet2-lab --net 10.1.0.0/16 --service web --port 80 --name w1 -- httpd -f -p 80 -h /bin";

/// What `resolve web` prints, line by line.
fn web(site: &Site, host: &str) -> Vec<String> {
    let resolved = site.arpanet2(host, "resolve web");
    resolved.out.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn containers_of_three_engines_find_each_other_and_outlive_agents_and_engines() {
    let Some(site) = Site::up_with_docker(3).await else {
        return;
    };
    site.cluster();
    assert_eq!(site.status("node3")["stack"]["runtime"], "docker");
    site.ok("node3", WEB);
    site.ok(
        "node2",
        "run --image arpanet2-lab --net 10.1.0.0/16 --name c1 -- sleep 600",
    );
    assert_eq!(web(&site, "node2").len(), 1);

    // More than a megabyte, by name.
    let fetch = "exec c1 -- wget -qO /tmp/b http://web.service.consul/busybox";
    site.ok("node2", fetch);
    let sums =
        |host: &str, line: &str| site.docker(host, line).split(' ').next().map(str::to_owned);
    assert_eq!(
        sums("node2", "exec c1 sha256sum /tmp/b"),
        sums("node3", "exec w1 sha256sum /bin/busybox")
    );

    // An agent that is killed is no matter to what runs, nor to what is registered.
    let pid = site.run("node3", "cat /run/arpanet2/agent.lock").out;
    assert_eq!(site.run("node3", &format!("kill -9 {pid}")).code, Some(0));
    site.ok("node3", "start");
    assert_eq!(web(&site, "node2").len(), 1);
    site.ok("node2", fetch);

    // An engine that ends takes its containers with it, and what they provide.
    site.lab.end_docker("node3", Ending::InOrder).await.unwrap();
    until(
        "web of an engine that ended",
        LIMIT,
        || web(&site, "node2"),
        Vec::is_empty,
    );
    site.lab.start_docker("node3").await.unwrap();
    site.docker("node3", "start w1");
    until(
        "web of a container that was started again",
        LIMIT,
        || web(&site, "node2"),
        |web| web.len() == 1,
    );
    site.ok("node2", fetch);

    // One that any client made is given an address by hand; it is no container of the cluster's.
    site.docker("node1", "run -d --name plain arpanet2-lab sleep 600");
    site.ok("node1", "attach plain 10.1.0.0/16");
    let at = &web(&site, "node1")[0];
    let by_address = format!("exec plain wget -qO /tmp/b http://{at}/busybox");
    site.docker("node1", &by_address);

    for (host, left) in [("node1", "plain"), ("node2", ""), ("node3", "")] {
        site.ok(host, "reset");
        let names = site.docker(host, "ps -a --format {{.Names}}");
        assert_eq!(names, left, "{host}");
        let files = site.run(host, "ls /var/lib/arpanet2 /run/arpanet2");
        assert_eq!(files.out, "", "{host}");
    }
    let links = site.docker("node1", "exec plain ip -o link");
    assert_eq!(links.lines().count(), 2, "{links}");
}

#[tokio::test]
async fn a_host_whose_engine_is_away_is_told_so_and_can_do_without() {
    let Some(site) = Site::up_with_docker(1).await else {
        return;
    };
    site.lab.end_docker("node1", Ending::InOrder).await.unwrap();
    let refused = site.arpanet2("node1", "boot 0.1 Apples --runtime docker");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for words in [
        "docker engine at /var/run/docker.sock",
        "hint: ",
        "--runtime process",
    ] {
        assert!(refused.err.contains(words), "{refused:?}");
    }
    let files = site.run("node1", "ls /var/lib/arpanet2 /run/arpanet2");
    assert_eq!(files.out, "", "nothing is left of it");
    site.ok("node1", "boot 0.1 Apples --runtime process");
    assert_eq!(site.status("node1")["stack"]["runtime"], "process");
}

#[tokio::test]
async fn doctor_says_what_of_docker_is_in_the_way_and_what_mends_it() {
    let Some(site) = Site::up_with_docker(1).await else {
        return;
    };
    let healthy = site.arpanet2("node1", "doctor");
    assert_eq!(healthy.code, Some(0), "{healthy:?}");
    for words in ["the engine is ", "layers are stored by ", "port 53 is free"] {
        assert!(healthy.out.contains(words), "{words}: {healthy:?}");
    }
    site.docker("node1", "network create --subnet 10.254.7.0/24 clash");
    let clash = site.arpanet2("node1", "doctor");
    assert_eq!(clash.code, Some(1), "{clash:?}");
    let words =
        "FAIL networks: docker's network clash, 10.254.7.0/24, lies in the plane 10.254.0.0/16";
    assert!(clash.out.contains(words), "{clash:?}");
    site.docker("node1", "network rm clash");

    site.lab.end_docker("node1", Ending::AtOnce).await.unwrap();
    let away = site.arpanet2("node1", "doctor");
    assert_eq!(away.code, Some(1), "{away:?}");
    assert!(away.out.contains("FAIL docker: "), "{away:?}");
}

#[tokio::test]
async fn every_engine_is_reached_at_its_nodes_address_by_root_and_by_nobody_else() {
    let Some(site) = Site::up_with_docker(2).await else {
        return;
    };
    site.cluster();
    site.docker("node2", "run -d --name there arpanet2-lab sleep 600");
    let docker = |args: &str| {
        let command = format!("env PATH=/usr/bin:/bin DOCKER_HOST=tcp://x {BINARY} docker {args}");
        site.command("node1", &["sh", "-c", &command])
    };
    let names = docker("0.2 -- ps --format {{.Names}}");
    assert_eq!(
        (names.code, &names.out[..]),
        (Some(0), "there"),
        "{names:?}"
    );
    // Ten megabytes there and back, and the exit code of what ran.
    site.command(
        "node1",
        &["sh", "-c", "head -c 10485760 /dev/urandom > /tmp/in"],
    );
    let whole = docker("0.2 -- run --rm -i arpanet2-lab cat < /tmp/in | cmp - /tmp/in");
    assert_eq!((whole.code, &whole.err[..]), (Some(0), ""), "{whole:?}");
    assert_eq!(docker("0.2 -- exec there sh -c 'exit 42'").code, Some(42));
    assert_eq!(site.ok("node1", "resolve docker").lines().count(), 2);

    // Neither an application container, nor an ordinary user.
    site.ok(
        "node1",
        "run --image arpanet2-lab --net 10.1.0.0/16 --name app -- sleep 600",
    );
    for api in ["10.254.0.1", "10.254.0.2"] {
        let fetch = format!("/usr/bin/docker exec app wget -qO - http://{api}:2375/version");
        let refused = site.run("node1", &fetch);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.err.contains("can't connect"), "{refused:?}");
    }
    let user = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    let user = site.run(
        "node1",
        &format!("{user} /usr/bin/docker -H tcp://10.254.0.2:2375 version"),
    );
    assert_eq!(user.code, Some(1), "{user:?}");
    assert!(user.err.contains("permission denied"), "{user:?}");
}

#[tokio::test]
async fn an_agent_that_starts_while_its_engine_is_away_leaves_living_containers_their_network() {
    let Some(site) = Site::up_with_docker(2).await else {
        return;
    };
    // As docker's users have it who want their containers to outlive the engine.
    let live = "mkdir -p /etc/docker && echo '{\"live-restore\": true}' > /etc/docker/daemon.json";
    site.command("node2", &["sh", "-c", live]);
    site.lab.end_docker("node2", Ending::InOrder).await.unwrap();
    site.lab.start_docker("node2").await.unwrap();
    site.cluster();
    site.ok("node2", WEB);
    site.ok("node2", &WEB.replace("w1", "w2"));
    site.ok(
        "node1",
        "run --image arpanet2-lab --net 10.1.0.0/16 --name c1 -- sleep 600",
    );
    let both = web(&site, "node1");
    assert_eq!(both.len(), 2);
    let fetch = |ip: &str| {
        let fetched = site.arpanet2(
            "node1",
            &format!("exec c1 -- timeout 3 wget -qO /tmp/b http://{ip}/busybox"),
        );
        fetched.code == Some(0)
    };
    assert!(both.iter().all(|ip| fetch(ip)));

    site.lab.end_docker("node2", Ending::InOrder).await.unwrap();
    let pid = site.run("node2", "cat /run/arpanet2/agent.lock").out;
    assert_eq!(site.run("node2", &format!("kill -9 {pid}")).code, Some(0));
    site.ok("node2", "start");
    // Longer than what was told before and is not told again is kept by others.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        assert!(both.iter().all(|ip| fetch(ip)), "{}", site.log("node2"));
        let mut now = web(&site, "node1");
        now.sort();
        let mut before = both.clone();
        before.sort();
        assert_eq!(now, before, "{}", site.log("node2"));
    }
    assert!(
        site.log("node2")
            .contains("the container engine does not say yet")
    );

    // One ends while nobody is told.
    let ended = site.command(
        "node2",
        &["sh", "-c", "kill -9 $(pgrep -of 'httpd -f -p 80')"],
    );
    assert_eq!(ended.code, Some(0), "{ended:?}");
    site.lab.start_docker("node2").await.unwrap();
    until(
        "only what lives is left",
        LIMIT,
        || web(&site, "node1"),
        |web| web.len() == 1,
    );
    let left = web(&site, "node1").remove(0);
    assert!(both.contains(&left) && fetch(&left));
    let listed = site.ok("node2", "ps");
    assert!(
        listed.contains("running") && listed.contains("exited (137)"),
        "{listed}"
    );
}
