//! The shim: a small process for each container, which outlives the agent.
//!
//! The program that embeds [`ProcessRuntime`](crate::ProcessRuntime) gives it a command line of its own that ends in a
//! call of [`main`]. The runtime then starts that command line for each container. The shim makes the container's
//! namespaces, starts a first process in them, which reaps and starts the command, writes the output and the status to
//! the container's folder, and answers on a socket there. It ends when the container has ended.

mod child;
mod connection;
mod init;
mod launch;
mod order;
mod serve;
mod session;
mod supervisor;
mod terminal;
mod user;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use arpanet_core::ErrorKind;

use crate::error::own;
use crate::folder::Folder;

/// Runs a shim, or what a shim starts, until it is done. `arguments` are those that follow the embedding program's own
/// [`ShimCommand`](crate::ShimCommand).
///
/// To be called first thing in the process, before it has threads or open files: all but the three standard descriptors
/// are closed, since a container must not hold on to what its agent was given. Not for use by hand: without the arguments that
/// [`ProcessRuntime`](crate::ProcessRuntime) passes it says so on standard error and answers 2.
#[must_use]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let part = arguments.next();
    let folder = arguments.next().map(|path| Folder::at(PathBuf::from(path)));
    let result = match (part.as_ref().and_then(|part| part.to_str()), folder) {
        (Some("serve"), Some(folder)) => {
            let mut word = || arguments.next().and_then(|word| word.into_string().ok());
            match (word(), word().and_then(|limit| limit.parse().ok())) {
                (Some(id), Some(limit)) => serve::run(&folder, &id, limit, arguments.collect()),
                _ => Err(misused()),
            }
        }
        (Some("init"), Some(folder)) => init::run(&folder),
        _ => Err(misused()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Goes to the container's folder. Nobody is left to tell when that fails.
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::from(if error.kind() == ErrorKind::InvalidInput {
                2
            } else {
                1
            })
        }
    }
}

fn misused() -> arpanet_core::Error {
    own(
        ErrorKind::InvalidInput,
        "the shim is started by the runtime, not by hand",
    )
}
