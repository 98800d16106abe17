//! What was changed by hand while the node ran, and is brought about again at its next start.

use std::path::PathBuf;

use arpanet_core::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::state;

/// A value that stands in a state file of its own.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    path: PathBuf,
    value: Mutex<T>,
}

impl<T: Clone + Default + PartialEq + Serialize + DeserializeOwned> Kept<T> {
    /// What an earlier agent kept there.
    ///
    /// # Errors
    /// [`Corrupt`](arpanet_core::ErrorKind::Corrupt) for a file that can't be read.
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let value = Mutex::new(state::read(&path)?.unwrap_or_default());
        Ok(Self { path, value })
    }

    pub(crate) async fn get(&self) -> T {
        self.value.lock().await.clone()
    }

    /// Changes it; what it was before.
    ///
    /// # Errors
    /// Where the file can't be written; nothing is changed then.
    pub(crate) async fn change(&self, change: impl FnOnce(&mut T)) -> Result<T> {
        let mut value = self.value.lock().await;
        let mut changed = value.clone();
        change(&mut changed);
        if changed == *value {
            return Ok(changed);
        }
        state::write(&self.path, &changed)?;
        Ok(std::mem::replace(&mut *value, changed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_there_for_the_next_agent_or_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state").join("numbers.json");
        let kept: Kept<Vec<u32>> = Kept::open(path.clone()).unwrap();
        kept.change(|numbers| numbers.push(7)).await.unwrap();
        assert_eq!(
            Kept::<Vec<u32>>::open(path.clone()).unwrap().get().await,
            [7]
        );
        // A folder where the file was: it can't be written.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        kept.change(|numbers| numbers.push(8)).await.unwrap_err();
        assert_eq!(kept.get().await, [7]);
    }
}
