//! Networks of the engine.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use arpanet_core::{AppNet, Error, ErrorKind, Result};

use super::ipam::net_of;
use super::protocol::{ENGINES_OWN_SPACE, Empty, NetworkCreation, NetworkRef};
use super::state::Network;
use super::{DRIVER, NetworkDriver};

impl NetworkDriver {
    pub(super) async fn create_network(&self, request: NetworkCreation) -> Result<Empty> {
        let network = wanted(&request)?;
        self.require_apart(network.net, &request.network_id)?;
        self.networks.make(network.net).await?;
        let id = request.network_id;
        self.kept.change(|state| {
            state.networks.insert(id, network);
        })?;
        Ok(Empty {})
    }

    pub(super) async fn delete_network(&self, request: NetworkRef) -> Result<Empty> {
        self.drop_network(&request.network_id).await?;
        Ok(Empty {})
    }

    pub(super) async fn drop_network(&self, id: &str) -> Result<()> {
        let Some(network) = self.kept.state().networks.get(id).cloned() else {
            return Ok(());
        };
        self.networks.remove(network.net).await?;
        self.kept.change(|state| {
            state.networks.remove(id);
        })?;
        // What was kept free for it; the rest is the engine's to release.
        self.drop_idle(super::now()).await;
        Ok(())
    }

    /// Refuses a network that shares addresses with another of this engine's.
    pub(super) fn require_apart(&self, net: AppNet, but: &str) -> Result<()> {
        match self.kept.state().overlapping(net, but) {
            None => Ok(()),
            Some(other) => Err(Error::new(
                ErrorKind::Conflict,
                format!("{net} overlaps {other}, which this engine has a network for already"),
            )
            .with_hint("use that network, or choose another --subnet")),
        }
    }
}

/// The network that a request asks for.
fn wanted(request: &NetworkCreation) -> Result<Network> {
    let [data] = request.ipv4.as_deref().unwrap_or_default() else {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "a network of the cluster has one --subnet",
        ));
    };
    if data.address_space == ENGINES_OWN_SPACE {
        let subnet = match net_of(&data.pool) {
            Ok(net) => net.to_string(),
            Err(_) => "10.1.0.0/16".to_owned(),
        };
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "without --ipam-driver arpanet each host would give out the same addresses",
        )
        .with_hint(format!(
            "docker network create -d {DRIVER} --ipam-driver {DRIVER} --subnet {subnet} NAME"
        )));
    }
    if request.ipv6.as_ref().is_some_and(|data| !data.is_empty()) {
        return Err(
            Error::new(ErrorKind::InvalidInput, "the overlay has no IPv6")
                .with_hint("create the network without --ipv6"),
        );
    }
    let aux: BTreeSet<Ipv4Addr> = data
        .aux_addresses
        .iter()
        .flat_map(|aux| aux.values())
        .filter_map(|text| text.split('/').next()?.parse().ok())
        .collect();
    Ok(Network {
        net: net_of(&data.pool)?,
        aux,
        internal: request.is_internal(),
    })
}
