//! Addresses of links.

use std::net::IpAddr;

use arpanet_core::Result;
use ipnet::{IpNet, Ipv4Net};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use crate::Netlink;
use crate::error::system;

/// An address on a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Address {
    /// The link's name.
    pub link: String,
    /// The address with its prefix, of either family.
    pub address: IpNet,
}

impl Netlink {
    /// All addresses, of both families.
    ///
    /// # Errors
    /// [`arpanet_core::ErrorKind::Unavailable`] if they change faster than they can be read.
    pub async fn addresses(&self) -> Result<Vec<Address>> {
        let links = self.links().await?;
        let entries = self
            .dump(
                RouteNetlinkMessage::GetAddress(AddressMessage::default()),
                "addresses",
            )
            .await?;
        let address = |entry| {
            let RouteNetlinkMessage::NewAddress(message) = entry else {
                return None;
            };
            let link = links
                .iter()
                .find(|link| link.index == message.header.index)?
                .name
                .clone();
            let (mut local, mut peer) = (None, None);
            for attribute in message.attributes {
                match attribute {
                    AddressAttribute::Local(ip) => local = Some(ip),
                    AddressAttribute::Address(ip) => peer = Some(ip),
                    _ => {}
                }
            }
            let address = IpNet::new(local.or(peer)?, message.header.prefix_len).ok()?;
            Some(Address { link, address })
        };
        Ok(entries.into_iter().filter_map(address).collect())
    }

    /// Puts an address on a link. One that is there stays.
    ///
    /// # Errors
    /// [`arpanet_core::ErrorKind::NotFound`] if there is no such link.
    pub async fn add_address(&self, link: &str, address: Ipv4Net) -> Result<()> {
        let message = self.address_message(link, address).await?;
        let made = self
            .change(
                RouteNetlinkMessage::NewAddress(message),
                NLM_F_CREATE | NLM_F_REPLACE,
            )
            .await;
        made.map_err(|error| {
            system(
                "add an address",
                format!("{address} can't be put on {link}"),
                error,
            )
        })
    }

    /// Takes an address off a link. Succeeds if it is not there, or the link is not.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn delete_address(&self, link: &str, address: Ipv4Net) -> Result<()> {
        if self.link(link).await?.is_none() {
            return Ok(());
        }
        let message = self.address_message(link, address).await?;
        match self
            .change(RouteNetlinkMessage::DelAddress(message), 0)
            .await
        {
            Err(error)
                if !matches!(
                    error.raw_os_error(),
                    Some(libc::EADDRNOTAVAIL | libc::ENODEV)
                ) =>
            {
                Err(system(
                    "delete an address",
                    format!("{address} can't be taken off {link}"),
                    error,
                ))
            }
            _ => Ok(()),
        }
    }

    async fn address_message(&self, link: &str, address: Ipv4Net) -> Result<AddressMessage> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = address.prefix_len();
        message.header.index = self.require_link(link).await?.index;
        let ip = IpAddr::V4(address.addr());
        message
            .attributes
            .extend([AddressAttribute::Local(ip), AddressAttribute::Address(ip)]);
        Ok(message)
    }
}
