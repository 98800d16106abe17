//! `arpanet2 drain A.B` and `arpanet2 undrain A.B`

use arpanet_core::{NodeAddr, Result};
use clap::Args;

use super::Context;

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The node's address, A.B
    address: NodeAddr,
}

impl DrainArgs {
    fn path(&self) -> String {
        format!("/v1/nodes/{}/drain", self.address)
    }
}

pub(crate) async fn drain(context: &Context, args: &DrainArgs) -> Result<()> {
    context.agent()?.post(&args.path(), &()).await
}

pub(crate) async fn undrain(context: &Context, args: &DrainArgs) -> Result<()> {
    context.agent()?.delete(&args.path()).await
}
