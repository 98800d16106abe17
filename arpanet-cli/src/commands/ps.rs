//! `arpanet2 ps`

use arpanet_core::Result;
use arpanet_core::runtime::ContainerState;

use super::Context;
use crate::agent::api::Listed;
use crate::output::table;

pub(crate) async fn run(context: &Context) -> Result<()> {
    let containers: Vec<Listed> = context.agent()?.get("/v1/containers").await?;
    context.printer.result(&containers, |containers| {
        table(
            &["NAME", "STATE", "HEALTH", "ADDRESSES", "SERVICE", "COMMAND"],
            containers.iter().map(row),
        )
    })
}

fn row(listed: &Listed) -> Vec<String> {
    let container = &listed.container;
    let addresses: Vec<String> = container
        .spec
        .nets
        .iter()
        .map(ToString::to_string)
        .collect();
    vec![
        container.name.to_string(),
        match container.state {
            ContainerState::Created => "created".to_owned(),
            ContainerState::Running => "running".to_owned(),
            ContainerState::Exited { code } => format!("exited ({code})"),
            _ => "?".to_owned(),
        },
        listed
            .verdict
            .as_ref()
            .map_or_else(|| "-".to_owned(), ToString::to_string),
        addresses.join(","),
        container
            .spec
            .service
            .as_ref()
            .map_or_else(|| "-".to_owned(), |service| service.name.to_string()),
        container
            .spec
            .image
            .iter()
            .chain(&container.spec.command)
            .cloned()
            .collect::<Vec<_>>()
            .join(" "),
    ]
}
