//! What an engine ended while no agent was there, one line each, for the agent's return.
//!
//! The keeper writes, the agent reads; the file's lock decides between them. An agent listens before it takes the lock and
//! reads; the keeper, once it has the lock, looks once more for an agent before it writes. So whatever is written is read.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use arpanet_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// A request that was answered by the keeper alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) method: String,
    pub(super) body: String,
}

/// The file, locked by this value.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Waits until nobody else has it, in a thread that may wait.
    pub(super) async fn lock(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let open = || -> io::Result<File> {
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder)?;
                }
                let file = File::options()
                    .read(true)
                    .append(true)
                    .create(true)
                    .open(&path)?;
                file.lock()?;
                Ok(file)
            };
            match open() {
                Ok(file) => Ok(Self { path, file }),
                Err(error) => Err(failed(&path, error)),
            }
        });
        opened.await.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Internal, "a thread failed").with_source(error))
        })
    }

    pub(super) fn append(&mut self, ended: &Ended) -> Result<()> {
        let mut write = || -> io::Result<()> {
            let mut line = serde_json::to_vec(ended)?;
            line.push(b'\n');
            self.file.write_all(&line)?;
            self.file.sync_data()
        };
        write().map_err(|error| failed(&self.path, error))
    }

    /// All of it, in order. A line that a power loss has cut short is none.
    pub(super) fn read(&mut self) -> Result<Vec<Ended>> {
        let mut text = Vec::new();
        let mut read = || -> io::Result<()> {
            self.file.rewind()?;
            self.file.read_to_end(&mut text).map(drop)
        };
        read().map_err(|error| failed(&self.path, error))?;
        let lines = text.split(|byte| *byte == b'\n');
        Ok(lines
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }

    pub(super) fn clear(&mut self) -> Result<()> {
        let cleared = self.file.set_len(0);
        cleared.map_err(|error| failed(&self.path, error))
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("the journal {} can't be used", path.display()),
    )
    .with_source(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(body: &str) -> Ended {
        Ended {
            method: "NetworkDriver.Leave".to_owned(),
            body: body.to_owned(),
        }
    }

    #[tokio::test]
    async fn what_is_written_is_read_until_it_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/journal");
        for body in ["{}", "{\"EndpointID\":\"e\\n1\"}"] {
            let mut journal = Journal::lock(&path).await.unwrap();
            journal.append(&ended(body)).unwrap();
        }
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"method\":\"Netw")
            .unwrap();
        let mut journal = Journal::lock(&path).await.unwrap();
        let read = journal.read().unwrap();
        assert_eq!(read, [ended("{}"), ended("{\"EndpointID\":\"e\\n1\"}")]);
        journal.clear().unwrap();
        assert_eq!(journal.read().unwrap(), []);
    }

    #[tokio::test]
    async fn one_at_a_time_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let first = Journal::lock(&path).await.unwrap();
        let second = tokio::spawn({
            let path = path.clone();
            async move { Journal::lock(&path).await.unwrap().read().unwrap() }
        });
        let mut first = first;
        first.append(&ended("{}")).unwrap();
        drop(first);
        assert_eq!(second.await.unwrap(), [ended("{}")]);
    }
}
