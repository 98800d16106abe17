//! Consul's failures as errors of this backend.
//!
//! Consul tells most of them as status 500 and a sentence, so the sentences are read here, and nowhere else.

use std::error::Error as StdError;
use std::io;

use arpanet_core::{Error, ErrorKind};
use hyper::StatusCode;
use tokio_rustls::rustls;

pub(crate) const BACKEND: &str = "consul";

/// An error of this backend.
pub(crate) fn own(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(kind, message).backend(BACKEND)
}

/// What consul says while there is no leader, on the way to it, and before it has everything.
const LEADERLESS: [&str; 14] = [
    "No cluster leader",
    "No known Consul servers",
    "node is not the leader",
    "leadership lost",
    "leadership transfer",
    "Raft leader not found",
    "not ready to serve consistent reads",
    "raft is already shutdown",
    "Failed to confirm leadership",
    "rpc error",
    "stream closed",
    "i/o timeout",
    // Its own node is not in the catalogue yet.
    "Missing node registration",
    "Missing check 'serfHealth' registration",
];

/// What to do when agents refuse each other.
pub(crate) const CERTIFICATES: &str = "one authority must have signed the certificates of all agents, and a server's must have the name server.DATACENTER.DOMAIN";

/// Whether consul says that agents do not believe each other's certificates.
pub(crate) fn is_about_certificates(said: &str) -> bool {
    said.contains("x509:")
        || said.contains("tls: bad certificate")
        || said.contains("tls: certificate required")
}

/// What consul says of what is not there, where it says so with status 500.
const MISSING: [&str; 4] = [
    "does not have associated TTL",
    "Unknown check",
    "Unknown service",
    "No node found",
];

/// What consul says of input, where it says so with status 500.
const INVALID: [&str; 5] = [
    "Invalid Session TTL",
    "Invalid service",
    "Invalid check",
    "Must provide",
    "too large",
];

/// What an answer other than a good one means.
pub(crate) fn answered(at: &str, status: StatusCode, body: &str) -> Error {
    let says = |needle: &str| body.contains(needle);
    // What goes wrong between agents comes as an answer of this node's.
    let is_certificate = is_about_certificates(body);
    // What comes from another server arrives as an "rpc error" with that server's words: those come first.
    let kind = match status.as_u16() {
        401 | 403 if says("ACL not found") => ErrorKind::Unauthenticated,
        500 if is_certificate => ErrorKind::Unauthenticated,
        500 if says("wrong datacenter") => ErrorKind::Incompatible,
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::PermissionDenied,
        400 if says("HTTP request to an HTTPS server") => ErrorKind::Incompatible,
        404 => ErrorKind::NotFound,
        400 | 413 => ErrorKind::InvalidInput,
        405 | 501 => ErrorKind::Unsupported,
        408 | 504 => ErrorKind::Timeout,
        409 => ErrorKind::Conflict,
        429 | 502 | 503 => ErrorKind::Unavailable,
        _ if says("ACL not found") => ErrorKind::Unauthenticated,
        _ if says("Permission denied") => ErrorKind::PermissionDenied,
        _ if MISSING.iter().any(|needle| says(needle)) => ErrorKind::NotFound,
        _ if INVALID.iter().any(|needle| says(needle)) => ErrorKind::InvalidInput,
        _ if LEADERLESS.iter().any(|needle| says(needle)) => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    let error = own(kind, sentence(at, status, body));
    match kind {
        ErrorKind::Unauthenticated if is_certificate => error.with_hint(CERTIFICATES),
        ErrorKind::Unauthenticated => {
            error.with_hint("the ACL token is none that this consul knows")
        }
        ErrorKind::PermissionDenied => {
            error.with_hint("the ACL token, or the anonymous one where none is set, may not do it")
        }
        ErrorKind::Incompatible if says("wrong datacenter") => {
            error.with_hint("all agents of a cluster are in the same datacenter")
        }
        ErrorKind::Incompatible => error.with_hint("say https:// in the address"),
        ErrorKind::Unavailable if says("No cluster leader") => {
            error.with_hint("consul answers again once most of its servers reach each other")
        }
        _ => error,
    }
}

/// Consul's words as one sentence.
fn sentence(at: &str, status: StatusCode, body: &str) -> String {
    let words = Error::words(body);
    if words.is_empty() {
        return format!(
            "consul at {at} answers {} and does not say why",
            status.as_u16()
        );
    }
    format!("consul at {at} says: {words}")
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no connection can be made")]
    Connect(#[source] io::Error),
    #[error("the connection ended before the answer")]
    Http(#[from] hyper::Error),
    #[error("the request can't be written")]
    Request(#[from] hyper::http::Error),
    #[error("no answer in time")]
    TooLong,
    #[error("the answer has no end")]
    TooLarge,
}

/// No answer at all, or half of one.
pub(crate) fn unanswered(at: &str, failure: Failure) -> Error {
    if let Some(why) = certificate_fault(&failure) {
        return own(
            ErrorKind::Unauthenticated,
            format!("consul at {at} and this node do not trust each other's certificates: {why}"),
        )
        .with_source(failure)
        .with_hint("tls.ca must have signed consul's certificate, and tls.server_name be its name; consul may want a certificate of this node's too");
    }
    if matches!(failure, Failure::TooLong) {
        return own(
            ErrorKind::Timeout,
            format!("consul at {at} takes too long to answer"),
        );
    }
    if matches!(failure, Failure::TooLarge) {
        return unreadable(at, failure);
    }
    if cause::<rustls::Error>(&failure).is_some() {
        return own(
            ErrorKind::Incompatible,
            format!("what is at {at} does not speak TLS as this node does"),
        )
        .with_source(failure)
        .with_hint("consul's HTTPS port is another than its HTTP port");
    }
    if cause::<io::Error>(&failure)
        .is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    {
        return own(
            ErrorKind::PermissionDenied,
            format!("consul's socket {at} may not be used"),
        )
        .with_source(failure)
        .with_hint("run as root, or as the socket's owner");
    }
    own(
        ErrorKind::Unavailable,
        format!("consul at {at} does not answer"),
    )
    .with_source(failure)
    .with_hint("is its agent running, and is this its address?")
}

/// What is wrong with a certificate, consul's or this node's.
fn certificate_fault(failure: &Failure) -> Option<String> {
    use rustls::{AlertDescription as Alert, Error as Tls};
    match cause::<Tls>(failure)? {
        Tls::InvalidCertificate(why) => Some(format!("{why:?}")),
        Tls::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::CertificateRequired
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::UnknownCA
            | Alert::DecryptError
            | Alert::AccessDenied),
        ) => Some(format!("{alert:?}")),
        _ => None,
    }
}

/// The first cause of this type. An I/O error may hold its cause instead of naming it as its source.
fn cause<E: StdError + 'static>(failure: &Failure) -> Option<&E> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(failure);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(|error| error.get_ref())
        {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}

/// An answer that can't be read.
pub(crate) fn unreadable(at: &str, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    own(
        ErrorKind::Incompatible,
        format!("consul at {at} answers what can't be read"),
    )
    // It may repeat what was answered.
    .with_source(Error::words(&cause.into().to_string()))
    .with_hint("is a consul agent's HTTP port there?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16, body: &str) -> ErrorKind {
        answered(
            "127.0.0.1:8500",
            StatusCode::from_u16(status).unwrap(),
            body,
        )
        .kind()
    }

    #[test]
    fn what_consul_says_has_its_kind() {
        for (status, body, wanted) in [
            (500, "No cluster leader", ErrorKind::Unavailable),
            (500, "rpc error making call: EOF", ErrorKind::Unavailable),
            (
                500,
                "rpc error making call: ACL not found",
                ErrorKind::Unauthenticated,
            ),
            (
                500,
                "rpc error making call: Invalid Session TTL '1', must be between [10s=24h0m0s]",
                ErrorKind::InvalidInput,
            ),
            (
                500,
                "leadership lost while committing log",
                ErrorKind::Unavailable,
            ),
            (429, "", ErrorKind::Unavailable),
            (
                500,
                "1 error occurred: * Failed to join 10.253.0.1: Member 'node1' part of wrong datacenter 'east'",
                ErrorKind::Incompatible,
            ),
            (
                500,
                "rpc error getting client: failed to get conn: x509: certificate signed by unknown authority",
                ErrorKind::Unauthenticated,
            ),
            (403, "ACL not found", ErrorKind::Unauthenticated),
            (403, "Permission denied", ErrorKind::PermissionDenied),
            (
                403,
                "Permission denied: token with AccessorID '00000000-0000-0000-0000-000000000002' lacks permission 'key:write' on \"a\"",
                ErrorKind::PermissionDenied,
            ),
            (
                500,
                "Invalid Session TTL '1000000', must be between [10s=24h0m0s]",
                ErrorKind::InvalidInput,
            ),
            (
                413,
                "Request body(1) too large, max size: 0 bytes.",
                ErrorKind::InvalidInput,
            ),
            (
                500,
                "CheckID \"nix\" does not have associated TTL",
                ErrorKind::NotFound,
            ),
            (
                404,
                "Unknown check ID \"nix\". Ensure that the check ID is passed, not the check name.",
                ErrorKind::NotFound,
            ),
            (
                400,
                "Client sent an HTTP request to an HTTPS server.",
                ErrorKind::Incompatible,
            ),
            (500, "something else", ErrorKind::Internal),
        ] {
            assert_eq!(kind(status, body), wanted, "{status} {body}");
        }
    }

    #[test]
    fn an_answer_is_one_sentence_with_consuls_words() {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let error = answered("127.0.0.1:8500", status, "No cluster\n leader.");
        assert_eq!(
            error.to_string(),
            "consul at 127.0.0.1:8500 says: No cluster leader"
        );
        assert!(
            answered("127.0.0.1:8500", status, "")
                .to_string()
                .contains("500")
        );
    }
}
