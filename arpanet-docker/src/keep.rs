//! Labels that were changed after a container was made, which the engine can't keep.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arpanet_core::{ErrorKind, Result};

use crate::error::own;

/// By the engine's id: each label that was given a value, or taken away.
type Changes = BTreeMap<String, BTreeMap<String, Option<String>>>;

/// The changed labels, in a file that is replaced whole.
#[derive(Debug)]
pub(crate) struct Keep {
    file: Option<PathBuf>,
    changes: Mutex<Changes>,
}

impl Keep {
    /// # Errors
    /// [`ErrorKind::Corrupt`] names a file that can't be read.
    pub(crate) fn open(file: Option<PathBuf>) -> Result<Self> {
        let changes = match file.as_deref().map(std::fs::read) {
            Some(Ok(bytes)) => serde_json::from_slice(&bytes).map_err(|source| {
                let path = file.as_deref().unwrap_or(Path::new("")).display();
                own(ErrorKind::Corrupt, format!("the state file {path} is damaged"))
                    .with_hint("restore it from a backup, or remove it: addresses that were attached by hand are given up then")
                    .with_source(source)
            })?,
            Some(Err(source)) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(own(ErrorKind::Internal, "the file of labels can't be read").with_source(source));
            }
            _ => Changes::new(),
        };
        Ok(Self {
            file,
            changes: Mutex::new(changes),
        })
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether any label of this container was changed.
    pub(crate) fn knows(&self, id: &str) -> bool {
        self.changes().contains_key(id)
    }

    /// A container's labels as they are now.
    pub(crate) fn apply(&self, id: &str, labels: &mut BTreeMap<String, String>) {
        for (label, value) in self.changes().get(id).into_iter().flatten() {
            match value {
                Some(value) => labels.insert(label.clone(), value.clone()),
                None => labels.remove(label),
            };
        }
    }

    /// Changes a label. As before when it can't be kept.
    pub(crate) fn set(&self, id: &str, label: &str, value: Option<String>) -> Result<()> {
        let mut changes = self.changes();
        let mut changed = changes.clone();
        changed
            .entry(id.to_owned())
            .or_default()
            .insert(label.to_owned(), value);
        self.write(&changed)?;
        *changes = changed;
        Ok(())
    }

    /// Forgets all containers but these.
    pub(crate) fn retain(&self, is_there: impl Fn(&str) -> bool) -> Result<()> {
        let mut changes = self.changes();
        let mut changed = changes.clone();
        changed.retain(|id, _| is_there(id));
        if changed.len() != changes.len() {
            self.write(&changed)?;
            *changes = changed;
        }
        Ok(())
    }

    fn write(&self, changes: &Changes) -> Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let attempt = || -> std::io::Result<()> {
            let folder = file.parent().unwrap_or(Path::new("/"));
            std::fs::create_dir_all(folder)?;
            let mut whole = tempfile::NamedTempFile::new_in(folder)?;
            whole.write_all(&serde_json::to_vec(changes)?)?;
            whole.as_file().sync_all()?;
            whole.persist(file)?;
            Ok(())
        };
        attempt().map_err(|source| {
            let message = format!("{} can't be written", file.display());
            own(ErrorKind::Internal, message).with_source(source)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_outlive_the_process_until_their_container_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/labels.json");
        let keep = Keep::open(Some(file.clone())).unwrap();
        keep.set("a", "team", Some("two".into())).unwrap();
        keep.set("a", "tier", None).unwrap();
        let keep = Keep::open(Some(file.clone())).unwrap();
        let mut labels = [("tier", "front"), ("zone", "x")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        keep.apply("a", &mut labels);
        let shown: Vec<_> = labels.iter().map(|(a, b)| format!("{a}={b}")).collect();
        assert_eq!(shown, ["team=two", "zone=x"]);
        keep.retain(|id| id != "a").unwrap();
        assert!(!Keep::open(Some(file.clone())).unwrap().knows("a"));
        std::fs::write(&file, "{").unwrap();
        let error = Keep::open(Some(file.clone())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(std::fs::read(&file).unwrap(), b"{");
    }
}
