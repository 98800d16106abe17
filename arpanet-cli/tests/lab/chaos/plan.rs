//! What happens to whom, in which order: all of it by the seed, before anything is done.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

pub(super) const HOSTS: [&str; 4] = ["node1", "node2", "node3", "node4"];
/// The nodes of the hosts: the boot node, a server, a client, a server.
pub(super) const NODES: [&str; 4] = ["0.1", "0.2", "0.14", "0.3"];
/// The host whose disk may be full. It keeps its power: a disk in memory would be lost with it.
pub(super) const SMALL: usize = 2;
/// Registrations a host may have, and containers.
pub(super) const SLOTS: usize = 2;
/// Addresses that two hosts may ask for.
pub(super) const CONTESTED: usize = 2;
/// How wrong a clock may be, in seconds: not at all, by what a daemon mends at once, by an hour, by days, by years.
const CLOCKS: [i64; 7] = [0, -30, 3_600, -3_600, 86_400, -86_400, -400 * 86_400];
/// Steps before all is mended and looked at.
const ROUND: usize = 6;

/// Something that is done. Where it can't be done at the moment, as to an agent that is dead already, it is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Cuts a host off from all others, as by its cable.
    Unplug(usize),
    /// Cuts two off from each other, silently.
    Part(usize, usize),
    /// Cuts one direction.
    Mute { from: usize, to: usize },
    /// All that hosts send each other is lost by this chance in percent, and late by up to so many milliseconds.
    Weather { loss: u8, delay: u8 },
    /// Takes all of these back.
    Heal,
    /// SIGKILL to an agent.
    KillAgent(usize),
    /// SIGKILL to all agents.
    KillAgents,
    /// An agent's process does not run for a while.
    Stall(usize, Duration),
    /// The agent leaves in order, to come back.
    Stop(usize),
    /// A host loses its power.
    KillHost(usize),
    /// SIGKILL to a docker engine, where there are any.
    KillEngine(usize),
    /// A host has power, an engine and an agent again.
    Start(usize),
    /// The small host's disk is full.
    FillDisk,
    /// An instance of the host itself is registered, or deregistered where it is.
    Register(usize, usize),
    /// A container is run with an address that is picked, or removed where it runs.
    Run(usize, usize),
    /// Two hosts run a container with the same address.
    Claim {
        one: usize,
        other: usize,
        address: usize,
    },
    /// The cluster's key turns over.
    Rekey(usize),
    /// A host's clock of the day is so many seconds before or after the right one from now on.
    SetClock(usize, i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) act: Act,
    /// Until the next one.
    pub(super) pause: Duration,
}

/// What happens until all is mended and looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) steps: Vec<Step>,
    /// In this order those come back that are down at its end.
    pub(super) order: Vec<usize>,
    /// Who dies when all was well: by its agent, or with its host.
    pub(super) death: Act,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) rounds: Vec<Round>,
}

impl Plan {
    pub(super) fn new(seed: u64, steps: usize) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut left = steps;
        let mut rounds = Vec::new();
        while left > 0 {
            let length = left.min(ROUND);
            left -= length;
            let steps = (0..length).map(|_| step(&mut dice)).collect();
            let mut order: Vec<usize> = (0..HOSTS.len()).collect();
            order.shuffle(&mut dice);
            rounds.push(Round {
                steps,
                order,
                death: death(&mut dice),
            });
        }
        Self { rounds }
    }
}

fn host(dice: &mut StdRng) -> usize {
    dice.random_range(0..HOSTS.len())
}

/// Another one than the small host.
fn powered(dice: &mut StdRng) -> usize {
    *[0, 1, 3].choose(dice).unwrap()
}

fn death(dice: &mut StdRng) -> Act {
    if dice.random() {
        Act::KillAgent(host(dice))
    } else {
        Act::KillHost(powered(dice))
    }
}

fn step(dice: &mut StdRng) -> Step {
    let one = host(dice);
    let other = (one + dice.random_range(1..HOSTS.len())) % HOSTS.len();
    let slot = dice.random_range(0..SLOTS);
    let act = match dice.random_range(0..31) {
        0 | 1 => Act::Unplug(one),
        2..=4 => Act::Part(one, other),
        5 | 6 => Act::Mute {
            from: one,
            to: other,
        },
        7 | 8 => Act::Weather {
            loss: 10 * dice.random_range(0..4),
            delay: dice.random_range(1..40),
        },
        9 => Act::Heal,
        10 | 11 => Act::KillAgent(one),
        12 => Act::KillAgents,
        13 => Act::Stall(one, Duration::from_millis(dice.random_range(300..3_000))),
        14 => Act::Stop(one),
        15 => Act::KillHost(powered(dice)),
        16 | 17 => Act::Start(one),
        18 => Act::FillDisk,
        19 | 20 => Act::Register(one, slot),
        21 | 22 => Act::Run(one, slot),
        23 | 24 => Act::Claim {
            one,
            other,
            address: dice.random_range(0..CONTESTED),
        },
        25..=27 => Act::SetClock(one, CLOCKS[dice.random_range(0..CLOCKS.len())]),
        28 | 29 => Act::KillEngine(one),
        // Those that may; a client may not.
        _ => Act::Rekey(powered(dice)),
    };
    let pause = Duration::from_millis(dice.random_range(0..1_500));
    Step { act, pause }
}

#[test]
fn a_seed_is_a_plan_with_everything_in_it() {
    let plan = Plan::new(7, 2_000);
    assert_eq!(plan, Plan::new(7, 2_000));
    assert_ne!(plan, Plan::new(8, 2_000));
    let acts: Vec<Act> = plan
        .rounds
        .iter()
        .flat_map(|round| round.steps.iter().map(|step| step.act))
        .collect();
    assert_eq!(acts.len(), 2_000);
    let kinds: std::collections::HashSet<_> = acts.iter().map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), 18);
    for host in 0..HOSTS.len() {
        assert!(acts.contains(&Act::KillAgent(host)), "{host}");
        assert_eq!(acts.contains(&Act::KillHost(host)), host != SMALL, "{host}");
        for slot in 0..SLOTS {
            assert!(acts.contains(&Act::Register(host, slot)), "{host} {slot}");
            assert!(acts.contains(&Act::Run(host, slot)), "{host} {slot}");
        }
    }
}
