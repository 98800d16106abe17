//! `arpanet2 deregister ID`

use arpanet_core::{InstanceId, Result};
use clap::Args;

use super::Context;

#[derive(Debug, Args)]
pub(crate) struct DeregisterArgs {
    /// The instance's id, as `services` shows it
    id: InstanceId,
}

pub(crate) async fn run(context: &Context, args: &DeregisterArgs) -> Result<()> {
    context
        .agent()?
        .delete(&format!("/v1/instances/{}", args.id))
        .await
}
