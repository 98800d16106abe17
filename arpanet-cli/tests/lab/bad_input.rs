//! Bad input: one clear sentence, the cause, a hint and the right exit code, and nothing changed.

mod hosts;
mod seeds;
mod state;
mod words;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::site::{Outcome, Site};

/// What a refusal may not change on a host.
const FACTS: [&str; 6] = [
    "ip -d link",
    "ip addr",
    "ip route show table all",
    "ip rule",
    "find /var/lib/arpanet2 /run/arpanet2 -printf %M:%u:%p\\n",
    "ps -e -o pid=,args= --no-headers",
];

/// The facts of a host on which nothing is half done: a running agent replaces its files whole, by way of another, and the
/// kernel looks for the owner of an IPv6 address before it takes it.
fn facts(site: &Site, host: &str) -> Vec<String> {
    let mut facts = facts_now(site, host);
    let half_done = |facts: &[String]| {
        facts
            .iter()
            .any(|fact| fact.contains("/arpanet2/.tmp") || fact.contains(" tentative"))
    };
    let began = Instant::now();
    while half_done(&facts) {
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "a host never comes to rest: {facts:?}"
        );
        facts = facts_now(site, host);
    }
    facts
}

fn facts_now(site: &Site, host: &str) -> Vec<String> {
    // The listing itself is the one process that comes and goes.
    let lasting = |text: String| -> String {
        text.lines()
            .filter(|line| !line.contains("ps -e"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    FACTS
        .iter()
        .map(|fact| lasting(site.run(host, fact).out))
        .collect()
}

/// Runs a line that has to be refused: with this exit code, with all of these words on standard error, with a hint, and
/// with nothing changed on the host. How long it took.
fn refused(site: &Site, host: &str, line: &str, code: i32, words: &[&str]) -> Duration {
    let before = facts(site, host);
    let began = Instant::now();
    let outcome = site.arpanet2(host, line);
    let took = began.elapsed();
    told(&outcome, line, code, words);
    for (fact, (now, before)) in FACTS.iter().zip(facts(site, host).iter().zip(&before)) {
        assert_eq!(now, before, "{line}: {fact}");
    }
    took
}

fn told(outcome: &Outcome, line: &str, code: i32, words: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{line}: {outcome:?}");
    assert_eq!(outcome.out, "", "{line}: {outcome:?}");
    assert!(outcome.err.starts_with("error: "), "{line}: {outcome:?}");
    for word in words.iter().chain(&["hint: "]) {
        assert!(
            outcome.err.contains(word),
            "{line}: no {word:?} in {outcome:?}"
        );
    }
}

/// A process in a host that holds a socket.
struct Held {
    child: Child,
    pid: String,
}

impl Held {
    fn new(site: &Site, host: &str, socket: OwnedFd) -> Self {
        let mut command = site.lab.command(host, 0, &["sleep", "600"]).unwrap();
        let child = command
            .stdin(Stdio::from(socket))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = || site.run(host, "pgrep -x sleep").out;
        let mut found = pid();
        let began = Instant::now();
        while found.is_empty() && began.elapsed() < Duration::from_secs(10) {
            found = pid();
        }
        assert!(found.parse::<u32>().is_ok(), "{found:?}");
        Self { child, pid: found }
    }

    fn holder(&self) -> String {
        format!("sleep (process {})", self.pid)
    }

    fn end(mut self, site: &Site, host: &str) {
        assert_eq!(site.run(host, &format!("kill {}", self.pid)).code, Some(0));
        self.child.wait().unwrap();
    }
}

/// Every address of a host, at the port of the join and the tunnel.
const PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 51820);
