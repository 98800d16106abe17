//! `arpanet2 resolve NAME`

use std::net::Ipv4Addr;

use arpanet_core::{Error, ErrorKind, Result};
use clap::Args;
use reqwest::Method;

use super::Context;

#[derive(Debug, Args)]
pub(crate) struct ResolveArgs {
    /// A service, or a whole name as in web.service.consul or node1.node.consul
    name: String,
}

pub(crate) async fn run(context: &Context, args: &ResolveArgs) -> Result<()> {
    let agent = context.agent()?;
    let request = agent
        .request(Method::GET, "/v1/resolve")
        .query(&[("name", &args.name)]);
    let addresses: Vec<Ipv4Addr> = agent.json(request).await?;
    if addresses.is_empty() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("{} has no address", args.name),
        ));
    }
    context.printer.result(&addresses, |addresses| {
        addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    })
}
