//! Starting the agent, detached or here, and waiting until the node can be used.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use arpanet_core::{Error, ErrorKind, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zeroize::Zeroizing;

use super::lock;
use super::order::{Order, Report};
use super::traces::Traces;
use super::unit;
use crate::commands::Context;
use crate::output::Progress;

/// Starts an agent in the background and returns when its node can be used, or with why it can't.
pub(crate) fn detached(context: &Context, order: &Order, what: &str) -> Result<()> {
    let (paths, global) = (&context.paths, &context.global);
    let traces = Traces::of_launch(paths);
    // Told at once and in this process; the agent takes the lock itself.
    drop(lock::acquire(paths)?);
    let broken = |source: std::io::Error| {
        Error::new(ErrorKind::Internal, "the agent can't be started").with_source(source)
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(paths.state())
        .map_err(broken)?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(paths.log())
        .map_err(broken)?;
    let mut command = Command::new(std::env::current_exe().map_err(broken)?);
    command
        .arg("agent")
        .arg("--state-dir")
        .arg(paths.state())
        .arg("--run-dir")
        .arg(paths.run());
    if let Some(config) = &global.config {
        command.arg("--config").arg(config);
    }
    let mut agent = command
        .env_remove("ARPANET2_PASSWORD")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(broken)?;
    let progress = Progress::begin(what);
    let order = Zeroizing::new(serde_json::to_vec(order).map_err(|error| broken(error.into()))?);
    // An agent that has died says why on its other end.
    let told = agent
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(&order));
    let mut report = String::new();
    if let Some(stdout) = agent.stdout.take() {
        let mut reports = BufReader::new(stdout);
        while reports.read_line(&mut report).map_err(broken)? > 0 {
            let Ok(Report::Step(step)) = serde_json::from_str(&report) else {
                break;
            };
            progress.step(&format!("{what}: {step}"));
            report.clear();
        }
    }
    progress.end();
    match serde_json::from_str(&report) {
        Ok(Report::Ready) if unit::is_in_use(context, Path::new("/")) => hand_over(agent),
        Ok(Report::Ready) => Ok(()),
        Ok(Report::Failed(failure)) => {
            // It holds the lock until its end, and has told all that its log says.
            let _ = agent.wait();
            traces.remove(paths);
            Err(failure.into())
        }
        Ok(Report::Step(_)) | Err(_) => {
            let ended = agent
                .wait()
                .map_or_else(|error| error.to_string(), |status| status.to_string());
            let error = Error::new(
                ErrorKind::Internal,
                format!("the agent ended before its node was up: {ended}"),
            )
            .with_hint(format!("its log is {}", paths.log().display()));
            Err(match told {
                Ok(()) => error,
                Err(source) => error.with_source(source),
            })
        }
    }
}

/// Ends an agent that has brought its node up without a word, and has systemd bring it back: from then on it is the unit's.
fn hand_over(mut agent: Child) -> Result<()> {
    let ended = i32::try_from(agent.id())
        .map_err(std::io::Error::other)
        .and_then(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(std::io::Error::from))
        .and_then(|()| agent.wait());
    ended.map_err(|source| {
        Error::new(ErrorKind::Internal, "the agent can't be handed to systemd").with_source(source)
    })?;
    unit::systemctl(&["start", unit::UNIT])
}
