//! Giving a host power: its holder, and the first process in it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use arpanet_core::{Error, ErrorKind, Result};

use crate::config::LabConfig;
use crate::process::ProcessId;

/// A command line of the holder.
pub(crate) fn holder(config: &LabConfig, verb: &str) -> Command {
    let mut command = Command::new(&config.holder.program);
    command.args(&config.holder.args).arg(verb);
    command
}

/// Starts a holder and returns the process that it keeps, once it is ready.
pub(crate) fn start(mut command: Command) -> Result<ProcessId> {
    let failed = |message: String| Error::new(ErrorKind::Internal, message).operation("lab");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| {
            failed(format!(
                "{} can't be started",
                command.get_program().to_string_lossy()
            ))
            .with_source(source)
        })?;
    match ready(&mut child) {
        Some(process) => Ok(process),
        None => {
            // It has ended, or it never will be what it should.
            let _ = child.kill();
            let output = child.wait_with_output();
            let told = output.map_or_else(
                |error| error.to_string(),
                |output| String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            );
            let error = failed(format!("a lab host can't be made: {told}"));
            Err(if nix::unistd::geteuid().is_root() {
                error
            } else {
                error.with_hint("a lab needs root: try it with sudo")
            })
        }
    }
}

/// The holder prints the number of the process that it keeps, and that one prints `ready`: in whichever order.
fn ready(child: &mut Child) -> Option<ProcessId> {
    let mut lines = BufReader::new(child.stdout.take()?).lines();
    let told = [lines.next()?.ok()?, lines.next()?.ok()?];
    let pid = told.iter().find_map(|line| line.trim().parse().ok())?;
    told.iter().find(|line| line.trim() == "ready")?;
    ProcessId::of(pid).ok()
}

/// The folders that are a host's disk.
pub(crate) fn make_disk(folder: &Path) -> Result<()> {
    for part in ["etc", "etc-work", "lib", "lib-work", "docker"] {
        std::fs::create_dir_all(folder.join(part)).map_err(|source| {
            Error::new(
                ErrorKind::Internal,
                format!("{} can't be made", folder.display()),
            )
            .with_source(source)
        })?;
    }
    Ok(())
}
