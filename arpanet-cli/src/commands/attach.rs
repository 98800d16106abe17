//! `arpanet2 attach NAME ADDR`

use arpanet_core::runtime::NetRequest;
use arpanet_core::{AppAddr, ContainerName, Result};
use clap::Args;

use super::Context;

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// The container
    name: ContainerName,
    /// An address, as in 10.1.0.5/16, or a network for any free one of it, as in 10.1.0.0/16 or by its name
    #[arg(value_name = "ADDR")]
    net: NetRequest,
}

pub(crate) async fn run(context: &Context, args: &AttachArgs) -> Result<()> {
    let addr: AppAddr = context
        .agent()?
        .post(
            &format!("/v1/containers/{}/addresses", args.name),
            &args.net,
        )
        .await?;
    context.printer.result(&addr, ToString::to_string)
}
