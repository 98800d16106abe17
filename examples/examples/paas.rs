//! A PaaS in one process: five nodes of the simulated world, a service that is deployed, scaled and kept alive through a
//! partition, and restarted without a gap. Prints what happens.
#![allow(clippy::print_stdout)]

use arpanet_core::discovery::{Health, Selector};
use arpanet_core::memory::World;
use arpanet_core::runtime::ContainerSpec;
use arpanet_core::watch::Change;
use arpanet_core::{Result, ServiceName};
use examples::paas::{Paas, Step};
use examples::rolling;

fn told(what: &str, steps: &[Step]) {
    println!("\n{what}: {} steps", steps.len());
    for step in steps {
        println!("  {step}");
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<()> {
    let (world, nodes) = World::with_clusters(5).await;
    println!("a cluster of {} nodes:", nodes.len());
    for node in nodes[0].nodes().await? {
        println!(
            "  {} {} ({}, {})",
            node.address, node.name, node.role, node.state
        );
    }
    let web: ServiceName = "web".parse()?;
    let paas = Paas::new(nodes.clone());

    // Whoever routes traffic follows the service like this.
    let mut changes = nodes[4]
        .discovery()
        .watch(Selector::Service(web.clone()))
        .await?;
    let router = tokio::spawn(async move {
        while let Some(change) = changes.next().await {
            match change {
                Change::Snapshot(all) => println!("  router: begins with {} instances", all.len()),
                Change::Upsert(_, one) if one.health == Health::Passing => {
                    println!("  router: {}:{} on {}", one.ip, one.port, one.node);
                }
                Change::Upsert(_, one) => println!("  router: {} is {}", one.ip, one.health),
                Change::Removed(id) => println!("  router: {id} is gone"),
                _ => {}
            }
        }
    });

    let spec = ContainerSpec::image("nginx:1").net("10.1.0.0/16".parse()?);
    told("deploy 6 replicas", &paas.deploy(&web, 80, spec, 6).await?);
    world.settle().await;
    told("scale to 9", &paas.scale(&web, 9).await?);
    world.settle().await;

    world.cut("0.3");
    world.settle().await;
    told("node 0.3 is cut off", &paas.mend().await?);
    world.settle().await;
    println!(
        "  {} instances get traffic",
        world.lookup("0.1", "web").len()
    );

    world.heal("0.3");
    world.settle().await;
    told("node 0.3 is back", &paas.mend().await?);
    world.settle().await;
    println!(
        "  {} instances get traffic",
        world.lookup("0.1", "web").len()
    );

    println!("\nrestart what runs on 0.1");
    let (discovery, runtime) = (nodes[0].discovery(), nodes[0].runtime()?);
    let limit = std::time::Duration::from_secs(30);
    let restarted = rolling::restart(&**discovery, &**runtime, &web, limit).await?;
    world.settle().await;
    println!("  {} containers were restarted one by one", restarted.len());

    for node in &nodes {
        node.leave().await?;
    }
    router.abort();
    println!("\nall nodes have left");
    Ok(())
}
