//! The ledger: every change to the host is written down with its undo before it is made.

mod change;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod host;
mod journal;
#[cfg(test)]
mod model;

use std::fs;
use std::path::Path;

use arpanet_core::{Error, Result};
use tokio::sync::Mutex;

pub use self::change::{Change, VethPair};
use self::host::Host;
use self::journal::{Journal, Record};
use crate::Netlink;
use crate::error::own;

/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A place in the ledger, to [go back](Ledger::roll_back) to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// All changes that were made to the host and stand.
///
/// Reset, the rollback of a step that failed, and the start after a `kill -9` are one thing: reading it backwards. It is
/// a file of JSON lines; each is synced to the disk before its change is made, so a change that happened is always known,
/// and undoing one that did not happen is harmless. After a reboot nothing in the kernel is undone, since nothing of it
/// is there any more.
#[derive(Debug)]
pub struct Ledger {
    host: Box<dyn Host>,
    boot: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    journal: Journal,
    standing: Vec<Record>,
    next: u64,
}

impl Ledger {
    /// Opens the ledger of the host whose namespace `netlink` is in, or makes an empty one, mode 0600. What an earlier
    /// process did stands in it.
    ///
    /// # Errors
    /// [`arpanet_core::ErrorKind::Corrupt`] names the file if it can't be read, except that half a last line, which a
    /// power loss leaves, is dropped; [`arpanet_core::ErrorKind::Conflict`] if another process has it open.
    pub fn open(path: impl AsRef<Path>, netlink: Netlink) -> Result<Self> {
        let boot = fs::read_to_string(BOOT_ID)
            .map(|id| id.trim_end().to_owned())
            .unwrap_or_default();
        Self::with_host(path.as_ref(), Box::new(netlink), boot)
    }

    fn with_host(path: &Path, host: Box<dyn Host>, boot: String) -> Result<Self> {
        let (mut journal, mut standing) = Journal::open(path)?;
        let next = standing
            .iter()
            .map(|record| record.number)
            .max()
            .map_or(1, |last| last + 1);
        standing.retain(|record| record.boot == boot || !record.change.ends_with_the_kernel());
        if standing.is_empty() {
            journal.clear()?;
        }
        Ok(Self {
            host,
            boot,
            state: Mutex::new(State {
                journal,
                standing,
                next,
            }),
        })
    }

    /// Makes a change. A second call with the same change makes it again if somebody has unmade it, and does nothing
    /// otherwise. A change that is in effect already, and not through this ledger, is left alone and is not undone later.
    ///
    /// # Errors
    /// Those of the change, after which it is undone; those of the disk, after which it was not made.
    pub async fn apply(&self, change: Change) -> Result<()> {
        self.apply_all([change]).await
    }

    /// Makes changes in order, with one wait for the disk for all of them. If one fails, those before it are undone.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn apply_all(&self, changes: impl IntoIterator<Item = Change>) -> Result<()> {
        let mut state = self.state.lock().await;
        let (mut steps, mut records) = (Vec::new(), Vec::new());
        let first = state.next;
        for change in changes {
            let known = state
                .standing
                .iter()
                .chain(&records)
                .any(|record| record.change == change);
            if self.host.in_effect(&change).await? {
                continue;
            }
            if !known {
                let before = self.host.before(&change).await?;
                let number = first + records.len() as u64;
                records.push(Record {
                    number,
                    boot: self.boot.clone(),
                    change: change.clone(),
                    before,
                });
            }
            steps.push(change);
        }
        if !records.is_empty() {
            state.journal.append(&records)?;
            state.next = first + records.len() as u64;
            state.standing.extend(records);
        }
        for change in steps {
            tracing::debug!(%change, "making");
            if let Err(error) = self.host.make(&change).await {
                if let Err(failure) = self.undo_from(&mut state, first).await {
                    tracing::error!(error = %failure, "rolling back");
                }
                return Err(error.context(format!("{change} could not be made")));
            }
        }
        Ok(())
    }

    /// Where the ledger is now.
    pub async fn mark(&self) -> Mark {
        Mark(self.state.lock().await.next)
    }

    /// Undoes everything after a mark, last first. Changes that were there before the mark, and only mended since, stay.
    ///
    /// # Errors
    /// One error that names all failures, after everything was tried. What failed stands, to be tried again.
    pub async fn roll_back(&self, mark: Mark) -> Result<()> {
        let mut state = self.state.lock().await;
        self.undo_from(&mut state, mark.0).await
    }

    /// Undoes everything, also what an earlier process did, last first. A second call does nothing.
    ///
    /// # Errors
    /// As [`roll_back`](Self::roll_back).
    pub async fn undo_all(&self) -> Result<()> {
        self.roll_back(Mark(0)).await
    }

    /// Undoes one change, wherever in the ledger it stands. A second call does nothing.
    ///
    /// # Errors
    /// Those of the undo, after which the change stands, to be tried again.
    pub async fn undo(&self, change: &Change) -> Result<()> {
        let mut state = self.state.lock().await;
        let Some(index) = state
            .standing
            .iter()
            .position(|record| record.change == *change)
        else {
            return Ok(());
        };
        self.undo_at(&mut state, index).await
    }

    /// The changes that stand, in the order in which they were made.
    pub async fn standing(&self) -> Vec<Change> {
        self.state
            .lock()
            .await
            .standing
            .iter()
            .map(|record| record.change.clone())
            .collect()
    }

    async fn undo_from(&self, state: &mut State, first: u64) -> Result<()> {
        let mut failures: Vec<(String, Error)> = Vec::new();
        for index in (0..state.standing.len()).rev() {
            let record = &state.standing[index];
            if record.number < first {
                continue;
            }
            let change = record.change.to_string();
            if let Err(error) = self.undo_at(state, index).await {
                failures.push((change, error));
            }
        }
        let Some((_, first)) = failures.first() else {
            return Ok(());
        };
        let kind = first.kind();
        let all: Vec<String> = failures
            .iter()
            .map(|(change, error)| format!("{change} ({error})"))
            .collect();
        Err(own(
            "undo",
            kind,
            format!("could not be undone: {}", all.join("; ")),
        )
        .with_source(failures.remove(0).1))
    }

    async fn undo_at(&self, state: &mut State, index: usize) -> Result<()> {
        let record = &state.standing[index];
        tracing::debug!(change = %record.change, "undoing");
        self.host.unmake(&record.change, &record.before).await?;
        let number = state.standing.remove(index).number;
        // On a full disk the note may be lost: it is then undone twice, which is harmless, and the host comes first.
        let noted = if state.standing.is_empty() {
            state.journal.clear()
        } else {
            state.journal.strike(number)
        };
        if let Err(error) = noted {
            tracing::warn!(%error, "an undone change can't be struck from the ledger");
        }
        Ok(())
    }
}
