//! Failures of the system as errors of this backend.

use std::io;
use std::path::Path;

use arpanet_core::{Error, ErrorKind};

pub(crate) const BACKEND: &str = "process";

/// An error of this backend.
pub(crate) fn own(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(kind, message).backend(BACKEND)
}

/// A failure of the system.
pub(crate) fn system(message: impl Into<String>, error: impl Into<io::Error>) -> Error {
    let error = error.into();
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::FileTooLarge
        | io::ErrorKind::OutOfMemory => ErrorKind::Exhausted,
        io::ErrorKind::TimedOut => ErrorKind::Timeout,
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    own(kind, format!("{}: {error}", message.into())).with_source(error)
}

/// A failure at a file. What is missing there is a broken state, not something that was asked for.
pub(crate) fn at_file(what: &str, path: &Path, error: impl Into<io::Error>) -> Error {
    let error = error.into();
    let message = format!("{} {what}", path.display());
    if error.kind() == io::ErrorKind::NotFound {
        return own(ErrorKind::Internal, format!("{message}: {error}")).with_source(error);
    }
    system(message, error)
}
