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
        "{nodes} nodes, {} instances (made in {:.0?}; {} MB for all)",
        u32::from(nodes) * u32::from(SERVICES),
        begun.elapsed(),
        resident() / 1_000_000
    );
    world.run(secs(2));
    let before = traffic(&world);
    world.run(secs(10));
    shown("idle", &world, &before, 10);

    met(nodes);

    let before = traffic(&world);
    world.step = ms(1);
    world.publish(2, "web", "1");
    let spread = world.until(secs(10), "spread", |world| world.spread(2, "web", "1"));
    world.step = ms(10);
    world.run(secs(2));
    shown("a change", &world, &before, 2);
    println!("    it is everywhere after {spread:.0?}");

    let before = traffic(&world);
    let died = world.now;
    world.kill(3);
    let others: Vec<u16> = (1..=nodes).filter(|node| *node != 3).collect();
    let down = world.until(secs(30), "down", |world| {
        let sees = |at: &u16| world.sees(*at, 3) == Some(MemberState::Down);
        others.iter().all(sees)
    });
    world.run(secs(3));
    shown("a death", &world, &before, (world.now - died).as_secs());
    println!("    it is down everywhere after {down:.1?}");

    let before = traffic(&world);
    let back = world.now;
    world.restart(3);
    let wanted = usize::from(nodes) * usize::from(SERVICES) + 1;
    let filled = world.until(secs(60), "filled", |world| {
        world.hosts[&3].ready.is_some() && world.hosts[&3].records.len() >= wanted
    });
    world.until(secs(60), "all alive", World::alike);
    let alike = world.now - back;
    world.run(secs(5));
    shown("a return", &world, &before, (world.now - back).as_secs());
    println!("    it has all records after {filled:.1?}, all see all alive after {alike:.1?}");

    joined(&mut world, nodes);

    let span = if nodes > 1_000 { 20 } else { 60 };
    let removals = |world: &World| world.hosts.values().map(|host| host.downs).sum::<usize>();
    let (before, downs) = (traffic(&world), removals(&world));
    world.loss = 0.01;
    for second in 0..span {
        let value = second.to_string();
        world.publish(2 + second % nodes, "web", &value);
        world.run(secs(1));
    }
    shown("1 % loss, a change a second", &world, &before, span.into());
    println!(
        "    false removals in {span} s: {}",
        removals(&world) - downs
    );
    println!(
        "    ({:.0?} of real time in all, {} MB)",
        begun.elapsed(),
        resident() / 1_000_000
    );
}

/// The same cluster, but that all meet each other for the first time: what all nodes that begin at one moment send more.
fn met(nodes: u16) {
    let mut world = World::strangers(1, nodes, SERVICES);
    world.run(secs(2));
    let before = traffic(&world);
    world.run(secs(5));
    shown("all meet for the first time", &world, &before, 5);
}

/// One that has nothing joins.
fn joined(world: &mut World, nodes: u16) {
    let (before, begun) = (traffic(world), world.now);
    world.join(nodes + 1, 1);
    let admitted = world.now - begun;
    // The one that had died says nothing any more.
    let wanted = usize::from(nodes - 1) * usize::from(SERVICES);
    world.until(secs(60), "filled", |world| {
        world.hosts[&(nodes + 1)].records.len() >= wanted
    });
    let filled = world.now - begun;
    world.until(secs(60), "all alive", World::alike);
    let seen = world.now - begun;
    world.run(secs(5));
    shown("a join", world, &before, (world.now - begun).as_secs());
    let now = traffic(world);
    let bytes = |sent: Sent, before: Sent| {
        sent.bytes + 28 * sent.datagrams - before.bytes - 28 * before.datagrams
    };
    println!(
        "    ready after {admitted:.1?}, all records after {filled:.1?}, all see it after {seen:.1?}; {} KB of comparison \
         and {} KB of records in all",
        bytes(now.comparison, before.comparison) / 1_000,
        bytes(now.mending, before.mending) / 1_000
    );
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
