//! A node that comes back while its runtime does not answer: its containers may run on.

use std::sync::Arc;

use arpanet_core::memory::World;
use arpanet_core::mock::MockRuntime;
use arpanet_core::overlay::Overlay;
use arpanet_core::runtime::{
    Container, ContainerSpec, ContainerState, Runtime, RuntimeCapabilities,
};
use arpanet_core::watch::WatchHub;
use arpanet_core::{AppNet, Cluster, ContainerName};

/// A runtime that says what the hub says, and knows nothing else.
fn runtime(hub: &WatchHub<ContainerName, Container>) -> MockRuntime {
    let mut runtime = MockRuntime::new();
    runtime.expect_name().return_const("slow");
    runtime
        .expect_capabilities()
        .returning(|| RuntimeCapabilities::all().without_resolver());
    let hub = hub.clone();
    runtime.expect_watch().returning(move || Ok(hub.watch()));
    runtime
}

#[tokio::test(start_paused = true)]
async fn what_was_attached_stays_and_its_addresses_are_not_given_to_others() {
    let (world, mut nodes) = World::with_clusters(2).await;
    let net: AppNet = "10.1.0.0/16".parse().unwrap();
    let spec = ContainerSpec::command(["httpd"])
        .net(net)
        .service("web".parse().unwrap(), 80);
    for name in ["w1", "w2"] {
        world
            .start_foreign("0.2", &spec.clone().named(name.parse().unwrap()))
            .unwrap();
    }
    world.settle().await;
    // One that ended keeps its address for when it is started again.
    let ended: ContainerName = "w2".parse().unwrap();
    let mut had = world.lookup("0.1", "web");
    had.retain(|instance| instance.id.as_str().contains(":w2:"));
    let kept = had[0].ip;
    world.end_container("0.2", &ended, 137).unwrap();
    world.settle().await;
    let attached = world.overlay("0.2").attached().await.unwrap();
    assert_eq!(attached.len(), 1);

    world.crash("0.2");
    world.settle().await;
    world.start("0.2");
    let hub = WatchHub::new();
    hub.set_stale(true);
    let store = world.store("0.2");
    let membership = store.load().unwrap().unwrap();
    let me = nodes[1].me();
    nodes[1] = Cluster::builder()
        .node(me)
        .name(membership.me.name.clone())
        .overlay(Arc::new(world.overlay(me)))
        .discovery(Arc::new(world.discovery(me)))
        .runtime(Arc::new(runtime(&hub)))
        .admission(Arc::new(world.admission(me)))
        .store(Arc::new(store))
        .build()
        .unwrap();
    nodes[1].resume(membership).await.unwrap();
    world.settle().await;
    assert_eq!(world.overlay("0.2").attached().await.unwrap(), attached);
    let mut given = Vec::new();
    for _ in 0..3 {
        given.push(nodes[1].reserve(net, None).await.unwrap().ip());
    }
    assert!(!given.contains(&kept), "{kept} is among {given:?}");

    // It answers, and only one of them is there.
    let real = world.runtime("0.2");
    let there = real.inspect(&"w1".parse().unwrap()).await.unwrap();
    assert_eq!(there.state, ContainerState::Running);
    hub.upsert(there.name.clone(), there.clone());
    hub.set_stale(false);
    world.settle().await;
    assert_eq!(world.overlay("0.2").attached().await.unwrap(), attached);
    assert_eq!(world.lookup("0.1", "web").len(), 1);
    hub.remove(&there.name);
    world.settle().await;
    assert!(world.overlay("0.2").attached().await.unwrap().is_empty());
    assert!(world.lookup("0.1", "web").is_empty());
}
