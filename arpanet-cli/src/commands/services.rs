//! `arpanet2 services`

use arpanet_core::Result;

use super::Context;
use crate::agent::status::Service;
use crate::output::table;

pub(crate) async fn run(context: &Context) -> Result<()> {
    let services: Vec<Service> = context.agent()?.get("/v1/services").await?;
    context
        .printer
        .result(&services, |services| render(services))
}

/// The instances of all services as a table.
pub(crate) fn render(services: &[Service]) -> String {
    table(
        &["SERVICE", "ADDRESS", "PORT", "NODE", "HEALTH", "ID"],
        services.iter().flat_map(|service| {
            service.instances.iter().map(|instance| {
                vec![
                    service.name.to_string(),
                    instance.ip.to_string(),
                    instance.port.to_string(),
                    instance.node.to_string(),
                    match &instance.why {
                        None => instance.health.to_string(),
                        Some(why) => format!("{} ({why})", instance.health),
                    },
                    instance.id.to_string(),
                ]
            })
        }),
    )
}
