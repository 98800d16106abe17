//! `arpanet2 detach NAME ADDR`

use std::net::Ipv4Addr;

use arpanet_core::{AppAddr, ContainerName, Result};
use clap::Args;

use super::Context;

#[derive(Debug, Args)]
pub(crate) struct DetachArgs {
    /// The container
    name: ContainerName,
    /// The address, as in 10.1.0.5 or 10.1.0.5/16
    #[arg(value_name = "ADDR", value_parser = ip)]
    ip: Ipv4Addr,
}

fn ip(text: &str) -> Result<Ipv4Addr> {
    match text.parse() {
        Ok(ip) => Ok(ip),
        Err(_) => text.parse().map(AppAddr::ip),
    }
}

pub(crate) async fn run(context: &Context, args: &DetachArgs) -> Result<()> {
    context
        .agent()?
        .delete(&format!(
            "/v1/containers/{}/addresses/{}",
            args.name, args.ip
        ))
        .await
}
