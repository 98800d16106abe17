//! `arpanet2 rm NAME`

use arpanet_core::{ContainerName, Result};
use clap::Args;

use super::Context;

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// End it at once, without SIGTERM and its grace
    #[arg(short, long)]
    force: bool,
    /// The containers
    #[arg(required = true)]
    names: Vec<ContainerName>,
}

pub(crate) async fn run(context: &Context, args: &RmArgs) -> Result<()> {
    let agent = context.agent()?;
    for name in &args.names {
        if !args.force {
            let _: i32 = agent
                .post(&format!("/v1/containers/{name}/stop"), &())
                .await?;
        }
        agent.delete(&format!("/v1/containers/{name}")).await?;
    }
    Ok(())
}
