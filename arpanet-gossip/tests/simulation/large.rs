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

/// What a node sends in a second while nothing happens, on the wire.
fn idle(world: &mut World) -> u64 {
    world.run(secs(1));
    let bytes = |world: &World| world.hosts.values().map(|host| host.bytes).sum::<u64>();
    let before = bytes(world);
    world.run(secs(3));
    assert!(world.hosts.values().all(|host| host.downs == 0));
    (bytes(world) - before) / 3 / world.hosts.len() as u64
}

#[test]
fn what_a_node_sends_while_nothing_happens_does_not_grow_with_the_cluster() {
    let [few, many] = [100, 300].map(|nodes| idle(&mut World::steady(1, nodes, 2).0));
    assert!(few < 2_000 && many < 2_000, "{few} and {many} bytes");
    assert!(many < few + few / 10, "{few} and {many} bytes");
}

#[test]
fn to_meet_takes_two_datagrams_more_than_to_be_acquainted() {
    let [acquainted, strangers] = [
        idle(&mut World::steady(1, 300, 2).0),
        idle(&mut World::strangers(1, 300, 2)),
    ];
    // A probe and its answer are two, and most of a datagram is what all have.
    assert!(
        strangers > acquainted * 3 / 2,
        "not all had met: {strangers}"
    );
    assert!(
        strangers < acquainted * 9 / 4,
        "{acquainted} and {strangers} bytes"
    );
    assert!(strangers < 4_000, "{strangers} bytes");
}

#[test]
fn a_node_that_begins_in_the_middle_of_things_is_like_one_that_joined() {
    let (mut world, _) = World::steady(3, 20, 2);
    world.join(21, 1);
    world.until(secs(2), "all alive", World::alike);
    assert_eq!(world.hosts[&21].records.len(), 40);
    world.publish(7, "web", "1");
    world.until(ms(100), "spread", |world| world.spread(7, "web", "1"));
    world.kill(3);
    world.until(secs(4), "down", |world| {
        world
            .running()
            .iter()
            .all(|at| world.sees(*at, 3) == Some(MemberState::Down))
    });
    world.restart(3);
    world.until(secs(4), "back", World::alike);
    // It says nothing again of what it said before.
    world.until(secs(4), "gone", |world| {
        world.value(21, 3, "i/3-0").is_none() && world.value(21, 4, "i/4-0").is_some()
    });
}
