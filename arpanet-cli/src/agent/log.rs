//! The agent's log: a file that is turned over before it gets large.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The size at which the file is turned over; one older file is kept.
const LIMIT: u64 = 4 << 20;

/// A log file of bounded size.
#[derive(Debug, Clone)]
pub(super) struct BoundedLog(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: Option<File>,
    size: u64,
}

impl BoundedLog {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            path,
            file: None,
            size: 0,
        })))
    }
}

impl Inner {
    fn file(&mut self) -> std::io::Result<&mut File> {
        if self.file.is_some() && self.size > LIMIT {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = None;
        }
        if self.file.is_none() {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&self.path)?;
            self.size = file.metadata()?.len();
            self.file = Some(file);
        }
        self.file
            .as_mut()
            .ok_or_else(|| std::io::Error::other("the log is closed"))
    }
}

impl Write for BoundedLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = inner.file()?.write(bytes)?;
        inner.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_stays_within_twice_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.log");
        let mut log = BoundedLog::new(path.clone());
        let line = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            log.write_all(&line).unwrap();
        }
        let sizes: u64 = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum();
        assert!(path.exists() && sizes <= 2 * (LIMIT + (1 << 20)));
    }
}
