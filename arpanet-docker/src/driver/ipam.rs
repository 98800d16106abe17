//! Pools and addresses.

use std::net::Ipv4Addr;

use arpanet_core::{AppAddr, AppNet, Error, ErrorKind, Result};
use ipnet::Ipv4Net;

use super::protocol::{Address, AddressRelease, AddressRequest, Empty, Pool, PoolRequest};
use super::state::Given;
use super::{IDLE, NetworkDriver, now};

/// The CIDR of a network that the engine names.
pub(super) fn net_of(cidr: &str) -> Result<AppNet> {
    cidr.parse::<AppNet>()
        .map_err(|error| error.context(format!("{cidr} can't be a network of the cluster")))
}

fn refused(message: impl Into<String>, hint: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, message).with_hint(hint)
}

impl NetworkDriver {
    pub(super) async fn request_pool(&self, request: PoolRequest) -> Result<Pool> {
        if request.v6 {
            return Err(refused(
                "the overlay has no IPv6",
                "create the network without --ipv6 and without an IPv6 --subnet",
            ));
        }
        if !request.sub_pool.is_empty() {
            return Err(refused(
                "--ip-range is for networks of one host, and this one's addresses are divided among all hosts",
                "leave it out: addresses never collide",
            ));
        }
        let net = match request.pool.as_str() {
            "" => self.networks.choose().await?,
            cidr => net_of(cidr)?,
        };
        // Told now, so that nothing has to be taken back later; made by CreateNetwork.
        self.require_apart(net, "")?;
        Ok(Pool {
            pool_id: net.to_string(),
            pool: net.to_string(),
            data: Default::default(),
        })
    }

    pub(super) async fn request_address(&self, request: AddressRequest) -> Result<Address> {
        let net = net_of(&request.pool_id)?;
        let ip = match request.address.as_str() {
            "" => None,
            text => Some(text.parse::<Ipv4Addr>().map_err(|source| {
                Error::new(
                    ErrorKind::InvalidInput,
                    format!("{text} is no address of {net}"),
                )
                .with_source(source)
            })?),
        };
        if request.is_gateway() {
            // Nobody answers there: the way out is the engine's own, and the way into the overlay is 169.254.1.1. The
            // engine wants to show one.
            let ip = ip.unwrap_or_else(|| Ipv4Addr::from(u32::from(net.cidr().network()) + 1));
            return answer(net, ip);
        }
        self.drop_idle(now()).await;
        if let Some(ip) = ip
            && let Some(reason) = self.kept.state().refuses(ip, now())
        {
            return Err(
                Error::new(ErrorKind::Conflict, reason).with_hint("choose another --ip, or none")
            );
        }
        let addr = self.networks.reserve(net, ip).await?;
        let since = now();
        let kept = self.kept.change(|state| {
            state.addresses.insert(addr.ip(), Given { addr, since });
        });
        if let Err(error) = kept {
            let _ = self.networks.release(addr).await;
            return Err(error);
        }
        answer(net, addr.ip())
    }

    /// The engine releases an address also when it could not use it. One that an endpoint has stays.
    pub(super) async fn release_address(&self, request: AddressRelease) -> Result<Empty> {
        let text = request.address.split('/').next().unwrap_or_default();
        let Ok(ip) = text.parse::<Ipv4Addr>() else {
            return Ok(Empty {});
        };
        let addr = {
            let state = self.kept.state();
            let used = state
                .endpoints
                .values()
                .any(|endpoint| endpoint.addr.ip() == ip);
            let given = state.addresses.get(&ip).filter(|_| !used);
            given.map(|given| given.addr)
        };
        if let Some(addr) = addr {
            self.release(addr).await?;
        }
        Ok(Empty {})
    }

    /// Gives an address back to the cluster.
    pub(super) async fn release(&self, addr: AppAddr) -> Result<()> {
        self.networks.release(addr).await?;
        self.kept.change(|state| {
            state.addresses.remove(&addr.ip());
        })
    }

    /// Gives back what the engine asked for and did nothing with.
    pub(super) async fn drop_idle(&self, now: u64) {
        let idle = self.kept.state().idle(now.saturating_sub(IDLE.as_secs()));
        for addr in idle {
            if let Err(error) = self.release(addr).await {
                tracing::warn!(%addr, %error, "an address that nobody uses can't be given back");
            }
        }
    }
}

/// An address as the engine puts it on a link: with the network's prefix.
fn answer(net: AppNet, ip: Ipv4Addr) -> Result<Address> {
    let address = Ipv4Net::new(ip, net.cidr().prefix_len()).map_err(|source| {
        Error::new(ErrorKind::Internal, "a prefix out of range").with_source(source)
    })?;
    if !net.contains(ip) {
        return Err(refused(
            format!("{ip} is not in {net}"),
            "choose an address of the network",
        ));
    }
    Ok(Address {
        address: address.to_string(),
        data: Default::default(),
    })
}
