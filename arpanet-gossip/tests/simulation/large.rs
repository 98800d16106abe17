//! Many nodes.

use arpanet_core::discovery::MemberState;

use crate::world::*;

/// A thousand; without optimization, where a thousand nodes take minutes for a virtual second, sixty. The benchmark
/// does the thousand, too.
const NODES: u16 = if cfg!(debug_assertions) { 60 } else { 1_000 };

#[test]
fn a_large_cluster_agrees_suspends_a_dead_node_and_takes_it_back() {
    let mut world = World::with_roster(1, NODES, ms(1));
    world.until(secs(5), "all alive", World::all_alive);
    world.publish(2, "web", "1");
    world.until(ms(200), "spread", |world| world.spread(2, "web", "1"));
    world.kill(2);
    world.until(secs(8), "suspended", |world| {
        world.running().iter().all(|at| {
            world.sees(*at, 2) == Some(MemberState::Down)
                && world.value(*at, 2, "web").unwrap().suspended
        })
    });
    world.restart(2);
    world.publish(2, "web", "2");
    world.until(secs(3), "back", |world| {
        world.all_alive() && world.spread(2, "web", "2")
    });
    let downs: usize = world.hosts.values().map(|host| host.downs).sum();
    assert_eq!(downs, usize::from(NODES) - 1, "only the dead one was down");
}
