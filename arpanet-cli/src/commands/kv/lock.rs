//! A command under a lock.

use std::process::ExitCode;
use std::time::Duration;

use arpanet_core::kv::Key;
use arpanet_core::{Error, ErrorKind, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use tokio::process::{Child, Command};

use crate::agent::kv::{KeyQuery, LockNews};
use crate::client::Agent;
use crate::commands::lines;

/// Between SIGTERM and SIGKILL, for a command whose lock is lost. A session lasts longer than it takes to find that out.
const GRACE: Duration = Duration::from_secs(2);

/// The command's own exit code.
pub(super) async fn run(agent: &Agent, key: &Key, command: Vec<String>) -> Result<ExitCode> {
    let query = KeyQuery {
        key: key.to_string(),
        expect: None,
    };
    let request = agent.request(Method::POST, "/v1/kv/lock").query(&query);
    let mut news = lines::of(agent.send(request).await?);
    let fencing = match news.next().await? {
        Some(LockNews::Held(fencing)) => fencing,
        Some(LockNews::Lost(failure)) => return Err(failure.into()),
        None => return Err(ended()),
    };
    let mut arguments = command.iter();
    let program = arguments.next().map(String::as_str).unwrap_or_default();
    let mut child = Command::new(program)
        .args(arguments)
        .env("ARPANET2_FENCING", fencing.to_string())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| {
            let message = format!("the command {program:?} can't be run");
            Error::new(ErrorKind::InvalidInput, message).with_source(source)
        })?;
    let lost = async {
        loop {
            match news.next().await {
                Ok(Some(LockNews::Lost(failure))) => return Error::from(failure),
                Ok(Some(LockNews::Held(_))) => {}
                Ok(None) => return ended(),
                Err(error) => return error,
            }
        }
    };
    tokio::select! {
        status = child.wait() => {
            let status = status.map_err(|source| {
                Error::new(ErrorKind::Internal, "the command's end can't be known").with_source(source)
            })?;
            // A command that a signal ended: as shells tell it.
            let code = status.code().unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0));
            Ok(ExitCode::from(u8::try_from(code).unwrap_or(255)))
        }
        error = lost => {
            end(&mut child).await;
            Err(error.context(format!("the lock {key} was lost, and the command was ended")))
        }
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, "the agent ended")
}

async fn end(child: &mut Child) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid {
        // It may have ended a moment ago.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}
