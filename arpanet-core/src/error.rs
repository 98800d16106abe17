//! Errors: what went wrong, whether trying again can help, where, and why.

use std::error::Error as StdError;
use std::fmt;

/// The result of every fallible operation in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Retry logic and exit codes read this, never a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for is not there.
    NotFound,
    /// It is there already, and differs from what was asked for.
    AlreadyExists,
    /// Somebody else holds it, or it changed meanwhile.
    Conflict,
    /// The caller's input can't be used.
    InvalidInput,
    /// The password, key or token is wrong.
    Unauthenticated,
    /// Known, but not allowed to do this.
    PermissionDenied,
    /// A peer, engine or daemon can't be reached, or is not ready.
    Unavailable,
    /// It took longer than the time it was given.
    Timeout,
    /// This backend can't do it, and never will in this configuration.
    Unsupported,
    /// The other side speaks another protocol or a version that does not fit.
    Incompatible,
    /// Stored state can't be read as what it should be.
    Corrupt,
    /// A disk, table or range is full.
    Exhausted,
    /// Everything else: a broken invariant, or a fault of the system below.
    Internal,
}

impl ErrorKind {
    /// Whether the same call can succeed later with nothing else changed.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Timeout)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::Conflict => "conflict",
            Self::InvalidInput => "invalid input",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission denied",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timed out",
            Self::Unsupported => "unsupported",
            Self::Incompatible => "incompatible",
            Self::Corrupt => "corrupt",
            Self::Exhausted => "exhausted",
            Self::Internal => "internal error",
        })
    }
}

/// An error of a backend or of the cluster logic.
///
/// `Display` is one sentence. The causes are in the [`source`](StdError::source) chain and are not
/// repeated in it; a way out, where one is known, is in [`hint`](Error::hint).
///
/// ```
/// use arpanet_core::{Error, ErrorKind};
/// let error = Error::new(ErrorKind::Unavailable, "no answer from 192.168.8.120:51820")
///     .operation("join")
///     .backend("arpanet-join")
///     .with_hint("is port 51820/tcp open there?");
/// assert!(error.is_retryable());
/// assert_eq!(error.to_string(), "no answer from 192.168.8.120:51820");
/// assert_eq!(error.hint(), Some("is port 51820/tcp open there?"));
/// ```
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    operation: Option<&'static str>,
    backend: Option<&'static str>,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this kind, told in one sentence without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            operation: None,
            backend: None,
            hint: None,
            source: None,
        }))
    }

    /// [`ErrorKind::Unsupported`] for `operation` of `backend`.
    #[must_use]
    pub fn unsupported(backend: &'static str, operation: &'static str) -> Self {
        Self::new(
            ErrorKind::Unsupported,
            format!("{backend} can't {operation}"),
        )
        .operation(operation)
        .backend(backend)
    }

    /// Names the operation, unless an inner layer has named one.
    #[must_use]
    pub fn operation(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Names the backend, unless an inner layer has named one.
    #[must_use]
    pub fn backend(mut self, backend: &'static str) -> Self {
        self.0.backend.get_or_insert(backend);
        self
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Wraps this error in a sentence of a higher layer: kind, hint and names stay, this becomes the cause.
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Self {
        let mut outer = Self::new(self.kind(), message);
        outer.0.operation = self.0.operation;
        outer.0.backend = self.0.backend;
        outer.0.hint.clone_from(&self.0.hint);
        outer.0.source = Some(Box::new(self));
        outer
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call can succeed later with nothing else changed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }

    /// What another program said, as it can stand in a message: on one line, without what would move a terminal's cursor, and not
    /// more than 300 characters of it.
    ///
    /// ```
    /// assert_eq!(arpanet_core::Error::words("no\n leader \u{1b}[2J."), "no leader [2J");
    /// ```
    #[must_use]
    pub fn words(said: &str) -> String {
        const LONGEST: usize = 300;
        let words = said.split(|c: char| c.is_whitespace() || c.is_control());
        let words = words.filter(|word| !word.is_empty());
        let words = words.collect::<Vec<_>>().join(" ");
        words.trim_end_matches('.').chars().take(LONGEST).collect()
    }

    /// The operation that failed, where one was named.
    #[must_use]
    pub fn operation_name(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The backend that failed, where one was named.
    #[must_use]
    pub fn backend_name(&self) -> Option<&'static str> {
        self.0.backend
    }

    /// What the user can do about it: of this error, or of the first cause that has one.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_keeps_the_kind_and_chains_the_cause_once() {
        let error = Error::new(ErrorKind::Timeout, "no answer")
            .operation("connect")
            .with_hint("open the port")
            .context("the seed can't be reached");
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(error.hint(), Some("open the port"));
        assert_eq!(error.operation_name(), Some("connect"));
        let mut chain = vec![error.to_string()];
        let mut cause = error.source();
        while let Some(error) = cause {
            chain.push(error.to_string());
            cause = error.source();
        }
        assert_eq!(chain, ["the seed can't be reached", "no answer"]);
    }
}
