//! What a container sees of the file system: the host's, with some files of its own.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use arpanet_core::runtime::ContainerSpec;
use arpanet_core::{ErrorKind, Result};
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::unistd::sethostname;

use crate::error::{own, system};
use crate::folder::Folder;

const NOTHING: Option<&str> = None;

/// Makes the mounts and the host name of a container, in the calling process's own namespaces.
pub(crate) fn make(folder: &Folder, spec: &ContainerSpec) -> Result<()> {
    // What the host mounts and unmounts later is seen here, and nothing of this there.
    mount(
        NOTHING,
        "/",
        NOTHING,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        NOTHING,
    )
    .map_err(|error| system("the mounts can't be made the container's own", error))?;
    let careful = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), careful, NOTHING)
        .map_err(|error| system("the container's own /proc can't be mounted", error))?;
    mount_sys(careful);
    if let Some(name) = &spec.name {
        sethostname(name.as_str()).map_err(|error| system("the host name can't be set", error))?;
    }
    bind_files(folder)
}

/// The files of its own, over the host's.
pub(crate) fn bind_files(folder: &Folder) -> Result<()> {
    let resolv_conf = Path::new("/etc/resolv.conf");
    if folder.resolv_conf().exists() {
        if !resolv_conf.exists() {
            let message = "the host has no /etc/resolv.conf to put the container's in place of";
            return Err(own(ErrorKind::Unsupported, message).with_hint("make one, empty or not"));
        }
        bind(&folder.resolv_conf(), resolv_conf)?;
    }
    for (own, place) in [
        (folder.hosts(), "/etc/hosts"),
        (folder.hostname(), "/etc/hostname"),
    ] {
        let place = Path::new(place);
        if place.exists() {
            bind(&own, place)?;
        }
    }
    Ok(())
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, NOTHING, MsFlags::MS_BIND, NOTHING)
        .map_err(|error| system(format!("{} can't be put in place", target.display()), error))
}

/// /sys shows the network links of the namespace that it was mounted in. Where it can't be mounted again, as in some user
/// namespaces, the host's stays; the container works all the same.
fn mount_sys(flags: MsFlags) {
    let groups = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_PATH | OFlag::O_DIRECTORY).bits())
        .open("/sys/fs/cgroup");
    if mount(Some("sysfs"), "/sys", Some("sysfs"), flags, NOTHING).is_err() {
        return;
    }
    if let Ok(groups) = groups {
        let path = PathBuf::from(format!("/proc/self/fd/{}", groups.as_raw_fd()));
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        let _ = mount(Some(&path), "/sys/fs/cgroup", NOTHING, flags, NOTHING);
    }
}
