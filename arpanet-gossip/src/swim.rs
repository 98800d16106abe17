//! Membership by SWIM (Das, Gupta, Motivala, 2002), as foca does it.
//!
//! foca neither sends nor waits: this wraps what it wants sent, and when it wants to be woken.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use arpanet_core::NodeAddr;
use bytes::Bytes;
use foca::{
    Config, Foca, Header, Member, Notification, PeriodicParams, PostcardCodec, Runtime, Timer,
};
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use crate::config::{GossipConfig, ms};
use crate::wire::MAX_PACKET;

/// Who a member is to foca. A member that was declared down comes back under a higher rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SwimId {
    pub(crate) node: u16,
    pub(crate) rank: u64,
    pub(crate) endpoint: Option<SocketAddr>,
}

impl foca::Identity for SwimId {
    type Addr = u16;

    fn renew(&self) -> Option<Self> {
        Some(Self {
            rank: self.rank.checked_add(1)?,
            ..self.clone()
        })
    }

    fn addr(&self) -> u16 {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.rank > adversary.rank
    }
}

/// What a datagram of foca's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// A question that its target answers itself.
    Ping,
    /// What else belongs to a probe.
    Probe,
    /// News about members.
    News,
}

/// What foca wants done.
#[derive(Debug)]
pub(crate) enum Wish {
    Send {
        to: SwimId,
        data: Bytes,
        said: Said,
        /// How much of it is news of others.
        carried: usize,
    },
    Up(SwimId),
    Down(SwimId),
    /// Nobody is left: every other member is down.
    Alone,
}

#[derive(Default)]
struct Collect {
    wishes: Vec<Wish>,
    timers: Vec<(Timer<SwimId>, Duration)>,
}

impl Runtime<SwimId> for Collect {
    fn notify(&mut self, notification: Notification<'_, SwimId>) {
        match notification {
            Notification::MemberUp(id) => self.wishes.push(Wish::Up(id.clone())),
            Notification::MemberDown(id) => self.wishes.push(Wish::Down(id.clone())),
            Notification::Idle => self.wishes.push(Wish::Alone),
            _ => {}
        }
    }

    fn send_to(&mut self, to: SwimId, data: &[u8]) {
        let (message, carried) = match postcard::take_from_bytes::<Header<SwimId>>(data) {
            Ok((header, rest)) => (Some(header.message), rest.len()),
            Err(_) => (None, 0),
        };
        let said = match message {
            Some(foca::Message::Ping(_)) => Said::Ping,
            Some(
                foca::Message::Ack(_)
                | foca::Message::PingReq { .. }
                | foca::Message::IndirectPing { .. }
                | foca::Message::IndirectAck { .. }
                | foca::Message::ForwardedAck { .. },
            ) => Said::Probe,
            _ => Said::News,
        };
        self.wishes.push(Wish::Send {
            to,
            data: Bytes::copy_from_slice(data),
            said,
            carried,
        });
    }

    fn submit_after(&mut self, event: Timer<SwimId>, after: Duration) {
        self.timers.push((event, after));
    }
}

/// foca, with its timers.
pub(crate) struct Swim {
    foca: Foca<SwimId, PostcardCodec, StdRng, foca::NoCustomBroadcast>,
    config: GossipConfig,
    sized_for: usize,
    timers: BTreeMap<(Duration, u64), Timer<SwimId>>,
    next_timer: u64,
    /// Whether somebody may be suspected: looking through thousands of members for it takes a while.
    suspects: bool,
}

impl fmt::Debug for Swim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swim")
            .field("me", self.foca.identity())
            .finish_non_exhaustive()
    }
}

impl Swim {
    pub(crate) fn new(id: SwimId, config: &GossipConfig, rng: StdRng) -> Self {
        Self {
            foca: Foca::new(id, foca_config(config, 1), rng, PostcardCodec),
            config: config.clone(),
            sized_for: 1,
            timers: BTreeMap::new(),
            next_timer: 0,
            suspects: true,
        }
    }

    pub(crate) fn me(&self) -> &SwimId {
        self.foca.identity()
    }

    pub(crate) fn alive(&self) -> usize {
        self.foca.num_members()
    }

    /// Every member that is known, whatever its state.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member<SwimId>> {
        self.foca.iter_membership_state()
    }

    /// Whether any member may be suspected, until [`has_suspects`](Self::has_suspects) says otherwise.
    pub(crate) const fn may_have_suspects(&self) -> bool {
        self.suspects
    }

    /// Somebody has looked.
    pub(crate) const fn has_suspects(&mut self, has: bool) {
        self.suspects = has;
    }

    /// A hash over who is known and whether they live. Suspicion comes and goes too quickly to be compared.
    pub(crate) fn hash(&self) -> u64 {
        let id_hash = |id: &SwimId, lives: bool| {
            crate::wire::mix(&[u64::from(id.node), id.rank, u64::from(lives)])
        };
        self.members()
            .map(|member| id_hash(member.id(), member.state() != foca::State::Down))
            .fold(id_hash(self.me(), true), u64::wrapping_add)
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn handle_timers(&mut self, now: Duration) -> Vec<Wish> {
        let mut wishes = Vec::new();
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let timer = entry.remove();
            wishes.extend(self.run(now, |foca, runtime| foca.handle_timer(timer, runtime)));
        }
        wishes
    }

    /// Takes in what this node has sent; nothing that says to be of another.
    pub(crate) fn handle(&mut self, from: NodeAddr, data: &[u8], now: Duration) -> Vec<Wish> {
        match postcard::take_from_bytes::<Header<SwimId>>(data) {
            Ok((header, news)) if header.src.node == from.index() => {
                self.suspects |= !news.is_empty();
            }
            _ => return Vec::new(),
        }
        self.run(now, |foca, runtime| foca.handle_data(data, runtime))
    }

    /// "I am here", to one that is not known to be alive.
    pub(crate) fn announce(&mut self, to: NodeAddr, now: Duration) -> Vec<Wish> {
        let to = SwimId {
            node: to.index(),
            rank: 0,
            endpoint: None,
        };
        self.run(now, |foca, runtime| foca.announce(to, runtime))
    }

    /// Takes in what another member knows.
    pub(crate) fn learn(&mut self, members: Vec<Member<SwimId>>, now: Duration) -> Vec<Wish> {
        self.suspects = true;
        self.run(now, |foca, runtime| {
            foca.apply_many(members.into_iter(), true, runtime)
        })
    }

    /// Takes in what everybody else knows, too: nobody is told.
    #[cfg(feature = "simulation")]
    pub(crate) fn know(&mut self, members: Vec<Member<SwimId>>, now: Duration) {
        self.run(now, |foca, runtime| {
            foca.apply_many(members.into_iter(), false, runtime)
        });
    }

    /// Says farewell.
    pub(crate) fn leave(&mut self, now: Duration) -> Vec<Wish> {
        self.run(now, |foca, runtime| foca.leave_cluster(runtime))
    }

    fn run(
        &mut self,
        now: Duration,
        act: impl FnOnce(
            &mut Foca<SwimId, PostcardCodec, StdRng, foca::NoCustomBroadcast>,
            &mut Collect,
        ) -> Result<(), foca::Error>,
    ) -> Vec<Wish> {
        let mut collect = Collect::default();
        if let Err(error) = act(&mut self.foca, &mut collect) {
            // Whatever foca objects to (a message for an identity of before, say) it has left its state whole.
            tracing::trace!(%error, "foca refused");
        }
        for (timer, after) in collect.timers {
            self.suspects |= matches!(timer, Timer::ChangeSuspectToDown { .. });
            self.next_timer += 1;
            self.timers.insert((now + after, self.next_timer), timer);
        }
        // News are repeated as often as it takes to reach a cluster of this size.
        let size = (self.alive() + 1).next_power_of_two();
        if size != self.sized_for
            && self
                .foca
                .set_config(foca_config(&self.config, size))
                .is_ok()
        {
            self.sized_for = size;
        }
        collect.wishes
    }
}

fn foca_config(config: &GossipConfig, size: usize) -> Config {
    const THREE: NonZeroUsize = NonZeroUsize::new(3).expect("3 is not 0");
    const PACKET: NonZeroUsize = NonZeroUsize::new(MAX_PACKET - 16).expect("it is above 0");
    let rounds = 5 + 4 * (size + 1).ilog10() + size.ilog2() / 2;
    Config {
        probe_period: ms(config.probe_period_ms),
        probe_rtt: ms(config.probe_rtt_ms),
        num_indirect_probes: THREE,
        max_transmissions: u8::try_from(rounds)
            .ok()
            .and_then(NonZeroU8::new)
            .unwrap_or(NonZeroU8::MAX),
        suspect_to_down_after: ms(config.suspect_ms),
        remove_down_after: None,
        max_packet_size: PACKET,
        notify_down_members: true,
        periodic_announce: None,
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams {
            frequency: ms(config.gossip_ms),
            num_members: THREE,
        }),
    }
}
