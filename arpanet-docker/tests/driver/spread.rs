//! What is made on one engine is made on all, and removed likewise.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arpanet_core::admission::{Password, Seed};
use arpanet_core::memory::World;
use arpanet_core::roster::Role;
use arpanet_core::{Cluster, NodeAddr};
use arpanet_docker::driver;
use arpanet_lab::{Ending, IMAGE};

use crate::site::{Site, alone, has_engine};

/// For many engines on one machine; how soon it is where there is one a host, the lab's test says.
const LIMIT: Duration = Duration::from_secs(30);

fn node(world: &World, addr: &str) -> Cluster {
    let addr: NodeAddr = addr.parse().unwrap();
    Cluster::builder()
        .node(addr)
        .overlay(Arc::new(world.overlay(addr)))
        .discovery(Arc::new(world.discovery(addr)))
        .admission(Arc::new(world.admission(addr)))
        .build()
        .unwrap()
}

fn networks(site: &Site) -> Vec<String> {
    let format = "{{.Name}}";
    let listed = site.docker(&[
        "network",
        "ls",
        "--filter",
        "driver=arpanet",
        "--format",
        format,
    ]);
    let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
    names.sort();
    names
}

async fn becomes(site: &Site, wanted: &[&str]) {
    let began = Instant::now();
    while networks(site) != wanted {
        let late = began.elapsed() > LIMIT;
        assert!(!late, "{:?} and not {wanted:?}", networks(site));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn shape(site: &Site, name: &str) -> String {
    let format = "{{json .IPAM}} {{json .Labels}} {{json .Options}} {{.Internal}} {{.Driver}}";
    site.docker(&["network", "inspect", "-f", format, name])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_of_one_engine_is_one_of_all() {
    if !has_engine() {
        return;
    }
    let alone = alone().await;
    let world = World::new(1);
    let (one, two) = (node(&world, "0.1"), node(&world, "0.2"));
    let password = Password::new("Apples").unwrap();
    one.boot(&password).await.unwrap();
    let seed = Seed::new(one.me(), world.endpoint("0.1"));
    two.join(&password, Role::Server, seed, false)
        .await
        .unwrap();
    let (a, b) = (
        Site::start_alone(&alone).await,
        Site::start_alone(&alone).await,
    );
    a.spread(&one).await;
    b.spread(&two).await;

    a.docker(&[
        "network",
        "create",
        "-d",
        "arpanet",
        "--ipam-driver",
        "arpanet",
        "--subnet",
        "10.1.0.0/16",
        "--label",
        "com.docker.compose.network=default",
        "-o",
        "a=b",
        "--internal",
        "shop_default",
    ]);
    becomes(&b, &["shop_default"]).await;
    assert_eq!(shape(&a, "shop_default"), shape(&b, "shop_default"));
    b.create_network("back", "10.2.0.0/16");
    becomes(&a, &["back", "shop_default"]).await;

    // Removed where it was not made, and made anew with another name.
    b.docker(&["network", "rm", "shop_default"]);
    becomes(&a, &["back"]).await;
    a.create_network("shop", "10.1.0.0/16");
    becomes(&b, &["back", "shop"]).await;

    // Who joins later has them too, and leaves without taking them along.
    let three = node(&world, "0.3");
    let seed = Seed::new(one.me(), world.endpoint("0.1"));
    three
        .join(&password, Role::Server, seed, false)
        .await
        .unwrap();
    let c = Site::start_alone(&alone).await;
    c.spread(&three).await;
    becomes(&c, &["back", "shop"]).await;
    drop(c);
    assert_eq!(networks(&a), ["back", "shop"]);
    driver::remove_networks(&b.engine.socket()).await.unwrap();
    becomes(&a, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_lost_its_networks_has_them_again_and_nothing_is_left_of_its_containers() {
    if !has_engine() {
        return;
    }
    let alone = alone().await;
    let world = World::new(1);
    let one = node(&world, "0.1");
    one.boot(&Password::new("Apples").unwrap()).await.unwrap();
    let mut a = Site::start_alone(&alone).await;
    a.spread(&one).await;
    a.create_network("shop", "10.1.0.0/16");
    a.docker(&["run", "-d", "--network", "shop", IMAGE, "sleep", "600"]);
    assert_eq!(a.driver().endpoints().len(), 1);
    let before = a.docker(&["network", "inspect", "-f", "{{.Id}}", "shop"]);

    a.engine.end(Ending::AtOnce).await.unwrap();
    a.stop_agent();
    let data = a.engine.log().with_file_name("data");
    std::fs::remove_dir_all(data.join("network")).unwrap();
    a.start_agent().await;
    let _review = a.review();
    a.engine.start_again().await.unwrap();
    becomes(&a, &["shop"]).await;
    let after = a.docker(&["network", "inspect", "-f", "{{.Id}}", "shop"]);
    assert_ne!(before, after, "the engine has lost nothing");
    let began = Instant::now();
    while !a.driver().endpoints().is_empty() || a.cluster.links().await > 0 {
        assert!(began.elapsed() < LIMIT, "{:?}", a.driver().endpoints());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(a.cluster.reserved(), []);
    assert_eq!(a.cluster.networks(), ["10.1.0.0/16".parse().unwrap()]);
}
