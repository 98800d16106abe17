//! Consul alone, on the hosts' own network.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::hosts::{Hosts, runs, until};
use super::names::Question;
use super::peer::{Outcome, Peer, PeerKind};

/// Where it keeps everything, in a host.
const FOLDER: &str = "/run/bench-consul";
/// As arpanet2 has it: a leader is there sooner.
const SETTINGS: &str =
    r#"{"performance": {"raft_multiplier": 1}, "disable_update_check": true, "log_level": "err"}"#;
/// How long it may take to be up.
const LIMIT: Duration = Duration::from_secs(60);

/// A server on the first hosts, up to three, and a client on the others.
#[derive(Debug)]
pub(super) struct Consul {
    hosts: Arc<Hosts>,
    program: PathBuf,
}

impl Consul {
    pub(super) fn new(hosts: Arc<Hosts>, program: &FilePath) -> Self {
        Self {
            hosts,
            program: program.to_owned(),
        }
    }

    /// Starts it, and returns when a leader has this node in its catalogue, as seen from the node.
    fn launch(&self, host: u8, options: &str) -> Outcome<()> {
        let (program, ip) = (self.program.display(), Hosts::ip(host));
        let own = format!("-node node{host} -bind {ip} -data-dir {FOLDER}/data");
        let script = format!(
            "mkdir -p {FOLDER} && echo '{SETTINGS}' > {FOLDER}/settings.json && \
             {program} agent {own} -config-file {FOLDER}/settings.json {options} >{FOLDER}/log 2>&1 </dev/null &"
        );
        self.hosts.script(host, &script)?;
        let fetch = format!("fetch http://127.0.0.1:8500/v1/health/node/node{host}");
        until("consul has a leader that knows the node", LIMIT, || {
            let checks = self.hosts.arpanet2(host, &fetch).ok()?;
            checks.contains("serfHealth").then_some(())
        })
    }

    fn consul(&self, host: u8, words: &[&str]) -> Outcome<String> {
        let program = self.program.display().to_string();
        self.hosts.run(host, &[&[program.as_str()], words].concat())
    }

    fn pids(&self, host: u8) -> Outcome<Vec<i32>> {
        self.hosts.processes(host, |words| {
            runs(words, "consul") && words.get(1).is_some_and(|word| word == "agent")
        })
    }
}

impl Peer for Consul {
    fn kind(&self) -> PeerKind {
        PeerKind::Consul
    }

    fn version(&self) -> Outcome<String> {
        let told = self.consul(1, &["version"])?;
        let first = told.lines().next().unwrap_or_default();
        Ok(first.trim_start_matches("Consul v").to_owned())
    }

    fn boot(&self) -> Outcome<()> {
        self.launch(1, "-server -bootstrap-expect=1")
    }

    fn join(&self, host: u8) -> Outcome<()> {
        let server = if host < self.hosts.count().min(4) {
            "-server "
        } else {
            ""
        };
        self.launch(host, &format!("{server}-join {}", Hosts::ip(1)))
    }

    fn leave(&self) -> Outcome<()> {
        for host in 1..=self.hosts.count() {
            Hosts::kill(&self.pids(host)?)?;
            self.hosts.run(host, &["rm", "-rf", FOLDER])?;
        }
        Ok(())
    }

    fn register(&self, host: u8, name: &str) -> Outcome<()> {
        let (id, name) = (format!("-id={name}"), format!("-name={name}"));
        let words = ["services", "register", &id, &name, "-port=80"];
        self.consul(host, &words).map(drop)
    }

    fn remove(&self, host: u8, name: &str) -> Outcome<()> {
        let id = format!("-id={name}");
        self.consul(host, &["services", "deregister", &id])
            .map(drop)
    }

    fn question(&self, host: u8, name: &str) -> Outcome<Question> {
        Ok(Question {
            asker: self.hosts.namespace(host)?,
            server: SocketAddr::from((Ipv4Addr::LOCALHOST, 8600)),
            name: format!("{name}.service.consul."),
        })
    }

    fn agent(&self) -> Outcome<Vec<i32>> {
        self.pids(1)
    }
}
