//! Hearing shims, and what becomes of containers that have none any more.

use std::sync::{Arc, Weak};
use std::time::Duration;

use arpanet_core::runtime::{ContainerState, RestartPolicy};
use tokio::time::{Instant, sleep};

use crate::contact;
use crate::engine::Engine;
use crate::entry::Entry;
use crate::wire::{Request, receive};

/// How long a shim may take to tell its status to a new agent.
const GREETING: Duration = Duration::from_secs(5);

/// Between two attempts to hear a shim that lives and is not heard.
const AGAIN: Duration = Duration::from_millis(200);

impl Engine {
    /// Finds out what became of a container that an earlier agent made, and follows it.
    pub(crate) async fn adopt(self: Arc<Self>, entry: Arc<Entry>) {
        let due = Instant::now() + GREETING;
        while entry.status().exited().is_none() && Instant::now() < due {
            match contact::open(&entry.folder, &Request::Follow, GREETING).await {
                Ok(Some((status, _))) => {
                    entry.apply(status);
                    break;
                }
                Ok(None) => {
                    let _turn = self.turn(&entry.name).await;
                    if self.settle(&entry).await {
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(container = %entry.name, %error, "a container can't be asked");
                }
            }
        }
        entry.tell();
        self.follow(&entry);
    }

    /// Hears what the container's shim tells, if it has one.
    pub(crate) fn follow(self: &Arc<Self>, entry: &Arc<Entry>) {
        let task = tokio::spawn(follow(Arc::clone(entry), Arc::downgrade(self)));
        entry.followed_by(task.abort_handle());
    }

    /// Notes the end of a container whose shim is gone: its last word, or that it was killed. Whether it is known now;
    /// not while a shim lives. To be called in the container's turn, so that no other shim begins meanwhile.
    pub(crate) async fn settle(self: &Arc<Self>, entry: &Arc<Entry>) -> bool {
        let mut base = entry.status();
        match entry.folder.status() {
            Ok(written) if written.sequence > base.sequence => base = written,
            Ok(_) => {}
            // Being removed, most often.
            Err(error) => {
                tracing::debug!(container = %entry.name, %error, "no status is written");
            }
        }
        if base.exited().is_some() {
            entry.apply(base);
            return true;
        }
        if !contact::is_gone(&entry.folder).await {
            tracing::debug!(container = %entry.name, "a container's shim lives");
            return false;
        }
        let Some(init) = &base.init else {
            return true;
        };
        contact::until_dead(init).await;
        let ran = base.state == ContainerState::Running;
        let last = base.orphaned();
        if ran {
            tracing::warn!(container = %entry.name, "a container was killed together with its shim");
        }
        if let Err(error) = entry.folder.write_status(&last) {
            tracing::warn!(container = %entry.name, %error, "a container's end is not written down");
        }
        entry.apply(last);
        if ran && entry.record.spec.restart == RestartPolicy::Always {
            self.start_again(entry);
        }
        true
    }

    fn start_again(self: &Arc<Self>, entry: &Arc<Entry>) {
        let (engine, name) = (Arc::downgrade(self), entry.name.clone());
        tokio::spawn(async move {
            let Some(engine) = engine.upgrade() else {
                return;
            };
            let _turn = engine.turn(&name).await;
            if let Err(error) = Arc::clone(&engine).start(name.clone()).await {
                tracing::warn!(container = %name, %error, "a container can't be started again");
            }
        });
    }
}

/// Until the container has ended, or is removed.
async fn follow(entry: Arc<Entry>, engine: Weak<Engine>) {
    loop {
        hear(&entry).await;
        if entry.status().exited().is_some() {
            return;
        }
        {
            let Some(engine) = engine.upgrade() else {
                return;
            };
            let _turn = engine.turn(&entry.name).await;
            if *entry.removal().borrow() || engine.settle(&entry).await {
                return;
            }
        }
        sleep(AGAIN).await;
    }
}

/// Takes what the shim tells, to its end.
async fn hear(entry: &Entry) {
    let Ok(Some(mut from)) = contact::subscribe(&entry.folder, &Request::Follow).await else {
        return;
    };
    while let Ok(Some(frame)) = receive(&mut from).await {
        match frame.parse() {
            Ok(status) => entry.apply(status),
            Err(error) => {
                tracing::warn!(container = %entry.name, %error, "a shim says what can't be read");
            }
        }
    }
}
