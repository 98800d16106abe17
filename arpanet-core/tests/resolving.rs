//! Whom containers ask for names: the router, as long as they are attached.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arpanet_core::admission::Password;
use arpanet_core::memory::World;
use arpanet_core::runtime::{ContainerSpec, ExecOutput, ExecSpec, NetRequest};
use arpanet_core::{Cluster, ContainerName, NodeAddr, Runtime};

fn node(world: &World) -> Cluster {
    let addr: NodeAddr = "0.1".parse().unwrap();
    Cluster::builder()
        .node(addr)
        .domain("example")
        .overlay(Arc::new(world.overlay(addr)))
        .discovery(Arc::new(world.discovery(addr)))
        .runtime(Arc::new(world.runtime(addr)))
        .admission(Arc::new(world.admission(addr)))
        .store(Arc::new(world.store(addr)))
        .build()
        .unwrap()
}

async fn boot(world: &World) -> Cluster {
    let cluster = node(world);
    let password = Password::new("Apples").unwrap();
    cluster.boot(&password).await.unwrap();
    world.settle().await;
    cluster
}

fn plain(name: &str) -> ContainerSpec {
    ContainerSpec::command(["httpd"]).named(name.parse().unwrap())
}

/// A container that another client makes and starts.
async fn start(world: &World, spec: &ContainerSpec) -> ContainerName {
    let runtime = world.runtime("0.1");
    let made = runtime.create(spec).await.unwrap();
    runtime.start(&made.name).await.unwrap();
    world.settle().await;
    made.name
}

/// The name servers that a container asks, one a line.
async fn servers(world: &World, name: &ContainerName) -> String {
    let command = ExecSpec::new(["servers"]);
    let mut exec = world.runtime("0.1").exec(name, &command).await.unwrap();
    let mut told = String::new();
    while let Some(output) = exec.output.recv().await {
        if let ExecOutput::Output(piece) = output {
            told.push_str(std::str::from_utf8(&piece.bytes).unwrap());
        }
    }
    told
}

const ROUTER: &str = "169.254.1.1\n";

#[tokio::test(start_paused = true)]
async fn a_container_of_any_client_asks_the_router_after_every_start_of_it_and_of_the_agent() {
    let world = World::new(7);
    let cluster = boot(&world).await;
    let c1 = start(&world, &plain("c1").net("10.1.0.0/16".parse().unwrap())).await;
    assert_eq!(servers(&world, &c1).await, ROUTER);
    world.runtime("0.1").stop(&c1).await.unwrap();
    world.settle().await;
    world.runtime("0.1").start(&c1).await.unwrap();
    world.settle().await;
    assert_eq!(servers(&world, &c1).await, ROUTER);

    // One that starts while no agent is there.
    let kept = cluster.membership().await.unwrap();
    world.crash("0.1");
    drop(cluster);
    let c2 = start(&world, &plain("c2").net("10.1.0.0/16".parse().unwrap())).await;
    assert_eq!(servers(&world, &c2).await, "");
    let cluster = node(&world);
    cluster.resume(kept).await.unwrap();
    world.settle().await;
    for name in [&c1, &c2] {
        assert_eq!(servers(&world, name).await, ROUTER, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_detached_or_left_behind_asks_whom_it_asked_before() {
    let world = World::new(7);
    let cluster = boot(&world).await;
    let c1 = start(&world, &plain("c1")).await;
    let own = plain("c2").net("10.1.0.0/16".parse().unwrap());
    let c3 = start(&world, &own.clone().named("c3".parse().unwrap())).await;
    let mut own = own;
    own.dns.push("192.0.2.1".parse().unwrap());
    let c2 = start(&world, &own).await;
    assert_eq!(servers(&world, &c1).await, "");
    assert_eq!(servers(&world, &c2).await, "192.0.2.1\n");
    let net = NetRequest::Net("10.2.0.0/16".parse().unwrap());
    let given = cluster.attach(&c1, net).await.unwrap();
    world.settle().await;
    assert_eq!(servers(&world, &c1).await, ROUTER);
    cluster.detach(&c1, given.ip()).await.unwrap();
    world.settle().await;
    assert_eq!(servers(&world, &c1).await, "");

    assert_eq!(servers(&world, &c3).await, ROUTER);
    cluster.leave().await.unwrap();
    assert_eq!(servers(&world, &c3).await, "");
    assert_eq!(servers(&world, &c2).await, "192.0.2.1\n");
}
