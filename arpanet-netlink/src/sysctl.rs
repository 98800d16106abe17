//! Settings under `/proc/sys/net`, which show the namespace of the thread that opens them.

use std::fs;
use std::path::PathBuf;

use arpanet_core::{ErrorKind, Result};

use crate::Namespace;
use crate::error::{own, system};

impl Namespace {
    /// Reads a setting, such as `net.ipv4.ip_forward`; slashes may stand for dots, where a link's name has dots.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the kernel has none of this name in this namespace.
    pub fn sysctl(&self, name: &str) -> Result<String> {
        let path = path(name)?;
        let text = self.run(|| fs::read_to_string(path))?;
        let text =
            text.map_err(|error| system("read a setting", format!("{name} can't be read"), error))?;
        Ok(text.trim_end().to_owned())
    }

    /// Writes a setting. Writing what it is already changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] as above, [`ErrorKind::InvalidInput`] for a value that the kernel refuses,
    /// [`ErrorKind::PermissionDenied`] where it is read-only, as in a container.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.set_sysctls(&[(name, value)])
    }

    /// Writes several settings in order, entering the namespace once.
    ///
    /// # Errors
    /// As [`set_sysctl`](Self::set_sysctl); those before the one that failed are written.
    pub fn set_sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (name, value) in settings {
                fs::write(path(name)?, value).map_err(|error| {
                    system(
                        "write a setting",
                        format!("{name} can't be set to {value}"),
                        error,
                    )
                })?;
            }
            Ok(())
        })?
    }
}

/// Only the settings that belong to a network namespace: the others are the whole machine's.
fn path(name: &str) -> Result<PathBuf> {
    let relative = if name.contains('/') {
        name.to_owned()
    } else {
        name.replace('.', "/")
    };
    if !relative.starts_with("net/")
        || relative
            .split('/')
            .any(|part| part.is_empty() || part == "..")
    {
        let message = format!("{name} is no setting of a network namespace");
        return Err(own("find a setting", ErrorKind::InvalidInput, message));
    }
    Ok(PathBuf::from("/proc/sys").join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_of_the_network_are_reached() {
        assert_eq!(
            path("net.ipv4.ip_forward").unwrap(),
            PathBuf::from("/proc/sys/net/ipv4/ip_forward")
        );
        assert_eq!(
            path("net/ipv4/conf/a.1/mtu").unwrap(),
            PathBuf::from("/proc/sys/net/ipv4/conf/a.1/mtu")
        );
        for bad in ["kernel.hostname", "net/../kernel/hostname", "net//x", ""] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}
