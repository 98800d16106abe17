//! Docker's network driver with a real engine.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "../engines/mod.rs"]
mod engines;
mod keeper;
mod site;
mod spread;

use arpanet_lab::{Ending, IMAGE};

use site::{Site, has_engine};

const SHOP: &str = "10.1.0.0/16";

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_network_have_its_addresses_before_they_start() {
    if !has_engine() {
        return;
    }
    let site = Site::start().await;
    site.create_network("shop", SHOP);
    assert_eq!(site.cluster.networks(), [SHOP.parse().unwrap()]);
    let seen = site.docker(&[
        "run",
        "--rm",
        "--network",
        "shop",
        "--ip",
        "10.1.0.5",
        IMAGE,
        "sh",
        "-c",
        "ip -4 -o addr show; ip route; ping -c1 -W2 169.254.1.1",
    ]);
    for wanted in [
        "10.1.0.5/16",
        "10.248.0.0/13 via 169.254.1.1",
        "default via 172.",
        "1 packets received",
    ] {
        assert!(seen.contains(wanted), "{wanted}: {seen}");
    }
    assert_eq!(site.cluster.reserved(), []);
    assert_eq!(site.cluster.links().await, 0);
    site.docker(&["network", "rm", "shop"]);
    assert_eq!(site.cluster.networks(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_a_network_of_the_cluster_is_refused_with_what_to_do() {
    if !has_engine() {
        return;
    }
    let site = Site::start().await;
    let create = |args: &[&str]| {
        let all = [&["network", "create", "-d", "arpanet"], args, &["bad"]].concat();
        site.refused(&all)
    };
    let ours = |args: &[&str]| create(&[&["--ipam-driver", "arpanet"], args].concat());
    site.create_network("shop", SHOP);

    let told = create(&["--subnet", "10.2.0.0/16"]);
    assert!(
        told.contains(
            "docker network create -d arpanet --ipam-driver arpanet --subnet 10.2.0.0/16 NAME"
        ),
        "{told}"
    );
    for (args, wanted) in [
        (&["--subnet", "10.254.0.0/16"][..], "10.254.0.0/16"),
        (&["--subnet", "192.168.1.0/24"], "192.168.1.0/24"),
        (&["--subnet", "10.0.0.0/8"], "10.0.0.0/8"),
        (&["--subnet", SHOP], "overlaps 10.1.0.0/16"),
        (&["--subnet", "10.1.7.0/24"], "overlaps 10.1.0.0/16"),
        (&["--subnet", "10.66.0.0/16"], "overlaps the network old"),
        (
            &["--subnet", "10.2.0.0/16", "--ip-range", "10.2.1.0/24"],
            "--ip-range",
        ),
    ] {
        let told = ours(args);
        assert!(told.contains(wanted), "{args:?}: {told}");
        assert!(!told.contains('\n'), "{args:?}: {told}");
    }
    assert_eq!(site.cluster.networks(), [SHOP.parse().unwrap()]);
    assert_eq!(site.cluster.reserved(), []);

    site.docker(&[
        "network",
        "create",
        "-d",
        "arpanet",
        "--ipam-driver",
        "arpanet",
        "any",
    ]);
    let subnet = site.docker(&[
        "network",
        "inspect",
        "-f",
        "{{(index .IPAM.Config 0).Subnet}}",
        "any",
    ]);
    assert_eq!(subnet, "10.7.0.0/16");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_given_to_one_container() {
    if !has_engine() {
        return;
    }
    let site = Site::start().await;
    site.create_network("shop", SHOP);
    fn run<'a>(name: &'a str, ip: &'a str) -> [&'a str; 11] {
        let words = ["run", "-d", "--network", "shop", "--name", name, "--ip", ip];
        let mut all = [""; 11];
        all[..8].copy_from_slice(&words);
        all[8..].copy_from_slice(&[IMAGE, "sleep", "600"]);
        all
    }
    site.docker(&run("c1", "10.1.0.5"));
    let told = site.refused(&run("c2", "10.1.0.5"));
    assert!(told.contains("10.1.0.5"), "{told}");
    site.refused(&run("c3", "10.9.0.5"));
    // The one who was refused gives nothing back that is another's.
    assert_eq!(site.cluster.reserved(), ["10.1.0.5/16".parse().unwrap()]);
    assert_eq!(site.cluster.links().await, 1);
    site.docker(&["exec", "c1", "ping", "-c1", "-W2", "169.254.1.1"]);
    site.docker(&["rm", "-f", "c1"]);
    site.docker(&["start", "c2"]);
    site.docker(&["exec", "c2", "ping", "-c1", "-W2", "169.254.1.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_may_be_in_several_networks_and_has_one_way_into_the_overlay() {
    if !has_engine() {
        return;
    }
    let site = Site::start().await;
    site.create_network("shop", SHOP);
    site.create_network("back", "10.2.0.0/16");
    site.docker(&[
        "run",
        "-d",
        "--name",
        "c1",
        "--network",
        "shop",
        "-p",
        "8080:80",
        IMAGE,
        "httpd",
        "-f",
        "-h",
        "/etc",
    ]);
    site.docker(&["network", "connect", "--ip", "10.2.0.9", "back", "c1"]);
    let routes = site.docker(&["exec", "c1", "ip", "route"]);
    assert_eq!(routes.matches("10.248.0.0/13").count(), 1, "{routes}");
    let addresses = site.docker(&["exec", "c1", "ip", "-4", "-o", "addr"]);
    assert!(addresses.contains("10.2.0.9/16"), "{addresses}");
    assert_eq!(site.cluster.links().await, 2);

    // What is published is reached at the host, by docker's own bridge.
    let fetched = site
        .engine
        .command("busybox")
        .args(["wget", "-qO-", "http://127.0.0.1:8080/passwd"])
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&fetched.stdout).contains("nobody"),
        "{fetched:?}"
    );
    site.docker(&["restart", "-t", "0", "c1"]);
    let addresses = site.docker(&["exec", "c1", "ip", "-4", "-o", "addr"]);
    assert!(addresses.contains("10.2.0.9/16"), "{addresses}");
    site.docker(&["exec", "c1", "ping", "-c1", "-W2", "169.254.1.1"]);
    site.docker(&["network", "disconnect", "back", "c1"]);
    assert_eq!(site.cluster.links().await, 1);
    site.docker(&["rm", "-f", "c1"]);
    assert_eq!(site.cluster.links().await, 0);
    assert_eq!(site.cluster.reserved(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_internal_network_has_no_way_out_but_the_overlay() {
    if !has_engine() {
        return;
    }
    let site = Site::start().await;
    site.docker(&[
        "network",
        "create",
        "-d",
        "arpanet",
        "--ipam-driver",
        "arpanet",
        "--subnet",
        SHOP,
        "--internal",
        "shop",
    ]);
    let seen = site.docker(&[
        "run",
        "--rm",
        "--network",
        "shop",
        "--mac-address",
        "02:01:02:03:04:05",
        IMAGE,
        "sh",
        "-c",
        "ip route; ip link show eth0; ping -c1 -W2 169.254.1.1",
    ]);
    assert!(!seen.contains("default"), "{seen}");
    assert!(seen.contains("02:01:02:03:04:05"), "{seen}");
    assert!(seen.contains("1 packets received"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn engine_and_driver_restart_and_nothing_is_lost_or_left() {
    if !has_engine() {
        return;
    }
    let mut site = Site::start().await;
    site.create_network("shop", SHOP);
    site.docker(&[
        "run",
        "-d",
        "--name",
        "c1",
        "--restart",
        "always",
        "--network",
        "shop",
        "--ip",
        "10.1.0.5",
        IMAGE,
        "sleep",
        "600",
    ]);
    site.docker(&[
        "run",
        "-d",
        "--name",
        "c2",
        "--network",
        "shop",
        IMAGE,
        "sleep",
        "600",
    ]);
    site.restart_driver().await;
    site.docker(&["exec", "c1", "ping", "-c1", "-W2", "169.254.1.1"]);
    let told = site.refused(&[
        "run",
        "--rm",
        "--network",
        "shop",
        "--ip",
        "10.1.0.5",
        IMAGE,
        "true",
    ]);
    assert!(told.contains("10.1.0.5"), "{told}");

    for ending in [Ending::InOrder, Ending::AtOnce] {
        site.engine.end(ending).await.unwrap();
        site.engine.start_again().await.unwrap();
        // Back by itself, with its address; the other one ended, and holds nothing.
        site.docker(&["exec", "c1", "ping", "-c1", "-W2", "169.254.1.1"]);
        let addresses = site.docker(&["exec", "c1", "ip", "-4", "-o", "addr"]);
        assert!(addresses.contains("10.1.0.5/16"), "{addresses}");
        assert_eq!(site.cluster.reserved(), ["10.1.0.5/16".parse().unwrap()]);
        assert_eq!(site.cluster.links().await, 1);
        assert_eq!(site.driver().endpoints().len(), 1);
    }
    site.docker(&["rm", "-f", "c1", "c2"]);
    site.docker(&["network", "rm", "shop"]);
    assert_eq!(site.cluster.networks(), []);
    assert_eq!(site.cluster.links().await, 0);
}

const COMPOSE: &str = "
version: '2.4'
services:
  web:
    image: arpanet2-lab
    command: httpd -f -h /etc
    networks:
      shop:
        ipv4_address: 10.1.0.5
  client:
    image: arpanet2-lab
    command: sleep 600
    networks: [shop, back]
networks:
  shop:
    driver: arpanet
    ipam:
      driver: arpanet
      config: [{subnet: 10.1.0.0/16}]
  back:
    external: true
";

#[tokio::test(flavor = "multi_thread")]
async fn compose_makes_its_networks_and_uses_those_that_are_there() {
    if !has_engine() {
        return;
    }
    let site = Site::start().await;
    site.create_network("back", "10.2.0.0/16");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("docker-compose.yml");
    std::fs::write(&file, COMPOSE).unwrap();
    let compose = |args: &[&str]| {
        let output = std::process::Command::new("/usr/bin/docker-compose")
            .args(["--project-name", "shop", "--file"])
            .arg(&file)
            .args(args)
            .env(
                "DOCKER_HOST",
                format!("unix://{}", site.engine.socket().display()),
            )
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
    };
    for _ in 0..2 {
        compose(&["up", "-d"]);
        assert_eq!(site.cluster.links().await, 3);
    }
    let name = site.docker(&["ps", "--filter", "name=client", "--format", "{{.Names}}"]);
    site.docker(&[
        "exec",
        &name,
        "wget",
        "-qO",
        "/tmp/passwd",
        "http://web/passwd",
    ]);
    site.docker(&[
        "exec",
        &name,
        "wget",
        "-qO",
        "/tmp/passwd",
        "http://10.1.0.5/passwd",
    ]);
    compose(&["down", "-t", "0"]);
    assert_eq!(site.cluster.links().await, 0);
    assert_eq!(site.cluster.networks(), ["10.2.0.0/16".parse().unwrap()]);
}
