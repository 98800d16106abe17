//! The suite for [`Runtime`].

mod execs;
mod images;
mod labels;
mod life;
mod logs;
mod resolvers;
mod watching;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::check::{Check, Verdict, conduct, ensure, until};
use super::report::Report;
use crate::runtime::{Container, ContainerSpec, ContainerState};
use crate::{ContainerName, Runtime};

/// What a container or a command of the suite does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Program<'a> {
    /// Runs until it is told to end by SIGTERM.
    Wait,
    /// Writes the line `ready`, and goes on until SIGKILL.
    IgnoreTerm,
    /// Ends with this exit code.
    Exit(i32),
    /// Writes the first as a line to its standard output and the second to its standard error, and ends.
    Print(&'a str, &'a str),
    /// Writes this many lines, `line 1` and so on, and ends.
    Lines(usize),
    /// Writes the value of this environment variable as a line, and ends.
    Env(&'a str),
    /// Writes what it reads until there is no more, and ends.
    Cat,
    /// Writes the name servers that it asks, one a line, and ends.
    Servers,
    /// There is no such program.
    Missing,
}

/// The host that the suite for [`Runtime`] works with, without any container on it.
#[async_trait]
pub trait RuntimeRig: Send + Sync + 'static {
    /// The backend: of the present process, the same one at each call until [`crash`](Self::crash).
    fn runtime(&self) -> Arc<dyn Runtime>;

    /// An image that is present and has a POSIX shell, for backends with images.
    fn image(&self) -> Option<String> {
        None
    }

    /// An image that a registry has and this host has not, at least while a check runs that asks for it first; for backends
    /// with images and a registry to try them with. It needs no credentials.
    fn remote_image(&self) -> Option<String> {
        None
    }

    /// An image that this registry does not have, nor anybody else.
    fn unknown_image(&self) -> Option<String> {
        None
    }

    /// The command that does this. By a POSIX shell, unless the rig knows another way.
    fn command(&self, program: Program<'_>) -> Vec<String> {
        let script = match program {
            Program::Wait => "trap 'exit 143' TERM; sleep 86400 & wait".to_owned(),
            Program::IgnoreTerm => "trap '' TERM; echo ready; while :; do sleep 1; done".to_owned(),
            Program::Exit(code) => format!("exit {code}"),
            Program::Print(out, err) => format!("echo '{out}'; echo '{err}' >&2"),
            Program::Lines(count) => {
                format!("i=1; while [ $i -le {count} ]; do echo \"line $i\"; i=$((i+1)); done")
            }
            Program::Env(name) => format!("echo \"${name}\""),
            Program::Cat => "exec cat".to_owned(),
            Program::Servers => {
                "while read -r word server rest; do [ \"$word\" = nameserver ] && echo \"$server\"; done </etc/resolv.conf; exit 0"
                    .to_owned()
            }
            Program::Missing => return vec!["/nonexistent/program".to_owned()],
        };
        vec!["/bin/sh".to_owned(), "-c".to_owned(), script]
    }

    /// Whether the rig can [`crash`](Self::crash).
    fn can_crash(&self) -> bool {
        false
    }

    /// Kills the agent's process, as `kill -9`, and gives it a new one.
    async fn crash(&self) {}

    /// How long the suite waits for what the contract promises without naming a time.
    fn patience(&self) -> Duration {
        Duration::from_secs(15)
    }
}

type Rig = dyn RuntimeRig;

/// Runs the suite for [`Runtime`]; `make` makes a rig for each check, and the suite removes its containers after each.
pub async fn runtime<R, F>(make: impl Fn() -> F) -> Report
where
    R: RuntimeRig,
    F: Future<Output = R>,
{
    let mut backend = "unknown";
    let mut checks = Vec::new();
    for check in suite() {
        let rig = make().await;
        backend = rig.runtime().name();
        // A check waits a few times, each time with patience.
        checks.push(conduct::<Rig>(&check, &rig, rig.patience() * 8).await);
        for container in rig.runtime().list().await.unwrap_or_default() {
            if NAMES.contains(&container.name.as_str()) {
                // What can't be removed has been told by a check.
                let _ = rig.runtime().remove(&container.name).await;
            }
        }
    }
    Report::new("runtime", backend, checks)
}

/// The names of all containers that the suite makes.
const NAMES: [&str; 3] = ["conformance-a", "conformance-b", "conformance-c"];

fn suite() -> Vec<Check<Rig>> {
    let parts = [
        life::checks(),
        labels::checks(),
        watching::checks(),
        logs::checks(),
        execs::checks(),
        resolvers::checks(),
        images::checks(),
    ];
    parts.into_iter().flatten().collect()
}

fn needs_crashes(rig: &Rig) -> Option<&'static str> {
    (!rig.can_crash()).then_some("the rig can't crash a process")
}

fn name(number: usize) -> Verdict<ContainerName> {
    Ok(NAMES[number].parse()?)
}

/// A container that does this.
fn spec(rig: &Rig, number: usize, program: Program<'_>) -> Verdict<ContainerSpec> {
    let mut spec = ContainerSpec::command(rig.command(program)).named(name(number)?);
    spec.image = rig.image();
    Ok(spec)
}

/// Creates and starts a container.
async fn started(rig: &Rig, number: usize, program: Program<'_>) -> Verdict<Container> {
    let container = rig.runtime().create(&spec(rig, number, program)?).await?;
    rig.runtime().start(&container.name).await?;
    Ok(container)
}

/// Waits until a container is in this state.
async fn comes_to_be(rig: &Rig, name: &ContainerName, state: ContainerState) -> Verdict {
    until(rig.patience(), async || {
        let found = rig.runtime().inspect(name).await?.state;
        ensure!(found == state, "{name} is {found:?} instead of {state:?}");
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_stands_for_a_sentence_of_the_contract() {
        crate::conformance::check::assert_quoted(
            concat!(
                include_str!("../../runtime/mod.rs"),
                include_str!("../../runtime/pull.rs"),
                include_str!("../../runtime/spec.rs")
            ),
            &suite(),
        );
    }
}
