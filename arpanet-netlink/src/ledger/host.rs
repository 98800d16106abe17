//! Making and unmaking a change on the real host.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use arpanet_core::{ErrorKind, Result};
use async_trait::async_trait;

use super::change::{Before, Change, VethPair};
use crate::error::{own, system};
use crate::{Namespace, Netlink, VethEnd};

/// What the ledger works on: the host, or a model of one in tests.
#[async_trait]
pub(crate) trait Host: fmt::Debug + Send + Sync {
    /// Whether the host is as the change would make it.
    async fn in_effect(&self, change: &Change) -> Result<bool>;

    /// What has to be known to undo the change, read before it is made.
    async fn before(&self, change: &Change) -> Result<Before>;

    /// Makes the change, or finishes one that was half made.
    async fn make(&self, change: &Change) -> Result<()>;

    /// Undoes the change, also if it was half made, or never, or is undone.
    async fn unmake(&self, change: &Change, before: &Before) -> Result<()>;
}

#[async_trait]
impl Host for Netlink {
    async fn in_effect(&self, change: &Change) -> Result<bool> {
        Ok(match change {
            Change::AddRule(rule) => self.rules().await?.contains(rule),
            Change::MoveRule { from, to } => {
                let rules = self.rules().await?;
                rules.contains(to) && !rules.contains(from)
            }
            Change::AddRoute(route) => self.routes().await?.contains(route),
            Change::AddVeth(pair) => has_veth(self, pair).await?,
            Change::AddAddress { link, address } => {
                let all = self.addresses().await?;
                all.iter()
                    .any(|other| other.link == *link && other.address == (*address).into())
            }
            Change::SetSysctl { name, value } => self.namespace().sysctl(name)? == *value,
            Change::PinNamespace { path } => Namespace::open(path).is_ok(),
            Change::WriteFile {
                path,
                contents,
                mode,
            } => read_file(path)?
                .is_some_and(|(bytes, found)| bytes == contents.as_bytes() && found == *mode),
        })
    }

    async fn before(&self, change: &Change) -> Result<Before> {
        Ok(match change {
            Change::MoveRule { from, to } => {
                let rules = self.rules().await?;
                Before::Rules {
                    from: rules.contains(from),
                    to: rules.contains(to),
                }
            }
            Change::SetSysctl { name, .. } => Before::Value(self.namespace().sysctl(name)?),
            Change::WriteFile { path, .. } => match read_file(path)? {
                Some((contents, mode)) => Before::File { contents, mode },
                None => Before::Nothing,
            },
            Change::AddVeth(pair) if self.link(&pair.name).await?.is_some() => {
                let message = format!("a link {} is there already, and not one of ours", pair.name);
                return Err(own("add a link", ErrorKind::AlreadyExists, message)
                    .with_hint(format!("remove it, with \"ip link del {}\"", pair.name)));
            }
            Change::AddRoute(route) => {
                let all = self.routes().await?;
                let place = |other: &crate::Route| (other.destination, other.table, other.metric);
                if let Some(other) = all.iter().find(|other| place(other) == place(route)) {
                    let message =
                        format!("the route \"{route}\" would replace the route \"{other}\"");
                    return Err(own("add a route", ErrorKind::AlreadyExists, message));
                }
                Before::Nothing
            }
            _ => Before::Nothing,
        })
    }

    async fn make(&self, change: &Change) -> Result<()> {
        match change {
            Change::AddRule(rule) => self.add_rule(rule).await,
            Change::MoveRule { from, to } => {
                self.add_rule(to).await?;
                self.delete_rule(from).await
            }
            Change::AddRoute(route) => self.set_route(route).await,
            Change::AddVeth(pair) => {
                // Only one of ours can be there: a foreign one is refused before it comes to this.
                self.delete_link(&pair.name).await?;
                let far = Namespace::open(&pair.far_namespace)?;
                let end = |name: &str, at: &Namespace| {
                    VethEnd::new(name, at).mac(pair.mac).mtu(pair.mtu).no_arp()
                };
                self.add_veth(
                    &end(&pair.name, self.namespace()),
                    &end(&pair.far_name, &far),
                )
                .await
            }
            Change::AddAddress { link, address } => self.add_address(link, *address).await,
            Change::SetSysctl { name, value } => self.namespace().set_sysctl(name, value),
            Change::PinNamespace { path } => match Namespace::open(path) {
                Ok(_) => Ok(()),
                Err(_) => Namespace::create()?.pin(path),
            },
            Change::WriteFile {
                path,
                contents,
                mode,
            } => write_file(path, contents.as_bytes(), *mode),
        }
    }

    async fn unmake(&self, change: &Change, before: &Before) -> Result<()> {
        match (change, before) {
            (Change::AddRule(rule), _) => self.delete_rule(rule).await,
            (Change::MoveRule { from, to }, before) => {
                let (had_from, had_to) = match before {
                    Before::Rules { from, to } => (*from, *to),
                    _ => (true, false),
                };
                if had_from {
                    self.add_rule(from).await?;
                }
                if had_to {
                    Ok(())
                } else {
                    self.delete_rule(to).await
                }
            }
            (Change::AddRoute(route), _) => self.delete_route(route).await,
            (Change::AddVeth(pair), _) => self.delete_link(&pair.name).await,
            (Change::AddAddress { link, address }, _) => self.delete_address(link, *address).await,
            (Change::SetSysctl { name, value }, Before::Value(old)) => {
                match self.namespace().sysctl(name) {
                    Ok(now) if now == *value => self.namespace().set_sysctl(name, old),
                    Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                }
            }
            (Change::PinNamespace { path }, _) => destroy_namespace(path).await,
            (Change::WriteFile { path, contents, .. }, before) => {
                match (read_file(path)?, before) {
                    (Some((now, _)), _) if now != contents.as_bytes() => {
                        tracing::warn!(path = %path.display(), "left as it is: somebody has changed it since");
                        Ok(())
                    }
                    (_, Before::File { contents, mode }) => write_file(path, contents, *mode),
                    (Some(_), _) => fs::remove_file(path).map_err(|error| {
                        system(
                            "remove a file",
                            format!("{} can't be removed", path.display()),
                            error,
                        )
                    }),
                    (None, _) => Ok(()),
                }
            }
            (Change::SetSysctl { .. }, _) => Ok(()),
        }
    }
}

/// Whether the pair is there, end to end.
async fn has_veth(host: &Netlink, pair: &VethPair) -> Result<bool> {
    let Some(near) = host.link(&pair.name).await? else {
        return Ok(false);
    };
    let Ok(namespace) = Namespace::open(&pair.far_namespace) else {
        return Ok(false);
    };
    let Some(far) = namespace.handle()?.link(&pair.far_name).await? else {
        return Ok(false);
    };
    Ok(near.peer == Some(far.index)
        && far.peer == Some(near.index)
        && near.mac == Some(pair.mac)
        && !near.arp)
}

/// Takes the links first: the namespace itself goes some time after its last holder, and they with it.
async fn destroy_namespace(path: &Path) -> Result<()> {
    if let Ok(namespace) = Namespace::open(path) {
        let inside = namespace.handle()?;
        for link in inside
            .links()
            .await?
            .into_iter()
            .filter(|link| link.name != "lo")
        {
            inside.delete_link(&link.name).await?;
        }
    }
    Namespace::unpin(path)
}

fn read_file(path: &Path) -> Result<Option<(Vec<u8>, u32)>> {
    let failed = |error| {
        system(
            "read a file",
            format!("{} can't be read", path.display()),
            error,
        )
    };
    match fs::read(path) {
        Ok(bytes) => {
            let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o7777;
            Ok(Some((bytes, mode)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// All or nothing where the file can be replaced; in place where it can't, because it is a mount or its folder is full.
fn write_file(path: &Path, contents: &[u8], mode: u32) -> Result<()> {
    let failed = |error| {
        system(
            "write a file",
            format!("{} can't be written", path.display()),
            error,
        )
    };
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let replaced = (|| {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        io::Write::write_all(&mut file, contents)?;
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok::<_, io::Error>(())
    })();
    match replaced {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EXDEV)) => {
            fs::write(path, contents)
                .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
                .map_err(failed)
        }
        result => result.map_err(failed),
    }
}
