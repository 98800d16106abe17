//! What is known of the router that was launched, so that another process of arpanet2 finds it: written before it starts.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use arpanet_core::{ErrorKind, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{own, system};

/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const FILE: &str = "router.json";

/// A router that was launched, or was about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// Its process, once there is one.
    pub(crate) process: Option<Process>,
    /// What its arguments and password hash to.
    pub(crate) fingerprint: String,
    /// It is the program of a container.
    #[serde(default)]
    pub(crate) container: bool,
    /// The bridge was there before: it is somebody else's, and stays.
    pub(crate) found_bridge: bool,
}

/// A process, told from a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    pub(crate) id: i32,
    /// When it started, in the kernel's ticks since the boot.
    started: u64,
    boot: String,
}

impl Process {
    /// A process that runs now.
    pub(crate) fn running(id: i32) -> Option<Self> {
        Some(Self {
            id,
            started: started(id)?,
            boot: boot(),
        })
    }

    /// The process that works in this folder, if there is one.
    pub(crate) fn working_in(folder: &Path) -> Option<Self> {
        let folder = fs::canonicalize(folder).ok()?;
        fs::read_dir("/proc")
            .ok()?
            .flatten()
            .find(|process| {
                fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == folder)
            })
            .and_then(|process| Self::running(process.file_name().to_str()?.parse().ok()?))
    }

    /// Whether it still runs. One that has ended and was not waited for does not.
    pub(crate) fn is_alive(&self) -> bool {
        self.boot == boot() && started(self.id) == Some(self.started)
    }

    /// Sends it a signal, if it still runs.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.id), signal) {
            Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
            Err(error) => Err(system(
                format!("the weave router, process {}, can't be ended", self.id),
                error.into(),
            )),
        }
    }
}

fn boot() -> String {
    fs::read_to_string(BOOT_ID)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// When a process started; `None` where it has ended.
fn started(id: i32) -> Option<u64> {
    parse_started(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
}

/// The 22nd field of /proc/PID/stat (proc_pid_stat(5)). The second is a name, which may have spaces and brackets in it.
fn parse_started(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let threads: u32 = fields.get(17)?.parse().ok()?;
    // The first thread may have ended before the others, which then still have the process's files open.
    let ended = matches!(*fields.first()?, "Z" | "X") && threads <= 1;
    (!ended).then(|| fields.get(19)?.parse().ok()).flatten()
}

fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

impl Record {
    /// The one in a folder, if there is one.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = path(folder);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(system(format!("{} can't be read", path.display()), error)),
        };
        let read: serde_json::Result<Self> = serde_json::from_str(&text);
        let found = read.map(|mut record| {
            // Whoever launched it was killed between the launch and the note of it.
            let process = record.process.take();
            record.process = process.or_else(|| Process::working_in(folder));
            Some(record)
        });
        found.map_err(|cause| {
            own(
                ErrorKind::Corrupt,
                format!("{} can't be read", path.display()),
            )
            .with_source(cause)
            .with_hint("it names the process of this host's weave router: end that by hand, then remove the file")
        })
    }

    /// Puts it into a folder, all or nothing.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let path = path(folder);
        let written = (|| {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer(&mut file, self)?;
            file.flush()?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok::<_, io::Error>(())
        })();
        written.map_err(|error| system(format!("{} can't be written", path.display()), error))
    }

    pub(crate) fn remove(folder: &Path) -> Result<()> {
        remove_file(&path(folder))
    }

    /// The process, if it still runs.
    pub(crate) fn alive(&self) -> Option<&Process> {
        self.process.as_ref().filter(|process| process.is_alive())
    }
}

/// Removes a file that may not be there.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(system(
            format!("{} can't be removed", path.display()),
            error,
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let me = Process::running(std::process::id() as i32).unwrap();
        assert!(me.is_alive());
        let earlier = Process {
            started: me.started - 1,
            ..me.clone()
        };
        let before_the_boot = Process {
            boot: "another".to_owned(),
            ..me
        };
        for other in [earlier, before_the_boot] {
            assert!(!other.is_alive());
            // Nor is it sent anything: it would be this process.
            other.signal(Signal::SIGKILL).unwrap();
        }
    }

    #[test]
    fn names_with_brackets_confuse_nobody_and_zombies_are_dead() {
        let stat = |state, threads| {
            format!("7 (a) b) {state} 1 7 7 0 -1 4 0 0 0 0 1 2 3 4 20 0 {threads} 0 4711 0 0")
        };
        assert_eq!(parse_started(&stat("S", 1)), Some(4711));
        assert_eq!(parse_started(&stat("Z", 1)), None);
        assert_eq!(parse_started(&stat("Z", 2)), Some(4711));
        assert_eq!(parse_started("garbage"), None);
    }

    #[test]
    fn a_record_is_found_again_and_a_damaged_one_named() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(folder.path()).unwrap(), None);
        Record::remove(folder.path()).unwrap();
        let record = Record {
            process: Process::running(std::process::id() as i32),
            fingerprint: "f".to_owned(),
            container: false,
            found_bridge: true,
        };
        record.write(folder.path()).unwrap();
        assert_eq!(Record::read(folder.path()).unwrap(), Some(record));
        fs::write(path(folder.path()), "{").unwrap();
        let error = Record::read(folder.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(FILE));
    }
}
