//! A container as the runtime holds it: what is written, and the status as last heard.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arpanet_core::runtime::Container;
use arpanet_core::watch::WatchHub;
use arpanet_core::{ContainerName, Result};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::folder::{Folder, Record};
use crate::status::Status;

pub(crate) type Hub = WatchHub<ContainerName, Container>;

/// One container.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: ContainerName,
    pub(crate) folder: Folder,
    pub(crate) record: Record,
    hub: Hub,
    /// The spec's, until one is changed.
    labels: Mutex<BTreeMap<String, String>>,
    status: watch::Sender<Status>,
    removed: watch::Sender<bool>,
    follower: Mutex<Option<AbortHandle>>,
}

impl Entry {
    /// Reads a folder. What is in it is not yet told to readers of the hub.
    pub(crate) fn read(name: ContainerName, folder: Folder, hub: Hub) -> Result<Arc<Self>> {
        let record = folder.record()?;
        let status = folder.status()?;
        let labels = folder.labels()?;
        Ok(Arc::new(Self {
            name,
            folder,
            labels: Mutex::new(labels.unwrap_or_else(|| record.spec.labels.clone())),
            record,
            hub,
            status: watch::Sender::new(status),
            removed: watch::Sender::new(false),
            follower: Mutex::new(None),
        }))
    }

    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Changes of the status.
    pub(crate) fn statuses(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Whether it was removed.
    pub(crate) fn removal(&self) -> watch::Receiver<bool> {
        self.removed.subscribe()
    }

    /// Takes a status, unless a later one is known.
    pub(crate) fn apply(&self, status: Status) {
        self.status.send_if_modified(|known| {
            let later = status.sequence > known.sequence;
            if later {
                *known = status;
                if !*self.removed.borrow() {
                    self.hub.upsert(self.name.clone(), self.container_as(known));
                }
            }
            later
        });
    }

    /// Tells readers of the hub what is known.
    pub(crate) fn tell(&self) {
        let status = self.status.borrow();
        if !*self.removed.borrow() {
            self.hub
                .upsert(self.name.clone(), self.container_as(&status));
        }
    }

    /// Sets or takes a label, and keeps that. To be called in the container's turn.
    pub(crate) fn set_label(&self, label: &str, value: Option<String>) -> Result<()> {
        let mut labels = self.labels().clone();
        let before = match value.clone() {
            Some(value) => labels.insert(label.to_owned(), value),
            None => labels.remove(label),
        };
        if before != value {
            self.folder.write_labels(&labels)?;
            *self.labels() = labels;
            self.tell();
        }
        Ok(())
    }

    fn labels(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is gone: readers of its log and of the hub hear it.
    pub(crate) fn remove(&self) {
        // Under the lock of the status, so that no status is told after it.
        self.status.send_if_modified(|_| {
            self.removed.send_replace(true);
            self.hub.remove(&self.name);
            false
        });
        self.unfollow();
    }

    pub(crate) fn container(&self) -> Container {
        self.container_as(&self.status.borrow())
    }

    fn container_as(&self, status: &Status) -> Container {
        let mut spec = self.record.spec.clone();
        spec.labels = self.labels().clone();
        Container::new(
            self.name.clone(),
            self.record.id.clone(),
            spec,
            self.record.created,
        )
        .state(status.state)
        .namespace(status.namespace())
    }

    /// The task that hears the shim, instead of the one before.
    pub(crate) fn followed_by(&self, task: AbortHandle) {
        if let Some(before) = self.follower().replace(task) {
            before.abort();
        }
    }

    pub(crate) fn unfollow(&self) {
        if let Some(task) = self.follower().take() {
            task.abort();
        }
    }

    fn follower(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.follower.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
