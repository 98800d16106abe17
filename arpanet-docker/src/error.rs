//! Failures of the engine as errors of this backend.

use std::error::Error as StdError;
use std::io;
use std::path::Path;

use arpanet_core::{Error, ErrorKind};
use bollard::errors::Error as Failure;

pub(crate) const BACKEND: &str = "docker";

/// An error of this backend.
pub(crate) fn own(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(kind, message).backend(BACKEND)
}

/// What the engine at this socket answered, or why it did not.
pub(crate) fn engine(socket: &Path, failure: Failure) -> Error {
    match failure {
        Failure::DockerResponseServerError {
            status_code,
            message,
        } => own(
            kind_of(status_code, &message),
            sentence(&message, status_code),
        ),
        Failure::DockerStreamError { error } => own(ErrorKind::Internal, sentence(&error, 500)),
        Failure::RequestTimeoutError => own(
            ErrorKind::Timeout,
            format!("the engine at {} takes too long", socket.display()),
        ),
        Failure::JsonDataError { .. } | Failure::JsonSerdeError { .. } => own(
            ErrorKind::Incompatible,
            format!(
                "the engine at {} answers what can't be read",
                socket.display()
            ),
        )
        .with_source(failure),
        Failure::APIVersionParseError {} => own(
            ErrorKind::Incompatible,
            format!("what listens at {} is no docker engine", socket.display()),
        ),
        Failure::SocketNotFoundError(_) => out_of_reach(socket, None),
        failure => {
            let cause = io_cause(&failure);
            out_of_reach(socket, cause).with_source(failure)
        }
    }
}

/// Nobody could be asked at this socket.
pub(crate) fn unreachable(socket: &Path, source: io::Error) -> Error {
    out_of_reach(socket, Some(source.kind())).with_source(source)
}

/// No answer at all, or half of one.
fn out_of_reach(socket: &Path, cause: Option<io::ErrorKind>) -> Error {
    let at = socket.display();
    if cause == Some(io::ErrorKind::PermissionDenied) {
        return own(
            ErrorKind::PermissionDenied,
            format!("the engine's socket {at} may not be used"),
        )
        .with_hint("run as root, or as a member of the socket's group");
    }
    own(
        ErrorKind::Unavailable,
        format!("the docker engine at {at} does not answer"),
    )
    .with_hint("is it running, and is this its socket? systemctl status docker")
}

/// What Podman says under one status for all, where docker has one for each.
const WORDS: [(&str, ErrorKind); 5] = [
    ("is already in use", ErrorKind::Conflict),
    ("container state improper", ErrorKind::Conflict),
    (
        "attempted to invoke a command that was not found",
        ErrorKind::InvalidInput,
    ),
    ("executable file not found", ErrorKind::InvalidInput),
    ("OCI permission denied", ErrorKind::InvalidInput),
];

fn kind_of(status: u16, message: &str) -> ErrorKind {
    match status {
        500 => {
            let known = WORDS.iter().find(|(words, _)| message.contains(words));
            known.map_or(ErrorKind::Internal, |(_, kind)| *kind)
        }
        400 => ErrorKind::InvalidInput,
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::PermissionDenied,
        404 => ErrorKind::NotFound,
        408 | 504 => ErrorKind::Timeout,
        409 => ErrorKind::Conflict,
        405 | 501 => ErrorKind::Unsupported,
        502 | 503 => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

/// The engine's words as one sentence.
fn sentence(message: &str, status: u16) -> String {
    let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let words = words.trim_end_matches('.');
    if words.is_empty() {
        return format!("the engine answers {status} and does not say why");
    }
    format!("the engine says: {words}")
}

fn io_cause(failure: &Failure) -> Option<io::ErrorKind> {
    // It stands for its cause, which is no source of it then.
    if let Failure::IOError { err } = failure {
        return Some(err.kind());
    }
    let mut cause: Option<&(dyn StdError + 'static)> = Some(failure);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status_code: u16, message: &str) -> Error {
        let message = message.to_owned();
        engine(
            Path::new("/run/docker.sock"),
            Failure::DockerResponseServerError {
                status_code,
                message,
            },
        )
    }

    #[test]
    fn an_answer_has_its_kind_and_the_words_of_the_engine() {
        for (status, kind) in [
            (400, ErrorKind::InvalidInput),
            (404, ErrorKind::NotFound),
            (409, ErrorKind::Conflict),
            (500, ErrorKind::Internal),
            (503, ErrorKind::Unavailable),
        ] {
            let error = answered(status, "No such\n thing.");
            assert_eq!(error.kind(), kind);
            assert_eq!(error.to_string(), "the engine says: No such thing");
        }
        for (words, kind) in [
            (
                "the container name \"w1\" is already in use by 94",
                ErrorKind::Conflict,
            ),
            (
                "can only create exec sessions on running containers: container state improper",
                ErrorKind::Conflict,
            ),
            (
                "runc: exec: \"/no\": OCI runtime attempted to invoke a command that was not found",
                ErrorKind::InvalidInput,
            ),
        ] {
            assert_eq!(answered(500, words).kind(), kind, "{words}");
        }
        assert!(answered(500, "").to_string().contains("500"));
    }

    #[test]
    fn a_socket_that_is_not_there_is_named_with_a_way_out() {
        let missing = Failure::SocketNotFoundError("/run/docker.sock".to_owned());
        let error = engine(Path::new("/run/docker.sock"), missing);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("/run/docker.sock"));
        assert!(error.hint().is_some());
    }

    #[test]
    fn a_socket_of_somebody_else_is_no_engine_that_is_down() {
        let err = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = engine(Path::new("/run/docker.sock"), Failure::IOError { err });
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    }
}
