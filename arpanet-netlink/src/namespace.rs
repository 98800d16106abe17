//! Network namespaces, held by file descriptor.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::{panic, thread};

use arpanet_core::{ErrorKind, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::fstat;

use crate::error::{own, system};

/// Of the calling thread; `/proc/self` would be that of the process's first thread.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// A network namespace. It lives at least as long as this value and its clones.
///
/// No thread of the caller ever changes its namespace: what has to happen inside happens in a thread made for it.
///
/// ```
/// use arpanet_netlink::Namespace;
/// let here = Namespace::current()?;
/// assert!(here.same_as(&Namespace::current()?));
/// assert!(Namespace::open("/nonexistent").is_err());
/// # Ok::<(), arpanet_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Namespace {
    fd: Arc<OwnedFd>,
    /// Device and inode, which tell namespaces apart.
    id: (u64, u64),
}

impl Namespace {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// Where /proc is not mounted.
    pub fn current() -> Result<Self> {
        Self::open(OWN_NAMESPACE)
    }

    /// The namespace behind a path: a pin, or `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where nothing is, [`ErrorKind::InvalidInput`] where the file is no network namespace.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|error| {
            system(
                "open",
                format!("the namespace {} can't be opened", path.display()),
                error,
            )
        })?;
        Self::from_fd(file.into())
            .map_err(|error| error.context(format!("{} is no network namespace", path.display())))
    }

    /// A namespace that somebody else opened.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where the file is no network namespace.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let nsfs = nix::sys::statfs::fstatfs(&fd)
            .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::NSFS_MAGIC);
        if !nsfs {
            return Err(own(
                "open",
                ErrorKind::InvalidInput,
                "the file is not on the kernel's namespace file system",
            ));
        }
        let stat = fstat(&fd)
            .map_err(|error| system("open", "the namespace can't be examined", error.into()))?;
        Ok(Self {
            fd: Arc::new(fd),
            id: (stat.st_dev, stat.st_ino),
        })
    }

    /// A new, empty namespace without a name: only `lo`, down. It is gone with the last holder, process or pin.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] without CAP_SYS_ADMIN.
    pub fn create() -> Result<Self> {
        in_new_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|error| {
                system("create", "a network namespace can't be made", error.into())
            })?;
            Self::current()
        })?
    }

    /// Runs a closure in a new thread that has entered the namespace, and waits for it. Sockets and TUN devices opened
    /// in there belong to the namespace for good; `/proc/sys/net` is that of the namespace while the closure runs.
    /// A panic in the closure goes on in the caller.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] without CAP_SYS_ADMIN in the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        in_new_thread(|| {
            setns(self.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|error| {
                system(
                    "enter",
                    "the network namespace can't be entered",
                    error.into(),
                )
            })?;
            Ok(work())
        })?
    }

    /// Keeps the namespace alive under a path, in the mount namespace of the caller, beyond the end of this process.
    /// Missing folders are made. A second call with the same namespace changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if another namespace, or anything but an empty file, is there.
    pub fn pin(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        match Self::open(path) {
            Ok(pinned) if pinned.same_as(self) => return Ok(()),
            Ok(_) => {
                let message = format!("another namespace is pinned at {}", path.display());
                return Err(own("pin", ErrorKind::AlreadyExists, message));
            }
            Err(_) => {}
        }
        let failed = |error: io::Error| {
            system(
                "pin",
                format!("the namespace can't be pinned at {}", path.display()),
                error,
            )
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o400)
            .open(path);
        if file.and_then(|file| file.metadata()).map_err(failed)?.len() > 0 {
            let message = format!(
                "{} is a file with something in it, not the place for a namespace",
                path.display()
            );
            return Err(own("pin", ErrorKind::AlreadyExists, message));
        }
        // From a thread inside, since a file descriptor's path in /proc refuses a bind mount where the descriptor came
        // from another mount namespace.
        self.run(|| {
            mount(
                Some(OWN_NAMESPACE),
                path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
        })?
        .map_err(|error| failed(error.into()))
    }

    /// Takes a pin away. Succeeds if there is none; a file that is no pin stays.
    ///
    /// # Errors
    /// Where the kernel refuses to unmount, or the file to be removed.
    pub fn unpin(path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let failed = |error: io::Error| {
            system(
                "unpin",
                format!("the pin {} can't be removed", path.display()),
                error,
            )
        };
        // More than one mount can lie on the file, if a pin was made twice by two processes at once.
        while Self::open(path).is_ok() {
            umount2(path, MntFlags::MNT_DETACH).map_err(|error| failed(error.into()))?;
        }
        match fs::metadata(path) {
            Ok(file) if file.len() == 0 && file.is_file() => fs::remove_file(path).map_err(failed),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Whether both are the same namespace.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// The descriptor's number, for a netlink attribute of a request that this process sends.
    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace(net:[{}])", self.id.1)
    }
}

fn in_new_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("arpanet-netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|error| system("enter", "no thread can be made for the namespace", error))?;
        thread.join().or_else(|cause| panic::resume_unwind(cause))
    })
}
