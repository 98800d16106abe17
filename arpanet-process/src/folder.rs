//! The folder of one container, and what stands in it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use arpanet_core::runtime::ContainerSpec;
use arpanet_core::{ErrorKind, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};

use crate::error::{at_file, own, system};
use crate::identity::Identity;
use crate::status::Status;

/// The layout of a folder. Another one is refused, not guessed at.
const VERSION: u32 = 1;

/// Between two attempts to take a lock.
const LOOK: Duration = Duration::from_millis(5);

/// What a container is; written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    version: u32,
    pub(crate) id: String,
    pub(crate) created: SystemTime,
    pub(crate) spec: ContainerSpec,
}

impl Record {
    pub(crate) const fn new(id: String, created: SystemTime, spec: ContainerSpec) -> Self {
        Self {
            version: VERSION,
            id,
            created,
            spec,
        }
    }
}

/// The folder of one container. Only its owner can look into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) const fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a folder that only its owner can look into. One that is there stays as it is.
    pub(crate) fn make(path: &Path) -> Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| at_file("can't be made", path, error))
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// What is bound over /etc/resolv.conf; not there without DNS servers of its own.
    pub(crate) fn resolv_conf(&self) -> PathBuf {
        self.0.join("resolv.conf")
    }

    /// What is bound over /etc/hosts.
    pub(crate) fn hosts(&self) -> PathBuf {
        self.0.join("hosts")
    }

    /// What is bound over /etc/hostname.
    pub(crate) fn hostname(&self) -> PathBuf {
        self.0.join("hostname")
    }

    /// Writes all that a new container starts from.
    pub(crate) fn fill(&self, record: &Record) -> Result<()> {
        let spec = &record.spec;
        if let Some(text) = crate::resolver::resolv_conf(spec) {
            write(&self.resolv_conf(), 0o644, text.as_bytes())?;
        }
        write(
            &self.hosts(),
            0o644,
            crate::resolver::hosts(spec).as_bytes(),
        )?;
        let name = spec.name.as_ref().map_or("", |name| name.as_str());
        write(&self.hostname(), 0o644, format!("{name}\n").as_bytes())?;
        self.write_status(&Status::new())?;
        write(&self.0.join("spec.json"), 0o600, &encode(record)?)
    }

    pub(crate) fn record(&self) -> Result<Record> {
        let path = self.0.join("spec.json");
        let record: Record = read(&path)?;
        if record.version != VERSION {
            return Err(own(
                ErrorKind::Incompatible,
                format!(
                    "{} has version {}, and this program reads {VERSION}",
                    path.display(),
                    record.version
                ),
            ));
        }
        Ok(record)
    }

    /// The labels as they were set since the container was made; `None` when they are the spec's.
    pub(crate) fn labels(&self) -> Result<Option<BTreeMap<String, String>>> {
        let path = self.0.join("labels.json");
        match path.exists() {
            true => read(&path).map(Some),
            false => Ok(None),
        }
    }

    /// Written whole or not at all.
    pub(crate) fn write_labels(&self, labels: &BTreeMap<String, String>) -> Result<()> {
        write(&self.0.join("labels.json"), 0o600, &encode(labels)?)
    }

    pub(crate) fn status(&self) -> Result<Status> {
        read(&self.0.join("status.json"))
    }

    /// Written whole or not at all.
    pub(crate) fn write_status(&self, status: &Status) -> Result<()> {
        write(&self.0.join("status.json"), 0o600, &encode(status)?)
    }

    /// Takes this container for the calling shim, and keeps others off. Waits for one that is just ending.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] where another one does its work: it was started by an agent that was killed.
    pub(crate) fn lock_shim(&self) -> Result<Flock<File>> {
        let mut file = self.lock_file(true)?;
        let lock = loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => break lock,
                Err((unlocked, Errno::EAGAIN)) => file = unlocked,
                Err((_, error)) => {
                    return Err(at_file("can't be locked", &self.lock_path(), error));
                }
            }
            if self
                .through_descriptor(|path| StdStream::connect(path))
                .is_ok()
            {
                let message = "another shim looks after the container";
                return Err(own(ErrorKind::AlreadyExists, message));
            }
            std::thread::sleep(LOOK);
        };
        let identity = Identity::own()
            .ok_or_else(|| own(ErrorKind::Internal, "/proc does not show this process"))?;
        lock.set_len(0)
            .and_then(|()| (&*lock).write_all(&serde_json::to_vec(&identity)?))
            .map_err(|error| at_file("can't be written", &self.lock_path(), error))?;
        Ok(lock)
    }

    /// The shim that looks after this container; `None` when there is none.
    pub(crate) fn shim(&self) -> Result<Option<Identity>> {
        Ok(self.claim(false)?.err())
    }

    /// Keeps shims off, where there is none: one that begins at this moment waits, and finds the folder gone then. Holds
    /// nothing where the folder is gone already, or where no shim ever was and none is to be kept off.
    pub(crate) fn claim(&self, keep_off: bool) -> Result<Result<Option<Flock<File>>, Identity>> {
        let file = match self.lock_file(keep_off) {
            Ok(file) => file,
            Err(_) if !self.lock_path().exists() => return Ok(Ok(None)),
            Err(error) => return Err(error),
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Ok(Some(lock))),
            // Not yet written by a shim that has just begun: it will be.
            Err((_, Errno::EAGAIN)) => read(&self.lock_path())
                .map(Err)
                .map_err(|error| own(ErrorKind::Unavailable, error.to_string())),
            Err((_, error)) => Err(at_file("can't be locked", &self.lock_path(), error)),
        }
    }

    fn lock_path(&self) -> PathBuf {
        self.0.join("shim.lock")
    }

    fn lock_file(&self, create: bool) -> Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .mode(0o600)
            .open(self.lock_path())
            .map_err(|error| at_file("can't be opened", &self.lock_path(), error))
    }

    /// Where a shim's own complaints go.
    pub(crate) fn complaints(&self) -> Result<File> {
        let path = self.0.join("shim.log");
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| at_file("can't be opened", &path, error))
    }

    pub(crate) fn listen(&self) -> Result<UnixListener> {
        let failed = |error| at_file("can't be listened on", &self.0.join("socket"), error);
        self.through_descriptor(|path| {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = StdListener::bind(path)?;
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        })
        .map_err(failed)
    }

    /// Reaches the shim; `None` when none listens.
    pub(crate) fn connect(&self) -> Result<Option<UnixStream>> {
        let stream = self.through_descriptor(|path| {
            let stream = StdStream::connect(path)?;
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        });
        match stream {
            Ok(stream) => Ok(Some(stream)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(system(
                format!("the shim at {} can't be reached", self.0.display()),
                error,
            )),
        }
    }

    /// The path of a socket holds 108 bytes at most (unix(7)), and a state folder can be deeper than that.
    fn through_descriptor<T>(&self, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        let folder = OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_DIRECTORY | OFlag::O_PATH).bits())
            .open(&self.0)?;
        act(&PathBuf::from(format!(
            "/proc/self/fd/{}/socket",
            folder.as_raw_fd()
        )))
    }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|error| {
        own(
            ErrorKind::Internal,
            format!("can't be written as JSON: {error}"),
        )
    })
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(|error| at_file("can't be read", path, error))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        own(
            ErrorKind::Corrupt,
            format!("{} is damaged: {error}", path.display()),
        )
    })
}

/// Whole or not at all, also when the power goes.
fn write(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    let fresh = path.with_extension("new");
    let result = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&fresh)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&fresh, path));
    result.map_err(|error| {
        // The room it takes may be what others lack.
        let _ = fs::remove_file(&fresh);
        at_file("can't be written", path, error)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::at(place.path().join("w1"));
        Folder::make(folder.path()).unwrap();
        (place, folder)
    }

    fn record() -> Record {
        let spec = ContainerSpec::command(["true"])
            .named("w1".parse().unwrap())
            .env("PASSWORD", "secret");
        Record::new("1".to_owned(), SystemTime::now(), spec)
    }

    #[test]
    fn what_is_written_is_read_and_closed_to_others() {
        let (_place, folder) = folder();
        folder.fill(&record()).unwrap();
        assert_eq!(folder.record().unwrap().spec, record().spec);
        assert_eq!(folder.status().unwrap(), Status::new());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(mode(&folder.path().join("spec.json")), 0o600);
        assert_eq!(mode(&folder.path().join("status.json")), 0o600);
    }

    #[test]
    fn damaged_and_newer_files_are_refused_by_path() {
        let (_place, folder) = folder();
        let path = folder.path().join("spec.json");
        fs::write(&path, "{\"version\": 1").unwrap();
        let error = folder.record().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
        let newer = Record {
            version: 2,
            ..record()
        };
        fs::write(&path, serde_json::to_vec(&newer).unwrap()).unwrap();
        assert_eq!(folder.record().unwrap_err().kind(), ErrorKind::Incompatible);
    }

    #[test]
    fn a_shim_is_known_by_its_lock() {
        let (_place, folder) = folder();
        assert_eq!(folder.shim().unwrap(), None);
        let lock = folder.lock_shim().unwrap();
        assert_eq!(folder.shim().unwrap(), Identity::own());
        drop(lock);
        assert_eq!(folder.shim().unwrap(), None);
    }

    #[tokio::test]
    async fn a_second_shim_leaves_the_first_alone() {
        let (_place, folder) = folder();
        let lock = folder.lock_shim().unwrap();
        let listener = folder.listen().unwrap();
        let error = folder.lock_shim().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        // One that listens no more is waited for.
        drop(listener);
        let next = {
            let folder = folder.clone();
            tokio::task::spawn_blocking(move || folder.lock_shim().is_ok())
        };
        tokio::task::yield_now().await;
        drop(lock);
        assert!(next.await.unwrap());
    }

    #[tokio::test]
    async fn a_deep_folder_has_a_socket_too() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::at(place.path().join("deep".repeat(50)));
        Folder::make(folder.path()).unwrap();
        assert!(folder.connect().unwrap().is_none());
        let listener = folder.listen().unwrap();
        assert!(folder.connect().unwrap().is_some());
        drop(listener);
        assert!(folder.connect().unwrap().is_none());
    }
}
