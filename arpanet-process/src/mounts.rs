//! What a container sees of the file system: the host's, with some files of its own.

use std::fs::{self, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use arpanet_core::runtime::ContainerSpec;
use arpanet_core::{ErrorKind, Result};
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd::sethostname;

use crate::error::{own, system};
use crate::folder::Folder;

const NOTHING: Option<&str> = None;

const RESOLV_CONF: &str = "/etc/resolv.conf";

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
fn bind_files(folder: &Folder) -> Result<()> {
    let resolv_conf = Path::new(RESOLV_CONF);
    if folder.resolv_conf().exists() && !resolv_conf.exists() {
        let message = "the host has no /etc/resolv.conf to put the container's in place of";
        return Err(own(ErrorKind::Unsupported, message).with_hint("make one, empty or not"));
    }
    for (source, target) in own_files(folder) {
        if target.exists() {
            bind(&source, target)?;
        }
    }
    Ok(())
}

/// The container's files that there are, and their places.
fn own_files(folder: &Folder) -> impl Iterator<Item = (PathBuf, &'static Path)> {
    [
        (folder.resolv_conf(), RESOLV_CONF),
        (folder.hosts(), "/etc/hosts"),
        (folder.hostname(), "/etc/hostname"),
    ]
    .into_iter()
    .filter(|(source, _)| source.exists())
    .map(|(source, target)| (source, Path::new(target)))
}

/// Keeps the files in place. The kernel takes a mount on a file away, in every mount namespace, when a program of the host
/// renames another file over it, as those do that write /etc/resolv.conf.
#[derive(Debug)]
pub(crate) struct Keeper {
    folder: Folder,
    /// None where the user has too many of them already.
    changes: Option<Inotify>,
}

impl Keeper {
    pub(crate) fn new(folder: &Folder) -> Self {
        let keeper = Self {
            folder: folder.clone(),
            changes: Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok(),
        };
        keeper.watch();
        keeper
    }

    /// Readable when there is something to look after.
    pub(crate) fn changes(&self) -> Option<BorrowedFd<'_>> {
        self.changes.as_ref().map(AsFd::as_fd)
    }

    /// Puts back what is not in place any more. What fails, such as for a file that is not there, is tried again at the
    /// next change.
    pub(crate) fn restore(&self) {
        if let Some(changes) = &self.changes {
            while changes.read_events().is_ok_and(|events| !events.is_empty()) {}
        }
        self.watch();
        for (source, target) in own_files(&self.folder) {
            if !is_same(&source, target) {
                let _ = bind(&source, target);
            }
        }
    }

    /// The folders of the places, and of what they are links to.
    fn watch(&self) {
        let Some(changes) = &self.changes else {
            return;
        };
        let what = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        for (_, target) in own_files(&self.folder) {
            let real = target.canonicalize();
            let places = [Some(target), real.as_deref().ok()];
            for folder in places.into_iter().flatten().filter_map(Path::parent) {
                let _ = changes.add_watch(folder, what);
            }
        }
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    id(one) == id(other)
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
