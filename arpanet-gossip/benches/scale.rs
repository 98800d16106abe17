//! What a large cluster costs, and how long it takes: 100, 1,000 and 5,000 nodes with 20 services each, in virtual time on
//! a simulated network (0.1 to 0.9 ms one way). They begin as they are after a while (`arpanet_gossip::engine::steady`):
//! what all have alike is kept once, so that 5,000 fit into one process. From then on each is an engine of its own.
//!
//! `cargo bench -p arpanet-gossip --bench scale`, with numbers: of so many nodes.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/simulation/world.rs"]
mod world;

use std::time::Instant;

use arpanet_core::discovery::MemberState;
use arpanet_gossip::engine::{Sent, Traffic};

use self::world::{World, ms, secs};

const SERVICES: u16 = 20;

fn main() {
    let mut sizes: Vec<u16> = std::env::args()
        .filter_map(|word| word.parse().ok())
        .collect();
    if sizes.is_empty() {
        sizes = if cfg!(debug_assertions) {
            vec![50]
        } else {
            vec![100, 1_000, 5_000]
        };
    }
    for nodes in sizes {
        measure(nodes);
    }
}

fn measure(nodes: u16) {
    let begun = Instant::now();
    let (mut world, _) = World::steady(1, nodes, SERVICES);
    println!(
        "{nodes} nodes, {} instances; made in {:.0?}, {} MB",
        u32::from(nodes) * u32::from(SERVICES),
        begun.elapsed(),
        resident() / 1_000_000
    );
    world.run(secs(2));
    let before = traffic(&world);
    world.run(secs(10));
    shown("idle", &world, &before, 10);
    println!(
        "  ({:.0?} of real time so far, {} MB)",
        begun.elapsed(),
        resident() / 1_000_000
    );
    let before = traffic(&world);
    world.step = ms(1);
    world.publish(2, "web", "1");
    let spread = world.until(secs(10), "spread", |world| world.spread(2, "web", "1"));
    println!("  a change is everywhere after {spread:.0?}");
    world.step = ms(10);
    world.run(secs(2));
    shown("a change", &world, &before, 2);
    let before = traffic(&world);
    let now = world.now;
    world.kill(3);
    let others: Vec<u16> = (1..=nodes).filter(|node| *node != 3).collect();
    world.until(secs(30), "down", |world| {
        others
            .iter()
            .all(|at| world.sees(*at, 3) == Some(MemberState::Down))
    });
    println!(
        "  a dead node is down everywhere after {:.1?}",
        world.now - now
    );
    world.run(secs(3));
    shown("a death", &world, &before, (world.now - now).as_secs());
    let downs: usize = world.hosts.values().map(|host| host.downs).sum();
    assert_eq!(downs, others.len(), "only the dead one was down");
    let before = traffic(&world);
    let now = world.now;
    world.restart(3);
    world.until(secs(60), "filled", |world| world.hosts[&3].ready.is_some());
    println!(
        "  it is back with {} records and {} members after {:.1?}",
        world.hosts[&3].records.len(),
        world.hosts[&3].alive,
        world.now - now
    );
    world.until(secs(60), "all alive", |world| {
        world
            .hosts
            .values()
            .all(|host| host.alive == usize::from(nodes))
    });
    println!("  all see all alive after {:.1?}", world.now - now);
    world.until(secs(60), "all records", |world| {
        world.hosts[&3].records.len() > usize::from(nodes * SERVICES)
    });
    println!("  it has all records after {:.1?}", world.now - now);
    world.run(secs(5));
    shown("a return", &world, &before, (world.now - now).as_secs());
    println!("  ({:.0?} of real time in all)", begun.elapsed());
}

fn traffic(world: &World) -> Traffic {
    let mut all = Traffic::default();
    for host in world.hosts.values() {
        if let Some(engine) = &host.engine {
            let one = engine.traffic();
            for (sum, part) in parts(&mut all).into_iter().zip(parts(&mut one.clone())) {
                sum.1.datagrams += part.1.datagrams;
                sum.1.bytes += part.1.bytes;
            }
        }
    }
    all
}

fn parts(traffic: &mut Traffic) -> [(&'static str, &mut Sent); 6] {
    [
        ("probes", &mut traffic.probes),
        ("news", &mut traffic.news),
        ("changes", &mut traffic.changes),
        ("comparison", &mut traffic.comparison),
        ("mending", &mut traffic.mending),
        ("other", &mut traffic.other),
    ]
}

fn shown(what: &str, world: &World, before: &Traffic, seconds: u64) {
    let (mut now, mut before) = (traffic(world), *before);
    let each = |bytes: u64| bytes / seconds / world.hosts.len() as u64;
    let on_wire = |sent: Sent| sent.bytes + 28 * sent.datagrams;
    let mut all = 0;
    let mut lines = Vec::new();
    for ((name, sum), (_, old)) in parts(&mut now).into_iter().zip(parts(&mut before)) {
        let bytes = each(on_wire(*sum).saturating_sub(on_wire(*old)));
        all += bytes;
        lines.push(format!("{name} {bytes}"));
    }
    println!("  {what}: {all} B/s/node ({})", lines.join(", "));
}

/// What of this process is in memory.
fn resident() -> u64 {
    let told = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = told.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1_024
}
