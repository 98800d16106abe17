//! What stands between a sealed datagram and belief: it must be of a boot that has shown to be there now, and new.
//!
//! A recorded datagram opens as well as a fresh one. So a sender's boot (a random number for each start) is believed only
//! after it has returned a random token, which no recording can; until then its datagrams wait. Within a boot each
//! datagram has a number, and a window remembers which were seen. So neither an older boot's datagrams nor this one's
//! can be replayed, not even to a receiver that has just started.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use arpanet_core::NodeAddr;
use arpanet_core::roster::Identity;

/// Datagrams of a sender that wait for its proof.
const MAX_WAITING: usize = 16;
/// Senders that are asked for a proof at once.
const MAX_ASKED: usize = 512;
const WINDOW: u64 = 1_024;
/// A proof that has not come by then is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(50);
const FORGET_ASKED: Duration = Duration::from_secs(5);

/// Which numbers of a boot were seen: the newest and the 1,023 before it.
#[derive(Debug)]
pub(crate) struct ReplayWindow {
    newest: u64,
    seen: [u64; (WINDOW / 64) as usize],
}

impl ReplayWindow {
    pub(crate) const fn new() -> Self {
        Self {
            newest: 0,
            seen: [0; (WINDOW / 64) as usize],
        }
    }

    /// Whether this number is new; it is not any more then. Numbers start at 1.
    pub(crate) fn accept(&mut self, number: u64) -> bool {
        if number == 0 || number.saturating_add(WINDOW) <= self.newest {
            return false;
        }
        if number > self.newest {
            if number - self.newest >= WINDOW {
                self.seen = [0; (WINDOW / 64) as usize];
            } else {
                for passed in self.newest + 1..=number {
                    let (word, bit) = Self::place(passed);
                    self.seen[word] &= !bit;
                }
            }
            self.newest = number;
        }
        let (word, bit) = Self::place(number);
        let is_new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        is_new
    }

    const fn place(number: u64) -> (usize, u64) {
        let slot = number % WINDOW;
        ((slot / 64) as usize, 1 << (slot % 64))
    }
}

#[derive(Debug)]
struct Asked {
    token: u64,
    last: Duration,
    waiting: VecDeque<(u64, Vec<u8>, SocketAddr)>,
}

#[derive(Debug)]
struct Peer {
    boot: u64,
    window: ReplayWindow,
}

/// Who says to have sent a datagram: an address, and enough of an identity to tell its holders apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sender {
    pub(crate) node: NodeAddr,
    pub(crate) tag: u32,
}

impl Sender {
    pub(crate) fn new(node: NodeAddr, identity: &Identity) -> Self {
        let [a, b, c, d, ..] = *identity.as_bytes();
        Self {
            node,
            tag: u32::from_be_bytes([a, b, c, d]),
        }
    }
}

/// A datagram that opened, before it is believed.
#[derive(Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) sender: Sender,
    pub(crate) boot: u64,
    pub(crate) number: u64,
    pub(crate) packet: &'a [u8],
    pub(crate) from: SocketAddr,
}

/// What to do with a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is new and of a boot that is there.
    Believe,
    /// It waits; ask its sender for this token.
    Ask(u64),
    /// It waits; its sender has been asked.
    Wait,
    /// It was seen before.
    Replayed,
}

/// All senders.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    peers: BTreeMap<Sender, Peer>,
    /// Boots that have shown to be there before anybody looked.
    #[cfg(feature = "simulation")]
    pub(crate) proven: std::sync::Arc<BTreeMap<Sender, u64>>,
    asked: BTreeMap<(Sender, u64), Asked>,
}

impl Peers {
    /// Judges a datagram that opened; `token` is a fresh random number, in case it is needed.
    pub(crate) fn judge(&mut self, arrival: &Arrival<'_>, now: Duration, token: u64) -> Verdict {
        let &Arrival {
            sender,
            boot,
            number,
            packet,
            from,
        } = arrival;
        if let Some(peer) = self.peers.get_mut(&sender)
            && peer.boot == boot
        {
            return if peer.window.accept(number) {
                Verdict::Believe
            } else {
                Verdict::Replayed
            };
        }
        #[cfg(feature = "simulation")]
        if self.proven.get(&sender) == Some(&boot) && !self.peers.contains_key(&sender) {
            let mut window = ReplayWindow::new();
            window.accept(number);
            self.peers.insert(sender, Peer { boot, window });
            return Verdict::Believe;
        }
        self.asked
            .retain(|_, asked| now < asked.last + FORGET_ASKED);
        if let Some(asked) = self.asked.get_mut(&(sender, boot)) {
            if asked.waiting.len() < MAX_WAITING {
                asked.waiting.push_back((number, packet.to_vec(), from));
            }
            if now >= asked.last + ASK_AGAIN {
                asked.last = now;
                return Verdict::Ask(asked.token);
            }
            return Verdict::Wait;
        }
        if self.asked.len() >= MAX_ASKED {
            return Verdict::Wait;
        }
        self.asked.insert(
            (sender, boot),
            Asked {
                token,
                last: now,
                waiting: VecDeque::from([(number, packet.to_vec(), from)]),
            },
        );
        Verdict::Ask(token)
    }

    /// Whether to ask this boot for `token` along with what is sent to it anyway: it has not shown to be there, and is not
    /// being asked.
    pub(crate) fn ask(&mut self, sender: Sender, boot: u64, now: Duration, token: u64) -> bool {
        let is_proven = self.peers.get(&sender).map(|peer| peer.boot) == Some(boot);
        #[cfg(feature = "simulation")]
        let is_proven = is_proven
            || (self.proven.get(&sender) == Some(&boot) && !self.peers.contains_key(&sender));
        self.asked
            .retain(|_, asked| now < asked.last + FORGET_ASKED);
        if is_proven || self.asked.len() >= MAX_ASKED || self.asked.contains_key(&(sender, boot)) {
            return false;
        }
        let asked = Asked {
            token,
            last: now,
            waiting: VecDeque::new(),
        };
        self.asked.insert((sender, boot), asked);
        true
    }

    /// A token came back: the boot is believed, and what waited is returned.
    pub(crate) fn prove(
        &mut self,
        sender: Sender,
        boot: u64,
        number: u64,
        token: u64,
    ) -> Option<Vec<(Vec<u8>, SocketAddr)>> {
        if self.asked.get(&(sender, boot))?.token != token {
            return None;
        }
        let asked = self.asked.remove(&(sender, boot))?;
        let mut window = ReplayWindow::new();
        window.accept(number);
        let waited = asked
            .waiting
            .into_iter()
            .filter(|(number, ..)| window.accept(*number))
            .map(|(_, packet, from)| (packet, from))
            .collect();
        self.peers.insert(sender, Peer { boot, window });
        Some(waited)
    }

    /// Forgets all of a sender.
    pub(crate) fn remove(&mut self, sender: Sender) {
        self.peers.remove(&sender);
        self.asked.retain(|(asked, _), _| *asked != sender);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_number_is_new_once(numbers in prop::collection::vec(1..3_000u64, 1..200)) {
            let mut window = ReplayWindow::new();
            let mut seen = std::collections::BTreeSet::new();
            for number in numbers {
                let newest = seen.last().copied().unwrap_or(0);
                let expected = number + WINDOW > newest && seen.insert(number);
                prop_assert_eq!(window.accept(number), expected, "{}", number);
            }
        }
    }

    #[test]
    fn a_recorded_boot_can_not_prove_that_it_is_there() {
        let mut peers = Peers::default();
        let sender = Sender {
            node: NodeAddr::from_index(1).unwrap(),
            tag: 1,
        };
        let from = "127.0.0.1:1".parse().unwrap();
        let judge = |peers: &mut Peers, boot, number, token| {
            let packet = b"x".as_slice();
            peers.judge(
                &Arrival {
                    sender,
                    boot,
                    number,
                    packet,
                    from,
                },
                Duration::ZERO,
                token,
            )
        };
        assert_eq!(judge(&mut peers, 5, 1, 77), Verdict::Ask(77));
        assert_eq!(peers.prove(sender, 5, 2, 76), None);
        assert_eq!(
            peers.prove(sender, 5, 2, 77),
            Some(vec![(b"x".to_vec(), from)])
        );
        assert_eq!(judge(&mut peers, 5, 1, 0), Verdict::Replayed);
        assert_eq!(judge(&mut peers, 5, 3, 0), Verdict::Believe);
        assert_eq!(judge(&mut peers, 4, 9, 78), Verdict::Ask(78));
        assert_eq!(peers.prove(sender, 4, 10, 77), None);
    }
}
