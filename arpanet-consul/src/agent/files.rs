//! What the consul process is given, and what it leaves.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use arpanet_core::{ErrorKind, Result};
use serde_json::Value;

use super::ConsulAgentConfig;
use crate::error::own;

/// How much of a log is looked at for the last words.
const TAIL: usize = 4096;

fn failed(path: &Path, what: &str, source: io::Error) -> arpanet_core::Error {
    let message = format!("{} can't be {what}", path.display());
    own(ErrorKind::Internal, message).with_source(source)
}

/// A folder for root alone.
pub(super) fn folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| failed(path, "made", source))
}

pub(super) fn touch(path: &Path) -> Result<()> {
    let made = fs::OpenOptions::new().create(true).append(true).open(path);
    made.map(drop)
        .map_err(|source| failed(path, "made", source))
}

pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(failed(path, "removed", source))
        }
        _ => Ok(()),
    }
}

/// Whether this is what was written there.
pub(super) fn is(path: &Path, value: &Value) -> bool {
    let text = value.to_string();
    fs::read_to_string(path).is_ok_and(|before| before == text)
}

/// Writes a configuration, for root alone.
pub(super) fn replace(path: &Path, value: &Value) -> Result<()> {
    let text = value.to_string();
    let new = path.with_extension("new");
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&new, path));
    written.map_err(|source| failed(path, "written", source))
}

/// The newest of the log files, whose names have the moment in them.
fn newest_log(folder: &Path) -> Option<PathBuf> {
    let logs = fs::read_dir(folder).ok()?.flatten();
    logs.map(|entry| entry.path()).max()
}

/// The last complaint of a consul process, as one line.
pub(super) fn last_words(config: &ConsulAgentConfig) -> Option<String> {
    let read = |path: &Path| fs::read(path).ok();
    let stderr = read(&config.stderr()).filter(|said| !said.trim_ascii().is_empty());
    let said = stderr.or_else(|| read(&newest_log(&config.logs())?))?;
    complaint(&String::from_utf8_lossy(
        &said[said.len().saturating_sub(TAIL)..],
    ))
}

/// The last line that tells of an error, or else the last line.
fn complaint(said: &str) -> Option<String> {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines().rfind(|line| line.contains("[ERROR]") || line.contains("rror"));
    error.or_else(|| lines().next_back()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_configuration_is_written_for_root_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("consul.json");
        let value = serde_json::json!({ "encrypt": "secret" });
        assert!(!is(&path, &value));
        replace(&path, &value).unwrap();
        assert!(is(&path, &value));
        replace(&path, &serde_json::json!({})).unwrap();
        assert!(!is(&path, &value));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        remove(&path).unwrap();
        remove(&path).unwrap();
    }

    #[test]
    fn the_last_complaint_is_told_and_else_the_last_line() {
        let said =
            "[INFO] agent: x\n[ERROR] agent: Error starting agent: address in use\n[INFO] bye\n\n";
        let told = complaint(said).unwrap();
        assert!(told.ends_with("address in use"), "{told}");
        assert_eq!(complaint("one\ntwo\n").as_deref(), Some("two"));
        assert_eq!(complaint("\n"), None);
    }
}
