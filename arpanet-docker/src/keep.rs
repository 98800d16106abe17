//! Labels that were changed after the container was made: docker can't, so they are kept beside it, in one file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arpanet_core::{Error, ErrorKind, Result};

use crate::error::own;

/// What was changed of a container's labels; `None` is one that was taken away.
pub(crate) type Changes = BTreeMap<String, Option<String>>;

/// The changes of all containers, by their ids.
type Table = BTreeMap<String, Changes>;

#[derive(Debug)]
pub(crate) struct Keep {
    /// Without one they are gone with this process.
    path: Option<PathBuf>,
    table: Mutex<Table>,
}

impl Keep {
    /// What the file says; nothing where there is none.
    pub(crate) fn open(path: Option<PathBuf>) -> Result<Self> {
        let table = match &path {
            Some(path) => Self::read(path)?,
            None => Table::new(),
        };
        Ok(Self {
            path,
            table: Mutex::new(table),
        })
    }

    fn read(path: &Path) -> Result<Table> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let message = format!("the state file {} is damaged", path.display());
                own(ErrorKind::Corrupt, message)
                    .with_hint("restore it from a backup, or remove it: addresses that were attached by hand are given up then")
                    .with_source(error)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Table::new()),
            Err(error) => Err(at_file(path, "can't be read", error)),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was changed of this container.
    pub(crate) fn of(&self, id: &str) -> Changes {
        self.table().get(id).cloned().unwrap_or_default()
    }

    /// Keeps a label's new value. `own` is what the container itself has.
    pub(crate) fn set(
        &self,
        id: &str,
        label: &str,
        value: Option<String>,
        own: Option<&String>,
    ) -> Result<()> {
        self.change(|table| {
            let changes = table.entry(id.to_owned()).or_default();
            if value.as_ref() == own {
                changes.remove(label);
            } else {
                changes.insert(label.to_owned(), value);
            }
            if changes.is_empty() {
                table.remove(id);
            }
        })
    }

    /// The containers that something is kept for.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        self.table().keys().cloned().collect()
    }

    /// Gives up what is kept for containers that are gone.
    pub(crate) fn forget<'a>(&self, ids: impl IntoIterator<Item = &'a String>) -> Result<()> {
        self.change(|table| {
            for id in ids {
                table.remove(id);
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut Table)) -> Result<()> {
        let mut table = self.table();
        let mut changed = table.clone();
        change(&mut changed);
        if changed != *table {
            if let Some(path) = &self.path {
                replace(path, &serde_json::to_vec(&changed).map_err(internal)?)?;
            }
            *table = changed;
        }
        Ok(())
    }
}

fn internal(error: serde_json::Error) -> Error {
    own(ErrorKind::Internal, "labels can't be written down").with_source(error)
}

fn at_file(path: &Path, what: &str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
        _ => ErrorKind::Internal,
    };
    own(kind, format!("{} {what}", path.display())).with_source(error)
}

/// Writes the file: whole and durable when it returns, untouched when it fails.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let attempt = || -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    };
    attempt().map_err(|error| at_file(path, "can't be written", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/labels.json");
        let keep = Keep::open(Some(path.clone())).unwrap();
        assert!(keep.of("a").is_empty());
        keep.set("a", "team", Some("two".to_owned()), Some(&"one".to_owned()))
            .unwrap();
        keep.set("a", "tier", None, Some(&"front".to_owned()))
            .unwrap();
        keep.set("b", "team", Some("one".to_owned()), None).unwrap();
        let wanted: Changes = [
            ("team".to_owned(), Some("two".to_owned())),
            ("tier".to_owned(), None),
        ]
        .into();
        assert_eq!(keep.of("a"), wanted);
        let again = Keep::open(Some(path.clone())).unwrap();
        assert_eq!(again.of("a"), wanted);
        again.forget([&"a".to_owned(), &"z".to_owned()]).unwrap();
        assert_eq!(
            Keep::open(Some(path)).unwrap().ids(),
            BTreeSet::from(["b".to_owned()])
        );
    }

    #[test]
    fn a_label_that_is_as_the_container_has_it_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.json");
        let keep = Keep::open(Some(path.clone())).unwrap();
        let one = "one".to_owned();
        keep.set("a", "team", Some(one.clone()), Some(&one))
            .unwrap();
        keep.set("a", "tier", None, None).unwrap();
        assert!(!path.exists(), "nothing was to be kept");
        keep.set("a", "team", None, Some(&one)).unwrap();
        keep.set("a", "team", Some(one.clone()), Some(&one))
            .unwrap();
        assert!(keep.ids().is_empty());
    }

    #[test]
    fn a_file_that_is_something_else_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.json");
        fs::write(&path, "[1]").unwrap();
        let error = Keep::open(Some(path)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("labels.json"));
    }
}
