//! The simulated underlay: which hosts reach each other, how fast, and how much is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::random::Random;

/// A host's place in the world's list of hosts.
pub(super) type HostIndex = usize;

/// How long a sender waits before it sends a lost datagram again.
const RETRANSMIT: Duration = Duration::from_millis(200);

/// The longest run of losses of one message: what is lost more often than that counts as cut.
const MAX_LOSSES: u32 = 50;

fn pair(a: HostIndex, b: HostIndex) -> (HostIndex, HostIndex) {
    (a.min(b), a.max(b))
}

#[derive(Debug)]
pub(super) struct Network {
    delay: Duration,
    loss: f64,
    delays: BTreeMap<(HostIndex, HostIndex), Duration>,
    losses: BTreeMap<(HostIndex, HostIndex), f64>,
    cut: BTreeSet<HostIndex>,
    cut_pairs: BTreeSet<(HostIndex, HostIndex)>,
    mended: BTreeMap<HostIndex, Instant>,
    mended_pairs: BTreeMap<(HostIndex, HostIndex), Instant>,
}

impl Network {
    pub(super) const fn new() -> Self {
        Self {
            delay: Duration::from_millis(1),
            loss: 0.0,
            delays: BTreeMap::new(),
            losses: BTreeMap::new(),
            cut: BTreeSet::new(),
            cut_pairs: BTreeSet::new(),
            mended: BTreeMap::new(),
            mended_pairs: BTreeMap::new(),
        }
    }

    pub(super) fn cut(&mut self, host: HostIndex) {
        self.cut.insert(host);
    }

    pub(super) fn heal(&mut self, host: HostIndex, now: Instant) {
        if self.cut.remove(&host) {
            self.mended.insert(host, now);
        }
        let healed: Vec<_> = self
            .cut_pairs
            .iter()
            .copied()
            .filter(|(a, b)| *a == host || *b == host)
            .collect();
        for (a, b) in healed {
            self.heal_between(a, b, now);
        }
    }

    pub(super) fn cut_between(&mut self, a: HostIndex, b: HostIndex) {
        self.cut_pairs.insert(pair(a, b));
    }

    pub(super) fn heal_between(&mut self, a: HostIndex, b: HostIndex, now: Instant) {
        if self.cut_pairs.remove(&pair(a, b)) {
            self.mended_pairs.insert(pair(a, b), now);
        }
    }

    pub(super) fn set_delay(&mut self, delay: Duration) {
        self.delay = delay;
        self.delays.clear();
    }

    pub(super) fn set_delay_between(&mut self, a: HostIndex, b: HostIndex, delay: Duration) {
        self.delays.insert(pair(a, b), delay);
    }

    pub(super) fn set_loss(&mut self, loss: f64) {
        self.loss = loss.clamp(0.0, 1.0);
        self.losses.clear();
    }

    pub(super) fn set_loss_between(&mut self, a: HostIndex, b: HostIndex, loss: f64) {
        self.losses.insert(pair(a, b), loss.clamp(0.0, 1.0));
    }

    /// Whether nothing is cut, so that nobody needs to look further.
    pub(super) fn whole(&self) -> bool {
        self.cut.is_empty() && self.cut_pairs.is_empty()
    }

    /// Whether a datagram of one gets to the other, power aside.
    pub(super) fn linked(&self, a: HostIndex, b: HostIndex) -> bool {
        a == b
            || (!self.cut.contains(&a)
                && !self.cut.contains(&b)
                && !self.cut_pairs.contains(&pair(a, b)))
    }

    /// When the link was last mended; `None` for one that was never cut.
    pub(super) fn linked_since(&self, a: HostIndex, b: HostIndex) -> Option<Instant> {
        [
            self.mended.get(&a),
            self.mended.get(&b),
            self.mended_pairs.get(&pair(a, b)),
        ]
        .into_iter()
        .flatten()
        .max()
        .copied()
    }

    pub(super) fn delay(&self, a: HostIndex, b: HostIndex) -> Duration {
        if a == b {
            return Duration::ZERO;
        }
        self.delays.get(&pair(a, b)).copied().unwrap_or(self.delay)
    }

    fn loss(&self, a: HostIndex, b: HostIndex) -> f64 {
        if a == b {
            return 0.0;
        }
        self.losses.get(&pair(a, b)).copied().unwrap_or(self.loss)
    }

    /// Whether one datagram is lost, this time.
    pub(super) fn loses(&self, a: HostIndex, b: HostIndex, random: &mut Random) -> bool {
        random.chance(self.loss(a, b))
    }

    /// How long a message takes that is sent again until it arrives.
    pub(super) fn travel(&self, a: HostIndex, b: HostIndex, random: &mut Random) -> Duration {
        let mut time = self.delay(a, b);
        for _ in 0..MAX_LOSSES {
            if !self.loses(a, b, random) {
                break;
            }
            time += RETRANSMIT;
        }
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn cut_and_heal() {
        let mut network = Network::new();
        network.cut(1);
        network.cut_between(2, 3);
        assert!(network.linked(1, 1) && !network.linked(0, 1) && !network.linked(3, 2));
        assert!(network.linked(0, 2));
        network.heal(1, Instant::now());
        network.heal(3, Instant::now());
        assert!(network.whole() && network.linked(2, 3));
        assert_eq!(network.linked_since(2, 3), Some(Instant::now()));
        assert_eq!(network.linked_since(0, 2), None);
    }

    #[test]
    fn losses_cost_time() {
        let mut network = Network::new();
        let mut random = Random::new(1);
        network.set_loss(0.5);
        let slow = (0..1_000)
            .filter(|_| network.travel(0, 1, &mut random) > network.delay(0, 1))
            .count();
        assert!((400..600).contains(&slow), "{slow}");
        assert_eq!(network.travel(0, 0, &mut random), Duration::ZERO);
    }
}
