//! Simulated containers: what their commands do, without a process.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::network::HostIndex;
use super::prober::Ailment;
use super::router::Router;
use crate::runtime::{
    Container, ContainerSpec, ContainerState, EngineHealth, Environment, Output, OutputStream,
    Resolver, RestartPolicy,
};
use crate::watch::WatchHub;
use crate::{ContainerName, Error, ErrorKind, Result};

/// How long a stop waits where the spec does not say.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Exit codes after SIGTERM and SIGKILL.
pub(super) const TERMINATED: i32 = 128 + 15;
pub(super) const KILLED: i32 = 128 + 9;

/// What a command does. Unknown ones, and images, run until they are stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Program {
    Forever,
    IgnoreTerm,
    Print(String, String, i32),
    Cat,
}

impl Program {
    pub(super) fn parse(command: &[String], env: &Environment) -> Result<Self> {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let lines = |count: &str| -> String {
            let count = count.parse::<usize>().unwrap_or(0);
            (1..=count).map(|line| format!("line {line}\n")).collect()
        };
        Ok(match words.as_slice() {
            ["exit", code] => Self::Print(String::new(), String::new(), number(code)?),
            ["print", text] => Self::Print(format!("{text}\n"), String::new(), 0),
            ["print-both", out, err] => Self::Print(format!("{out}\n"), format!("{err}\n"), 0),
            ["lines", count] => Self::Print(lines(count), String::new(), 0),
            ["env", name] => {
                let value = env.0.get(*name).map_or("", String::as_str);
                Self::Print(format!("{value}\n"), String::new(), 0)
            }
            ["ignore-term"] => Self::IgnoreTerm,
            ["cat"] => Self::Cat,
            [path, ..] if path.starts_with("/nonexistent") => {
                let message = format!("{path} can't be started: no such file");
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
            _ => Self::Forever,
        })
    }
}

fn number(text: &str) -> Result<i32> {
    text.parse()
        .map_err(|_| Error::new(ErrorKind::InvalidInput, format!("{text:?} is no exit code")))
}

/// A container and its output so far.
#[derive(Debug)]
pub(super) struct Simulated {
    pub(super) container: Container,
    /// As it was given; labels change.
    asked: ContainerSpec,
    /// Whom it asks for names until it ends, where that was changed.
    resolver: Option<Resolver>,
    pub(super) program: Program,
    pub(super) written: Vec<(SystemTime, Output)>,
    /// What it answers to checks; well where there is none.
    pub(super) ailment: Option<Ailment>,
}

pub(super) fn not_running(name: &ContainerName) -> Error {
    let message = format!("the container {name} does not run");
    Error::new(ErrorKind::Unavailable, message)
}

impl Simulated {
    /// What a shell in the container does with a line: as all do with the simulated commands, and else what checks are to
    /// find.
    fn shell(&self, line: &str, env: &Environment) -> Result<Program> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Ok(match Program::parse(&words, env)? {
            Program::Forever => match &self.ailment {
                None => Program::Print(String::new(), String::new(), 0),
                Some(Ailment::Fails(why)) => Program::Print(format!("{why}\n"), String::new(), 1),
                Some(Ailment::Hangs) => Program::Forever,
            },
            program => program,
        })
    }

    /// What a command does that is run in the container.
    pub(super) fn exec(&self, command: &[String], env: &Environment) -> Result<Program> {
        match command {
            [shell, flag, line] if shell == "sh" && flag == "-c" => self.shell(line, env),
            _ => Program::parse(command, env),
        }
    }

    /// The name servers that it asks.
    pub(super) fn servers(&self) -> &[Ipv4Addr] {
        let changed = self.resolver.as_ref();
        changed.map_or(&self.asked.dns, |resolver| &resolver.servers)
    }

    fn write(&mut self, stream: OutputStream, text: &str, now: SystemTime) {
        for line in text.split_inclusive('\n') {
            let bytes = Bytes::copy_from_slice(line.as_bytes());
            self.written.push((now, Output::new(stream, bytes)));
        }
    }
}

/// The container engine of a host: like docker's, it outlives the agent.
#[derive(Debug, Default)]
pub(super) struct Engine {
    pub(super) containers: BTreeMap<ContainerName, Simulated>,
    hub: Option<WatchHub<ContainerName, Container>>,
    made: u64,
    /// On disk.
    pub(super) images: BTreeSet<String>,
    /// It answers nobody; its containers live on.
    pub(super) away: bool,
}

impl Engine {
    pub(super) fn get(&mut self, name: &ContainerName) -> Result<&mut Simulated> {
        self.containers.get_mut(name).ok_or_else(|| {
            let message = format!("there is no container {name}");
            Error::new(ErrorKind::NotFound, message)
        })
    }

    /// Whether there is a container under that name, whatever it is.
    pub(super) fn holds(&self, name: Option<&ContainerName>) -> bool {
        name.is_some_and(|name| self.containers.contains_key(name))
    }

    pub(super) fn hub(&mut self) -> WatchHub<ContainerName, Container> {
        if self.hub.is_none() {
            let hub = WatchHub::new();
            hub.set_stale(true);
            self.hub = Some(hub);
            self.tell_all();
        }
        self.hub.get_or_insert_default().clone()
    }

    /// It goes away, or is back and tells what changed meanwhile. Whether that is a change.
    pub(super) fn set_away(&mut self, away: bool) -> bool {
        let before = std::mem::replace(&mut self.away, away);
        if let Some(hub) = &self.hub
            && away
        {
            hub.set_stale(true);
        }
        self.tell_all();
        before != away
    }

    /// Tells all there is, unless it is away.
    fn tell_all(&self) {
        let Some(hub) = self.hub.as_ref().filter(|_| !self.away) else {
            return;
        };
        let containers = self.containers.iter();
        hub.replace(
            containers
                .map(|(name, simulated)| (name.clone(), simulated.container.clone()))
                .collect(),
        );
        hub.set_stale(false);
    }

    /// The agent's process is gone, and what it watched with.
    pub(super) fn disconnect(&mut self) {
        if let Some(hub) = self.hub.take() {
            hub.close();
        }
    }

    fn tell(&self, name: &ContainerName) {
        if self.away {
            return;
        }
        if let (Some(hub), Some(simulated)) = (&self.hub, self.containers.get(name)) {
            hub.upsert(name.clone(), simulated.container.clone());
        }
    }

    /// Makes a container with a namespace; the same again is found.
    pub(super) fn create(
        &mut self,
        host: HostIndex,
        router: &mut Router,
        spec: &ContainerSpec,
        now: SystemTime,
    ) -> Result<(Container, bool)> {
        let Some(name) = &spec.name else {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "a container needs a name",
            ));
        };
        if spec.image.is_none() && spec.command.is_empty() {
            let message = format!("the container {name} has neither image nor command");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if let Some(held) = self.containers.get(name) {
            if held.asked == *spec {
                return Ok((held.container.clone(), false));
            }
            let message = format!("there is a container {name} with another spec");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let program = match Program::parse(&spec.command, &spec.env) {
            Ok(program) => program,
            // Found out at the start, as engines do.
            Err(_) => Program::Forever,
        };
        self.made += 1;
        let container = Container::new(
            name.clone(),
            format!("{host:04x}{:08x}", self.made),
            spec.clone(),
            now,
        )
        .namespace(Some(router.make_namespace(host)));
        let simulated = Simulated {
            container: container.clone(),
            asked: spec.clone(),
            resolver: None,
            program,
            written: Vec::new(),
            ailment: None,
        };
        self.containers.insert(name.clone(), simulated);
        self.tell(name);
        Ok((container, true))
    }

    /// Sets or takes a label; whether that changed anything.
    pub(super) fn set_label(
        &mut self,
        name: &ContainerName,
        label: &str,
        value: Option<String>,
    ) -> Result<bool> {
        let labels = &mut self.get(name)?.container.spec.labels;
        let before = match value.clone() {
            Some(value) => labels.insert(label.to_owned(), value),
            None => labels.remove(label),
        };
        self.tell(name);
        Ok(before != value)
    }

    /// Changes whom it asks for names. Whether it asks these, and whether that is news.
    pub(super) fn set_resolver(
        &mut self,
        name: &ContainerName,
        resolver: Option<Resolver>,
    ) -> Result<(bool, bool)> {
        let simulated = self.get(name)?;
        if simulated.container.state != ContainerState::Running {
            return Err(not_running(name));
        }
        if !simulated.asked.dns.is_empty() {
            return Ok((false, false));
        }
        let asks = resolver.is_some();
        let news = simulated.resolver != resolver;
        simulated.resolver = resolver;
        Ok((asks, news))
    }

    pub(super) fn share_namespace(
        &mut self,
        router: &mut Router,
        name: &ContainerName,
    ) -> Result<()> {
        if let Some(namespace) = self.get(name)?.container.namespace.take() {
            router.remove_namespace(&namespace);
        }
        self.tell(name);
        Ok(())
    }

    pub(super) fn set_health(
        &mut self,
        name: &ContainerName,
        health: Option<EngineHealth>,
    ) -> Result<()> {
        self.get(name)?.container.health = health;
        self.tell(name);
        Ok(())
    }

    /// Starts it; whether it was not running.
    pub(super) fn start(
        &mut self,
        host: HostIndex,
        router: &mut Router,
        name: &ContainerName,
        now: SystemTime,
    ) -> Result<bool> {
        let simulated = self.get(name)?;
        if simulated.container.state == ContainerState::Running {
            return Ok(false);
        }
        let spec = &simulated.container.spec;
        simulated.program = Program::parse(&spec.command, &spec.env)?;
        if simulated.container.namespace.is_none() {
            simulated.container.namespace = Some(router.make_namespace(host));
        }
        simulated.container.state = ContainerState::Running;
        if simulated.program == Program::IgnoreTerm {
            simulated.write(OutputStream::Stdout, "ready\n", now);
        }
        if let Program::Print(out, err, code) = simulated.program.clone() {
            simulated.write(OutputStream::Stdout, &out, now);
            simulated.write(OutputStream::Stderr, &err, now);
            self.end(router, name, code);
        } else {
            self.tell(name);
        }
        Ok(true)
    }

    /// It has ended; its namespace goes with it.
    pub(super) fn end(&mut self, router: &mut Router, name: &ContainerName, code: i32) -> bool {
        let Some(simulated) = self.containers.get_mut(name) else {
            return false;
        };
        if simulated.container.state != ContainerState::Running {
            return false;
        }
        simulated.container.state = ContainerState::Exited { code };
        simulated.resolver = None;
        if let Some(namespace) = simulated.container.namespace.take() {
            router.remove_namespace(&namespace);
        }
        self.tell(name);
        true
    }

    pub(super) fn remove(&mut self, router: &mut Router, name: &ContainerName) -> bool {
        let Some(simulated) = self.containers.remove(name) else {
            return false;
        };
        if let Some(namespace) = &simulated.container.namespace {
            router.remove_namespace(namespace);
        }
        if let Some(hub) = self.hub.as_ref().filter(|_| !self.away) {
            hub.remove(name);
        }
        true
    }

    /// The power is gone: nothing runs, and nothing has a namespace.
    pub(super) fn lose_power(&mut self) {
        self.disconnect();
        for simulated in self.containers.values_mut() {
            simulated.container.namespace = None;
            simulated.resolver = None;
            if simulated.container.state == ContainerState::Running {
                simulated.container.state = ContainerState::Exited { code: KILLED };
            }
        }
    }

    /// The power is back: what is to run always runs again.
    pub(super) fn regain_power(&mut self, host: HostIndex, router: &mut Router, now: SystemTime) {
        let names: Vec<ContainerName> = self
            .containers
            .values()
            .filter(|simulated| {
                simulated.container.spec.restart == RestartPolicy::Always
                    && simulated.container.state == (ContainerState::Exited { code: KILLED })
            })
            .map(|simulated| simulated.container.name.clone())
            .collect();
        for name in names {
            // What started before starts again.
            let _ = self.start(host, router, &name, now);
        }
    }

    /// It ended by itself with this code: starts it again where its policy says so.
    pub(super) fn restart_by_policy(
        &mut self,
        host: HostIndex,
        router: &mut Router,
        name: &ContainerName,
        code: i32,
        now: SystemTime,
    ) -> Result<()> {
        let again = match self.get(name)?.container.spec.restart {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Always => true,
        };
        if again {
            self.start(host, router, name, now)?;
        }
        Ok(())
    }

    /// How a stop of this container goes: the wait and the exit code; `None` when it has ended already.
    pub(super) fn stopping(&mut self, name: &ContainerName) -> Result<StopPlan> {
        let simulated = self.get(name)?;
        Ok(match (simulated.container.state, &simulated.program) {
            (ContainerState::Exited { code }, _) => StopPlan::Ended(code),
            (ContainerState::Created, _) => StopPlan::Ended(0),
            (ContainerState::Running, Program::IgnoreTerm) => StopPlan::After(
                simulated.container.spec.stop_grace.unwrap_or(STOP_GRACE),
                KILLED,
            ),
            (ContainerState::Running, _) => StopPlan::After(Duration::ZERO, TERMINATED),
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum StopPlan {
    Ended(i32),
    After(Duration, i32),
}
