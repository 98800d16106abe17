//! How soon a name is known, forgotten, and known again.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arpanet_netlink::Namespace;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};

use super::hosts::Hosts;
use super::peer::{Outcome, Peer, Why};

/// Between two questions for a name.
const PACE: Duration = Duration::from_micros(500);
/// A question without an answer for so long has none: DNS of all peers answers from memory, unless it does not know a name
/// and asks others, where nobody answers here.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long a name may take to be known that was just registered or started.
const KNOWN: Duration = Duration::from_secs(30);

/// A name, and whom to ask for it.
#[derive(Debug, Clone)]
pub(super) struct Question {
    /// Where it is asked.
    pub(super) asker: Namespace,
    pub(super) server: SocketAddr,
    /// With a dot at the end.
    pub(super) name: String,
}

impl Question {
    /// As it is sent.
    pub(super) fn bytes(&self) -> Outcome<Vec<u8>> {
        let failed = |error: String| Why::failed(format!("{}: {error}", self.name));
        let name = Name::from_ascii(&self.name).map_err(|error| failed(error.to_string()))?;
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name, RecordType::A));
        message.to_vec().map_err(|error| failed(error.to_string()))
    }

    /// Asks until the answer names an address, or until it does not. When that question was asked whose answer says so: for one
    /// that is waited for when it was answered.
    fn until(&self, known: bool, limit: Duration, over: &AtomicBool) -> Outcome<Instant> {
        let socket = self
            .asker
            .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(self.server)?;
        let question = self.bytes()?;
        let began = Instant::now();
        let (mut buffer, mut silent) = ([0; 4096], None::<Instant>);
        loop {
            let asked = Instant::now();
            // Refused, while no server is there.
            let _ = socket.send(&question);
            match socket.recv(&mut buffer).ok() {
                Some(length)
                    if names_an_address(buffer.get(..length).unwrap_or_default()) == known =>
                {
                    return Ok(if known { Instant::now() } else { asked });
                }
                Some(_) => silent = None,
                // Twice in a row: one may have been lost.
                None => match silent {
                    Some(first) if !known => return Ok(first),
                    _ => silent = Some(asked),
                },
            }
            if over.load(Ordering::Relaxed) {
                return Err(Why::failed("it was not to be waited for"));
            }
            if began.elapsed() > limit {
                let what = if known { "known" } else { "gone" };
                let seconds = limit.as_secs();
                return Err(Why::failed(format!(
                    "the name was not {what} within {seconds} s"
                )));
            }
            std::thread::park_timeout(PACE);
        }
    }
}

/// Whether it is an answer with an address.
pub(super) fn names_an_address(answer: &[u8]) -> bool {
    Message::from_vec(answer).is_ok_and(|message| {
        let mut records = message.answers.iter();
        records.any(|record| matches!(record.data, RData::A(_)))
    })
}

/// Milliseconds from the beginning of this work to the first answer.
pub(super) fn appears(question: &Question, work: impl FnOnce() -> Outcome<()>) -> Outcome<f64> {
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let asking = threads.spawn(|| question.until(true, KNOWN, &over));
        let began = Instant::now();
        let worked = work();
        over.store(worked.is_err(), Ordering::Relaxed);
        let found = joined(asking);
        worked?;
        Ok(milliseconds(began, found?))
    })
}

/// For each of these: milliseconds from the cut of the last host to when the second one's DNS lets go of what it has, and from
/// the heal to when it is back. They see the same cut.
pub(super) fn cut_and_heal(
    sites: &[Arc<Hosts>],
    peers: &[&dyn Peer],
    name: &str,
    limit: Duration,
) -> Vec<(Outcome<f64>, Outcome<f64>)> {
    let last = sites.first().map_or(0, |hosts| hosts.count());
    let on_all =
        |change: fn(&Hosts) -> Outcome<()>| sites.iter().try_for_each(|hosts| change(hosts));
    let place = |peer: &&'_ dyn Peer| {
        // What it can't do, it says before it is asked for more.
        let question = peer.question(2, name)?;
        match peer.register(last, name) {
            Err(Why::NotApplicable(_)) => peer.start(last, name)?,
            done => done?,
        }
        question.until(true, KNOWN, &AtomicBool::new(false))?;
        Ok(question)
    };
    let placed: Vec<Outcome<Question>> = peers.iter().map(place).collect();
    let watch = |known: bool, change: &dyn Fn() -> Outcome<()>| {
        std::thread::scope(|threads| {
            let watching: Vec<_> = placed
                .iter()
                .map(|question| {
                    let question = question.clone();
                    threads.spawn(move || question?.until(known, limit, &AtomicBool::new(false)))
                })
                .collect();
            // From before it is done: a packet may come through while the rest of it is.
            let began = Instant::now();
            let changed = change().map(|()| began);
            let seen = watching.into_iter().map(joined);
            seen.map(|seen| Ok(milliseconds(changed.clone()?, seen?)))
                .collect::<Vec<Outcome<f64>>>()
        })
    };
    let gone = watch(false, &|| on_all(Hosts::cut));
    let back = watch(true, &|| on_all(Hosts::heal));
    for peer in peers {
        // What can't be removed does not matter any more.
        let _ = peer.remove(last, name);
    }
    let pairs = gone.into_iter().zip(back);
    pairs
        .map(|(gone, back)| {
            // Who never let go of it is not back either.
            let back = gone.clone().and(back);
            (gone, back)
        })
        .collect()
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Outcome<T>>) -> Outcome<T> {
    let outcome = thread.join();
    outcome.unwrap_or_else(|_| Err(Why::failed("a thread broke")))
}

fn milliseconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1e3
}
