//! `arpanet2 stop`

use arpanet_core::Result;

use super::Context;
use crate::agent::api::Ending;
use crate::agent::{consul, lock};
use crate::output::Progress;

pub(crate) async fn run(context: &Context) -> Result<()> {
    end(context, Ending::Leave, "leaving the cluster").await?;
    consul::container::stop(context).await
}

/// Ends the agent and returns when it is gone.
pub(super) async fn end(context: &Context, ending: Ending, what: &str) -> Result<()> {
    let progress = Progress::begin(what);
    let asked = context.agent()?.post::<()>("/v1/end", &ending).await;
    let ended = match asked {
        Ok(()) => lock::wait_until_free(&context.paths).await,
        Err(error) => Err(error),
    };
    progress.end();
    ended
}
