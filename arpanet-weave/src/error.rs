//! Failures of the router as errors of this backend.

use std::error::Error as StdError;
use std::io;

use arpanet_core::{Error, ErrorKind};
use reqwest::StatusCode;

pub(crate) const BACKEND: &str = "weave";

/// An error of this backend.
pub(crate) fn own(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(kind, message).backend(BACKEND)
}

/// An error of the system below.
pub(crate) fn system(message: impl Into<String>, error: io::Error) -> Error {
    let kind = match error.kind() {
        _ if error.raw_os_error() == Some(libc::ENODEV) => ErrorKind::NotFound,
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Internal,
    };
    own(kind, message).with_source(error)
}

/// What an answer other than a good one means.
pub(crate) fn answered(at: &str, status: StatusCode, body: &str) -> Error {
    let kind = match status.as_u16() {
        400 => ErrorKind::InvalidInput,
        404 | 405 | 501 => ErrorKind::Incompatible,
        503 => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    own(kind, sentence(at, status, body))
}

/// The router's words as one sentence.
fn sentence(at: &str, status: StatusCode, body: &str) -> String {
    let words = Error::words(body);
    if words.is_empty() {
        let status = status.as_u16();
        return format!("the weave router at {at} answers {status} and does not say why");
    }
    format!("the weave router at {at} says: {words}")
}

/// What is there, but is no weave router, or one of another time.
pub(crate) fn unreadable(at: &str, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    own(
        ErrorKind::Incompatible,
        format!("what answers at {at} does not answer as a weave router does"),
    )
    // It may repeat what was answered.
    .with_source(Error::words(&cause.into().to_string()))
    .with_hint("weave 2.8 and 2.9 are known to work")
}

/// No answer at all, or half of one.
pub(crate) fn unanswered(at: &str, failure: reqwest::Error) -> Error {
    if failure.is_timeout() {
        return own(
            ErrorKind::Timeout,
            format!("the weave router at {at} takes too long to answer"),
        )
        .with_source(failure);
    }
    let is_half = failure.is_body() || failure.is_decode();
    let what = if is_half {
        "broke off in the middle of an answer"
    } else {
        "does not answer"
    };
    own(
        ErrorKind::Unavailable,
        format!("the weave router at {at} {what}"),
    )
    .with_source(failure)
}

/// Whether nobody is there: nothing listens, or there is not even a socket.
pub(crate) fn is_nobody(error: &Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            );
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_router_says_is_told_in_one_line_that_has_an_end() {
        let said = format!("a \u{1b}[2J\n{}", "x".repeat(10_000));
        let told = Error::words(&said);
        assert!(told.starts_with("a [2J x") && told.len() == 300, "{told}");
        let error = unreadable("there", said);
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.len() == 300 && !cause.contains('\u{1b}'), "{cause}");
    }

    #[test]
    fn an_answer_has_its_kind_and_the_words_of_the_router() {
        for (status, kind) in [
            (400, ErrorKind::InvalidInput),
            (404, ErrorKind::Incompatible),
            (500, ErrorKind::Internal),
            (503, ErrorKind::Unavailable),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = answered("127.0.0.1:6784", status, "invalid\n peer name.");
            assert_eq!(error.kind(), kind);
            assert_eq!(
                error.to_string(),
                "the weave router at 127.0.0.1:6784 says: invalid peer name"
            );
            assert!(
                answered("there", status, " ")
                    .to_string()
                    .contains(status.as_str())
            );
        }
    }
}
