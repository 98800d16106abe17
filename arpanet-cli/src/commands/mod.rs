//! One file a command.

pub(crate) mod addr;
pub(crate) mod attach;
pub(crate) mod bench;
pub(crate) mod boot;
pub(crate) mod completions;
pub(crate) mod consul;
pub(crate) mod demo;
pub(crate) mod deregister;
pub(crate) mod detach;
pub(crate) mod docker;
pub(crate) mod doctor;
pub(crate) mod drain;
pub(crate) mod exec;
pub(crate) mod expose;
pub(crate) mod forget;
pub(crate) mod hello;
pub(crate) mod hide;
pub(crate) mod join;
pub(crate) mod kv;
pub(crate) mod lab;
mod lines;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod networks;
pub(crate) mod nodes;
pub(crate) mod passwd;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod register;
pub(crate) mod rekey;
pub(crate) mod reset;
pub(crate) mod resolve;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod services;
pub(crate) mod setup;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod why;

use arpanet_core::{Error, ErrorKind, Result};

use crate::agent::state::StackKind;
use crate::args::Global;
use crate::client::Agent;
use crate::config::Config;
use crate::output::Printer;
use crate::paths::Paths;

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) config: Config,
    pub(crate) paths: Paths,
    pub(crate) printer: Printer,
}

impl Context {
    pub(crate) fn new(global: Global) -> Result<Self> {
        let config = Config::load(&global)?;
        let paths = config.paths(&global);
        let printer = Printer::new(global.json);
        Ok(Self {
            global,
            config,
            paths,
            printer,
        })
    }

    /// The same on a host whose stack is this, where one is given.
    pub(crate) fn with_stack(&self, stack: Option<StackKind>) -> Self {
        let mut config = self.config.clone();
        config.stack = stack.or(config.stack);
        Self {
            global: self.global.clone(),
            config,
            paths: self.paths.clone(),
            printer: self.printer,
        }
    }

    /// This host's agent.
    pub(crate) fn agent(&self) -> Result<Agent> {
        Agent::new(&self.paths)
    }
}

/// Refuses anybody else.
fn require_root(to: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(
        Error::new(ErrorKind::PermissionDenied, format!("only root can {to}"))
            .with_hint("try it with sudo"),
    )
}
