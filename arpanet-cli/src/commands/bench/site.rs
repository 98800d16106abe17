//! The labs of a run, and who is measured in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arpanet_core::Result;
use arpanet_lab::{HolderCommand, Lab, LabConfig};
use tokio::runtime::Handle;

use super::Programs;
use super::arpanet::Arpanet;
use super::consul::Consul;
use super::hosts::Hosts;
use super::peer::{Absent, Outcome, Peer, PeerKind, Why};
use super::row::Row;
use super::swarm::{self, Swarm};
use super::tunnel::Tunnel;
use super::wire::{Veth, Vxlan};
use super::wireguard_go::WireGuardGo;
use crate::host;

/// With more hosts there are no engines: each takes as much as the rest of a host.
const MOST_ENGINES: u8 = 5;

/// Labs that are there. They are to be taken [`down`](Sites::down).
#[derive(Debug, Default)]
pub(super) struct Sites {
    configs: Vec<LabConfig>,
    hosts: Vec<Arc<Hosts>>,
}

impl Sites {
    pub(super) fn hosts(&self) -> Vec<Arc<Hosts>> {
        self.hosts.clone()
    }

    /// Makes hosts, and those who are wanted on them.
    pub(super) async fn up(
        &mut self,
        count: u8,
        programs: &Programs,
        more: bool,
        wants: impl Fn(Option<Row>, PeerKind) -> bool,
    ) -> Result<Vec<Box<dyn Peer>>> {
        let swarm = wants(None, PeerKind::Swarm);
        let engines = if swarm || wants(Some(Row::Container), PeerKind::Arpanet2) {
            self::engines(count)
        } else {
            // They take their time to start.
            Err(Why::applicable("nothing that is wanted takes an engine"))
        };
        let hosts = self.lab(count, engines).await?;
        let mut peers: Vec<Box<dyn Peer>> = Vec::new();
        for kind in PeerKind::ALL.into_iter().filter(|kind| wants(None, *kind)) {
            let hosts = hosts.clone();
            let carrier = matches!(
                kind,
                PeerKind::Tunnel
                    | PeerKind::WireGuardGo
                    | PeerKind::Weave
                    | PeerKind::Vxlan
                    | PeerKind::Veth
            );
            if more && carrier {
                continue;
            }
            peers.push(match kind {
                PeerKind::Arpanet2 => Box::new(Arpanet::new(hosts)),
                PeerKind::Tunnel => Box::new(Tunnel::new(hosts)),
                PeerKind::Swarm => Box::new(Swarm::new(hosts)),
                PeerKind::Consul => match program("consul", programs.consul.as_deref()) {
                    Ok(program) => Box::new(Consul::new(hosts, &program)),
                    Err(why) => Box::new(Absent { kind, why }),
                },
                PeerKind::WireGuardGo => {
                    match program("wireguard-go", programs.wireguard_go.as_deref()) {
                        Ok(program) => Box::new(WireGuardGo::new(hosts, &program)),
                        Err(why) => Box::new(Absent { kind, why }),
                    }
                }
                PeerKind::Weave => match self.weave(count, programs).await {
                    Ok(weave) => Box::new(weave),
                    Err(why) => Box::new(Absent { kind, why }),
                },
                PeerKind::Vxlan => Box::new(Vxlan::new(hosts)),
                PeerKind::Veth => Box::new(Veth::new(hosts)),
            });
        }
        Ok(peers)
    }

    /// Weave has hosts of its own: a host is in one cluster of arpanet2's only.
    async fn weave(&mut self, count: u8, programs: &Programs) -> Outcome<Arpanet> {
        let Some(named) = programs.weaver.as_deref() else {
            return Err(Why::installed("no weave router is given by ARPANET_WEAVER"));
        };
        let weaver = program("weaver", Some(named))?;
        let none = Why::applicable("it is measured on hosts without engines");
        let hosts = self.lab(count, Err(none)).await?;
        Arpanet::over_weave(hosts, &weaver)
    }

    async fn lab(&mut self, count: u8, engines: Outcome<()>) -> Result<Arc<Hosts>> {
        let program = host::program()?;
        let number = self.configs.len();
        let folder = format!("/run/arpanet2-bench-{}-{number}", std::process::id());
        let holder = HolderCommand::new(&program, ["holder"]);
        let config = LabConfig::new(folder, holder);
        // Before it is made: what is half made is to be removed, too.
        self.configs.push(config.clone());
        let (lab, engines) = match engines {
            Err(why) => (Lab::up(config, count).await?, Err(why)),
            Ok(()) => match Lab::up(config.clone().docker(true), count).await {
                Ok(lab) => (lab, Ok(())),
                // Then all of the others are measured.
                Err(error) => (Lab::up(config, count).await?, Err(error.into())),
            },
        };
        let hosts = Arc::new(Hosts::new(lab, &program, Handle::current(), count, engines));
        self.hosts.push(hosts.clone());
        Ok(hosts)
    }

    /// Removes everything.
    pub(super) async fn down(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        for config in self.configs.drain(..) {
            if let Ok(lab) = Lab::open(config) {
                outcome = outcome.and(lab.down().await);
            }
        }
        outcome
    }
}

/// Whether hosts can have docker engines, so many.
fn engines(count: u8) -> Outcome<()> {
    if count > MOST_ENGINES {
        let why = format!(
            "an engine on each of more than {MOST_ENGINES} hosts is too much for one machine"
        );
        return Err(Why::applicable(why));
    }
    for (file, package) in [
        ("/usr/sbin/dockerd", "docker.io"),
        (swarm::CLIENT, "docker.io"),
        ("/bin/busybox", "busybox-static"),
    ] {
        if !Path::new(file).exists() {
            return Err(Why::installed(format!(
                "Debian's package {package} has {file}"
            )));
        }
    }
    Ok(())
}

/// A program that is named, or in PATH.
fn program(name: &str, named: Option<&Path>) -> Outcome<PathBuf> {
    match named {
        // A path from here, whichever folder it is used in.
        Some(path) if path.is_file() => Ok(std::path::absolute(path)?),
        Some(path) => Err(Why::installed(format!("there is no {}", path.display()))),
        None => host::in_path(name).ok_or_else(|| {
            Why::installed(format!("there is no {name} in PATH, and none is named"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_not_installed() {
        let missing = program("consul", Some(Path::new("/nonexistent/consul")));
        let why = missing.unwrap_err();
        assert_eq!(
            why.to_string(),
            "not installed: there is no /nonexistent/consul"
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("consul");
        std::fs::write(&file, "").unwrap();
        assert_eq!(program("consul", Some(&file)).unwrap(), file);
    }

    #[test]
    fn many_hosts_have_no_engines() {
        assert!(matches!(engines(30), Err(Why::NotApplicable(_))));
    }
}
