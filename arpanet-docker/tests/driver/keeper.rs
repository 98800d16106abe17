//! The socket outlives the agent: nothing hangs, and all is mended when it is back.

use std::time::{Duration, Instant};

use arpanet_docker::driver;
use arpanet_lab::{Ending, IMAGE};

use crate::site::{Site, has_engine};

const SHOP: &str = "10.1.0.0/16";
/// What the engine itself waits for a plugin that is not there is 45 s.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn without_an_agent_containers_are_removed_and_none_begin() {
    if !has_engine() {
        return;
    }
    let mut site = Site::start_kept(Duration::from_secs(1)).await;
    site.create_network("shop", SHOP);
    site.create_network("back", "10.2.0.0/16");
    for name in ["c1", "c2"] {
        site.docker(&[
            "run",
            "-d",
            "--network",
            "shop",
            "--name",
            name,
            IMAGE,
            "sleep",
            "600",
        ]);
    }
    site.stop_agent();

    let began = Instant::now();
    site.docker(&["rm", "-f", "c1"]);
    site.docker(&["network", "rm", "back"]);
    let told = site.refused(&["run", "--rm", "--network", "shop", IMAGE, "true"]);
    assert!(told.contains("arpanet2 start"), "{told}");
    site.docker(&["exec", "c2", "ping", "-c1", "-W2", "169.254.1.1"]);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    // Nothing of it has happened yet.
    assert_eq!(site.cluster.links().await, 2);
    assert_eq!(site.cluster.networks().len(), 2);

    site.start_agent().await;
    assert_eq!(site.cluster.links().await, 1);
    assert_eq!(site.cluster.networks(), [SHOP.parse().unwrap()]);
    assert_eq!(site.cluster.reserved().len(), 1);
    site.docker(&["run", "--rm", "--network", "shop", IMAGE, "true"]);
    assert_eq!(site.cluster.links().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_starts_before_the_agent_has_its_containers_back() {
    if !has_engine() {
        return;
    }
    let mut site = Site::start_kept(Duration::from_secs(60)).await;
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
    site.stop_agent();
    site.engine.end(Ending::AtOnce).await.unwrap();

    // As after a reboot, it does not answer until its containers are back, and these wait for the agent.
    let mut agent = site.agent();
    let agent = tokio::spawn(async move {
        agent.wait_until_asked().await;
        agent.start().await;
        agent
    });
    site.engine.start_again().await.unwrap();
    site.take(agent.await.unwrap());
    site.docker(&["exec", "c1", "ping", "-c1", "-W2", "169.254.1.1"]);
    assert_eq!(site.cluster.reserved(), ["10.1.0.5/16".parse().unwrap()]);
    assert_eq!(site.cluster.links().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_starts_without_an_agent_too() {
    if !has_engine() {
        return;
    }
    let mut site = Site::start_kept(Duration::from_secs(1)).await;
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
    site.stop_agent();
    site.engine.end(Ending::AtOnce).await.unwrap();
    let began = Instant::now();
    site.engine.start_again().await.unwrap();
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    site.start_agent().await;
    assert_eq!(site.cluster.links().await, 0);
    site.docker(&["start", "c1"]);
    site.docker(&["exec", "c1", "ping", "-c1", "-W2", "169.254.1.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_keeper_follows_another_and_ends_when_it_is_told_to() {
    if !has_engine() {
        return;
    }
    let mut site = Site::start_kept(Duration::from_secs(1)).await;
    let socket = site.plugin_socket();
    assert_eq!(
        driver::hello(&socket).await.as_deref(),
        Some(env!("CARGO_PKG_VERSION"))
    );
    site.create_network("shop", SHOP);
    site.start_keeper(Duration::from_secs(1)).await;
    site.docker(&["run", "--rm", "--network", "shop", IMAGE, "true"]);
    site.docker(&["network", "rm", "shop"]);
    driver::end(&socket).await.unwrap();
    assert_eq!(driver::hello(&socket).await, None);
    assert!(!socket.exists());
    driver::end(&socket).await.unwrap();
}
