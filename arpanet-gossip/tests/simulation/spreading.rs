//! How changes reach everybody.

use arpanet_gossip::engine::Outcome;

use crate::world::*;

fn confirmed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Spread { unconfirmed } if unconfirmed.is_empty())
}

#[test]
fn a_change_is_at_the_two_others_within_ten_milliseconds() {
    for seed in 0..20 {
        let mut world = World::with_joined(seed, 3);
        world.until(secs(2), "all alive", World::all_alive);
        for round in 0..5 {
            let value = round.to_string();
            let ticket = world.publish(2, "web", &value);
            world.run(ms(10));
            assert!(world.spread(2, "web", &value), "seed {seed}");
            let outcome = world.settle(2, ticket);
            assert!(confirmed(&outcome), "{outcome:?}");
            world.run(ms(130));
        }
        world.call(2, |engine, now| engine.retract(now, "web"));
        world.run(ms(10));
        assert!((1..=3).all(|at| world.value(at, 2, "web").is_none()));
    }
}

#[test]
fn twenty_five_that_join_one_by_one_are_one_cluster_within_a_second() {
    let mut world = World::with_joined(1, 25);
    world.until(secs(1), "all alive", World::all_alive);
    let ticket = world.publish(25, "web", "1");
    world.run(ms(20));
    assert!(world.spread(25, "web", "1"));
    let outcome = world.settle(25, ticket);
    assert!(confirmed(&outcome), "{outcome:?}");
    // The one who comes last was given what all had said before.
    world.publish(1, "early", "1");
    world.join(26, 3);
    assert!(world.value(26, 1, "early").is_some() && world.value(26, 25, "web").is_some());
}

#[test]
fn a_large_record_gets_through_a_bad_network() {
    for seed in 0..5 {
        let mut world = World::with_joined(seed, 3);
        world.until(secs(2), "all alive", World::all_alive);
        world.loss = 0.2;
        let large = "x".repeat(16 * 1024);
        world.publish(1, "large", &large);
        world.publish(2, "small", "1");
        world.until(secs(10), "spread", |world| {
            world.spread(1, "large", &large) && world.spread(2, "small", "1")
        });
    }
}

#[test]
fn a_node_that_starts_is_filled_before_it_says_ready() {
    let mut world = World::with_roster(3, 4, ms(1));
    world.until(secs(2), "all alive", World::all_alive);
    let value = "x".repeat(100);
    for number in 0..300 {
        world.publish(1, &format!("key/{number}"), &value);
    }
    world.until(secs(2), "spread", |world| {
        (0..300).all(|number| world.spread(1, &format!("key/{number}"), &value))
    });
    world.kill(4);
    world.run(secs(5));
    world.restart(4);
    world.until(secs(2), "ready", |world| world.hosts[&4].ready.is_some());
    assert_eq!(world.hosts[&4].ready, Some(true));
    assert_eq!(world.hosts[&4].records.len(), 300);
}

#[test]
fn what_was_said_and_taken_back_during_a_cut_is_known_after_it() {
    for seed in 0..5 {
        let mut world = World::with_roster(seed, 4, ms(1));
        world.publish(1, "old", "1");
        world.until(secs(2), "all alive", |world| {
            world.all_alive() && world.spread(1, "old", "1")
        });
        world.isolate(&[4]);
        // Not noticed yet: the publication ends without the fourth.
        let ticket = world.publish(1, "new", "1");
        let outcome = world.settle(1, ticket);
        let Outcome::Spread { unconfirmed } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(unconfirmed.into_iter().collect::<Vec<_>>(), [addr(4)]);
        world.call(1, |engine, now| engine.retract(now, "old"));
        world.run(secs(4));
        world.publish(4, "inside", "1");
        world.heal();
        world.until(secs(2), "mended", |world| {
            world.spread(1, "new", "1")
                && world.value(4, 1, "old").is_none()
                && world.spread(4, "inside", "1")
        });
    }
}

#[test]
fn what_was_taken_back_behind_a_cut_stays_so_when_its_owner_returns_with_nothing_to_say() {
    for seed in 0..40 {
        let mut world = World::with_roster(seed, 4, ms(1));
        world.publish(3, "old", "1");
        world.until(secs(2), "all alive", |world| {
            world.all_alive() && world.spread(3, "old", "1")
        });
        world.isolate(&[2]);
        world.run(secs(4));
        world.call(3, |engine, now| engine.retract(now, "old"));
        world.run(secs(1));
        world.kill(3);
        // It comes back before those that know of it have told who does not.
        world.heal();
        world.cut(1, 2);
        world.cut(4, 2);
        world.restart(3);
        world.until(secs(5), "gone", |world| {
            (1..=4).all(|at| world.value(at, 3, "old").is_none())
        });
    }
}

#[test]
fn those_that_start_at_once_and_speak_at_once_are_heard_by_all_within_a_second() {
    for seed in 0..5 {
        let mut world = World::with_roster(seed, 8, ms(0));
        for index in 1..=8 {
            world.publish(index, "node", &index.to_string());
        }
        world.until(ms(1_000), "heard", |world| {
            world.all_alive()
                && (1..=8).all(|index| world.spread(index, "node", &index.to_string()))
        });
    }
}

/// Datagrams and bytes a second that each running node sends.
fn rates(world: &mut World) -> Vec<(u64, u64)> {
    let sent = |world: &World| -> Vec<(u64, u64)> {
        let hosts = world.hosts.values().filter(|host| host.engine.is_some());
        hosts.map(|host| (host.datagrams, host.bytes)).collect()
    };
    let before = sent(world);
    world.run(secs(10));
    let after = sent(world);
    let pairs = before.into_iter().zip(after);
    pairs
        .map(|(before, after)| ((after.0 - before.0) / 10, (after.1 - before.1) / 10))
        .collect()
}

#[test]
fn a_cluster_in_which_nothing_happens_only_probes() {
    let mut world = World::with_joined(6, 12);
    world.publish(1, "web", "1");
    world.run(secs(10));
    for (datagrams, bytes) in rates(&mut world) {
        // Seven probes a second, as many answers, and a comparison now and then.
        assert!(datagrams < 25, "{datagrams} datagrams a second");
        assert!(bytes < 3_000, "{bytes} bytes a second");
    }
}

#[test]
fn a_cluster_is_quiet_again_after_cuts_deaths_and_joins() {
    let mut world = World::with_joined(8, 5);
    world.publish(5, "web", "1");
    world.until(secs(2), "all alive", World::all_alive);
    world.isolate(&[2]);
    world.run(secs(4));
    world.publish(2, "web", "2");
    world.heal();
    world.until(secs(2), "all alive", World::all_alive);
    world.kill(5);
    world.run(secs(4));
    world.join(6, 1);
    world.kill(4);
    world.run(secs(1));
    world.restart(4);
    world.run(secs(20));
    assert!(world.all_alive());
    for (datagrams, bytes) in rates(&mut world) {
        // The same, and five calls a second to the dead one.
        assert!(datagrams < 30, "{datagrams} datagrams a second");
        assert!(bytes < 3_500, "{bytes} bytes a second");
    }
}
