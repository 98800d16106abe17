//! `arpanet2 register NAME`

use std::net::Ipv4Addr;

use arpanet_core::{InstanceId, Result, ServiceName, Tag};
use clap::Args;

use super::Context;
use crate::agent::by_hand::Registration;

#[derive(Debug, Args)]
pub(crate) struct RegisterArgs {
    /// The service
    service: ServiceName,
    /// The port
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The address [default: this node's own]
    #[arg(long)]
    ip: Option<Ipv4Addr>,
    /// Names within the service
    #[arg(long, value_delimiter = ',')]
    tags: Vec<Tag>,
    /// The instance's id [default: made of node, service, address and port]
    #[arg(long)]
    id: Option<InstanceId>,
}

pub(crate) async fn run(context: &Context, args: RegisterArgs) -> Result<()> {
    let registration = Registration {
        service: args.service,
        ip: args.ip,
        port: args.port,
        id: args.id,
        tags: args.tags,
    };
    let id: InstanceId = context
        .agent()?
        .post("/v1/instances", &registration)
        .await?;
    context.printer.result(&id, ToString::to_string)
}
