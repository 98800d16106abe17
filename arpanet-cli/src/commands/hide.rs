//! `arpanet2 hide PLANE`

use arpanet_core::Result;
use clap::Args;

use super::Context;
use crate::agent::by_hand::HidablePlane;

#[derive(Debug, Args)]
pub(crate) struct HideArgs {
    /// The plane
    plane: HidablePlane,
}

pub(crate) async fn run(context: &Context, args: &HideArgs) -> Result<()> {
    let agent = context.agent()?;
    let path = format!("/v1/planes/{}", args.plane);
    agent.delete(&path).await
}
