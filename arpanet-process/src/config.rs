//! What a runtime needs to know.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The command line that makes the embedding program a shim: it has to end in [`shim::main`](crate::shim::main) with all
/// arguments that follow these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimCommand {
    path: PathBuf,
    args: Vec<OsString>,
}

impl ShimCommand {
    /// A program, by its absolute path.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            args: Vec::new(),
        }
    }

    /// With this argument, before those of the runtime.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// The program.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The arguments before those of the runtime.
    #[must_use]
    pub fn args(&self) -> &[OsString] {
        &self.args
    }
}

/// The configuration of a [`ProcessRuntime`](crate::ProcessRuntime).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessConfig {
    /// Where containers are kept, each in a folder of its name. Made with mode 0700 where it is missing, as is each container's; to be on a disk
    /// that outlives a restart of the machine, and used by one runtime at a time.
    pub state_dir: PathBuf,
    /// How a shim is started.
    pub shim: ShimCommand,
    /// How many bytes of output are kept of each container; what is older than the last half of it may be gone. 64 MiB
    /// where nothing else is said. For containers that are running, from their next start on.
    pub log_limit: u64,
}

impl ProcessConfig {
    /// Containers kept in this directory, looked after by this shim.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>, shim: ShimCommand) -> Self {
        Self {
            state_dir: state_dir.into(),
            shim,
            log_limit: 64 << 20,
        }
    }

    /// Keeping this many bytes of each container's output.
    #[must_use]
    pub const fn log_limit(mut self, bytes: u64) -> Self {
        self.log_limit = bytes;
        self
    }
}
