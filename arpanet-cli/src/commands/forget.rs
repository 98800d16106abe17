//! `arpanet2 forget A.B`

use arpanet_core::{NodeAddr, Result};
use clap::Args;
use reqwest::Method;

use super::Context;
use crate::agent::keys::Forgotten;

#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// The dead node's address, A.B
    address: NodeAddr,
}

pub(crate) async fn run(context: &Context, args: &ForgetArgs) -> Result<()> {
    let agent = context.agent()?;
    let path = format!("/v1/nodes/{}", args.address);
    let forgotten: Forgotten = agent.json(agent.request(Method::DELETE, &path)).await?;
    context.printer.result(&forgotten, |forgotten| {
        let key = match forgotten.rekeyed {
            true => "and the cluster has another key than its machine",
            false => "and the cluster's key stays, which its machine has: see rekey --help",
        };
        format!(
            "{} is forgotten, {key}; whoever knows the password can still join: see passwd --help",
            args.address
        )
    })
}
