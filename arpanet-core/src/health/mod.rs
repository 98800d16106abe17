//! Whether containers should get traffic: what asks them, and what follows from their answers.
//!
//! A container's [checks](crate::runtime::Check) are asked by the node that it runs on. A [`Prober`] carries questions over
//! the network, from the router of the node; commands run in the container, by its [`Runtime`](crate::Runtime). What
//! the answers come to is decided without I/O, and every container starts out of lookups until it has passed.

mod ask;
mod judge;
mod prober;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use self::ask::Question;
pub(crate) use self::judge::{Judge, Verdict};
#[cfg(feature = "mock")]
pub use self::prober::MockProber;
pub use self::prober::{HttpAnswer, Prober};
use crate::runtime::EngineHealth;

/// How a running container is, by its own checks and its engine's: all have to be well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
#[non_exhaustive]
pub enum ContainerHealth {
    /// It gets traffic.
    Passing,
    /// It has not passed yet, is given time, and gets no traffic.
    Starting {
        /// The last failure, if there was one.
        why: Option<String>,
    },
    /// It gets no traffic.
    Failing {
        /// The last failure.
        why: String,
    },
}

impl ContainerHealth {
    /// Whether it should get traffic.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Passing)
    }

    /// What an engine's own check comes to.
    pub(crate) fn by_engine(health: EngineHealth) -> Self {
        match health {
            EngineHealth::Healthy => Self::Passing,
            EngineHealth::Starting => Self::Starting { why: None },
            EngineHealth::Unhealthy => Self::Failing {
                why: "the engine's own check fails".to_owned(),
            },
        }
    }

    /// Both together: the worse of them, and of equals the first.
    pub(crate) fn and(self, other: Self) -> Self {
        if other.rank() > self.rank() {
            other
        } else {
            self
        }
    }

    const fn rank(&self) -> u8 {
        match self {
            Self::Passing => 0,
            Self::Starting { .. } => 1,
            Self::Failing { .. } => 2,
        }
    }

    /// Whether both say the same, whatever the reason.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl fmt::Display for ContainerHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passing => f.write_str("passing"),
            Self::Starting { why: None } => f.write_str("starting"),
            Self::Starting { why: Some(why) } => write!(f, "starting: {why}"),
            Self::Failing { why } => write!(f, "failing: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_to_be_well_and_the_worst_is_told() {
        let passing = ContainerHealth::Passing;
        let starting = ContainerHealth::Starting { why: None };
        let failing = ContainerHealth::by_engine(EngineHealth::Unhealthy);
        for (one, other, both) in [
            (&passing, &passing, &passing),
            (&passing, &starting, &starting),
            (&failing, &starting, &failing),
            (&failing, &passing, &failing),
        ] {
            assert_eq!(one.clone().and(other.clone()), *both);
            assert_eq!(other.clone().and(one.clone()), *both);
        }
        assert_eq!(failing.to_string(), "failing: the engine's own check fails");
        assert!(!starting.is_passing() && passing.is_passing());
    }
}
