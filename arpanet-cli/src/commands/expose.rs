//! `arpanet2 expose PLANE`

use arpanet_core::Result;
use clap::Args;

use super::Context;
use crate::agent::by_hand::HidablePlane;

#[derive(Debug, Args)]
pub(crate) struct ExposeArgs {
    /// The plane
    plane: HidablePlane,
}

pub(crate) async fn run(context: &Context, args: &ExposeArgs) -> Result<()> {
    let agent = context.agent()?;
    let path = format!("/v1/planes/{}", args.plane);
    agent.post(&path, &()).await
}
