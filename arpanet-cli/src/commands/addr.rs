//! `arpanet2 addr A.B`

use std::net::Ipv4Addr;

use arpanet_core::{NodeAddr, Result};
use clap::Args;
use serde::Serialize;

use super::Context;
use crate::output::table;

#[derive(Debug, Args)]
pub(crate) struct AddrArgs {
    /// The node's address, A.B
    address: NodeAddr,
}

#[derive(Serialize)]
struct Addresses {
    overlay: Ipv4Addr,
    docker: Ipv4Addr,
    discovery: Ipv4Addr,
}

pub(crate) fn run(context: &Context, args: &AddrArgs) -> Result<()> {
    let node = args.address;
    let addresses = Addresses {
        overlay: node.overlay(),
        docker: node.docker(),
        discovery: node.discovery(),
    };
    context.printer.result(&addresses, |addresses| {
        table(
            &["PLANE", "ADDRESS"],
            [
                vec!["overlay".to_owned(), addresses.overlay.to_string()],
                vec!["docker".to_owned(), addresses.docker.to_string()],
                vec!["discovery".to_owned(), addresses.discovery.to_string()],
            ],
        )
    })
}
