//! What happens when: all of it drawn from a seed, so that a run that failed can be had again.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

pub(super) const HOSTS: [&str; 3] = ["node1", "node2", "node3"];
/// Over how many services the containers are spread.
const SERVICES: usize = 10;
/// How long an agent or an engine is away, in milliseconds.
const AWAY: u64 = 3000;

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) containers: usize,
    pub(super) length: Duration,
    /// Between two acts on one host.
    pub(super) pace: Duration,
    /// Between two deaths of an agent on one host; of an engine, twice as long.
    pub(super) calm: Duration,
}

/// A container that comes and goes, always on the same host and always alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) host: usize,
    pub(super) service: String,
    /// By docker's network driver, or else by its labels.
    pub(super) driven: bool,
    /// Comes back with its engine.
    pub(super) always: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Start,
    Remove,
    Kill,
    Restart,
}

/// A client's command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Act {
    pub(super) at: Duration,
    pub(super) slot: usize,
    pub(super) deed: Deed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    Agent,
    Engine,
    /// In order, as its service does.
    EngineInOrder,
}

/// What a host loses, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: Duration,
    pub(super) host: usize,
    pub(super) victim: Victim,
    pub(super) away: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) slots: Vec<Slot>,
    /// In the order of time.
    pub(super) acts: Vec<Act>,
    /// In the order of time.
    pub(super) faults: Vec<Fault>,
}

impl Plan {
    pub(super) fn new(seed: u64, extent: Extent) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let slots: Vec<Slot> = (0..extent.containers)
            .map(|number| Slot {
                name: format!("s{number}"),
                host: number % HOSTS.len(),
                service: format!("svc{}", random.random_range(0..SERVICES)),
                driven: (number / HOSTS.len()).is_multiple_of(2),
                always: random.random_bool(0.6),
            })
            .collect();
        let mut acts = Vec::new();
        let mut faults = Vec::new();
        for host in 0..HOSTS.len() {
            let mine: Vec<usize> = (0..slots.len())
                .filter(|slot| slots[*slot].host == host)
                .collect();
            let mut at = Duration::ZERO;
            while at < extent.length {
                let deed = match random.random_range(0..10) {
                    0..7 => Deed::Start,
                    7 => Deed::Remove,
                    8 => Deed::Kill,
                    _ => Deed::Restart,
                };
                let slot = *mine.choose(&mut random).unwrap();
                acts.push(Act { at, slot, deed });
                at += extent.pace.mul_f64(random.random_range(0.2..1.8));
            }
            for engine in [false, true] {
                let calm = extent.calm * if engine { 2 } else { 1 };
                let mut at = calm.mul_f64(random.random_range(0.2..1.0));
                while at < extent.length {
                    let victim = match (engine, random.random_bool(0.7)) {
                        (false, _) => Victim::Agent,
                        (true, true) => Victim::Engine,
                        (true, false) => Victim::EngineInOrder,
                    };
                    let away = Duration::from_millis(random.random_range(0..AWAY));
                    faults.push(Fault {
                        at,
                        host,
                        victim,
                        away,
                    });
                    at += away + calm.mul_f64(random.random_range(0.5..1.5));
                }
            }
        }
        acts.sort_by_key(|act| act.at);
        faults.sort_by_key(|fault| fault.at);
        Self {
            slots,
            acts,
            faults,
        }
    }
}

#[test]
fn a_seed_is_a_plan_with_everything_in_it() {
    let extent = Extent {
        containers: 60,
        length: Duration::from_secs(60),
        pace: Duration::from_millis(500),
        calm: Duration::from_secs(8),
    };
    let plan = Plan::new(7, extent);
    assert_eq!(plan, Plan::new(7, extent));
    assert_ne!(plan, Plan::new(8, extent));
    for (host, name) in HOSTS.iter().enumerate() {
        for victim in [Victim::Agent, Victim::Engine] {
            assert!(
                plan.faults
                    .iter()
                    .any(|fault| fault.host == host && fault.victim == victim),
                "{name}: {victim:?}"
            );
        }
        for driven in [false, true] {
            let slots = plan.slots.iter();
            let slots = slots.filter(|slot| slot.host == host && slot.driven == driven);
            assert_eq!(slots.count(), 10, "{name}: {driven}");
        }
    }
}
