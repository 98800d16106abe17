//! `arpanet2 docker A.B -- ARGS`

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use arpanet_core::addr::DOCKER_API_PORT;
use arpanet_core::{Error, ErrorKind, NodeAddr, Result};
use clap::Args;

use super::{Context, require_root};

#[derive(Debug, Args)]
pub(crate) struct DockerArgs {
    /// The node's address, A.B
    address: NodeAddr,
    /// What the docker client is to do, as in ps -a
    #[arg(last = true, required = true)]
    args: Vec<OsString>,
}

/// Becomes the docker client, and returns only where it can't.
pub(crate) fn run(context: &Context, args: &DockerArgs) -> Result<()> {
    if !context.config.open_docker_plane {
        require_root("reach the docker plane of this host")?;
    }
    let error = client(args.address, &args.args).exec();
    Err(match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(
            ErrorKind::NotFound,
            "there is no docker client on this host",
        )
        .with_hint("install one, the program docker; it needs no engine here")
        .with_source(error),
        _ => {
            Error::new(ErrorKind::Unavailable, "the docker client can't be run").with_source(error)
        }
    })
}

/// The client for this node, whatever the environment says of others.
fn client(node: NodeAddr, args: &[OsString]) -> Command {
    let mut client = Command::new("docker");
    client
        .arg("-H")
        .arg(format!("tcp://{}:{DOCKER_API_PORT}", node.docker()))
        .args(args);
    // The last three are of engines behind TLS; the overlay is encrypted by itself.
    for name in [
        "DOCKER_HOST",
        "DOCKER_CONTEXT",
        "DOCKER_TLS_VERIFY",
        "DOCKER_TLS",
        "DOCKER_CERT_PATH",
    ] {
        client.env_remove(name);
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_everything_on_to_the_client_of_that_node() {
        let args = ["run", "--rm", "-i", "a b"].map(OsString::from);
        let client = client("0.14".parse().unwrap(), &args);
        let given: Vec<_> = client.get_args().collect();
        assert_eq!(
            given,
            ["-H", "tcp://10.254.0.14:2375", "run", "--rm", "-i", "a b"]
        );
        let removed = client.get_envs().filter(|(_, value)| value.is_none());
        assert!(
            removed
                .map(|(name, _)| name)
                .any(|name| name == "DOCKER_HOST")
        );
    }
}
