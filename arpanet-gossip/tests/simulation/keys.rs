//! Keys that turn over while members talk, come and go.

use std::collections::BTreeSet;

use arpanet_core::ErrorKind;
use arpanet_core::discovery::MemberState;
use arpanet_core::roster::Roster;
use arpanet_gossip::engine::Outcome;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::world::*;

/// A cluster in which all see each other.
fn met(seed: u64, count: u16) -> World {
    let mut world = World::with_joined(seed, count);
    world.until(secs(10), "all alive", World::all_alive);
    world
}

fn unconfirmed(outcome: Outcome) -> BTreeSet<arpanet_core::NodeAddr> {
    match outcome {
        Outcome::Spread { unconfirmed } => unconfirmed,
        outcome => panic!("{outcome:?}"),
    }
}

fn id(world: &World, at: u16) -> u32 {
    world.engine(at).keys().key.id
}

fn downs(world: &World) -> usize {
    world.hosts.values().map(|host| host.downs).sum()
}

#[test]
fn the_key_turns_over_under_loss() {
    for seed in 0..4 {
        let mut world = met(seed, 7);
        turn_over_thrice(&mut world, 0.2);
        assert_eq!(id(&world, 1), 3 << 16 | 7);
        let password = world.password_at(&[1, 3, 4, 6, 7]).unwrap().unwrap();
        assert_eq!(password.expose(), b"Pears");
        assert!(
            [2, 5]
                .iter()
                .all(|at| world.engine(*at).keys().credential.is_none())
        );
    }
}

/// With so little loss that nobody is without.
#[test]
fn nobody_is_taken_for_dead_while_the_key_turns_over() {
    for seed in 0..20 {
        let mut world = met(seed, 7);
        let before = downs(&world);
        turn_over_thrice(&mut world, 0.05);
        world.run(secs(10));
        assert_eq!(downs(&world), before, "seed {seed}");
    }
}

fn turn_over_thrice(world: &mut World, loss: f64) {
    world.loss = loss;
    for (turn, at) in [1, 3, 7].into_iter().enumerate() {
        let password = (turn == 1).then_some("Pears");
        let ticket = world.turn_over(at, password);
        let outcome = world.settle(at, ticket);
        let seed = world.seed;
        assert_eq!(unconfirmed(outcome), BTreeSet::new(), "seed {seed}");
        let all = world.running();
        assert!(world.agree_on_keys(&all), "seed {seed}");
        world.publish(2, "web", &turn.to_string());
        world.until(secs(3), "spread", |world| {
            world.spread(2, "web", &turn.to_string())
        });
    }
}

#[test]
fn only_who_admits_others_turns_the_key_over_and_only_where_it_may() {
    let mut world = met(11, 3);
    let error = world.call(2, |engine, now| engine.turn_over(now, None).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);

    let mut world = World::new(11);
    world.config.keep_key = true;
    world.start(1, Roster::from_iter([entry(1)]));
    world.join(3, 1);
    let error = world.call(1, |engine, now| engine.turn_over(now, None).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    world.kill(3);
    world.until(secs(5), "down", |world| {
        world.sees(1, 3) == Some(MemberState::Down)
    });
    let ticket = world.call(1, |engine, now| engine.forget(now, addr(3)).unwrap());
    world.settle(1, ticket);
    world.run(secs(10));
    assert_eq!(id(&world, 1), 1);
}

#[test]
fn a_member_that_was_down_is_back_after_any_number_of_turns() {
    for turns in [1, 2, 40] {
        // A client, and a server.
        for away in [5, 4] {
            let mut world = met(20 + u64::from(turns), 5);
            world.kill(away);
            world.until(secs(5), "down", |world| {
                world.sees(1, away) == Some(MemberState::Down)
            });
            for turn in 0..turns {
                let at = if turn % 2 == 0 { 1 } else { 3 };
                let password = format!("password {turn}");
                let ticket = world.turn_over(at, Some(&password));
                assert_eq!(unconfirmed(world.settle(at, ticket)), BTreeSet::new());
            }
            // They have forgotten the keys before.
            for at in [1, 2, 3] {
                world.kill(at);
                world.restart(at);
            }
            world.restart(away);
            world.until(secs(5), "all alive", World::all_alive);
            let all = world.running();
            assert!(world.agree_on_keys(&all));
            assert_eq!(id(&world, away) >> 16, turns);
            world.publish(away, "web", "back");
            world.until(secs(2), "spread", |world| world.spread(away, "web", "back"));
        }
    }
}

#[test]
fn a_member_whose_servers_are_all_gone_has_to_join_again() {
    let mut world = met(30, 4);
    world.kill(4);
    for index in [6, 7] {
        world.join(index, 1);
    }
    for gone in [1, 3] {
        world.kill(gone);
        world.until(secs(5), "down", |world| {
            world.sees(6, gone) == Some(MemberState::Down)
        });
        let ticket = world.call(6, |engine, now| engine.forget(now, addr(gone)).unwrap());
        world.settle(6, ticket);
    }
    world.restart(4);
    world.run(secs(20));
    assert_eq!(id(&world, 4), 1);
    for at in [2, 6, 7] {
        assert_eq!(world.sees(at, 4), Some(MemberState::Down));
    }
    // With the password it is given the roster and the key.
    world.kill(4);
    world.join(4, 6);
    world.until(secs(5), "all alive", World::all_alive);
    assert!(world.agree_on_keys(&[2, 4, 6, 7]));
}

#[test]
fn keys_that_two_make_at_once_become_one() {
    for seed in 40..46 {
        let mut world = met(seed, 7);
        world.loss = 0.1;
        let tickets = [1, 4, 6].map(|at| (at, world.turn_over(at, Some(&at.to_string()))));
        for (at, ticket) in tickets {
            world.settle(at, ticket);
        }
        world.until(secs(10), "one key", |world| {
            world.agree_on_keys(&world.running())
        });
        assert_eq!(id(&world, 2), 1 << 16 | 6);
        assert_eq!(
            world.password_at(&[1, 3, 4, 6]).unwrap().unwrap().expose(),
            b"6"
        );
        assert!(world.all_alive(), "seed {seed}");
    }
}

#[test]
fn both_sides_of_a_cut_turn_over_and_come_together() {
    for seed in 50..56 {
        let mut world = met(seed, 7);
        world.isolate(&[1, 2, 3]);
        world.until(secs(10), "apart", |world| {
            world.sees(1, 4) == Some(MemberState::Down)
                && world.sees(4, 1) == Some(MemberState::Down)
        });
        // The password of the one side is older than the key of the other.
        let ticket = world.turn_over(1, Some("Pears"));
        world.settle(1, ticket);
        for at in [4, 6, 4] {
            let ticket = world.turn_over(at, None);
            world.settle(at, ticket);
        }
        world.run(secs(20));
        world.loss = 0.1;
        world.heal();
        world.until(
            secs(20),
            "one cluster with one key and the new password",
            |world| {
                world.all_alive()
                    && world.agree_on_keys(&world.running())
                    && world
                        .password_at(&[1, 3, 4, 6, 7])
                        .is_some_and(|password| password.is_some())
            },
        );
        let password = world.password_at(&[1, 3, 4, 6, 7]).unwrap().unwrap();
        assert_eq!(password.expose(), b"Pears");
        world.publish(2, "web", "1");
        world.until(secs(3), "spread", |world| world.spread(2, "web", "1"));
    }
}

#[test]
fn who_is_forgotten_neither_hears_nor_is_heard_though_others_go_on_with_it() {
    for seed in 60..66 {
        let mut world = met(seed, 7);
        // Node 7 is cut off together with servers that go on with it, and turn the key over more often.
        world.isolate(&[5, 6, 7]);
        world.until(secs(10), "apart", |world| {
            (1..=4).all(|at| world.sees(at, 7) == Some(MemberState::Down))
        });
        let ticket = world.call(3, |engine, now| engine.forget(now, addr(7)).unwrap());
        world.settle(3, ticket);
        assert!(world.agree_on_keys(&[1, 2, 3, 4]));
        assert_ne!(id(&world, 1), 1);
        for at in [6, 7, 6, 7] {
            let ticket = world.turn_over(at, Some("known to 7"));
            world.settle(at, ticket);
        }
        assert!(world.agree_on_keys(&[5, 6, 7]));
        world.heal();
        // Turned over again where all know who has left, with the password that came meanwhile.
        let left: Vec<u16> = (1..=6).collect();
        world.until(secs(20), "one key without the forgotten one", |world| {
            let key = world.engine(1).keys().key;
            world.agree_on_keys(&left)
                && key.covers == world.engine(1).roster().departures()
                && left.iter().all(|at| {
                    left.iter()
                        .all(|of| world.sees(*at, *of) == Some(MemberState::Alive))
                })
        });
        world.until(secs(10), "expelled", |world| world.hosts[&7].expelled);
        world.publish(7, "web", "a lie");
        world.publish(1, "web", "a secret");
        world.run(secs(10));
        let theirs = world.engine(7).keys().key;
        assert!(
            left.iter()
                .all(|at| world.engine(*at).keys().key.key != theirs.key)
        );
        assert!(left.iter().all(|at| world.value(*at, 7, "web").is_none()));
        assert!(world.value(7, 1, "web").is_none());
    }
}

#[test]
fn who_leaves_for_good_or_is_replaced_takes_no_key_along_that_is_of_use() {
    let mut world = met(70, 4);
    let ticket = world.call(3, |engine, now| engine.forget(now, addr(3)).unwrap());
    world.settle(3, ticket);
    world.kill(3);
    world.until(secs(10), "another key", |world| {
        world.agree_on_keys(&[1, 2, 4]) && id(world, 1) != 1
    });
    let before = id(&world, 1);
    world.kill(4);
    world.until(secs(5), "down", |world| {
        world.sees(1, 4) == Some(MemberState::Down)
    });
    let mut next = entry(40);
    (next.node, next.generation) = (addr(4), 2);
    let ticket = world.call(1, |engine, now| engine.admit(now, next).unwrap());
    world.settle(1, ticket);
    world.until(secs(10), "another key", |world| {
        world.agree_on_keys(&[1, 2]) && id(world, 1) != before
    });
}

#[test]
fn letters_that_were_recorded_and_are_sent_again_change_nothing() {
    let mut world = met(80, 4);
    world.capture = true;
    world.kill(4);
    for at in [1, 3, 1] {
        let ticket = world.turn_over(at, Some("Pears"));
        world.settle(at, ticket);
    }
    world.restart(4);
    world.until(secs(5), "all alive", World::all_alive);
    world.capture = false;
    let letters: Vec<_> = std::mem::take(&mut world.captured)
        .into_iter()
        .filter(|(_, _, datagram)| datagram[..2] == [arpanet_gossip::MAGIC, 2])
        .collect();
    assert!(letters.len() > 8, "{}", letters.len());
    world.kill(2);
    world.restart(2);
    let keys: Vec<_> = (1..=4).map(|at| world.engine(at).keys()).collect();
    for (from, to, letter) in &letters {
        world.inject(*from, *to, letter.clone());
        // To whom it was not written, from where nobody is.
        world.inject(endpoint(99), endpoint(2), letter.clone());
        world.run(ms(5));
    }
    world.run(secs(5));
    for (at, before) in (1..=4).zip(keys) {
        assert_eq!(world.engine(at).keys(), before);
    }
    assert!(world.all_alive());
}

#[test]
fn a_flood_of_letters_is_dropped_before_it_costs_much() {
    let mut world = met(90, 3);
    world.capture = true;
    let ticket = world.turn_over(1, None);
    world.settle(1, ticket);
    world.capture = false;
    let letter = std::mem::take(&mut world.captured)
        .into_iter()
        .map(|(_, _, datagram)| datagram)
        .find(|datagram| datagram[1] == 2)
        .unwrap();
    let before = world.engine(2).refusals().letters;
    for _ in 0..1_000 {
        world.inject(endpoint(99), endpoint(2), letter.clone());
    }
    world.run(ms(1));
    assert!(world.engine(2).refusals().letters >= before + 900);
    let ticket = world.turn_over(3, None);
    assert_eq!(unconfirmed(world.settle(3, ticket)), BTreeSet::new());
}

/// Whatever happened: once all can talk, there is one key, one password, and nobody has either who has left.
#[test]
fn after_turns_departures_restarts_and_cuts_at_random_there_is_one_key() {
    for seed in 100..106 {
        let mut world = met(seed, 8);
        let mut rng = StdRng::seed_from_u64(seed);
        let mut left: Vec<u16> = (1..=8).collect();
        let mut out = Vec::new();
        world.loss = 0.05;
        for _ in 0..12 {
            let at = *left.choose(&mut rng).unwrap();
            match rng.random_range(0..5) {
                0 | 1 if role(at).admits() => {
                    let password = rng
                        .random_bool(0.5)
                        .then(|| rng.random::<u32>().to_string());
                    world.turn_over(at, password.as_deref());
                }
                2 => {
                    let inside: Vec<u16> = left
                        .iter()
                        .copied()
                        .filter(|_| rng.random_bool(0.5))
                        .collect();
                    world.heal();
                    world.isolate(&inside);
                }
                3 => {
                    world.kill(at);
                    world.run(ms(rng.random_range(0..3_000)));
                    world.restart(at);
                }
                4 if left.len() > 5 && role(at).admits() => {
                    let dead = left.iter().copied().find(|other| {
                        *other > 1 && world.sees(at, *other) == Some(MemberState::Down)
                    });
                    if let Some(dead) = dead {
                        world.call(at, |engine, now| engine.forget(now, addr(dead)).unwrap());
                        left.retain(|other| *other != dead);
                        out.push(dead);
                    }
                }
                _ => world.heal(),
            }
            world.run(ms(rng.random_range(0..4_000)));
        }
        world.heal();
        world.until(secs(40), "one key", |world| {
            let roster = world.engine(left[0]).roster();
            world.agree_on_keys(&left)
                && world.engine(left[0]).keys().key.covers == roster.departures()
                && left.iter().all(|at| world.engine(*at).roster() == roster)
                && left.iter().all(|at| {
                    left.iter()
                        .all(|of| world.sees(*at, *of) == Some(MemberState::Alive))
                })
        });
        let key = world.engine(left[0]).keys().key;
        let roster = world.engine(left[0]).roster();
        for at in out {
            // What a server said that was forgotten itself before it could tell others counts for nothing.
            if roster.holder(addr(at)).is_none() {
                let theirs = world.engine(at).keys().key;
                assert_ne!(theirs.key, key.key, "node {at}, seed {seed}");
            }
        }
    }
}
