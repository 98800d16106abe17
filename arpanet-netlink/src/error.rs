//! The kernel's error numbers as the kinds of arpanet-core.

use std::io;

use arpanet_core::{Error, ErrorKind};

const BACKEND: &str = "arpanet-netlink";

/// The kind of an operating system error.
fn kind(error: &io::Error) -> ErrorKind {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENXIO) => {
            ErrorKind::NotFound
        }
        Some(libc::EEXIST) => ErrorKind::AlreadyExists,
        Some(libc::EPERM | libc::EACCES | libc::EROFS) => ErrorKind::PermissionDenied,
        Some(libc::EBUSY | libc::EADDRINUSE) => ErrorKind::Conflict,
        Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::ENOSYS) => ErrorKind::Unsupported,
        Some(
            libc::ENOSPC
            | libc::EDQUOT
            | libc::EMFILE
            | libc::ENFILE
            | libc::ENOMEM
            | libc::ENOBUFS,
        ) => ErrorKind::Exhausted,
        Some(libc::EINVAL | libc::ERANGE | libc::ENETUNREACH) => ErrorKind::InvalidInput,
        _ => ErrorKind::Internal,
    }
}

/// `message`, because of `source`.
pub(crate) fn system(
    operation: &'static str,
    message: impl Into<String>,
    source: io::Error,
) -> Error {
    let kind = kind(&source);
    let error = Error::new(kind, message)
        .operation(operation)
        .backend(BACKEND);
    let error = match kind {
        ErrorKind::PermissionDenied => {
            error.with_hint("this needs root, or a user namespace of one's own")
        }
        _ => error,
    };
    error.with_source(source)
}

/// An error that no system call reported.
pub(crate) fn own(operation: &'static str, kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(kind, message)
        .operation(operation)
        .backend(BACKEND)
}
