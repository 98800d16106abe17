//! The lab as its users see it.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};

use arpanet_core::{Error, ErrorKind, Result};
use arpanet_netlink::Namespace;
use serde::{Deserialize, Serialize};

use crate::config::LabConfig;
use crate::docker;
use crate::host;
use crate::process::{Ending, ProcessId};
use crate::state::{HostState, LabState};
use crate::switch;

/// The most hosts: 192.168.8.120 to 192.168.8.254.
const MOST_HOSTS: u8 = 135;

/// A transport protocol that can be blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A host as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HostStatus {
    /// Its name, `nodeN`.
    pub name: String,
    /// Its address on the underlay.
    pub ip: Ipv4Addr,
    /// Whether it has power.
    pub running: bool,
    /// Whether it is cut off from all others.
    pub unplugged: bool,
    /// The hosts that it alone is cut off from.
    pub cut_from: Vec<String>,
    /// What it can neither send nor receive.
    pub blocked: Vec<Protocol>,
}

/// A lab that is there. It outlives this value, and this process.
#[derive(Debug, Clone)]
pub struct Lab {
    config: LabConfig,
}

impl Lab {
    /// Makes a lab of `hosts` hosts. What was made is removed again when it fails.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when there is a lab in that folder; [`ErrorKind::InvalidInput`] for no hosts or more
    /// than 135; [`ErrorKind::Internal`] says what the kernel refuses.
    pub async fn up(config: LabConfig, hosts: u8) -> Result<Self> {
        if !(1..=MOST_HOSTS).contains(&hosts) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("a lab has 1 to {MOST_HOSTS} hosts"),
            ));
        }
        if config.folder.exists() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("there is a lab in {} already", config.folder.display()),
            )
            .with_hint("remove it with lab down"));
        }
        std::fs::create_dir_all(&config.folder).map_err(|source| {
            Error::new(
                ErrorKind::Internal,
                format!("{} can't be made", config.folder.display()),
            )
            .with_source(source)
        })?;
        let lab = Self { config };
        match lab.make(hosts).await {
            Ok(()) => Ok(lab),
            Err(error) => {
                if let Err(error) = lab.down().await {
                    tracing::warn!(%error, "a lab that could not be made could not be removed either");
                }
                Err(error)
            }
        }
    }

    /// The lab that is in this folder.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is none.
    pub fn open(config: LabConfig) -> Result<Self> {
        LabState::read(&config.folder)?;
        Ok(Self { config })
    }

    async fn make(&self, hosts: u8) -> Result<()> {
        let switch = host::start(host::holder(&self.config, "switch"))?;
        let mut state = LabState {
            switch: Some(switch),
            docker: self.config.docker,
            ..LabState::default()
        };
        state.write(&self.config.folder)?;
        switch::prepare(&self.switch(&state)?).await?;
        for number in 1..=hosts {
            let name = format!("node{number}");
            let ip = Ipv4Addr::new(192, 168, 8, 119 + number);
            state.hosts.insert(
                name.clone(),
                HostState {
                    ip,
                    init: None,
                    unplugged: false,
                    blocked: Default::default(),
                },
            );
            self.give_power(&mut state, &name).await?;
        }
        if self.config.docker {
            for host in state.hosts.values() {
                docker::import(host.init.ok_or_else(|| no_power("a host"))?)?;
            }
        }
        Ok(())
    }

    /// Starts a host's docker engine, and returns when it answers. A second call does nothing while it runs.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown host; [`ErrorKind::Unavailable`] for one without power, or when the engine
    /// does not start, saying why.
    pub async fn start_docker(&self, name: &str) -> Result<()> {
        let init = self.init(name)?;
        if docker::process(init).is_some() {
            return Ok(());
        }
        let line = docker::command_line(&self.group(name), Path::new("/var/lib/docker"));
        let log = self.config.folder.join(name).join("docker.log");
        let failed = |source| {
            Error::new(ErrorKind::Internal, "the docker engine can't be started")
                .with_source(source)
        };
        let out = std::fs::File::create(&log).map_err(failed)?;
        // It outlives this process, and is no part of its terminal.
        let mut child = self
            .command(name, 0, &line)?
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out.try_clone().map_err(failed)?)
            .stderr(out)
            .spawn()
            .map_err(failed)?;
        docker::wait(init, || {
            let ended = child.try_wait().ok().flatten();
            ended.map(|_| docker::last_line(&log))
        })
        .await
    }

    /// Ends a host's docker engine: in order, as its service does, or by SIGKILL. What its containers do then is the
    /// engine's own affair. A second call does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown host, [`ErrorKind::Unavailable`] for one without power;
    /// [`ErrorKind::Timeout`] for an engine that does not end.
    pub async fn end_docker(&self, name: &str, ending: Ending) -> Result<()> {
        match docker::process(self.init(name)?) {
            Some(engine) => engine.end(ending).await,
            None => Ok(()),
        }
    }

    fn group(&self, name: &str) -> String {
        docker::group(&self.config.folder, name)
    }

    async fn give_power(&self, state: &mut LabState, name: &str) -> Result<()> {
        let ip = state.host(name)?.ip;
        let disk = self.config.folder.join(name);
        host::make_disk(&disk)?;
        let mut command = host::holder(&self.config, "host");
        command.arg(name).arg(&disk);
        let init = host::start(command)?;
        if let Some(host) = state.hosts.get_mut(name) {
            host.init = Some(init);
        }
        // Before anything else can fail: `down` finds it.
        state.write(&self.config.folder)?;
        let switch = self.switch(state)?;
        switch::plug(&switch, name, ip, &switch::namespace_of(init)?).await?;
        switch::enforce(&switch, state).await?;
        if state.docker {
            self.start_docker(name).await?;
        }
        Ok(())
    }

    fn switch(&self, state: &LabState) -> Result<Namespace> {
        let gone = || {
            Error::new(ErrorKind::Unavailable, "the lab's switch is gone")
                .with_hint("remove the lab with lab down")
        };
        switch::namespace_of(
            state
                .switch
                .filter(|switch| switch.is_alive())
                .ok_or_else(gone)?,
        )
    }

    fn state(&self) -> Result<LabState> {
        LabState::read(&self.config.folder)
    }

    fn init(&self, name: &str) -> Result<ProcessId> {
        let state = self.state()?;
        state
            .host(name)?
            .init
            .filter(|init| init.is_alive())
            .ok_or_else(|| no_power(name))
    }

    /// The network namespace of a host.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown host, [`ErrorKind::Unavailable`] for one without power.
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        switch::namespace_of(self.init(name)?)
    }

    /// The network namespace of the switch, where all traffic between hosts passes.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the lab was broken from outside.
    pub fn switch_namespace(&self) -> Result<Namespace> {
        self.switch(&self.state()?)
    }

    /// The command that runs `argv` in a host, as the user with this number.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown host, [`ErrorKind::Unavailable`] for one without power.
    pub fn command(
        &self,
        name: &str,
        user: u32,
        argv: &[impl AsRef<std::ffi::OsStr>],
    ) -> Result<Command> {
        let mut command = host::holder(&self.config, "exec");
        command
            .arg(self.init(name)?.pid().to_string())
            .arg(user.to_string())
            .args(argv);
        Ok(command)
    }

    /// Runs a command in a host, as root, with this process's own standard streams.
    ///
    /// # Errors
    /// As [`command`](Self::command). A command that fails is no error: see its status; 127 when it is not there.
    pub fn exec(&self, name: &str, argv: &[impl AsRef<std::ffi::OsStr>]) -> Result<ExitStatus> {
        self.command(name, 0, argv)?.status().map_err(not_started)
    }

    /// Runs a command in a host, as root, and returns what it wrote.
    ///
    /// # Errors
    /// As [`exec`](Self::exec).
    pub fn output(&self, name: &str, argv: &[impl AsRef<std::ffi::OsStr>]) -> Result<Output> {
        self.command(name, 0, argv)?.output().map_err(not_started)
    }

    async fn change(&self, change: impl FnOnce(&mut LabState) -> Result<()>) -> Result<()> {
        let mut state = self.state()?;
        change(&mut state)?;
        state.write(&self.config.folder)?;
        switch::enforce(&self.switch(&state)?, &state).await
    }

    /// Cuts a host off: from all others, as by its cable, or silently from one. A second call does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown host.
    pub async fn cut(&self, name: &str, from: Option<&str>) -> Result<()> {
        self.change(|state| {
            state.host(name)?;
            match from {
                Some(other) => {
                    state.host(other)?;
                    state.cuts.insert(pair(name, other));
                }
                None => host_mut(state, name)?.unplugged = true,
            }
            Ok(())
        })
        .await
    }

    /// Takes back every cut and block of a host, or of all. A second call does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown host.
    pub async fn heal(&self, name: Option<&str>) -> Result<()> {
        self.change(|state| {
            if let Some(name) = name {
                state.host(name)?;
            }
            let concerns = |other: &str| name.is_none_or(|name| name == other);
            state.cuts.retain(|(a, b)| !concerns(a) && !concerns(b));
            for (_, host) in state.hosts.iter_mut().filter(|(other, _)| concerns(other)) {
                host.unplugged = false;
                host.blocked.clear();
            }
            Ok(())
        })
        .await
    }

    /// Drops a protocol from and to a host, silently. A second call does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown host.
    pub async fn block(&self, name: &str, protocol: Protocol) -> Result<()> {
        self.change(|state| {
            host_mut(state, name)?.blocked.insert(protocol);
            Ok(())
        })
        .await
    }

    /// Takes a host's power away: everything on it is killed at once. Its disk stays. A second call does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown host.
    pub async fn kill(&self, name: &str) -> Result<()> {
        let mut state = self.state()?;
        let host = host_mut(&mut state, name)?;
        if let Some(init) = host.init.take() {
            init.kill().await?;
            docker::remove_group(&self.group(name));
            self.switch(&state)?.handle()?.delete_link(name).await?;
            state.write(&self.config.folder)?;
        }
        Ok(())
    }

    /// Gives a host power again, with the disk it had. Nothing is started in it. A second call does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown host.
    pub async fn start(&self, name: &str) -> Result<()> {
        let mut state = self.state()?;
        if state.host(name)?.init.is_some_and(ProcessId::is_alive) {
            return Ok(());
        }
        self.give_power(&mut state, name).await
    }

    /// Gives a host another address on the underlay, at once or when it has power again.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown host, [`ErrorKind::Conflict`] for an address that another one has.
    pub async fn readdress(&self, name: &str, ip: Ipv4Addr) -> Result<()> {
        let mut state = self.state()?;
        if let Some((other, _)) = state
            .hosts
            .iter()
            .find(|(other, host)| host.ip == ip && *other != name)
        {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("{ip} is the address of {other}"),
            ));
        }
        let host = host_mut(&mut state, name)?;
        let old = std::mem::replace(&mut host.ip, ip);
        let namespace = host
            .init
            .filter(|init| init.is_alive())
            .map(switch::namespace_of)
            .transpose()?;
        switch::readdress(&self.switch(&state)?, name, old, ip, namespace.as_ref()).await?;
        state.write(&self.config.folder)
    }

    /// All hosts, by name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the lab is gone.
    pub fn status(&self) -> Result<Vec<HostStatus>> {
        let state = self.state()?;
        let status = |(name, host): (&String, &HostState)| HostStatus {
            name: name.clone(),
            ip: host.ip,
            running: host.init.is_some_and(ProcessId::is_alive),
            unplugged: host.unplugged,
            cut_from: state
                .cuts
                .iter()
                .filter_map(|(a, b)| match (a == name, b == name) {
                    (true, _) => Some(b.clone()),
                    (_, true) => Some(a.clone()),
                    _ => None,
                })
                .collect(),
            blocked: host.blocked.iter().copied().collect(),
        };
        Ok(state.hosts.iter().map(status).collect())
    }

    /// Removes the lab with all that runs in it. A second call does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] for a process that can't be killed; all others are gone then.
    pub async fn down(&self) -> Result<()> {
        let mut outcome = Ok(());
        match self.state() {
            Ok(state) => {
                let hosts = state.hosts.values().filter_map(|host| host.init);
                for process in hosts.chain(state.switch) {
                    outcome = outcome.and(process.kill().await);
                }
                for name in state.hosts.keys().filter(|_| state.docker) {
                    docker::remove_group(&self.group(name));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        outcome?;
        match std::fs::remove_dir_all(&self.config.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::new(
                ErrorKind::Internal,
                format!("{} can't be removed", self.config.folder.display()),
            )
            .with_source(error)),
            _ => Ok(()),
        }
    }
}

fn no_power(name: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{name} has no power"))
        .with_hint(format!("give it power with lab start {name}"))
}

fn not_started(source: std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, "the command can't be started").with_source(source)
}

fn pair(a: &str, b: &str) -> (String, String) {
    if a <= b {
        (a.to_owned(), b.to_owned())
    } else {
        (b.to_owned(), a.to_owned())
    }
}

fn host_mut<'a>(state: &'a mut LabState, name: &str) -> Result<&'a mut HostState> {
    state.host(name)?;
    state
        .hosts
        .get_mut(name)
        .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("the lab has no host {name}")))
}
