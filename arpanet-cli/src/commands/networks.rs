//! `arpanet2 networks [create|rm]`

use arpanet_core::cluster::Network;
use arpanet_core::{AppNet, Result, ServiceName};
use clap::{Args, Subcommand};

use super::Context;
use crate::agent::api::{ListedNetwork, NetworkRequest};
use crate::output::table;

#[derive(Debug, Args)]
pub(crate) struct NetworksArgs {
    #[command(subcommand)]
    command: Option<NetworksCommand>,
}

#[derive(Debug, Subcommand)]
enum NetworksCommand {
    /// Make a network known to every node
    Create {
        /// Its name
        name: ServiceName,
        /// Its addresses, as in 10.1.0.0/16 [default: any free /16]
        net: Option<AppNet>,
    },
    /// Remove a network from every node
    Rm {
        /// Its name
        name: ServiceName,
    },
}

pub(crate) async fn run(context: &Context, args: NetworksArgs) -> Result<()> {
    let agent = context.agent()?;
    match args.command {
        None => {
            let networks: Vec<ListedNetwork> = agent.get("/v1/networks").await?;
            context.printer.result(&networks, |networks| {
                let row = |network: &ListedNetwork| {
                    let driver = network.driver.as_deref().unwrap_or("-");
                    vec![
                        network.name.clone(),
                        network.net.to_string(),
                        driver.to_owned(),
                    ]
                };
                table(&["NAME", "NETWORK", "DRIVER"], networks.iter().map(row))
            })
        }
        Some(NetworksCommand::Create { name, net }) => {
            let network: Network = agent
                .post("/v1/networks", &NetworkRequest { name, net })
                .await?;
            context
                .printer
                .result(&network, |network| network.net.to_string())
        }
        Some(NetworksCommand::Rm { name }) => agent.delete(&format!("/v1/networks/{name}")).await,
    }
}
