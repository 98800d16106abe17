//! What goes wrong inside, and how it is told outside.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use arpanet_core::admission::Seed;
use arpanet_core::{Error, ErrorKind, NodeAddr};

use crate::wire::{PROTOCOL, Version};

pub(crate) const BACKEND: &str = "arpanet-join";

/// What goes wrong on a connection, on either side.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("the other side closed the connection")]
    Closed,
    #[error("a message of {0} bytes is longer than any that is expected")]
    TooLong(usize),
    #[error("a message can't be read")]
    Malformed(#[source] serde_json::Error),
    #[error("the key exchange got a message that belongs to none")]
    Pake,
    #[error("a sealed message was changed on its way")]
    Tampered,
    #[error("it does not speak the join protocol")]
    Stranger,
    #[error("it speaks version {0} of the join protocol")]
    Version(Version),
    #[error("the password was wrong")]
    WrongPassword,
    #[error("too slow")]
    Slow,
    #[error(transparent)]
    Told(Error),
}

fn error(kind: ErrorKind, message: String) -> Error {
    Error::new(kind, message).operation("join").backend(BACKEND)
}

fn place(endpoint: SocketAddr) -> String {
    format!("{} port {}/tcp", endpoint.ip(), endpoint.port())
}

fn test_it(endpoint: SocketAddr) -> String {
    format!(
        "test it with: nc -vz -w 3 {} {}",
        endpoint.ip(),
        endpoint.port()
    )
}

/// Told to a node that would found a cluster where one takes it for its own.
pub(crate) fn living_cluster(from: SocketAddr) -> Error {
    error(
        ErrorKind::Conflict,
        format!("the node at {from} takes this host for a member of its cluster, which is alive"),
    )
    .operation("found")
    .with_hint(format!(
        "join that cluster again: arpanet2 server A.B PASSWORD SEED-ADDR {}, with --replace if this host was A.B; or take \
         this host out there first: arpanet2 forget A.B",
        from.ip()
    ))
}

/// Told of a connection that was not made.
pub(crate) fn connect(seed: Seed, source: io::Error) -> Error {
    let at = place(seed.endpoint);
    let refused = source.kind() == io::ErrorKind::ConnectionRefused;
    let (message, hint) = if refused {
        (
            format!("nothing listens at {at}"),
            format!(
                "is arpanet2 running on the seed {}? {}",
                seed.node,
                test_it(seed.endpoint)
            ),
        )
    } else {
        (
            format!("the seed at {at} can't be reached"),
            format!(
                "is the ip right, and is there a way to it? {}",
                test_it(seed.endpoint)
            ),
        )
    };
    error(ErrorKind::Unavailable, message)
        .with_hint(hint)
        .with_source(source)
}

/// Told when nothing answers, not even with a refusal.
pub(crate) fn no_connection(seed: Seed, limit: Duration) -> Error {
    error(
        ErrorKind::Timeout,
        format!(
            "no answer from {} within {} s",
            place(seed.endpoint),
            limit.as_secs_f32()
        ),
    )
    .with_hint(format!(
        "is the address right, and does a firewall drop TCP port {}? {}",
        seed.endpoint.port(),
        test_it(seed.endpoint)
    ))
}

/// Told when the connection is made and then nothing comes.
pub(crate) fn silent(seed: Seed, limit: Duration) -> Error {
    error(
        ErrorKind::Timeout,
        format!(
            "{} accepts connections, but did not answer within {} s",
            place(seed.endpoint),
            limit.as_secs_f32()
        ),
    )
    .with_hint(format!(
        "does arpanet2 listen there, and is it well? ask it: arpanet2 status, on the seed {}",
        seed.node
    ))
}

/// Told when the conversation with the seed fails.
pub(crate) fn conversation(seed: Seed, fault: Fault) -> Error {
    let at = place(seed.endpoint);
    match fault {
        Fault::Told(told) => told.operation("join").backend(BACKEND),
        Fault::Stranger => error(ErrorKind::Incompatible, format!("what answers at {at} is not arpanet2"))
            .with_hint("is it the right port? arpanet2 uses 51820 unless told otherwise"),
        Fault::Version(theirs) => error(
            ErrorKind::Incompatible,
            format!("the seed at {at} speaks version {theirs} of the join protocol, and this node {PROTOCOL}"),
        )
        .with_hint("bring both to the same release of arpanet2"),
        Fault::WrongPassword => wrong_password(seed),
        Fault::Closed | Fault::Io(_) => {
            error(ErrorKind::Unavailable, format!("the seed at {at} closed the connection"))
                .with_hint(format!(
                    "is that arpanet2, and the right port? if it is, it may be stopping or overloaded: ask arpanet2 status on the seed {}",
                    seed.node
                ))
                .with_source(fault)
        }
        fault => error(ErrorKind::Incompatible, format!("the seed at {at} said what no arpanet2 node says"))
            .with_source(fault),
    }
}

fn wrong_password(seed: Seed) -> Error {
    error(
        ErrorKind::Unauthenticated,
        format!(
            "the password is wrong: node {} at {} does not accept it",
            seed.node,
            place(seed.endpoint)
        ),
    )
    .with_hint("use the password that the cluster was booted with")
}

/// The seed accepts the proof and can't give its own.
pub(crate) fn impostor(seed: Seed) -> Fault {
    Fault::Told(
        error(
            ErrorKind::Unauthenticated,
            format!(
                "what answers at {} does not know the cluster's password",
                place(seed.endpoint)
            ),
        )
        .with_hint("somebody may be in between; is the seed's address right?"),
    )
}

/// Another node answers where the seed was meant.
pub(crate) fn another_node(seed: Seed, node: NodeAddr) -> Fault {
    Fault::Told(
        error(
            ErrorKind::InvalidInput,
            format!(
                "node {node} answers at {}, not {}",
                place(seed.endpoint),
                seed.node
            ),
        )
        .with_hint(format!(
            "name {node} as the seed, or give the ip of {}",
            seed.node
        )),
    )
}

/// The seed is a client.
pub(crate) fn admits_nobody(seed: Seed, servers: &[(NodeAddr, SocketAddr)]) -> Fault {
    let mut hint = String::from("name a boot or server node as the seed");
    for (index, (node, endpoint)) in servers.iter().enumerate() {
        let lead = if index == 0 { ": " } else { ", " };
        let _ = write!(hint, "{lead}{node} at {endpoint}");
    }
    Fault::Told(
        error(
            ErrorKind::PermissionDenied,
            format!(
                "node {} at {} is a client and admits nobody",
                seed.node,
                place(seed.endpoint)
            ),
        )
        .with_hint(hint),
    )
}

/// The seed counts too many wrong guesses.
pub(crate) fn too_many_guesses(seed: Seed, wait: Duration) -> Fault {
    let seconds = wait.as_secs().clamp(1, 3600);
    Fault::Told(
        error(
            ErrorKind::Unavailable,
            format!(
                "the seed at {} has had too many wrong passwords and hears no more for {seconds} s",
                place(seed.endpoint)
            ),
        )
        .with_hint(format!("try again in {seconds} s")),
    )
}

/// The seed asks for a hash that nobody should compute.
pub(crate) fn absurd_kdf(seed: Seed, source: Error) -> Fault {
    Fault::Told(
        error(
            ErrorKind::Incompatible,
            format!(
                "the seed at {} asks for a password hash that costs too much or too little",
                place(seed.endpoint)
            ),
        )
        .with_source(source),
    )
}

/// What the seed yields does not hold together.
pub(crate) fn unsound(seed: Seed, what: &str) -> Fault {
    Fault::Told(error(
        ErrorKind::Incompatible,
        format!(
            "the seed at {} admitted this node, but {what}",
            place(seed.endpoint)
        ),
    ))
}

/// The names of kinds on the wire; unknown ones are internal errors of the seed.
const KINDS: [(&str, ErrorKind); 13] = [
    ("not_found", ErrorKind::NotFound),
    ("already_exists", ErrorKind::AlreadyExists),
    ("conflict", ErrorKind::Conflict),
    ("invalid_input", ErrorKind::InvalidInput),
    ("unauthenticated", ErrorKind::Unauthenticated),
    ("permission_denied", ErrorKind::PermissionDenied),
    ("unavailable", ErrorKind::Unavailable),
    ("timeout", ErrorKind::Timeout),
    ("unsupported", ErrorKind::Unsupported),
    ("incompatible", ErrorKind::Incompatible),
    ("corrupt", ErrorKind::Corrupt),
    ("exhausted", ErrorKind::Exhausted),
    ("internal", ErrorKind::Internal),
];

pub(crate) fn kind_name(kind: ErrorKind) -> &'static str {
    KINDS
        .iter()
        .find(|(_, known)| *known == kind)
        .map_or("internal", |(name, _)| name)
}

pub(crate) fn kind_named(name: &str) -> ErrorKind {
    KINDS
        .iter()
        .find(|(known, _)| *known == name)
        .map_or(ErrorKind::Internal, |(_, kind)| *kind)
}
