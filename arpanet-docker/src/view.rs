//! What of the engine's containers is arpanet2's to see.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arpanet_core::runtime::Container;
use arpanet_core::{ContainerName, ErrorKind, Result};
use futures_util::future::join_all;

use crate::client::Client;
use crate::endpoints::{self, Endpoints};
use crate::error::own;
use crate::keep::Keep;
use crate::resolver::{Said, said};
use crate::spec::{Seen, name_of, read};

#[derive(Debug)]
pub(crate) struct View {
    pub(crate) client: Client,
    pub(crate) keep: Keep,
    endpoints: Endpoints,
    /// Containers that want nothing of us. What a container wants is fixed when it is made, so they are asked about once, and
    /// again when they join a network of ours.
    strangers: Mutex<BTreeSet<String>>,
    /// Containers whose wants can't be read, which was told.
    told: Mutex<BTreeSet<String>>,
}

impl View {
    pub(crate) fn new(socket: PathBuf, keep: Keep) -> Self {
        Self {
            client: Client::new(socket),
            keep,
            endpoints: Endpoints::default(),
            strangers: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// The container of this name, whoever made it.
    pub(crate) async fn named(&self, name: &ContainerName) -> Result<Seen> {
        let missing = || own(ErrorKind::NotFound, format!("there is no container {name}"));
        let inspected = match self.client.inspect(name.as_str()).await {
            Ok(inspected) => inspected,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing()),
            Err(error) => return Err(error),
        };
        let seen = self.read(&inspected).await?;
        // The engine takes the beginning of another one's id for a name too.
        if seen.container.name != *name {
            return Err(missing());
        }
        Ok(seen)
    }

    /// The container of this id, if it is one of ours.
    pub(crate) async fn ours(&self, id: &str) -> Result<Option<Container>> {
        let seen = self.read(&self.client.inspect(id).await?).await?;
        if !seen.ours {
            lock(&self.strangers).insert(id.to_owned());
            return Ok(None);
        }
        let problems = &seen.container.problems;
        if !problems.is_empty() && lock(&self.told).insert(id.to_owned()) {
            tracing::warn!(container = %seen.container.name, ?problems, "a container wants what can't be read");
        }
        Ok(Some(seen.container))
    }

    async fn read(&self, inspected: &bollard::models::ContainerInspectResponse) -> Result<Seen> {
        let id = inspected.id.as_deref().unwrap_or_default();
        let mut seen = read(inspected, &self.keep.of(id))?;
        let places = self.endpoints.of(&self.client, inspected).await?;
        seen.ours |= !places.is_empty();
        endpoints::add(&mut seen.container, places);
        Ok(seen)
    }

    /// What was said of a container's names, by its maker and its engine.
    pub(crate) async fn said(&self, name: &ContainerName) -> Result<Said> {
        let inspected = self.client.inspect(name.as_str()).await;
        let missing = || own(ErrorKind::NotFound, format!("there is no container {name}"));
        let inspected = match inspected {
            Ok(inspected) if name_of(&inspected)? == *name => inspected,
            Ok(_) => return Err(missing()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing()),
            Err(error) => return Err(error),
        };
        let engine = self.endpoints.has_others(&self.client, &inspected).await?;
        Ok(said(&inspected, engine))
    }

    /// The ids of all containers that can be ours. What is kept for others is given up.
    pub(crate) async fn candidates(&self) -> Result<Vec<String>> {
        let kept = self.keep.ids();
        let ids = self.client.ids().await?;
        let all: BTreeSet<&String> = ids.iter().collect();
        lock(&self.told).retain(|id| all.contains(id));
        lock(&self.strangers).retain(|id| all.contains(id));
        // One that came after the list was asked for is not among these.
        self.forget(kept.iter().filter(|id| !all.contains(id)));
        let candidates = ids.iter().filter(|id| self.can_be_ours(id));
        Ok(candidates.cloned().collect())
    }

    pub(crate) fn can_be_ours(&self, id: &str) -> bool {
        !lock(&self.strangers).contains(id)
    }

    /// A label of it was changed, or it joined a network of ours: it may be ours now.
    pub(crate) fn reconsider(&self, id: &str) {
        lock(&self.strangers).remove(id);
    }

    /// These containers are gone.
    pub(crate) fn forget<'a>(&self, ids: impl IntoIterator<Item = &'a String>) {
        if let Err(error) = self.keep.forget(ids) {
            // The next list tries again.
            tracing::warn!(%error, "labels of containers that are gone stay behind");
        }
    }

    /// All of ours, sorted by name.
    pub(crate) async fn all(&self) -> Result<Vec<Container>> {
        let ids = self.candidates().await?;
        let asked = join_all(ids.iter().map(|id| self.ours(id))).await;
        let mut all = Vec::new();
        for answer in asked {
            match answer {
                Ok(container) => all.extend(container),
                // Removed meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }
}

/// No code panics while it holds one of these locks, so a poisoned one is whole.
fn lock(set: &Mutex<BTreeSet<String>>) -> MutexGuard<'_, BTreeSet<String>> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}
