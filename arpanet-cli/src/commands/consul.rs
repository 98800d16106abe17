//! `arpanet2 consul -- ARGS`

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use arpanet_core::addr::CONSUL_HTTP_PORT;
use arpanet_core::{Error, ErrorKind, NodeAddr, Result};
use clap::Args;

use super::Context;
use crate::agent::consul::container;
use crate::agent::status::Status;
use crate::host;

#[derive(Debug, Args)]
pub(crate) struct ConsulArgs {
    /// What consul is to do, as in members or operator raft list-peers
    #[arg(last = true, required = true)]
    args: Vec<OsString>,
}

/// Becomes the consul program, and returns only where it can't.
pub(crate) async fn run(context: &Context, args: &ConsulArgs) -> Result<ExitCode> {
    let status: Status = context.agent()?.get("/v1/status").await?;
    if status.stack.discovery != "consul" {
        let message = format!("this cluster's discovery is {}", status.stack.discovery);
        return Err(Error::new(ErrorKind::Unsupported, message)
            .with_hint("a cluster that was booted with --discovery consul has consul"));
    }
    let mut consul = match host::consul(context.config.consul.as_deref()) {
        Ok(program) => command(&program, status.node.address, &args.args),
        Err(_) if container::is_there(context) => contained(context, &args.args),
        Err(error) => return Err(error),
    };
    if let Some(token) = &context.config.consul_token_file {
        // Consul reads it itself, so that it is in no environment.
        consul.env("CONSUL_HTTP_TOKEN_FILE", token);
    }
    let error = consul.exec();
    let message = format!("{} can't be run", consul.get_program().display());
    Err(Error::new(ErrorKind::Unavailable, message).with_source(error))
}

/// Consul, asking this node's own agent whatever the environment says of others.
fn command(program: &Path, me: NodeAddr, args: &[OsString]) -> Command {
    let mut consul = Command::new(program);
    consul.args(args).env(
        "CONSUL_HTTP_ADDR",
        format!("http://{}:{CONSUL_HTTP_PORT}", me.discovery()),
    );
    for name in ["CONSUL_HTTP_SSL", "CONSUL_NAMESPACE"] {
        consul.env_remove(name);
    }
    consul
}

/// The consul program of the container that this node's agent is in.
fn contained(context: &Context, args: &[OsString]) -> Command {
    let engine = context.config.docker().socket;
    let mut docker = Command::new("docker");
    docker
        .arg("--host")
        .arg(format!("unix://{}", engine.display()))
        .args(["exec", "--interactive", "--env"])
        .arg(format!(
            "CONSUL_HTTP_ADDR=unix://{}",
            container::socket(context).display()
        ))
        // As it is in this environment.
        .args(["--env", "CONSUL_HTTP_TOKEN_FILE"])
        .args([container::NAME, "consul"])
        .args(args)
        .env_remove("DOCKER_CONTEXT");
    docker
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_everything_on_and_asks_this_node() {
        let args = ["kv", "get", "a b"].map(OsString::from);
        let consul = command(Path::new("/opt/consul"), "2.12".parse().unwrap(), &args);
        assert_eq!(consul.get_program(), "/opt/consul");
        assert_eq!(consul.get_args().collect::<Vec<_>>(), ["kv", "get", "a b"]);
        let address = consul
            .get_envs()
            .find(|(name, _)| *name == "CONSUL_HTTP_ADDR");
        let address = address.and_then(|(_, value)| value);
        assert_eq!(address, Some("http://10.253.2.12:8500".as_ref()));
    }
}
