//! What can be set.

use std::ffi::OsString;
use std::path::PathBuf;

/// The command line that starts a holder: the embedding program itself, as a rule, with an argument by which it knows
/// that it is to call [`holder::main`](crate::holder::main) with the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HolderCommand {
    /// The program.
    pub program: PathBuf,
    /// Its first arguments.
    pub args: Vec<OsString>,
}

impl HolderCommand {
    /// This program with these first arguments.
    pub fn new<S: Into<OsString>>(
        program: impl Into<PathBuf>,
        args: impl IntoIterator<Item = S>,
    ) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
        }
    }
}

/// Where a lab keeps its files, and how its holders start.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LabConfig {
    /// The lab's folder: made by `up`, removed by `down`. One lab a folder.
    pub folder: PathBuf,
    /// How holders start.
    pub holder: HolderCommand,
    /// Whether each host has a docker engine of its own, with the lab's image.
    pub docker: bool,
}

impl LabConfig {
    /// A lab in this folder, without docker.
    pub fn new(folder: impl Into<PathBuf>, holder: HolderCommand) -> Self {
        Self {
            folder: folder.into(),
            holder,
            docker: false,
        }
    }

    /// With a docker engine in each host that `up` makes.
    #[must_use]
    pub const fn docker(mut self, docker: bool) -> Self {
        self.docker = docker;
        self
    }
}
