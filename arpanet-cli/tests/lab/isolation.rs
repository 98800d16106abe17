//! What a container of an application can't reach, row by row, whatever it may do in its own namespace; and that all of it is
//! there, for those who may.

use std::time::Duration;

use crate::site::{Outcome, Site, until};

const LIMIT: Duration = Duration::from_secs(20);
const NODES: [(&str, &str, &str); 3] = [
    ("node1", "0.1", "192.168.8.120"),
    ("node2", "0.2", "192.168.8.121"),
    ("node3", "0.14", "192.168.8.122"),
];
const CLIENT: &str = "/usr/bin/docker";

/// Tries all of these at once, in a container; those that answered.
fn reached(site: &Site, container: &str, targets: &[String]) -> String {
    let tries: Vec<String> = targets
        .iter()
        .map(|target| format!("(timeout 3 wget -qO /dev/null http://{target} && echo {target}) &"))
        .collect();
    let script = format!("{} wait", tries.join(" "));
    let told = site.command("node2", &[CLIENT, "exec", container, "sh", "-c", &script]);
    assert_eq!(told.code, Some(0), "{told:?}");
    told.out
}

/// An ordinary user of a host connects to where the API is.
fn as_nobody(site: &Site, host: &str, ip: &str) -> Outcome {
    let connect = format!("exec 3<>/dev/tcp/{ip}/2375");
    let user = [
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
    ];
    let words = [&user[..], &["timeout", "5", "bash", "-c", &connect]].concat();
    site.command(host, &words)
}

fn address(site: &Site, service: &str) -> String {
    let resolve = || site.arpanet2("node2", &format!("resolve {service}")).out;
    until(service, LIMIT, resolve, |ip| !ip.is_empty());
    resolve()
}

#[tokio::test]
async fn a_container_reaches_no_api_no_plane_and_no_other_network_whatever_it_tries() {
    let Some(site) = Site::up_with_docker(3).await else {
        return;
    };
    site.cluster();
    site.docker(
        "node2",
        "network create -d arpanet --ipam-driver arpanet --subnet 10.3.0.0/16 shop",
    );
    // On this host and on another one, on a network of which the others are not.
    for (host, name) in [("node1", "far"), ("node2", "near")] {
        let labels = format!(
            "--label arpanet.net=10.1.0.0/16 --label arpanet.service={name} --label arpanet.port=80"
        );
        site.docker(
            host,
            &format!("run -d --name {name} {labels} arpanet2-lab httpd -f -p 80 -h /bin"),
        );
    }
    let apps = ["far", "near"].map(|name| format!("{}/busybox", address(&site, name)));
    let admin = "--cap-add NET_ADMIN";
    site.docker(
        "node2",
        &format!(
            "run -d --name labels {admin} --label arpanet.net=10.2.0.0/16 arpanet2-lab sleep 3600"
        ),
    );
    site.docker(
        "node2",
        &format!("run -d --name driver {admin} --network shop arpanet2-lab sleep 3600"),
    );
    site.docker(
        "node2",
        "run -d --name friend --label arpanet.net=10.1.0.0/16 arpanet2-lab sleep 3600",
    );

    let mut targets = apps.to_vec();
    targets.push("172.17.0.1:2375/version".to_owned());
    for (host, node, lan) in NODES {
        targets.extend(
            ["10.254", "10.255", "10.253"].map(|plane| format!("{plane}.{node}:2375/version")),
        );
        targets.push(format!("{lan}:2375/version"));
        // Somebody answers at the node's own address, so that what refuses is the way there. The lab takes it along.
        let serve = format!("busybox httpd -p 10.255.{node}:2375 -h /proc");
        assert_eq!(site.run(host, &serve).code, Some(0));
        for (_, api, _) in NODES {
            let as_root = || {
                site.run(
                    host,
                    &format!("{CLIENT} -H tcp://10.254.{api}:2375 version"),
                )
                .code
            };
            until("the API", LIMIT, as_root, |code| *code == Some(0));
            let refused = as_nobody(&site, host, &format!("10.254.{api}"));
            assert_ne!(
                refused.code,
                Some(0),
                "{host}: nobody at {api}: {refused:?}"
            );
        }
    }
    for (_, node, _) in NODES {
        let own = as_nobody(&site, "node3", &format!("10.255.{node}"));
        assert_eq!(own.code, Some(0), "{own:?}");
    }
    let friend = || reached(&site, "friend", &apps);
    until("the applications", LIMIT, friend, |told| {
        apps.iter().all(|app| told.contains(app))
    });

    // As it is; by docker's bridge and default route, for all at once and one by one; by the router; straight into the link.
    let gateway = "gateway=$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p' | head -n 1)";
    let link =
        "link=$(ip route get 169.254.1.1 | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p' | head -n 1)";
    let ways = [
        "true".to_owned(),
        format!("{gateway}; ip route replace 10.0.0.0/8 via $gateway"),
        format!(
            "{gateway}; for plane in 253 254 255; do ip route replace 10.$plane.0.0/16 via $gateway; done"
        ),
        format!(
            "{link}; for plane in 253 254 255; do ip route replace 10.$plane.0.0/16 via 169.254.1.1 dev $link onlink; done"
        ),
        format!(
            "{link}; ip route replace 10.0.0.0/8 dev $link; for plane in 253 254 255; do ip route replace 10.$plane.0.0/16 dev $link; done"
        ),
        format!(
            "{link}; ip addr add 10.255.0.99/32 dev $link; for plane in 253 254 255; do ip route replace 10.$plane.0.0/16 dev $link src 10.255.0.99; done"
        ),
    ];
    for container in ["labels", "driver"] {
        for way in &ways {
            let made = site.command("node2", &[CLIENT, "exec", container, "sh", "-c", way]);
            assert_eq!(made.code, Some(0), "{container}: {way}: {made:?}");
            let told = reached(&site, container, &targets);
            assert_eq!(told, "", "{container}, by {way}");
        }
    }
    // Nor does any of it keep those from it who may.
    assert!(apps.iter().all(|app| friend().contains(app)));
}
