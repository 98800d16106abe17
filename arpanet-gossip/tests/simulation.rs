//! The protocol in virtual time, as a user would see it.

#![allow(clippy::unwrap_used)]

mod world;

use arpanet_core::discovery::MemberState;
use arpanet_gossip::engine::Outcome;
use world::*;

#[test]
fn two_nodes_exchange_members_and_a_record() {
    let mut world = World::with_joined(1, 2);
    let ticket = world.publish(1, "hello", "world");
    let outcome = world.settle(1, ticket);
    assert!(
        matches!(outcome, Outcome::Spread { ref unconfirmed } if unconfirmed.is_empty()),
        "{outcome:?}"
    );
    assert!(world.spread(1, "hello", "world"));
    assert!(world.all_alive());
    world.publish(2, "a", "1");
    world.run(ms(50));
    assert!(world.spread(2, "a", "1"));
}

#[test]
fn a_cut_node_is_down_in_seconds_and_back_in_one() {
    for seed in 0..10 {
        let mut world = World::with_joined(seed, 3);
        world.publish(3, "web", "1");
        world.until(secs(2), "all alive", |world| {
            world.all_alive() && world.spread(3, "web", "1")
        });
        world.run(secs(2));
        world.isolate(&[3]);
        world.until(ms(3_500), "down", |world| {
            [1, 2].iter().all(|at| {
                world.sees(*at, 3) == Some(MemberState::Down)
                    && world.value(*at, 3, "web").unwrap().suspended
            })
        });
        world.run(secs(5));
        world.heal();
        world.until(ms(1_000), "back", |world| {
            world.all_alive()
                && [1, 2]
                    .iter()
                    .all(|at| !world.value(*at, 3, "web").unwrap().suspended)
        });
    }
}
