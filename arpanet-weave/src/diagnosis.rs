//! What a router's report says about a peer, and what to do about it. Pure.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use arpanet_core::{Error, ErrorKind, NodeAddr};

use crate::PeerName;
use crate::error::own;
use crate::report::{ConnectionState, Router};

/// Why there is no way to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Neither does it call nor is it known where to call it.
    Unheard,
    /// The routers have agreed, and there will be a route in a moment.
    NotRouted,
    /// Nothing comes back. The router goes on dialling, without a word, for minutes.
    Silence,
    /// The network says that it can't be reached, or the other host that nothing listens.
    Unreachable(String),
    /// The other router has another password.
    WrongPassword,
    /// The other side broke it off: it may have another password, or have ended just now.
    BrokenOff,
    /// Both routers have one name.
    SameName(String),
    /// It is this router itself that was called.
    Itself,
    /// Something else, in the router's words.
    Other(String),
}

/// Looks for a peer in a router's report: whether packets can be sent to it. `established` alone does not mean that.
pub(crate) fn look(
    router: &Router,
    name: PeerName,
    endpoint: Option<SocketAddr>,
) -> Result<(), Trouble> {
    if router.peer_name() == Some(name) {
        return Err(Trouble::SameName(format!("both are called {name}")));
    }
    if router.has_route(name) {
        return Ok(());
    }
    if router.connection_with(name).is_some() {
        return Err(Trouble::NotRouted);
    }
    let attempt = endpoint.and_then(|endpoint| router.attempt_at(endpoint));
    let Some(attempt) = attempt else {
        return Err(Trouble::Unheard);
    };
    Err(match attempt.state {
        ConnectionState::Established | ConnectionState::Pending => Trouble::NotRouted,
        ConnectionState::Connecting if attempt.info.is_empty() => Trouble::Silence,
        _ => read(&attempt.info),
    })
}

/// The router's words on an attempt that failed.
fn read(info: &str) -> Trouble {
    let info = Error::words(info.split(", retry: ").next().unwrap_or_default());
    let says = |words: &str| info.contains(words);
    if says("Unable to decrypt TCP msg") {
        Trouble::WrongPassword
    } else if says("peer names collision") {
        Trouble::SameName(info)
    } else if says("cannot connect to ourself") {
        Trouble::Itself
    } else if says("connection reset by peer") || says("EOF") || says("broken pipe") {
        Trouble::BrokenOff
    } else if says("i/o timeout") || says("connection timed out") || info.is_empty() {
        Trouble::Silence
    } else if info.starts_with("dial ") {
        Trouble::Unreachable(info)
    } else {
        Trouble::Other(info)
    }
}

impl Trouble {
    /// Whether waiting does not help: somebody has to change something.
    pub(crate) const fn is_final(&self) -> bool {
        matches!(self, Self::WrongPassword | Self::SameName(_) | Self::Itself)
    }
}

/// What was seen of a peer during a time.
#[derive(Debug, Default)]
pub(crate) struct Observation {
    trouble: Option<Trouble>,
    was_routed: bool,
    ended: Option<(u64, u64)>,
    /// The names that its hosts go by, with the random number that each start of a router has.
    lives: BTreeSet<(u64, String)>,
    other_keys: bool,
}

/// How many lives of one name are too many for one router that is restarted.
const TOO_MANY_LIVES: usize = 3;

impl Observation {
    /// Adds what a report says.
    pub(crate) fn add(&mut self, router: &Router, name: PeerName, endpoint: Option<SocketAddr>) {
        self.trouble = look(router, name, endpoint).err();
        self.was_routed |= self.trouble.is_none();
        self.other_keys |= self.trouble == Some(Trouble::WrongPassword);
        let (first, _) = self
            .ended
            .unwrap_or((router.termination_count, router.termination_count));
        self.ended = Some((first, router.termination_count));
        if let Some(peer) = router.peer(name)
            && self.lives.len() < TOO_MANY_LIVES
        {
            self.lives.insert((peer.uid, Error::words(&peer.nick_name)));
        }
    }

    /// What has to be changed by somebody before there can be a way, if that is known.
    pub(crate) fn fault(&self, node: NodeAddr, at: Option<SocketAddr>) -> Option<Error> {
        let trouble = self.trouble.as_ref().filter(|trouble| trouble.is_final())?;
        Some(self.tell(trouble, node, at, None))
    }

    /// Why there was no way within a time.
    pub(crate) fn timeout(&self, node: NodeAddr, at: Option<SocketAddr>, limit: Duration) -> Error {
        if self.lives.len() >= TOO_MANY_LIVES {
            let hosts: BTreeSet<&str> = self.lives.iter().map(|(_, host)| host.as_str()).collect();
            let hosts = hosts.into_iter().collect::<Vec<_>>().join(" and ");
            return own(
                ErrorKind::Conflict,
                format!(
                    "more than one router has the name {} of node {node}, and they put each other off the network: {hosts}",
                    PeerName::of(node)
                ),
            )
            .with_hint("stop the one that is not this node's, or give it another address");
        }
        match &self.trouble {
            None => own(
                ErrorKind::Timeout,
                format!(
                    "weave has a route to node {node}, but {} did not answer in {limit:?}",
                    node.overlay()
                ),
            )
            .with_hint("does arpanet2 run there, and does UDP pass between the routers?"),
            // It may have been restarted just now, and then it tries again.
            Some(_) if self.other_keys => self.tell(&Trouble::WrongPassword, node, at, Some(limit)),
            Some(trouble) => self.tell(trouble, node, at, Some(limit)),
        }
    }

    fn tell(
        &self,
        trouble: &Trouble,
        node: NodeAddr,
        at: Option<SocketAddr>,
        limit: Option<Duration>,
    ) -> Error {
        let at = at.map_or_else(String::new, |at| format!(" at {at}"));
        let router = format!("the weave router of node {node}{at}");
        let within = limit.map_or_else(String::new, |limit| format!(" in {limit:?}"));
        let ports = "TCP and UDP of the router's port (6783), and UDP of the next, have to pass between the hosts";
        let passwords = "all routers need one password: is that node in this cluster, and was its router launched by arpanet2?";
        match trouble {
            Trouble::Unheard => {
                let ended = self
                    .ended
                    .map_or(0, |(first, last)| last.saturating_sub(first));
                let error = own(
                    ErrorKind::Timeout,
                    format!("{router} has not connected{within}"),
                );
                // A router that is called with another password shows nothing but this.
                match ended {
                    0 => error.with_hint(ports),
                    ended => error
                        .with_source(own(
                            ErrorKind::Unauthenticated,
                            format!("{ended} connections of this router ended meanwhile, as they do where passwords differ"),
                        ))
                        .with_hint(passwords),
                }
            }
            Trouble::NotRouted => own(
                ErrorKind::Timeout,
                format!("{router} is connected, but there is no route to it{within}"),
            )
            .with_hint(ports),
            Trouble::Silence => own(
                ErrorKind::Timeout,
                format!("nothing comes back from {router}{within}"),
            )
            .with_hint(ports),
            Trouble::Unreachable(words) => own(
                ErrorKind::Timeout,
                format!("{router} can't be reached{within}"),
            )
            .with_source(own(ErrorKind::Unavailable, words.clone()))
            .with_hint("does the router run there, and on that port?"),
            Trouble::WrongPassword => own(
                ErrorKind::Unauthenticated,
                format!("{router} has another password than this node's"),
            )
            .with_hint(passwords),
            Trouble::BrokenOff => own(
                ErrorKind::Timeout,
                format!("{router} breaks the connection off{within}"),
            )
            .with_hint(passwords),
            Trouble::SameName(words) => own(
                ErrorKind::Conflict,
                format!("{router} has the same name as this node's router"),
            )
            .with_source(own(ErrorKind::Conflict, words.clone()))
            .with_hint("a name follows from a node's address, which no two nodes may share"),
            Trouble::Itself => own(
                ErrorKind::Conflict,
                format!("what is said to be {router} is this node's own router"),
            )
            .with_hint("does that node advertise its own underlay address?"),
            Trouble::Other(words) => own(
                ErrorKind::Timeout,
                format!("{router} does not connect{within}"),
            )
            .with_source(own(ErrorKind::Unavailable, words.clone())),
        }
    }
}

/// Which endpoints a router has still to be told, and which it has to forget.
pub(crate) fn targets(
    told: &[String],
    wanted: &BTreeSet<SocketAddr>,
    port: u16,
) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    let told: BTreeSet<SocketAddr> = told
        .iter()
        .filter_map(|target| {
            // Without a port where whoever told it left it out.
            let with_port = || Some(SocketAddr::new(target.parse().ok()?, port));
            target.parse().ok().or_else(with_port)
        })
        .collect();
    (
        wanted.difference(&told).copied().collect(),
        told.difference(wanted).copied().collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;

    fn recorded(text: &str) -> Router {
        serde_json::from_str::<Report>(text).unwrap().router
    }

    macro_rules! failure {
        ($name:literal) => {
            recorded(include_str!(concat!(
                "../tests/recordings/failures/",
                $name,
                ".report.json"
            )))
        };
    }

    fn name(number: u8) -> PeerName {
        format!("0a:00:00:00:00:0{number}").parse().unwrap()
    }

    fn at(number: u8) -> Option<SocketAddr> {
        Some(SocketAddr::from(([192, 168, 77, number], 6783)))
    }

    fn node() -> NodeAddr {
        "0.2".parse().unwrap()
    }

    const LIMIT: Duration = Duration::from_secs(5);

    fn observed(reports: &[Router], number: u8) -> Observation {
        let mut seen = Observation::default();
        for router in reports {
            seen.add(router, name(number), at(number));
        }
        seen
    }

    #[test]
    fn routed_is_what_has_a_route() {
        let router = recorded(include_str!("../tests/recordings/three-peers/report.json"));
        for number in [2, 3] {
            assert_eq!(look(&router, name(number), at(number)), Ok(()));
        }
        assert_eq!(look(&router, name(9), at(9)), Err(Trouble::Unheard));
        assert_eq!(
            look(&failure!("lone-peer"), name(2), None),
            Err(Trouble::Unheard)
        );
    }

    #[test]
    fn established_is_not_yet_routed() {
        let router = failure!("established-no-routes-yet");
        // Called by the peer, from a port that is not the one it listens on.
        for endpoint in [at(2), None] {
            assert_eq!(look(&router, name(2), endpoint), Err(Trouble::NotRouted));
        }
        let error = observed(&[router], 2).timeout(node(), at(2), LIMIT);
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("no route"), "{error}");
    }

    #[test]
    fn a_wrong_password_is_told_by_the_one_who_calls() {
        let seen = observed(&[failure!("wrong-password-dialler")], 1);
        let error = seen.fault(node(), at(1)).unwrap();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        assert!(error.to_string().contains("another password"), "{error}");
        // The race that the other side may win is no proof, and is not told as one.
        let mut raced = failure!("wrong-password-dialler");
        raced.connections[0].info =
            "read tcp 192.168.77.2:41170->192.168.77.1:6783: read: connection reset by peer, retry: soon".to_owned();
        let seen = observed(&[raced], 1);
        assert!(seen.fault(node(), at(1)).is_none());
        assert!(
            seen.timeout(node(), at(1), LIMIT)
                .hint()
                .unwrap()
                .contains("password")
        );
        // Unless both were seen.
        let mut down = failure!("wrong-password-dialler");
        down.connections.clear();
        let seen = observed(&[failure!("wrong-password-dialler"), down], 1);
        assert_eq!(
            seen.timeout(node(), at(1), LIMIT).kind(),
            ErrorKind::Unauthenticated
        );
    }

    #[test]
    fn a_wrong_password_is_suspected_by_the_one_who_is_called() {
        let before = failure!("wrong-password-listener");
        let mut after = before.clone();
        after.termination_count += 3;
        let error = observed(&[before.clone(), after], 2).timeout(node(), None, LIMIT);
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("3 connections"), "{cause}");
        assert!(error.hint().unwrap().contains("password"));
        let error = observed(&[before.clone(), before], 2).timeout(node(), None, LIMIT);
        assert!(!error.hint().unwrap().contains("password"));
    }

    #[test]
    fn faults_of_the_network_are_told_from_it() {
        let connecting = failure!("refused-and-connecting");
        assert_eq!(
            look(
                &connecting,
                name(9),
                Some("192.168.77.99:6783".parse().unwrap())
            ),
            Err(Trouble::Silence)
        );
        for router in [
            connecting,
            failure!("refused-and-noroute"),
            failure!("retrying"),
        ] {
            let Err(Trouble::Unreachable(words)) = look(&router, name(2), at(2)) else {
                panic!("{:?}", look(&router, name(2), at(2)));
            };
            assert!(words.ends_with("connection refused"), "{words}");
            let error = observed(&[router], 2).timeout(node(), at(2), LIMIT);
            assert_eq!(error.kind(), ErrorKind::Timeout);
            assert!(!error.hint().unwrap().contains("password"));
        }
    }

    #[test]
    fn a_black_hole_is_told_though_the_router_says_nothing() {
        let router = failure!("refused-and-connecting");
        let hole: Option<SocketAddr> = Some("192.168.77.99:6783".parse().unwrap());
        let mut seen = Observation::default();
        seen.add(&router, name(9), hole);
        let error = seen.timeout(node(), hole, LIMIT);
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("nothing comes back"), "{error}");
    }

    #[test]
    fn collisions_of_names_are_told_in_clear_words() {
        let mut collision = Observation::default();
        collision.add(&failure!("name-collision"), name(2), at(1));
        // Or the name that is looked for is this router's own to begin with.
        for seen in [collision, observed(&[failure!("lone-peer")], 1)] {
            let error = seen.fault(node(), at(1)).unwrap();
            assert_eq!(error.kind(), ErrorKind::Conflict);
            assert!(error.to_string().contains("same name"), "{error}");
        }
        let mut itself = Observation::default();
        itself.add(&failure!("connect-to-self"), name(2), at(1));
        let error = itself.fault(node(), at(1)).unwrap();
        assert!(error.to_string().contains("own router"), "{error}");
    }

    #[test]
    fn two_that_evict_each_other_are_told_from_one_that_is_restarted() {
        let lives = |count: u64| -> Vec<Router> {
            (0..count)
                .map(|life| {
                    let mut router = failure!("established-no-routes-yet");
                    for peer in &mut router.peers {
                        peer.uid += life;
                        peer.nick_name = format!("h{}", life % 2 + 2);
                    }
                    router
                })
                .collect()
        };
        assert_eq!(
            observed(&lives(2), 2).timeout(node(), at(2), LIMIT).kind(),
            ErrorKind::Timeout
        );
        let error = observed(&lives(3), 2).timeout(node(), at(2), LIMIT);
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("h2 and h3"), "{error}");
    }

    #[test]
    fn what_was_told_is_neither_told_again_nor_forgotten() {
        let endpoints = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| text.parse().unwrap())
                .collect::<BTreeSet<_>>()
        };
        let told = [
            "192.168.77.2".to_owned(),
            "192.168.77.3:7000".to_owned(),
            "a-name".to_owned(),
        ];
        let wanted = endpoints(&["192.168.77.2:6783", "192.168.77.4:6783"]);
        let (new, old) = targets(&told, &wanted, 6783);
        assert_eq!(new, ["192.168.77.4:6783".parse().unwrap()]);
        assert_eq!(old, ["192.168.77.3:7000".parse().unwrap()]);
    }
}
