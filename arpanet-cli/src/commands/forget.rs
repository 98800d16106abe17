//! `arpanet2 forget A.B`

use arpanet_core::{NodeAddr, Result};
use clap::Args;

use super::Context;

#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// The dead node's address, A.B
    address: NodeAddr,
}

pub(crate) async fn run(context: &Context, args: &ForgetArgs) -> Result<()> {
    context
        .agent()?
        .delete(&format!("/v1/nodes/{}", args.address))
        .await
}
