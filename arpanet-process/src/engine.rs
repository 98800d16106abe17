//! What the runtime does, behind the trait: each change runs to its end, whoever stops waiting for it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arpanet_core::runtime::{Container, ContainerSpec, ContainerState};
use arpanet_core::{ContainerName, Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep};

use crate::config::ProcessConfig;
use crate::contact;
use crate::entry::{Entry, Hub};
use crate::error::{at_file, own, system};
use crate::folder::{Folder, Record};
use crate::status::KILLED;
use crate::turns::Turns;
use crate::wire::{Cause, Refusal, Request};

/// How long a stop waits where the spec does not say.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// How long a shim may take to answer what it can answer at once, or after its own work.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a start waits for a shim that is just ending.
const HANDOVER: Duration = Duration::from_secs(10);

/// How long an agent that ended can hold the folder.
const GIVING_UP: Duration = Duration::from_secs(2);

/// Between two attempts that nothing tells the time for.
const LOOK: Duration = Duration::from_millis(5);

/// Folders that are no container: being made, or being removed.
const BEING_MADE: &str = ".new-";
const BEING_REMOVED: &str = ".gone-";

#[derive(Debug)]
pub(crate) struct Engine {
    config: ProcessConfig,
    containers: Mutex<BTreeMap<ContainerName, Arc<Entry>>>,
    turns: Turns,
    hub: Hub,
    _lock: Flock<File>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        for entry in self.containers().values() {
            entry.unfollow();
        }
        self.hub.close();
    }
}

impl Engine {
    /// Takes the folder, and all that is in it.
    pub(crate) async fn open(config: ProcessConfig) -> Result<Arc<Self>> {
        Folder::make(&config.state_dir)?;
        let config = ProcessConfig {
            state_dir: fs::canonicalize(&config.state_dir)
                .map_err(|error| at_file("can't be found", &config.state_dir, error))?,
            ..config
        };
        let lock = lock(&config.state_dir).await?;
        let hub = Hub::new();
        let containers = read_all(&config.state_dir, &hub)?;
        let engine = Arc::new(Self {
            config,
            containers: Mutex::new(containers),
            turns: Turns::default(),
            hub,
            _lock: lock,
        });
        let adopting: Vec<_> = engine
            .entries()
            .into_iter()
            .map(|entry| tokio::spawn(Arc::clone(&engine).adopt(entry)))
            .collect();
        for one in adopting {
            // It does not panic; and one that is not adopted is followed all the same.
            let _ = one.await;
        }
        Ok(engine)
    }

    fn containers(&self) -> MutexGuard<'_, BTreeMap<ContainerName, Arc<Entry>>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.containers().values().cloned().collect()
    }

    pub(crate) fn entry(&self, name: &ContainerName) -> Result<Arc<Entry>> {
        self.containers()
            .get(name)
            .cloned()
            .ok_or_else(|| own(ErrorKind::NotFound, format!("there is no container {name}")))
    }

    /// Keeps other changes of a container off.
    pub(crate) async fn turn(&self, name: &ContainerName) -> OwnedMutexGuard<()> {
        self.turns.take(name).await
    }

    pub(crate) const fn hub(&self) -> &Hub {
        &self.hub
    }

    /// In the container's turn.
    pub(crate) async fn create(
        self: Arc<Self>,
        name: ContainerName,
        spec: ContainerSpec,
    ) -> Result<Container> {
        let held = self.containers().get(&name).cloned();
        if let Some(held) = held {
            if held.record.spec != spec {
                let message = format!("there is a container {name} with another spec");
                return Err(own(ErrorKind::Conflict, message));
            }
            if held.status().state == ContainerState::Created {
                // Made before the machine was restarted, perhaps: its namespaces have to be made again.
                self.ready(&held).await?;
            }
            return Ok(held.container());
        }
        let entry = self.make(name.clone(), spec)?;
        self.containers().insert(name.clone(), Arc::clone(&entry));
        if let Err(error) = self.ready(&entry).await {
            if let Err(error) = self.clear_away(&entry).await {
                tracing::warn!(container = %name, %error, "what was made of a container stays behind");
            }
            return Err(error);
        }
        Ok(entry.container())
    }

    /// The folder, whole or not at all.
    fn make(&self, name: ContainerName, spec: ContainerSpec) -> Result<Arc<Entry>> {
        let id = unused_id()?;
        let making = self.config.state_dir.join(format!("{BEING_MADE}{id}"));
        let place = self.config.state_dir.join(name.as_str());
        let record = Record::new(id, SystemTime::now(), spec);
        let made = Folder::make(&making)
            .and_then(|()| Folder::at(making.clone()).fill(&record))
            .and_then(|()| {
                fs::rename(&making, &place).map_err(|error| at_file("can't be made", &place, error))
            });
        if let Err(error) = made {
            let _ = fs::remove_dir_all(&making);
            return Err(error);
        }
        Entry::read(name, Folder::at(place), self.hub.clone())
    }

    /// Sees to it that the container has a shim, and with it namespaces.
    async fn ready(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<()> {
        let due = Instant::now() + HANDOVER;
        loop {
            let told = contact::open(&entry.folder, &Request::Follow, PATIENCE).await?;
            let status = match told {
                Some((status, _)) => status,
                None if contact::begin(&self.config, &entry.folder, &entry.record.id).await? => {
                    entry.folder.status()?
                }
                None if Instant::now() < due => {
                    sleep(LOOK).await;
                    continue;
                }
                None => return Err(unanswering(&entry.name)),
            };
            entry.apply(status);
            self.follow(entry);
            return Ok(());
        }
    }

    /// In the container's turn.
    pub(crate) async fn start(self: Arc<Self>, name: ContainerName) -> Result<()> {
        let entry = self.entry(&name)?;
        let due = Instant::now() + HANDOVER;
        loop {
            match contact::ask(&entry.folder, &Request::Start, PATIENCE).await? {
                Some(answer) => {
                    entry.apply(answer.status);
                    match answer.refusal {
                        None => return Ok(()),
                        // A shim at its very end; the next one begins behind it.
                        Some(Refusal {
                            cause: Cause::Unavailable,
                            ..
                        }) if Instant::now() < due => sleep(LOOK).await,
                        Some(refusal) => return Err(refusal.into()),
                    }
                }
                None if Instant::now() >= due => return Err(unanswering(&name)),
                // What ran before has ended, and is told as ended before it runs again.
                None if self.settle(&entry).await => self.ready(&entry).await?,
                None => {}
            }
        }
    }

    pub(crate) async fn stop(self: Arc<Self>, name: ContainerName) -> Result<i32> {
        let entry = self.entry(&name)?;
        let grace = entry.record.spec.stop_grace.unwrap_or(STOP_GRACE);
        loop {
            match entry.status().state {
                ContainerState::Exited { code } => return Ok(code),
                ContainerState::Created => return Ok(0),
                _ if *entry.removal().borrow() => return Ok(KILLED),
                _ => {}
            }
            let limit = grace.saturating_add(PATIENCE);
            match contact::ask(&entry.folder, &Request::Stop { grace }, limit).await? {
                Some(answer) => entry.apply(answer.status),
                None => {
                    let _turn = self.turns.take(&name).await;
                    self.settle(&entry).await;
                }
            }
        }
    }

    /// In the container's turn.
    pub(crate) async fn remove(self: Arc<Self>, name: ContainerName) -> Result<()> {
        let Ok(entry) = self.entry(&name) else {
            return Ok(());
        };
        self.clear_away(&entry).await
    }

    async fn clear_away(&self, entry: &Arc<Entry>) -> Result<()> {
        let name = &entry.name;
        let init = entry.status().init;
        let nobody = contact::end(&entry.folder).await?;
        if let Some(init) = init {
            if nobody.is_none() {
                // Its folder is gone, and with it the way to a shim that may still live.
                init.kill();
            }
            contact::until_dead(&init).await;
        }
        let place = entry.folder.path();
        let going = self
            .config
            .state_dir
            .join(format!("{BEING_REMOVED}{}", entry.record.id));
        match fs::rename(place, &going) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(at_file("can't be removed", place, error));
            }
            // Where somebody removed it by hand there is nothing left to do.
            _ => {}
        }
        self.containers().remove(name);
        entry.remove();
        match fs::remove_dir_all(&going) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(at_file("can't be removed", &going, error))
            }
            _ => Ok(()),
        }
    }
}

fn unanswering(name: &ContainerName) -> Error {
    let message = format!("the shim of {name} does not answer");
    own(ErrorKind::Unavailable, message)
}

/// Takes the folder. An agent that was just killed can hold it a moment longer: in a shim that it was just starting.
async fn lock(state_dir: &Path) -> Result<Flock<File>> {
    let path = state_dir.join(".lock");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| at_file("can't be opened", &path, error))?;
    let due = Instant::now() + GIVING_UP;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((unlocked, Errno::EAGAIN)) if Instant::now() < due => file = unlocked,
            Err((_, Errno::EAGAIN)) => {
                let message = format!("{} is in use by another agent", state_dir.display());
                return Err(own(ErrorKind::Conflict, message));
            }
            Err((_, error)) => return Err(at_file("can't be locked", &path, error)),
        }
        sleep(LOOK).await;
    }
}

/// All containers of a folder. One that can't be read is an error: it may run.
fn read_all(state_dir: &Path, hub: &Hub) -> Result<BTreeMap<ContainerName, Arc<Entry>>> {
    let failed = |error| at_file("can't be read", state_dir, error);
    let mut containers = BTreeMap::new();
    for file in fs::read_dir(state_dir).map_err(failed)? {
        let path: PathBuf = file.map_err(failed)?.path();
        let Some(file_name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if file_name.starts_with(BEING_MADE) || file_name.starts_with(BEING_REMOVED) {
            fs::remove_dir_all(&path).map_err(|error| at_file("can't be removed", &path, error))?;
            continue;
        }
        let Ok(name) = file_name.parse::<ContainerName>() else {
            continue;
        };
        if !path.is_dir() || name.as_str() != file_name {
            continue;
        }
        let read = Entry::read(name.clone(), Folder::at(path.clone()), hub.clone());
        let entry = read.map_err(|error: Error| {
            error.with_hint(format!(
                "remove {} if the container is not needed any more",
                path.display()
            ))
        })?;
        containers.insert(name, entry);
    }
    Ok(containers)
}

/// The name of a spec that can be run here.
pub(crate) fn check(spec: &ContainerSpec) -> Result<ContainerName> {
    let refused = |message: String| own(ErrorKind::InvalidInput, message);
    let Some(name) = &spec.name else {
        return Err(refused("a container needs a name".to_owned()));
    };
    // It becomes the host name, too (sethostname(2)).
    if name.as_str().len() > 64 {
        return Err(refused(format!(
            "the name {name} is longer than 64 characters"
        )));
    }
    if let Some(image) = &spec.image {
        let message = format!("the process runtime has no images, so {image} can't be run");
        return Err(refused(message).with_hint("give a command of this host instead"));
    }
    if spec.command.first().is_none_or(String::is_empty) {
        return Err(refused(format!("the container {name} has no command")));
    }
    let environment = spec.env.0.iter().flat_map(|(name, value)| [name, value]);
    let texts = spec.command.iter().chain(environment);
    let mut texts = texts.chain(&spec.user).chain(&spec.workdir);
    if texts.any(|text| text.contains('\0')) {
        return Err(refused("a command can't hold a zero byte".to_owned()));
    }
    let wrong = |name: &&String| name.is_empty() || name.contains('=');
    if let Some(variable) = spec.env.0.keys().find(wrong) {
        return Err(refused(format!(
            "{variable:?} can't be the name of a variable"
        )));
    }
    if spec
        .dns_search
        .iter()
        .any(|domain| domain.contains(char::is_whitespace))
    {
        return Err(refused("a search domain can't hold a space".to_owned()));
    }
    Ok(name.clone())
}

fn unused_id() -> Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_err(|error| system("no unused id can be made", error))?;
    Ok(id
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(16)
        .collect())
}
