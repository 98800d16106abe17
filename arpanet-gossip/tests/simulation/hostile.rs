//! What attackers, accidents and other clusters send.

use arpanet_core::ErrorKind;
use arpanet_core::admission::{ClusterKey, Membership, NodeInfo, Secret};
use arpanet_core::discovery::MemberState;
use arpanet_core::roster::{ClusterId, Roster};
use arpanet_gossip::engine::{Event, Outcome};
use arpanet_gossip::{Engine, GossipConfig, GossipState};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::world::*;

/// A cluster of three with some traffic recorded.
fn recorded(seed: u64) -> World {
    let mut world = World::new(seed);
    world.capture = true;
    world.start(1, Roster::from_iter([entry(1)]));
    world.join(2, 1);
    world.join(3, 1);
    world.publish(2, "web", "secret words");
    world.until(secs(2), "all alive", |world| {
        world.all_alive() && world.spread(2, "web", "secret words")
    });
    world.run(secs(1));
    world.capture = false;
    world
}

#[test]
fn nothing_of_what_is_said_can_be_read_on_the_wire() {
    let world = recorded(1);
    assert!(world.captured.len() > 50);
    for (_, _, datagram) in &world.captured {
        assert_eq!(datagram[0], arpanet_gossip::MAGIC);
        for plain in [&b"secret words"[..], b"web", b"node2"] {
            assert!(!datagram.windows(plain.len()).any(|part| part == plain));
        }
    }
}

#[test]
fn damaged_and_random_datagrams_are_counted_and_change_nothing() {
    let mut world = recorded(2);
    let mut rng = StdRng::seed_from_u64(2);
    let captured = world.captured.clone();
    let (members, records) = (
        world.hosts[&1].members.clone(),
        world.hosts[&1].records.clone(),
    );
    for (from, _, mut datagram) in captured.iter().cloned().cycle().take(2_000) {
        match rng.random_range(0..4) {
            0 => {
                let at = rng.random_range(0..datagram.len());
                datagram[at] ^= 1 << rng.random_range(0..8);
            }
            1 => datagram.truncate(rng.random_range(0..datagram.len())),
            2 => datagram.push(rng.random()),
            _ => rng.fill(&mut datagram[..]),
        }
        let before = world.engine(1).refusals();
        world.call(1, |engine, now| {
            engine.handle_datagram(now, from, &datagram)
        });
        assert_ne!(world.engine(1).refusals(), before, "{datagram:?}");
    }
    assert_eq!(world.hosts[&1].members, members);
    assert_eq!(world.hosts[&1].records, records);
    world.publish(2, "web", "2");
    world.run(ms(50));
    assert!(world.spread(2, "web", "2"));
}

proptest! {
    #[test]
    fn no_bytes_make_an_engine_panic(datagrams in prop::collection::vec(
        prop::collection::vec(any::<u8>(), 0..300), 0..20,
    )) {
        let membership = membership(1, Roster::from_iter([entry(1), entry(2)]));
        let mut engine = Engine::new(
            GossipConfig::default(),
            &membership,
            &signing_key(1),
            &GossipState::default(),
            ms(0),
            [0; 32],
        )
        .unwrap();
        let [_, _, a, b, c, d, ..] = seal_header(&membership);
        for (index, mut datagram) in datagrams.into_iter().enumerate() {
            if index % 2 == 0 && datagram.len() > 10 {
                // Past the first checks.
                datagram[..6].copy_from_slice(&[0xA2, 1, a, b, c, d]);
                datagram[6..10].copy_from_slice(&1u32.to_be_bytes());
            }
            engine.handle_datagram(ms(1), endpoint(2), &datagram);
        }
        let refusals = engine.refusals();
        prop_assert_eq!(refusals.replayed + refusals.records, 0);
    }
}

fn seal_header(membership: &Membership) -> [u8; 6] {
    let [a, b, c, d] = arpanet_gossip::cluster_tag(&membership.cluster);
    [0xA2, 1, a, b, c, d]
}

#[test]
fn what_was_recorded_and_is_sent_again_changes_nothing() {
    for restarted in [false, true] {
        let mut world = recorded(3);
        let captured = world.captured.clone();
        world.call(2, |engine, now| engine.retract(now, "web"));
        world.publish(3, "other", "1");
        world.run(secs(1));
        if restarted {
            // It has forgotten which datagrams it has seen.
            world.kill(1);
            world.run(ms(200));
            world.restart(1);
            world.run(secs(4));
        }
        for (from, to, datagram) in captured {
            world.inject(from, to, datagram);
        }
        world.run(secs(3));
        assert!((1..=3).all(|at| world.value(at, 2, "web").is_none()));
        assert!(world.spread(3, "other", "1"));
        assert!(world.all_alive());
        assert!(world.engine(2).refusals().replayed > 0);
    }
}

#[test]
fn another_cluster_on_the_same_addresses_is_named_and_never_merged() {
    let mut world = recorded(4);
    let key = signing_key(40);
    let stranger = entry(40);
    let membership = Membership::new(
        NodeInfo::new(stranger.node, stranger.name.clone(), stranger.role),
        stranger.identity,
        ClusterId::from_bytes([8; 16]),
        ClusterKey::new(1, Secret::from_bytes([3; 32])),
        Roster::from_iter([stranger, entry(1)]),
    );
    let mut other = Engine::new(
        GossipConfig::default(),
        &membership,
        &key,
        &GossipState::default(),
        ms(0),
        [1; 32],
    )
    .unwrap();
    let mut sent = 0;
    for time in 0..20 {
        other.handle_timer(ms(time * 100));
        while let Some(transmit) = other.poll_transmit() {
            sent += 1;
            world.inject(endpoint(40), transmit.to, transmit.datagram);
        }
        world.run(ms(100));
    }
    assert!(sent > 5);
    assert_eq!(world.hosts[&1].foreign, 1, "told once, not for each");
    assert!(!world.hosts[&1].members.contains_key(&addr(40)));
    while let Some(event) = other.poll_event() {
        assert!(
            !matches!(&event, Event::Member(member) if member.node == addr(1) && member.state != MemberState::Down),
            "{event:?}"
        );
    }
}

#[test]
fn a_node_that_was_forgotten_while_it_was_cut_off_stays_out() {
    let mut world = World::with_joined(5, 4);
    world.publish(4, "web", "1");
    world.until(secs(2), "all alive", |world| {
        world.all_alive() && world.spread(4, "web", "1")
    });
    let error = world.call(1, |engine, now| engine.forget(now, addr(4)).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Conflict, "it is alive");
    world.isolate(&[4]);
    world.until(secs(5), "down", |world| {
        (1..=3).all(|at| world.sees(at, 4) == Some(MemberState::Down))
    });
    // Node 2 is a client: its word would count for nothing.
    let error = world.call(2, |engine, now| engine.forget(now, addr(4)).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let ticket = world.call(3, |engine, now| engine.forget(now, addr(4)).unwrap());
    world.settle(3, ticket);
    let is_gone = |world: &World| {
        (1..=3).all(|at| world.sees(at, 4).is_none() && world.value(at, 4, "web").is_none())
    };
    assert!(is_gone(&world));
    world.publish(4, "web", "2");
    world.heal();
    world.until(secs(5), "expelled", |world| world.hosts[&4].expelled);
    world.run(secs(5));
    assert!(is_gone(&world));

    // The address goes to another host, and the one before gets nothing of it.
    let mut next = entry(5);
    next.node = addr(4);
    next.generation = 3;
    let ticket = world.call(1, |engine, now| engine.admit(now, next.clone()).unwrap());
    let outcome = world.settle(1, ticket);
    assert!(matches!(outcome, Outcome::Spread { .. }), "{outcome:?}");
    world.run(secs(1));
    for at in 1..=3 {
        assert_eq!(world.engine(at).roster().holder(addr(4)), Some(&next));
        assert!(world.value(at, 4, "web").is_none());
    }
}
