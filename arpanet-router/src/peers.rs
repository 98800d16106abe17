//! The peers of a node, and how they answer: the same for whatever carries the packets.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arpanet_core::{Error, ErrorKind, NodeAddr, Result};
use arpanet_netlink::Namespace;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::Pinger;

/// How often each peer is pinged, for the round trip, to keep a NAT open on the way, and to see whether something has to be mended.
pub(crate) const ROUND: Duration = Duration::from_secs(2);
/// Unanswered pings after which a peer counts as out of reach.
const LOST: u32 = 3;
/// How often somebody who waits for a peer pings it.
const ASKING: Duration = Duration::from_millis(50);

/// The peers of a node: what the overlay knows of each (`P`), and how it answers.
#[derive(Debug)]
pub struct Peers<P> {
    pinger: Pinger,
    known: Mutex<BTreeMap<NodeAddr, (P, Answers)>>,
}

/// How a peer answers pings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answers {
    round_trip: Option<Duration>,
    unanswered: u32,
}

impl Answers {
    /// The round trip of the last ping that was answered; `None` before the first.
    #[must_use]
    pub const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Whether three pings in a row were not answered.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        self.unanswered >= LOST
    }

    /// Whether one has been answered, and it is not lost since.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.round_trip.is_some() && !self.is_lost()
    }

    /// Whether it fell silent just now, so that trying again at once makes sense.
    #[must_use]
    pub const fn is_newly_silent(&self) -> bool {
        1 <= self.unanswered && self.unanswered <= LOST
    }

    const fn after(self, round_trip: Option<Duration>) -> Self {
        match round_trip {
            Some(_) => Self {
                round_trip,
                unanswered: 0,
            },
            None => Self {
                unanswered: self.unanswered.saturating_add(1),
                ..self
            },
        }
    }
}

impl<P: Clone> Peers<P> {
    /// None yet, to be pinged from this namespace. Needs a tokio runtime.
    ///
    /// # Errors
    /// Those of [`Pinger::new`].
    pub fn new(host: &Namespace) -> Result<Self> {
        Ok(Self {
            pinger: Pinger::new(host)?,
            known: Mutex::default(),
        })
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<NodeAddr, (P, Answers)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a peer.
    #[must_use]
    pub fn get(&self, node: NodeAddr) -> Option<P> {
        self.known().get(&node).map(|(peer, _)| peer.clone())
    }

    /// The same of one that has to be there.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub fn require(&self, node: NodeAddr) -> Result<P> {
        let missing = || {
            Error::new(
                ErrorKind::NotFound,
                format!("node {node} is no peer of this node"),
            )
        };
        self.get(node).ok_or_else(missing)
    }

    /// Notes what is known of a peer. How it has answered stays. Returns what was known before.
    pub fn set(&self, node: NodeAddr, peer: P) -> Option<P> {
        match self.known().entry(node) {
            std::collections::btree_map::Entry::Occupied(mut known) => {
                Some(std::mem::replace(&mut known.get_mut().0, peer))
            }
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert((peer, Answers::default()));
                None
            }
        }
    }

    /// Forgets a peer, and returns what was known of it.
    pub fn remove(&self, node: NodeAddr) -> Option<P> {
        self.known().remove(&node).map(|(peer, _)| peer)
    }

    /// All of them, with how they answer.
    #[must_use]
    pub fn all(&self) -> BTreeMap<NodeAddr, (P, Answers)> {
        self.known().clone()
    }

    /// Pings all of them once, for at most 2 s, and returns those that did not answer.
    pub async fn measure(&self) -> Vec<(P, Answers)> {
        let nodes: Vec<NodeAddr> = self.known().keys().copied().collect();
        let mut pings: FuturesUnordered<_> = nodes
            .into_iter()
            .map(|node| async move { (node, self.pinger.ping(node.overlay(), ROUND).await) })
            .collect();
        let mut silent = Vec::new();
        while let Some((node, round_trip)) = pings.next().await {
            let noted = self.note(node, round_trip);
            silent.extend(noted.filter(|_| round_trip.is_none()));
        }
        silent
    }

    fn note(&self, node: NodeAddr, round_trip: Option<Duration>) -> Option<(P, Answers)> {
        let mut known = self.known();
        let (peer, answers) = known.get_mut(&node)?;
        *answers = answers.after(round_trip);
        Some((peer.clone(), *answers))
    }

    /// Pings a peer until it answers or the time is up, and returns whether it did. Meanwhile that future runs: where it
    /// ends, the wait ends with what it says.
    ///
    /// # Errors
    /// Those of that future.
    pub async fn wait(
        &self,
        node: NodeAddr,
        limit: Duration,
        meanwhile: impl Future<Output = Error>,
    ) -> Result<bool> {
        let deadline = Instant::now() + limit;
        let mut ticks = interval(ASKING);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pings = FuturesUnordered::new();
        let mut meanwhile = std::pin::pin!(meanwhile);
        loop {
            tokio::select! {
                _ = ticks.tick() => pings.push(self.pinger.ping(node.overlay(), limit)),
                Some(Some(round_trip)) = pings.next() => {
                    self.note(node, Some(round_trip));
                    return Ok(true);
                }
                error = &mut meanwhile => return Err(error),
                () = tokio::time::sleep_until(deadline) => return Ok(false),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_up_from_its_first_answer_until_three_pings_are_not_answered() {
        let trip = Some(Duration::from_millis(1));
        let never = Answers::default();
        assert!(!never.is_up() && !never.is_lost() && !never.is_newly_silent());
        let silent = |answers: Answers, times| (0..times).fold(answers, |now, _| now.after(None));
        let up = never.after(trip);
        for (answers, is_up, is_lost, is_newly_silent) in [
            (up, true, false, false),
            (silent(up, 1), true, false, true),
            (silent(up, 2), true, false, true),
            (silent(up, 3), false, true, true),
            (silent(up, 4), false, true, false),
            (silent(never, 1), false, false, true),
            (silent(up, 4).after(trip), true, false, false),
        ] {
            assert_eq!(answers.is_up(), is_up, "{answers:?}");
            assert_eq!(answers.is_lost(), is_lost, "{answers:?}");
            assert_eq!(answers.is_newly_silent(), is_newly_silent, "{answers:?}");
            assert_eq!(
                answers.round_trip(),
                (answers != never && answers.round_trip.is_some())
                    .then_some(Duration::from_millis(1))
            );
        }
    }
}
