//! `arpanet2 nodes`

use arpanet_core::Result;

use super::Context;
use crate::agent::status::Node;
use crate::output::table;

pub(crate) async fn run(context: &Context) -> Result<()> {
    let nodes: Vec<Node> = context.agent()?.get("/v1/nodes").await?;
    context.printer.result(&nodes, |nodes| render(nodes))
}

/// The nodes as a table.
pub(crate) fn render(nodes: &[Node]) -> String {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    table(
        &[
            "ADDRESS", "NAME", "ROLE", "STATE", "ENDPOINT", "RTT", "VERSION",
        ],
        nodes.iter().map(|node| {
            vec![
                node.address.to_string(),
                node.name.to_string(),
                node.role.to_string(),
                match node.drained {
                    true => format!("{}, drained", node.state),
                    false => node.state.to_string(),
                },
                or_dash(node.endpoint.map(|endpoint| endpoint.to_string())),
                or_dash(node.rtt_ms.map(|rtt| format!("{rtt:.2} ms"))),
                or_dash(node.version.clone()),
            ]
        }),
    )
}
