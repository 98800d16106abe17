//! How long a cluster takes to agree: in virtual time on a simulated network (0.1 to 0.9 ms one way), and in real time
//! over UDP on loopback.
//!
//! `cargo bench -p arpanet-gossip --bench convergence`

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/loopback/mod.rs"]
mod loopback;
#[path = "../tests/simulation/world.rs"]
mod world;

use std::time::{Duration, Instant};

use arpanet_core::discovery::{Discovery, MemberState, Selector};
use arpanet_core::watch::Change;

use self::world::{World, ms, secs};

fn main() {
    // Without optimization a thousand nodes take minutes for a second.
    let sizes: &[(u16, u64)] = if cfg!(debug_assertions) {
        &[(3, 3), (25, 1)]
    } else {
        &[(3, 20), (25, 10), (1_000, 1)]
    };
    println!("virtual time, median (worst) of all runs; each until the last node knows\n");
    println!(
        "{:>6} {:>5} {:>15} {:>15} {:>15} {:>15} {:>15} {:>14}",
        "nodes",
        "runs",
        "all members",
        "a record",
        "cut: suspended",
        "healed: back",
        "restart: back",
        "idle, B/s/node"
    );
    for (nodes, runs) in sizes {
        simulated(*nodes, *runs);
    }
    println!();
    lossy();
    println!();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(real());
}

/// Times of one kind.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn shown(&mut self) -> String {
        self.0.sort();
        let show = |time: &Duration| match time.as_micros() {
            micros if micros < 10_000 => format!("{:.1}", micros as f64 / 1e3),
            micros => format!("{}", micros / 1_000),
        };
        let (median, worst) = (&self.0[self.0.len() / 2], &self.0[self.0.len() - 1]);
        format!("{} ({}) ms", show(median), show(worst))
    }
}

fn simulated(nodes: u16, runs: u64) {
    let [mut members, mut record, mut gone, mut back, mut again] =
        [(); 5].map(|()| Times::default());
    let mut idle = 0;
    for seed in 0..runs {
        let mut world = World::with_roster(seed, nodes, ms(1));
        world.step = if nodes > 100 {
            ms(10)
        } else {
            Duration::from_micros(100)
        };
        members
            .0
            .push(world.until(secs(30), "all alive", World::all_alive));
        world.publish(2, "web", "1");
        record
            .0
            .push(world.until(secs(10), "spread", |world| world.spread(2, "web", "1")));
        world.step = ms(10);
        // Until the news of the start have been passed on as often as they are.
        world.run(secs(if nodes > 100 { 20 } else { 3 }));

        let bytes = |world: &World| world.hosts.values().map(|host| host.bytes).sum::<u64>();
        let before = bytes(&world);
        world.run(secs(2));
        idle = (bytes(&world) - before) / 2 / u64::from(nodes);

        world.isolate(&[2]);
        let others: Vec<u16> = (1..=nodes).filter(|node| *node != 2).collect();
        gone.0.push(world.until(secs(30), "suspended", |world| {
            others.iter().all(|at| {
                world.sees(*at, 2) == Some(MemberState::Down)
                    && world.value(*at, 2, "web").unwrap().suspended
            })
        }));
        world.heal();
        back.0.push(world.until(secs(30), "back", |world| {
            others
                .iter()
                .all(|at| !world.value(*at, 2, "web").unwrap().suspended)
        }));
        world.until(secs(30), "all alive", World::all_alive);

        world.kill(2);
        world.run(secs(4));
        world.restart(2);
        again.0.push(world.until(secs(30), "back", |world| {
            others
                .iter()
                .all(|at| !world.value(*at, 2, "web").unwrap().suspended)
        }));
    }
    println!(
        "{nodes:>6} {runs:>5} {:>15} {:>15} {:>15} {:>15} {:>15} {idle:>14}",
        members.shown(),
        record.shown(),
        gone.shown(),
        back.shown(),
        again.shown()
    );
}

/// Nobody is taken for dead because datagrams get lost.
fn lossy() {
    let (nodes, minutes) = if cfg!(debug_assertions) {
        (4, 2)
    } else {
        (25, 10)
    };
    let mut world = World::with_roster(1, nodes, ms(1));
    world.until(secs(5), "all alive", World::all_alive);
    world.loss = 0.05;
    world.run(secs(60 * minutes));
    let downs: usize = world.hosts.values().map(|host| host.downs).sum();
    println!(
        "false removals with {nodes} nodes and 5 % loss in {minutes} virtual minutes: {downs}"
    );
    assert_eq!(downs, 0);
}

/// From `register` on one node until a watch tells it on both others.
async fn real() {
    const ROUNDS: u32 = 500;
    let [one, two, three] = loopback::three().await;
    let mut watches = Vec::new();
    for node in [&two, &three] {
        let mut watch = node.discovery.watch(Selector::All).await.unwrap();
        watch.next().await;
        watches.push(watch);
    }
    let (mut resolvable, mut confirmed) = (Times::default(), Times::default());
    for round in 0..ROUNDS {
        let instance = one.instance(&format!("w{round}"), "web");
        let begin = Instant::now();
        let registering = async {
            one.discovery.register(instance.clone()).await.unwrap();
            begin.elapsed()
        };
        let told = async {
            for watch in &mut watches {
                let change = watch.next().await;
                assert!(matches!(change, Some(Change::Upsert(id, _)) if id == instance.id));
            }
            begin.elapsed()
        };
        let (registered, told) = tokio::join!(registering, told);
        resolvable.0.push(told);
        confirmed.0.push(registered);
    }
    println!("real time, 3 nodes over UDP on loopback, {ROUNDS} registrations, median (worst)");
    println!("  resolvable on both others: {}", resolvable.shown());
    println!("  confirmed to the caller:   {}", confirmed.shown());
}
