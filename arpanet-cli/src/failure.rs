//! How a failure is told: one sentence, its causes, a hint, and an exit code.

use std::io::Write;
use std::process::ExitCode;

use arpanet_core::{Error, ErrorKind};
use clap::error::ContextKind;
use serde::{Deserialize, Serialize};

/// A failure as it travels from the agent to the command, and as the user sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// Machine-readable, in kebab case.
    pub(crate) kind: String,
    /// One sentence.
    pub(crate) message: String,
    /// From the nearest to the root.
    pub(crate) causes: Vec<String>,
    /// What the user can do.
    pub(crate) hint: Option<String>,
}

/// What another run of this program said of its failure on standard error.
pub(crate) fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let text = text.trim_end();
    text.strip_prefix("error: ").unwrap_or(text).to_owned()
}

const KINDS: &[(ErrorKind, &str)] = &[
    (ErrorKind::NotFound, "not-found"),
    (ErrorKind::AlreadyExists, "already-exists"),
    (ErrorKind::Conflict, "conflict"),
    (ErrorKind::InvalidInput, "invalid-input"),
    (ErrorKind::Unauthenticated, "unauthenticated"),
    (ErrorKind::PermissionDenied, "permission-denied"),
    (ErrorKind::Unavailable, "unavailable"),
    (ErrorKind::Timeout, "timeout"),
    (ErrorKind::Unsupported, "unsupported"),
    (ErrorKind::Incompatible, "incompatible"),
    (ErrorKind::Corrupt, "corrupt"),
    (ErrorKind::Exhausted, "exhausted"),
];

/// What to do about a full disk.
const FULL: &str = "the disk is full: make room there and try again";

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let kind = KINDS
            .iter()
            .find(|(kind, _)| *kind == error.kind())
            .map_or("internal", |(_, name)| name);
        let mut causes = Vec::new();
        let mut full = false;
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            let io = error.downcast_ref::<std::io::Error>();
            full |= io.is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull);
            causes.push(error.to_string());
            cause = error.source();
        }
        Self {
            kind: kind.to_owned(),
            message: error.to_string(),
            causes,
            // The layers below know the file, and not whether there is anything to be done.
            hint: error.hint().or(full.then_some(FULL)).map(str::to_owned),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let kind = KINDS
            .iter()
            .find(|(_, name)| *name == failure.kind)
            .map_or(ErrorKind::Internal, |(kind, _)| *kind);
        // Rebuilt from the root outwards, so that the chain reads as it did where it happened.
        let mut sentences = failure.causes.into_iter().rev();
        let error = match sentences.next() {
            Some(root) => sentences
                .fold(Self::new(kind, root), |error, sentence| {
                    error.context(sentence)
                })
                .context(failure.message),
            None => Self::new(kind, failure.message),
        };
        match failure.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

/// A wrong use of the command line.
pub(crate) fn usage(message: impl Into<String>, hint: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, message).with_hint(hint)
}

/// Tells the failure on standard error. Usage errors exit with 2, all others with 1.
pub(crate) fn report(error: &Error) -> ExitCode {
    let failure = Failure::from(error);
    let mut err = anstream::stderr().lock();
    let red = anstyle(owo_colors::AnsiColors::Red);
    // Nobody to tell when standard error is closed.
    let _ = writeln!(
        err,
        "{}: {}",
        owo_colors::OwoColorize::style(&"error", red),
        failure.message
    );
    for cause in &failure.causes {
        let _ = writeln!(err, "caused by: {cause}");
    }
    if let Some(hint) = &failure.hint {
        let _ = writeln!(
            err,
            "{}: {hint}",
            owo_colors::OwoColorize::style(&"hint", anstyle(owo_colors::AnsiColors::Cyan))
        );
    }
    ExitCode::from(if error.kind() == ErrorKind::InvalidInput {
        2
    } else {
        1
    })
}

/// Tells what is wrong with the command line, and exits as clap would. A value that one of arpanet2's own types refused is
/// told as that type does, with its hint, which clap knows nothing of.
pub(crate) fn misuse(error: &clap::Error) -> ExitCode {
    let ours = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Error>());
    let Some(ours) = ours else {
        error.exit();
    };
    let place = error.get(ContextKind::InvalidArg).map(ToString::to_string);
    let Failure { message, hint, .. } = Failure::from(ours);
    let message = match place {
        Some(place) => format!("{place}: {message}"),
        None => message,
    };
    let told = Error::new(ErrorKind::InvalidInput, message);
    report(&match hint {
        Some(hint) => told.with_hint(hint),
        None => told.with_hint("--help shows what goes there"),
    })
}

fn anstyle(color: owo_colors::AnsiColors) -> owo_colors::Style {
    owo_colors::Style::new().color(color).bold()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_way_from_the_agent() {
        let error = Error::new(ErrorKind::Timeout, "no answer")
            .context("the seed can't be reached")
            .context("could not join the cluster")
            .with_hint("open port 51820/tcp");
        let told = Failure::from(&error);
        let json = serde_json::to_string(&told).unwrap();
        let back = Error::from(serde_json::from_str::<Failure>(&json).unwrap());
        assert_eq!(Failure::from(&back), told);
        assert_eq!(back.kind(), ErrorKind::Timeout);
    }
}
