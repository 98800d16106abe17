//! The kernel's device: made, or found as an earlier process left it.

use std::time::SystemTime;

use arpanet_core::{ErrorKind, Result};
use arpanet_netlink::{
    DeviceChange, Namespace, Netlink, WireGuard, WireGuardDevice, WireGuardSecret,
};

use super::KernelTunnelConfig;
use super::book::may_go_on;
use crate::tunnel::{PrivateKey, PublicKey};

/// What the kernel calls this kind of link.
const KIND: &str = "wireguard";

/// The device as it is up.
pub(super) struct Found {
    pub(super) key: PublicKey,
    pub(super) device: WireGuardDevice,
}

/// Whether the kernel has WireGuard, or loads it when asked for: tried in a namespace that is gone when this returns.
///
/// # Errors
/// [`ErrorKind::PermissionDenied`] where no namespace can be made.
pub async fn kernel_has_wireguard() -> Result<bool> {
    let place = Namespace::create()?.handle()?;
    match place.add_wireguard("wg0", place.namespace()).await {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a link is a device of the kernel's WireGuard.
pub(crate) async fn is_kernel_device(namespace: &Namespace, name: &str) -> Result<bool> {
    let link = namespace.handle()?.link(name).await?;
    Ok(link.is_some_and(|link| link.kind.as_deref() == Some(KIND)))
}

/// Removes a link if it is a device of the kernel's WireGuard.
pub(crate) async fn remove_kernel_device(namespace: &Namespace, name: &str) -> Result<()> {
    match is_kernel_device(namespace, name).await? {
        true => namespace.handle()?.delete_link(name).await,
        false => Ok(()),
    }
}

/// Makes the device that is asked for, or finds it.
pub(super) async fn bring_up(config: &KernelTunnelConfig) -> Result<(WireGuard, Found)> {
    let (name, inside) = (config.device.as_str(), config.namespace.handle()?);
    let wireguard = match going_on(config, &inside).await? {
        Some(wireguard) => wireguard,
        None => make(config, &inside).await?,
    };
    inside.set_mtu(name, config.mtu.into()).await?;
    let outside = DeviceChange::new()
        .listen_port(config.port)
        .mark(config.mark);
    wireguard
        .change(name, &outside)
        .map_err(|error| in_use(error, config.port))?;
    inside
        .set_up(name, true)
        .await
        .map_err(|error| in_use(error, config.port))?;
    // The last thing: what has no note was not made to the end.
    inside.set_alias(name, &config.owner).await?;
    let device = wireguard.device(name)?;
    let key = PublicKey::from_bytes(device.public_key.unwrap_or_default());
    Ok((wireguard, Found { key, device }))
}

/// The device that an earlier process left, if it can go on.
async fn going_on(config: &KernelTunnelConfig, inside: &Netlink) -> Result<Option<WireGuard>> {
    let link = inside.link(&config.device).await?;
    let Some(link) = link.filter(|link| link.kind.as_deref() == Some(KIND)) else {
        return Ok(None);
    };
    let wireguard = config.namespace.wireguard()?;
    let device = wireguard.device(&config.device)?;
    let note = link.alias.as_deref();
    let goes_on = may_go_on(&device, note, &config.owner, SystemTime::now());
    Ok(goes_on.then_some(wireguard))
}

/// A new device with a key of its own, in the place of whatever has its name.
async fn make(config: &KernelTunnelConfig, inside: &Netlink) -> Result<WireGuard> {
    inside.delete_link(&config.device).await?;
    let host = config.host.handle()?;
    host.add_wireguard(&config.device, &config.namespace)
        .await?;
    let wireguard = config.namespace.wireguard()?;
    let key = PrivateKey::generate()?;
    let key = WireGuardSecret::from_bytes(&key.to_bytes());
    wireguard.change(&config.device, &DeviceChange::new().private_key(key))?;
    Ok(wireguard)
}

fn in_use(error: arpanet_core::Error, port: u16) -> arpanet_core::Error {
    match error.kind() {
        ErrorKind::Conflict => error
            .context(format!("UDP port {port} is in use"))
            .with_hint("end what has it, choose another with tunnel_port in the configuration, or do without the kernel's WireGuard: --tunnel user"),
        _ => error,
    }
}
