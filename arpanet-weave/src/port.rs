//! The port of weave's bridge by which the router's namespace is on weave's network: all that arpanet2 adds to the bridge.
//!
//! The host itself gets no address on the bridge. One that is given there by `weave expose` can be reached by every container
//! through docker's bridge, is masqueraded again whenever weave's router is launched, and goes with the others when the first is
//! removed. None of that concerns a port.

use std::time::Duration;

use arpanet_core::{ErrorKind, NodeAddr, Result};
use arpanet_netlink::{MacAddr, Netlink, VethEnd};

use crate::error::own;
use crate::offload;

/// The port, on the host.
const PORT: &str = "arpanet-weave";
/// Its other end, in the router's namespace.
pub(crate) const UPLINK: &str = "weave0";
/// How long the kernel may take to switch it on.
const CARRYING: Duration = Duration::from_secs(5);

/// The Ethernet address of a node's uplink. By it the others' packets find the node.
fn mac_of(node: NodeAddr) -> MacAddr {
    let [a, b, c, d] = node.docker().octets();
    MacAddr::new([0x02, 0xA2, a, b, c, d])
}

/// Makes the port, or mends it: it goes with the bridge, and weave's own `reset` removes that.
///
/// # Errors
/// [`ErrorKind::Unavailable`] where there is no bridge.
pub(crate) async fn plug_in(
    host: &Netlink,
    inside: &Netlink,
    bridge: &str,
    node: NodeAddr,
    mtu: u16,
) -> Result<()> {
    let Some(bridge) = host.link(bridge).await? else {
        let message = format!("weave's bridge {bridge} is not there, though its router runs");
        return Err(own(ErrorKind::Unavailable, message));
    };
    let (near, far) = (host.link(PORT).await?, inside.link(UPLINK).await?);
    let is_whole = matches!((&near, &far), (Some(near), Some(far))
        if near.peer == Some(far.index) && far.peer == Some(near.index) && far.mac == Some(mac_of(node)));
    if !is_whole {
        unplug(host, inside).await?;
        host.add_veth(
            &VethEnd::new(PORT, host.namespace()).mtu(mtu.into()),
            &VethEnd::new(UPLINK, inside.namespace())
                .mtu(mtu.into())
                .mac(mac_of(node)),
        )
        .await?;
    }
    if near.is_none_or(|near| !is_whole || near.mtu != u32::from(mtu)) {
        host.set_mtu(PORT, mtu.into()).await?;
        inside.set_mtu(UPLINK, mtu.into()).await?;
    }
    if host.require_link(PORT).await?.master != Some(bridge.index) {
        host.set_master(PORT, Some(&bridge.name)).await?;
    }
    offload::switch_off(inside.namespace(), UPLINK)?;
    host.set_up(PORT, true).await?;
    inside.set_up(UPLINK, true).await?;
    host.wait_until_carrying(PORT, CARRYING).await?;
    inside.wait_until_carrying(UPLINK, CARRYING).await
}

/// Takes the node off weave's network, and leaves the port for the next launch. The end on the host: with the other, the kernel
/// would take the routes to peers away.
pub(crate) async fn switch_off(host: &Netlink) -> Result<()> {
    match host.set_up(PORT, false).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn unplug(host: &Netlink, inside: &Netlink) -> Result<()> {
    host.delete_link(PORT).await?;
    inside.delete_link(UPLINK).await
}
