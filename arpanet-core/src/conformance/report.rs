//! What a suite found.

use std::fmt;

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The contract is kept.
    Kept,
    /// It was not checked: the backend or the rig can't do what it needs. Says what.
    Skipped(&'static str),
    /// The contract is broken. Says what was seen instead.
    Broken(String),
}

/// One check and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    name: &'static str,
    sentence: &'static str,
    outcome: Outcome,
}

impl CheckReport {
    pub(super) const fn new(name: &'static str, sentence: &'static str, outcome: Outcome) -> Self {
        Self {
            name,
            sentence,
            outcome,
        }
    }

    /// The check's name, alone in its suite.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The sentence of the contract that it is about.
    #[must_use]
    pub const fn sentence(&self) -> &'static str {
        self.sentence
    }

    /// How it ended.
    #[must_use]
    pub const fn outcome(&self) -> &Outcome {
        &self.outcome
    }
}

/// What a suite found out about a backend. Printed, it lists what is broken and what was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a report that nobody reads proves nothing"]
pub struct Report {
    suite: &'static str,
    backend: &'static str,
    checks: Vec<CheckReport>,
}

impl Report {
    pub(super) const fn new(
        suite: &'static str,
        backend: &'static str,
        checks: Vec<CheckReport>,
    ) -> Self {
        Self {
            suite,
            backend,
            checks,
        }
    }

    /// All checks, in the order in which they ran.
    #[must_use]
    pub fn checks(&self) -> &[CheckReport] {
        &self.checks
    }

    /// The checks that found the contract broken.
    pub fn broken(&self) -> impl Iterator<Item = &CheckReport> {
        self.checks
            .iter()
            .filter(|check| matches!(check.outcome, Outcome::Broken(_)))
    }

    /// The checks that were skipped.
    pub fn skipped(&self) -> impl Iterator<Item = &CheckReport> {
        self.checks
            .iter()
            .filter(|check| matches!(check.outcome, Outcome::Skipped(_)))
    }

    /// Ends a test that should have found the contract kept.
    ///
    /// # Panics
    /// When it is broken, with the whole report.
    #[track_caller]
    pub fn assert_kept(&self) {
        assert!(self.broken().next().is_none(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (broken, skipped) = (self.broken().count(), self.skipped().count());
        writeln!(
            f,
            "{} on {}: {} kept, {broken} broken, {skipped} skipped",
            self.suite,
            self.backend,
            self.checks.len() - broken - skipped
        )?;
        for check in &self.checks {
            match &check.outcome {
                Outcome::Kept => {}
                Outcome::Skipped(why) => writeln!(f, "  skipped {}: {why}", check.name)?,
                Outcome::Broken(seen) => writeln!(
                    f,
                    "  broken  {}: \"{}\"\n          {seen}",
                    check.name, check.sentence
                )?,
            }
        }
        Ok(())
    }
}
