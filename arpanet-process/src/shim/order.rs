//! What a shim and the first process of its container say to each other, a line of JSON each.

use serde::{Deserialize, Serialize};

use crate::wire::Refusal;

/// From the shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// Run the command.
    Start,
    /// Ask the command to end: SIGTERM.
    Terminate,
}

/// From the first process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// All is made; the command can be started.
    Ready,
    /// Something could not be made.
    Refused(Refusal),
    /// The command runs.
    Started,
    /// The command can't be started: its exit code, as a shell has it, and why.
    Failed { code: i32, message: String },
    /// The command has ended, and all that it started.
    Ended { code: i32 },
}
