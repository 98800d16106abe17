//! What the engine refuses, as errors of this backend.

use std::path::Path;

use arpanet_core::{Error, ErrorKind};
use bollard::errors::Error as Engine;

pub(crate) const BACKEND: &str = "docker";

/// An error of this backend.
pub(crate) fn own(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(kind, message).backend(BACKEND)
}

/// The engine does not answer.
pub(crate) fn away(socket: &Path) -> Error {
    let message = format!("the docker engine at {} does not answer", socket.display());
    own(ErrorKind::Unavailable, message).with_hint("is it running? systemctl status docker")
}

/// What the engine said, as it is meant.
pub(crate) fn engine(socket: &Path, error: Engine) -> Error {
    match error {
        Engine::DockerResponseServerError {
            status_code,
            message,
        } => {
            let message = message.trim().to_owned();
            let kind = match status_code {
                400 => ErrorKind::InvalidInput,
                401 => ErrorKind::Unauthenticated,
                403 => ErrorKind::PermissionDenied,
                404 => ErrorKind::NotFound,
                409 => ErrorKind::Conflict,
                500 if is_no_program(&message) => ErrorKind::InvalidInput,
                500 if is_denied(&message) => ErrorKind::Unauthenticated,
                503 => ErrorKind::Unavailable,
                _ => ErrorKind::Internal,
            };
            own(kind, message)
        }
        Engine::DockerStreamError { error } => {
            let kind = if is_denied(&error) {
                ErrorKind::Unauthenticated
            } else if error.contains("not found") || error.contains("manifest unknown") {
                ErrorKind::NotFound
            } else {
                ErrorKind::Unavailable
            };
            own(kind, error)
        }
        Engine::RequestTimeoutError => own(
            ErrorKind::Timeout,
            format!("the docker engine at {} is too slow", socket.display()),
        ),
        error @ Engine::JsonDataError { .. } => {
            own(ErrorKind::Internal, "the engine's answer can't be read").with_source(error)
        }
        error => away(socket).with_source(error),
    }
}

/// As runc says that there is no such program, or none that can be run.
fn is_no_program(message: &str) -> bool {
    [
        "executable file not found",
        "no such file or directory",
        "permission denied",
        "exec format error",
    ]
    .iter()
    .any(|part| message.contains(part))
        && message.contains("exec")
}

fn is_denied(message: &str) -> bool {
    message.contains("unauthorized") || message.contains("denied")
}
