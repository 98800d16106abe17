//! The one place where rounds are run: every measure of one peer after the other, and then all of them again, so that what else
//! the machine does meets all alike.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hosts::Hosts;
use super::load::Load;
use super::names::{appears, cut_and_heal, names_an_address};
use super::only::Only;
use super::peer::{Outcome, Peer, PeerKind, Why};
use super::row::Row;
use super::wire::SingleDatagrams;
use super::{traffic, usage};

/// Two clients that ask for one name.
const LOAD: Load = Load {
    clients: 2,
    out: 32,
    patience: Duration::from_millis(500),
};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) rounds: usize,
    /// Of hosts that are cut off: each takes its time.
    pub(super) cuts: usize,
    /// How long streams flow, packets are sent, and DNS is asked.
    pub(super) length: Duration,
    pub(super) round_trips: usize,
    /// How long DNS may take to let go of a host, and to have it back.
    pub(super) change: Duration,
    /// After this time no measure is begun again: what there is counts.
    pub(super) enough: Duration,
}

/// What is measured at once, for one row or two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    Cluster,
    Register,
    Container,
    Cut,
    Memory,
    Answers,
    Stream,
    Streams,
    Singles,
    RoundTrip,
    Packets,
}

impl Measure {
    /// In this order: each finds what those before have made.
    const ALL: [Self; 11] = [
        Self::Cluster,
        Self::Register,
        Self::Container,
        Self::Cut,
        Self::Memory,
        Self::Answers,
        Self::Stream,
        Self::Streams,
        Self::Singles,
        Self::RoundTrip,
        Self::Packets,
    ];

    const fn rows(self) -> &'static [Row] {
        match self {
            Self::Cluster => &[Row::Boot, Row::Join],
            Self::Register => &[Row::Register],
            Self::Container => &[Row::Container],
            Self::Cut => &[Row::Cut, Row::Heal],
            Self::Memory => &[Row::Memory],
            Self::Answers => &[Row::Answers],
            Self::Stream => &[Row::Stream, Row::Processor],
            Self::Streams => &[Row::Streams],
            Self::Singles => &[Row::Singles],
            Self::RoundTrip => &[Row::RoundTrip],
            Self::Packets => &[Row::Packets],
        }
    }

    /// Whether it says something else where there are more hosts.
    const fn grows(self) -> bool {
        matches!(
            self,
            Self::Cluster | Self::Register | Self::Cut | Self::Memory
        )
    }
}

/// What was found: figures, one a round, or why there are none.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    pub(super) figures: Vec<f64>,
    pub(super) why: Option<Why>,
}

/// All that was found with so many hosts.
pub(super) type Findings = BTreeMap<(Row, PeerKind), Found>;

/// Peers on hosts, and what is wanted of them.
pub(super) struct Rounds<'a> {
    /// What the peers run on: one lab, as a rule.
    pub(super) sites: Vec<Arc<Hosts>>,
    pub(super) peers: Vec<Box<dyn Peer>>,
    pub(super) extent: Extent,
    pub(super) only: &'a [Only],
    pub(super) began: Instant,
    /// Whether these are further hosts, of which only some rows are wanted.
    pub(super) more: bool,
    pub(super) tell: &'a dyn Fn(&str),
}

impl Rounds<'_> {
    pub(super) fn run(&self) -> Findings {
        let mut findings = Findings::new();
        let mut broken = BTreeMap::new();
        for peer in &self.peers {
            if let Err(why) = peer.version() {
                broken.insert(peer.kind(), why);
            }
        }
        for measure in Measure::ALL {
            if self.more && !measure.grows() {
                continue;
            }
            self.measure(measure, &mut broken, &mut findings);
            if measure == Measure::Cluster {
                for peer in self.standing(&broken) {
                    (self.tell)(&format!("{}: settling", peer.kind().name()));
                    if !self.more
                        && let Err(why) = peer.settle()
                    {
                        broken.insert(peer.kind(), why);
                    }
                }
            }
        }
        findings
    }

    fn standing(&self, broken: &BTreeMap<PeerKind, Why>) -> Vec<&dyn Peer> {
        let peers = self.peers.iter().map(Box::as_ref);
        peers
            .filter(|peer| !broken.contains_key(&peer.kind()))
            .collect()
    }

    fn wants(&self, row: Row, peer: PeerKind) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only.wants(row, peer))
    }

    fn measure(
        &self,
        measure: Measure,
        broken: &mut BTreeMap<PeerKind, Why>,
        findings: &mut Findings,
    ) {
        let rows = measure.rows();
        let wanted = |peer: PeerKind| rows.iter().any(|row| self.wants(*row, peer));
        let mut note = |row: Row, peer: PeerKind, outcome: Outcome<f64>| {
            if !self.wants(row, peer) {
                return;
            }
            let found = findings.entry((row, peer)).or_default();
            match outcome {
                Ok(figure) => found.figures.push(figure),
                Err(why) => found.why = Some(why),
            }
        };
        for (peer, why) in &*broken {
            for row in rows {
                note(*row, *peer, Err(why.clone()));
            }
        }
        // One that failed, or never can, is not asked again.
        let mut done = Vec::new();
        let rounds = match measure {
            // A cluster is needed for all the rest.
            Measure::Cluster if !Row::ALL[..2].iter().any(|row| self.any_wants(*row)) => 1,
            Measure::Cut => self.extent.cuts,
            _ => self.extent.rounds,
        };
        for round in 0..rounds {
            if round > 0 && self.began.elapsed() > self.extent.enough {
                break;
            }
            let mut peers = self.standing(broken);
            if let Some(by) = round.checked_rem(peers.len()) {
                peers.rotate_left(by);
            }
            let is_asked = |peer: &&dyn Peer| {
                let kind = peer.kind();
                !done.contains(&kind) && (measure == Measure::Cluster || wanted(kind))
            };
            peers.retain(is_asked);
            if measure == Measure::Cut {
                (self.tell)(&format!("round {}: {}", round + 1, Row::Cut.title()));
                let name = format!("cut{round}");
                let seen = cut_and_heal(&self.sites, &peers, &name, self.extent.change);
                for (peer, (gone, back)) in peers.iter().zip(seen) {
                    if gone.is_err() || back.is_err() {
                        done.push(peer.kind());
                    }
                    note(Row::Cut, peer.kind(), gone);
                    note(Row::Heal, peer.kind(), back);
                }
                continue;
            }
            for peer in peers {
                let kind = peer.kind();
                let title = rows.first().map_or("", |row| row.title());
                (self.tell)(&format!("round {}: {title}: {}", round + 1, kind.name()));
                match self.take(measure, peer, round) {
                    Ok(figures) => {
                        for (row, figure) in rows.iter().zip(figures) {
                            note(*row, kind, Ok(figure));
                        }
                    }
                    Err(why) => {
                        if measure == Measure::Cluster && matches!(why, Why::Failed(_)) {
                            broken.insert(kind, why.clone());
                        }
                        done.push(kind);
                        for row in rows {
                            note(*row, kind, Err(why.clone()));
                        }
                    }
                }
            }
        }
    }

    fn any_wants(&self, row: Row) -> bool {
        self.peers.iter().any(|peer| self.wants(row, peer.kind()))
    }

    /// One figure for each of the measure's rows.
    fn take(&self, measure: Measure, peer: &dyn Peer, round: usize) -> Outcome<Vec<f64>> {
        let extent = self.extent;
        match measure {
            Measure::Cluster => self.cluster(peer),
            Measure::Cut => Err(Why::applicable("it is measured of all at once")),
            Measure::Register => {
                let name = format!("register{round}");
                appearing(peer, &name, || peer.register(1, &name))
            }
            Measure::Container => {
                let name = format!("container{round}");
                appearing(peer, &name, || peer.start(1, &name))
            }
            Measure::Memory => Ok(vec![usage::resident(&peer.agent()?)?]),
            Measure::Answers => self.answers(peer),
            Measure::Stream => {
                let carried = traffic::streams(&peer.path()?, 1, extent.length)?;
                Ok(vec![carried.rate, carried.processor])
            }
            Measure::Streams => {
                let carried = traffic::streams(&peer.path()?, 4, extent.length)?;
                Ok(vec![carried.rate])
            }
            Measure::Singles => {
                let path = peer.path()?;
                let _off = SingleDatagrams::on(&self.sites)?;
                Ok(vec![traffic::streams(&path, 1, extent.length)?.rate])
            }
            Measure::RoundTrip => {
                let micros = traffic::round_trip(&peer.path()?, extent.round_trips)?;
                Ok(vec![micros])
            }
            Measure::Packets => Ok(vec![traffic::packets(&peer.path()?, extent.length)?]),
        }
    }

    /// From nothing to all hosts: how long the first took, and the last.
    fn cluster(&self, peer: &dyn Peer) -> Outcome<Vec<f64>> {
        peer.leave()?;
        let boot = timed(|| peer.boot())?;
        let mut join = 0.0;
        let last = self.sites.first().map_or(1, |hosts| hosts.count());
        for host in 2..=last {
            join = timed(|| peer.join(host))?;
        }
        Ok(vec![boot, join])
    }

    fn answers(&self, peer: &dyn Peer) -> Outcome<Vec<f64>> {
        let name = "answers";
        let question = peer.question(1, name)?;
        let put = || match peer.register(2, name) {
            Err(Why::NotApplicable(_)) => peer.start(2, name),
            done => done,
        };
        appears(&question, put)?;
        let length = self.extent.length;
        // One for each that is out: they go by the batch.
        let bytes = vec![question.bytes()?; LOAD.out];
        let rate = question
            .asker
            .run(|| LOAD.rate(question.server, &bytes, length, names_an_address))?;
        peer.remove(2, name)?;
        Ok(vec![rate?])
    }
}

/// How soon the second host knows a name that the first puts there.
fn appearing(peer: &dyn Peer, name: &str, put: impl FnOnce() -> Outcome<()>) -> Outcome<Vec<f64>> {
    // What it can't do, it says before anybody asks for a name.
    let question = peer.question(2, name)?;
    let took = appears(&question, put)?;
    peer.remove(1, name)?;
    Ok(vec![took])
}

/// Milliseconds.
fn timed(work: impl FnOnce() -> Outcome<()>) -> Outcome<f64> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}
