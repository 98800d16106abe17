//! `arpanet2 start`

use arpanet_core::Result;
use clap::Args;

use super::Context;
use super::boot::come_up;
use crate::agent::order::Order;
use crate::output::say;

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Stay in the foreground
    #[arg(long)]
    foreground: bool,
}

pub(crate) fn run(context: &Context, args: &StartArgs) -> Result<()> {
    come_up(context, Order::Resume, args.foreground, "coming back")?;
    say("the node is up");
    Ok(())
}
