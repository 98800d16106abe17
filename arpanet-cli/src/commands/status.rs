//! `arpanet2 status`

use arpanet_core::Result;

use super::{Context, nodes, services};
use crate::agent::status::Status;

pub(crate) async fn run(context: &Context) -> Result<()> {
    let status: Status = context.agent()?.get("/v1/status").await?;
    context.printer.result(&status, |status| {
        let tunnel = status.stack.tunnel.as_ref();
        let tunnel = tunnel.map_or_else(String::new, |kind| format!(" ({kind})"));
        let mut text = format!(
            "node {} ({}), {}, cluster {}, key {}
stack {}{tunnel} + {} + {}, DNS by {}, version {}

{}

{}",
            status.node.address,
            status.node.name,
            status.node.role,
            status.cluster,
            status.key,
            status.stack.overlay,
            status.stack.discovery,
            status.stack.runtime,
            status.stack.dns,
            status.version,
            nodes::render(&status.nodes),
            services::render(&status.services),
        );
        if status.stale {
            text.push_str(
                "\n\nthe catalogue is out of reach: services are as they were last known",
            );
        }
        for advice in &status.advice {
            text.push_str("\n\nadvice: ");
            text.push_str(advice);
        }
        text
    })
}
