//! Who owns which addresses of a network: ranges that their owners give away. Pure.
//!
//! A network is its founder's at first. Whoever owns a range may give any part of it away by a deed, whose version is one
//! more than that of the range; the deed with the highest version stands. Only the owner of a version makes the next one, so
//! no two deeds dispute an address, and a node that knows its own deeds and those made out to it is never wrong about what
//! is its own, however little it hears of others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::{AppNet, NodeAddr};

/// The largest part that a member is given before it asks.
const SHARE: usize = 256;

/// The largest part that is given at once.
const GIFT: usize = 1_024;

/// How many deeds one node makes for a network: they go into one record.
const DEEDS: usize = 250;

/// A node as the holder of its address: who takes the address over is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Owner {
    /// The node.
    pub node: NodeAddr,
    /// Its generation in the roster.
    pub generation: u32,
}

impl Owner {
    pub(super) const fn new(node: NodeAddr, generation: u32) -> Self {
        Self { node, generation }
    }
}

/// Says that a range is an owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Deed {
    /// Its first address.
    pub first: Ipv4Addr,
    /// Its last address.
    pub last: Ipv4Addr,
    /// Whose it is.
    pub owner: Owner,
    /// One more than that of the deed it follows.
    pub version: u64,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    last: u32,
    owner: Option<Owner>,
    version: u64,
}

/// A network by its owners.
#[derive(Debug, Clone)]
pub(super) struct Title {
    net: AppNet,
    pieces: BTreeMap<u32, Piece>,
}

impl Title {
    /// What follows from the deeds, in whatever order: at first all of it is the founder's.
    pub(super) fn resolve(
        net: AppNet,
        founder: Option<Owner>,
        deeds: impl IntoIterator<Item = Deed>,
    ) -> Self {
        let whole = Piece {
            last: u32::from(net.cidr().broadcast()),
            owner: founder,
            version: 0,
        };
        let mut title = Self {
            net,
            pieces: BTreeMap::from([(u32::from(net.cidr().network()), whole)]),
        };
        let mut deeds: Vec<Deed> = deeds.into_iter().collect();
        deeds.sort_by_key(|deed| (deed.version, Reverse(deed.owner)));
        for deed in deeds {
            let fits = net.contains(deed.first) && net.contains(deed.last);
            if fits && deed.first <= deed.last {
                title.enter(deed);
            }
        }
        title
    }

    fn split(&mut self, at: u32) {
        let Some((_, piece)) = self.pieces.range_mut(..at).next_back() else {
            return;
        };
        if piece.last >= at {
            let rest = *piece;
            piece.last = at - 1;
            self.pieces.insert(at, rest);
        }
    }

    fn enter(&mut self, deed: Deed) {
        let (first, last) = (u32::from(deed.first), u32::from(deed.last));
        self.split(first);
        self.split(last + 1);
        let covered: Vec<u32> = self.pieces.range(first..=last).map(|(at, _)| *at).collect();
        for at in covered {
            self.pieces.remove(&at);
        }
        let piece = Piece {
            last,
            owner: Some(deed.owner),
            version: deed.version,
        };
        self.pieces.insert(first, piece);
    }

    /// An owner's ranges that containers can have addresses of: without the network's own address, the one of the gateway
    /// that people expect, and the broadcast address.
    fn of(&self, owner: Owner) -> impl DoubleEndedIterator<Item = (u32, u32, u64)> {
        let cidr = self.net.cidr();
        let (low, high) = (
            u32::from(cidr.network()) + 2,
            u32::from(cidr.broadcast()) - 1,
        );
        self.pieces
            .iter()
            .filter(move |(_, piece)| piece.owner == Some(owner))
            .map(move |(first, piece)| ((*first).max(low), piece.last.min(high), piece.version))
            .filter(|(first, last, _)| first <= last)
    }

    /// How many addresses an owner has that are not taken.
    pub(super) fn free(&self, owner: Owner, taken: &BTreeSet<Ipv4Addr>) -> usize {
        let count = |(first, last, _): (u32, u32, u64)| {
            let used = taken.range(Ipv4Addr::from(first)..=Ipv4Addr::from(last));
            (last - first + 1) as usize - used.count()
        };
        self.of(owner).map(count).sum()
    }

    /// The owner's first address that is not taken.
    pub(super) fn pick(&self, owner: Owner, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        self.of(owner)
            .flat_map(|(first, last, _)| (first..=last).map(Ipv4Addr::from))
            .find(|ip| !taken.contains(ip))
    }

    /// All who own a part.
    pub(super) fn owners(&self) -> BTreeSet<Option<Owner>> {
        self.pieces.values().map(|piece| piece.owner).collect()
    }

    /// Whether this deed stands for any address.
    pub(super) fn stands(&self, deed: &Deed) -> bool {
        let (first, last) = (u32::from(deed.first), u32::from(deed.last));
        let before = self.pieces.range(..first).next_back();
        let within = self.pieces.range(first..=last);
        before.into_iter().chain(within).any(|(_, piece)| {
            piece.last >= first && (piece.owner, piece.version) == (Some(deed.owner), deed.version)
        })
    }

    /// Deeds over free addresses of the owner, the last ones first: it picks from the front itself.
    fn give(
        &mut self,
        from: Owner,
        to: Owner,
        mut count: usize,
        taken: &BTreeSet<Ipv4Addr>,
    ) -> Vec<Deed> {
        let mut runs: Vec<(u32, u32, u64)> = Vec::new();
        // What no later deed can follow stays whose it is.
        let pieces = self
            .of(from)
            .rev()
            .filter(|(.., version)| *version < u64::MAX);
        'pieces: for (first, last, version) in pieces {
            let mut open = false;
            for ip in (first..=last).rev() {
                if count == 0 {
                    break 'pieces;
                }
                if taken.contains(&Ipv4Addr::from(ip)) {
                    open = false;
                    continue;
                }
                match runs.last_mut().filter(|_| open) {
                    Some(run) => run.0 = ip,
                    None => runs.push((ip, ip, version)),
                }
                open = true;
                count -= 1;
            }
        }
        let deed = |(first, last, version): (u32, u32, u64)| Deed {
            first: first.into(),
            last: last.into(),
            owner: to,
            version: version + 1,
        };
        let deeds: Vec<Deed> = runs.into_iter().map(deed).collect();
        for deed in &deeds {
            self.enter(*deed);
        }
        deeds
    }

    /// What `me` gives away now: a share to every living member that owns nothing, half of what is left to each that asks and
    /// has nothing free. Of the living owners, the one with the most free addresses gives.
    pub(super) fn donate(
        &mut self,
        me: Owner,
        alive: &BTreeSet<Owner>,
        asking: &BTreeSet<Owner>,
        taken: &BTreeSet<Ipv4Addr>,
        made: usize,
    ) -> Vec<Deed> {
        let mut free = self.free(me, taken);
        if free == 0 || made >= DEEDS {
            return Vec::new();
        }
        let owners = self.owners();
        let others = || alive.iter().copied().filter(|other| *other != me);
        let lacking: Vec<Owner> = others()
            .filter(|one| !owners.contains(&Some(*one)))
            .collect();
        let asking: Vec<Owner> = others()
            .filter(|one| asking.contains(one) && self.free(*one, taken) == 0)
            .collect();
        if lacking.is_empty() && asking.is_empty() {
            return Vec::new();
        }
        let richer = others().any(|other| {
            let theirs = self.free(other, taken);
            theirs > free || (theirs == free && other < me)
        });
        if richer {
            return Vec::new();
        }
        let share = (free / (2 * (lacking.len() + 1))).min(SHARE);
        let mut deeds = Vec::new();
        for one in &lacking {
            deeds.extend(self.give(me, *one, share, taken));
            free -= share;
        }
        for one in asking {
            if share > 0 && lacking.contains(&one) {
                continue;
            }
            let gift = free.div_ceil(2).min(GIFT);
            deeds.extend(self.give(me, one, gift, taken));
            free -= gift;
        }
        deeds
    }

    /// What `heir` takes over from owners that are gone.
    pub(super) fn inherit(
        &mut self,
        heir: Owner,
        is_gone: impl Fn(Option<Owner>) -> bool,
    ) -> Vec<Deed> {
        let gone = self
            .pieces
            .iter()
            .filter(|(_, piece)| is_gone(piece.owner) && piece.version < u64::MAX);
        let deeds: Vec<Deed> = gone
            .map(|(first, piece)| Deed {
                first: (*first).into(),
                last: piece.last.into(),
                owner: heir,
                version: piece.version + 1,
            })
            .collect();
        for deed in &deeds {
            self.enter(*deed);
        }
        deeds
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(index: u16) -> Owner {
        Owner::new(NodeAddr::from_index(index).unwrap(), 1)
    }

    fn net(text: &str) -> AppNet {
        text.parse().unwrap()
    }

    /// A node that picks, gives, and hears of others' deeds late or never.
    #[derive(Default)]
    struct Place {
        own: Vec<Deed>,
        heard: BTreeSet<Deed>,
        picked: BTreeSet<Ipv4Addr>,
    }

    impl Place {
        fn title(&self, net: AppNet) -> Title {
            let deeds = self.own.iter().chain(&self.heard).copied();
            Title::resolve(net, Some(owner(1)), deeds)
        }
    }

    proptest! {
        /// Whoever hears of what: nobody picks what another picked, unless all of it is known to be full.
        #[test]
        fn no_two_nodes_ever_pick_one_address(
            prefix in 24..=29u8,
            steps in prop::collection::vec((0..4usize, 0..4usize, 0..4u8), 1..200),
        ) {
            let net = net(&format!("10.1.0.0/{prefix}"));
            let mut places: Vec<Place> = (0..4).map(|_| Place::default()).collect();
            let mut all = BTreeSet::new();
            for (at, from, what) in steps {
                let me = owner(at as u16 + 1);
                match what {
                    0 | 1 => {
                        let ip = places[at].title(net).pick(me, &places[at].picked);
                        if let Some(ip) = ip {
                            prop_assert!(all.insert(ip), "{ip} twice");
                            places[at].picked.insert(ip);
                        }
                    }
                    2 => {
                        let deeds: Vec<Deed> = places[from].own.clone();
                        places[at].heard.extend(deeds);
                        // What is made out to it, it holds itself from then on.
                        let title = places[at].title(net);
                        let mine: Vec<Deed> = places[at]
                            .heard
                            .iter()
                            .filter(|deed| deed.owner == me && title.stands(deed))
                            .copied()
                            .collect();
                        places[at].own.extend(mine);
                        places[at].heard.clear();
                    }
                    _ => {
                        let alive = [me, owner(from as u16 + 1)].into();
                        let mut title = places[at].title(net);
                        let asking = [owner(from as u16 + 1)].into();
                        let picked = places[at].picked.clone();
                        let deeds = title.donate(me, &alive, &asking, &picked, 0);
                        places[at].own.extend(deeds);
                    }
                }
            }
        }

        #[test]
        fn the_order_of_deeds_makes_no_difference(
            deeds in prop::collection::vec((2..250u8, 0..20u8, 1..5u16, 1..4u64), 0..30),
        ) {
            let deeds: Vec<Deed> = deeds
                .into_iter()
                .map(|(first, more, to, version)| Deed {
                    first: Ipv4Addr::new(10, 1, 0, first),
                    last: Ipv4Addr::new(10, 1, 0, first.saturating_add(more)),
                    owner: owner(to),
                    version,
                })
                .collect();
            let net = net("10.1.0.0/24");
            let forward = Title::resolve(net, Some(owner(1)), deeds.iter().copied());
            let backward = Title::resolve(net, Some(owner(1)), deeds.iter().rev().copied());
            let none = BTreeSet::new();
            let mut whole = 0;
            for index in 1..5 {
                let free = forward.free(owner(index), &none);
                prop_assert_eq!(free, backward.free(owner(index), &none));
                prop_assert_eq!(forward.pick(owner(index), &none), backward.pick(owner(index), &none));
                whole += free;
            }
            prop_assert_eq!(whole, 253);
        }
    }

    #[test]
    fn every_member_has_a_share_and_who_asks_gets_half() {
        let net = net("10.1.0.0/16");
        let alive: BTreeSet<Owner> = (1..=100).map(owner).collect();
        let none = BTreeSet::new();
        let mut title = Title::resolve(net, Some(owner(1)), []);
        let deeds = title.donate(owner(1), &alive, &none_asking(), &none, 0);
        assert_eq!(deeds.len(), 99);
        assert!((2..=100).all(|index| title.free(owner(index), &none) == SHARE));
        // The same again gives nothing, and neither does a poorer one.
        assert!(
            title
                .donate(owner(1), &alive, &none_asking(), &none, 99)
                .is_empty()
        );
        let taken = (0..SHARE)
            .scan(BTreeSet::new(), |taken, _| {
                let ip = title.pick(owner(7), taken)?;
                taken.insert(ip);
                Some(ip)
            })
            .collect::<BTreeSet<_>>();
        assert_eq!(title.free(owner(7), &taken), 0);
        let asking = [owner(7)].into();
        assert!(
            title
                .donate(owner(2), &alive, &asking, &taken, 0)
                .is_empty()
        );
        title.donate(owner(1), &alive, &asking, &taken, 99);
        assert_eq!(title.free(owner(7), &taken), GIFT);
    }

    /// Found by the fuzz target `catalogue_records`.
    #[test]
    fn a_range_whose_deed_is_the_last_that_can_be_stays_whose_it_is() {
        let net = net("10.1.0.0/24");
        let [one, two] = [owner(1), owner(2)];
        let last = Deed {
            first: net.cidr().network(),
            last: net.cidr().broadcast(),
            owner: one,
            version: u64::MAX,
        };
        let mut title = Title::resolve(net, Some(one), [last]);
        let both = BTreeSet::from([one, two]);
        assert_eq!(title.donate(one, &both, &both, &BTreeSet::new(), 0), []);
        assert_eq!(title.inherit(two, |owner| owner == Some(one)), []);
    }

    fn none_asking() -> BTreeSet<Owner> {
        BTreeSet::new()
    }

    #[test]
    fn the_last_address_can_be_had_by_who_asks() {
        let net = net("10.1.0.0/30");
        let none = BTreeSet::new();
        let alive = [owner(1), owner(2)].into();
        let mut title = Title::resolve(net, Some(owner(1)), []);
        assert!(
            title
                .donate(owner(1), &alive, &none_asking(), &none, 0)
                .is_empty()
        );
        let deeds = title.donate(owner(1), &alive, &[owner(2)].into(), &none, 0);
        assert_eq!(deeds.len(), 1);
        assert_eq!(
            title.pick(owner(2), &none),
            Some("10.1.0.2".parse().unwrap())
        );
        assert_eq!(title.pick(owner(1), &none), None);
    }

    #[test]
    fn an_heir_takes_over_what_is_left_behind() {
        let net = net("10.1.0.0/24");
        let none = BTreeSet::new();
        let alive = [owner(1), owner(2), owner(3)].into();
        let mut title = Title::resolve(net, Some(owner(1)), []);
        title.donate(owner(1), &alive, &none_asking(), &none, 0);
        let (one, three) = (title.free(owner(1), &none), title.free(owner(3), &none));
        title.inherit(owner(2), |owner| {
            owner.is_some_and(|owner| owner.node.index() == 1)
        });
        assert_eq!(title.free(owner(1), &none), 0);
        assert_eq!(title.free(owner(2), &none), 253 - three);
        assert!(one > 0 && title.free(owner(3), &none) == three);
    }
}
