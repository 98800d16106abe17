//! `setup --docker-api daemon`: docker's own configuration, for containers on docker's own networks.

use std::time::Duration;

use arpanet_lab::Ending;

use crate::site::{Site, until};

const LIMIT: Duration = Duration::from_secs(20);
const FILE: &str = "/etc/docker/daemon.json";
const USERS: &str = "{\n    \"debug\": false\n}";

fn settings(site: &Site, host: &str) -> String {
    site.run(host, &format!("cat {FILE}")).out
}

fn write(site: &Site, host: &str, text: &str) {
    let script = format!("mkdir -p /etc/docker && printf '%s\\n' '{text}' > {FILE}");
    assert_eq!(site.command(host, &["sh", "-c", &script]).code, Some(0));
}

#[tokio::test]
async fn containers_on_docker_s_own_networks_find_the_cluster_s_names_after_setup() {
    let Some(site) = Site::up_with_docker(2).await else {
        return;
    };
    write(&site, "node1", USERS);
    let daemon = "setup --docker-api daemon";
    let told = site.ok("node1", &format!("{daemon} --dry-run"));
    for words in [
        "would change /etc/docker/daemon.json",
        "\n+     \"live-restore\": true",
        "\n+     \"debug\": false,",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert_eq!(settings(&site, "node1"), USERS);
    let told = site.ok("node1", daemon);
    assert!(told.contains("restart the docker engine"), "{told}");
    let changed = settings(&site, "node1");
    let again = site.ok("node1", daemon);
    assert!(again.contains("nothing to change"), "{again}");
    assert_eq!(settings(&site, "node1"), changed);
    site.lab.end_docker("node1", Ending::InOrder).await.unwrap();
    site.lab.start_docker("node1").await.unwrap();
    let live = site.docker("node1", "info -f {{.LiveRestoreEnabled}}");
    assert_eq!(live, "true");

    site.cluster();
    let labels =
        "--label arpanet.net=10.1.0.0/16 --label arpanet.service=web --label arpanet.port=80";
    site.docker("node2", &format!("run -d {labels} arpanet2-lab sleep 600"));
    let web = || site.arpanet2("node1", "resolve web").out;
    until("web", LIMIT, web, |ip| !ip.is_empty());
    let at = web();
    site.docker("node1", "network create mine");
    site.docker(
        "node1",
        "run -d --name c1 --network mine arpanet2-lab sleep 600",
    );
    for name in ["web.service.consul", "web"] {
        let ask = || site.run("node1", &format!("/usr/bin/docker exec c1 nslookup {name}"));
        until(name, LIMIT, ask, |told| told.out.contains(&at));
    }

    // What docker could not read is not touched.
    write(&site, "node2", "{");
    let refused = site.arpanet2("node2", daemon);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.err.contains("not valid JSON, at line"),
        "{refused:?}"
    );
    assert_eq!(settings(&site, "node2"), "{");

    // Taken back by hand, and by reset.
    site.ok("node1", "setup --undo");
    assert_eq!(settings(&site, "node1"), USERS);
    assert!(
        site.ok("node1", "setup --undo")
            .contains("nothing to change")
    );
    write(&site, "node2", USERS);
    site.lab.end_docker("node2", Ending::InOrder).await.unwrap();
    site.lab.start_docker("node2").await.unwrap();
    site.ok("node2", "reset");
    site.ok("node2", daemon);
    assert_ne!(settings(&site, "node2"), USERS);
    site.ok("node2", "reset");
    assert_eq!(settings(&site, "node2"), USERS);
    let beside = site.run("node2", "ls /etc/docker").out;
    assert!(!beside.contains("arpanet"), "{beside}");
}
