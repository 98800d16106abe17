//! The file behind the ledger: one JSON object a line, appended and synced before the change is made.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use arpanet_core::{ErrorKind, Result};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::change::{Before, Change};
use crate::error::{own, system};

/// A change that was written down, and that has not been undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// Increases from record to record.
    pub(crate) number: u64,
    /// The kernel's id of the boot in which it was made.
    pub(crate) boot: String,
    pub(crate) change: Change,
    pub(crate) before: Before,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Change(Box<Record>),
    Undone(u64),
}

/// The open file, locked for this process.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: Flock<File>,
    length: u64,
}

impl Journal {
    /// Opens or makes the file, and reads which changes stand.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<Record>)> {
        let failed = |error| {
            system(
                "open the ledger",
                format!("the ledger {} can't be opened", path.display()),
                error,
            )
        };
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let mut file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(
            |(_, error)| match error {
                nix::Error::EWOULDBLOCK => {
                    let message =
                        format!("the ledger {} is in use by another process", path.display());
                    own("open the ledger", ErrorKind::Conflict, message)
                        .with_hint("is an agent running here?")
                }
                error => failed(error.into()),
            },
        )?;
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let (records, whole) = parse(&bytes).map_err(|(line, error)| {
            let message = format!("line {line} of the ledger {} can't be read", path.display());
            own("open the ledger", ErrorKind::Corrupt, message)
                .with_hint("it lists what was changed on this host: undo that by hand, then move the file away")
                .with_source(error)
        })?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            length: whole as u64,
        };
        if whole < bytes.len() {
            tracing::warn!(path = %path.display(), "the last line of the ledger is torn; its change was never made");
            journal.cut().map_err(failed)?;
        }
        Ok((journal, records))
    }

    /// Writes records down. When this returns they are on the disk; if it fails, none is.
    pub(crate) fn append(&mut self, records: &[Record]) -> Result<()> {
        self.write(
            records
                .iter()
                .cloned()
                .map(|record| Line::Change(Box::new(record))),
        )
    }

    /// Notes that a record is undone.
    pub(crate) fn strike(&mut self, number: u64) -> Result<()> {
        self.write([Line::Undone(number)].into_iter())
    }

    /// Empties the file: nothing stands any more.
    pub(crate) fn clear(&mut self) -> Result<()> {
        self.length = 0;
        self.cut().map_err(|error| self.failed(error))
    }

    fn write(&mut self, lines: impl Iterator<Item = Line>) -> Result<()> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, &line).map_err(|error| self.failed(error.into()))?;
            text.push(b'\n');
        }
        let written = self
            .file
            .write_all(&text)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a line in the middle of the file would make all of it unreadable.
            if let Err(error) = self.cut() {
                tracing::error!(path = %self.path.display(), %error, "the ledger can't be cut back");
            }
            return Err(self.failed(error));
        }
        self.length += text.len() as u64;
        Ok(())
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(io::SeekFrom::End(0))?;
        self.file.sync_all()
    }

    fn failed(&self, error: io::Error) -> arpanet_core::Error {
        system(
            "write the ledger",
            format!("the ledger {} can't be written", self.path.display()),
            error,
        )
    }
}

/// The records that stand, and how many bytes are whole lines. A tail without an end of line is what a power loss leaves
/// of a write that had not been synced, so its change had not been made. Everything else that can't be read is an error,
/// with the number of its line.
pub(super) fn parse(
    bytes: &[u8],
) -> std::result::Result<(Vec<Record>, usize), (usize, serde_json::Error)> {
    let whole = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    let mut records: Vec<Record> = Vec::new();
    for (index, line) in bytes[..whole]
        .split_inclusive(|byte| *byte == b'\n')
        .enumerate()
    {
        match serde_json::from_slice(line).map_err(|error| (index + 1, error))? {
            Line::Change(record) => records.push(*record),
            Line::Undone(number) => records.retain(|record| record.number != number),
        }
    }
    Ok((records, whole))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(number: u64) -> Record {
        Record {
            number,
            boot: "boot".to_owned(),
            change: Change::SetSysctl {
                name: "net.ipv4.ip_forward".to_owned(),
                value: number.to_string(),
            },
            before: Before::Value("0".to_owned()),
        }
    }

    fn file(folder: &tempfile::TempDir) -> PathBuf {
        folder.path().join("state/ledger")
    }

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let (_held, _) = Journal::open(&file(&folder)).unwrap();
        assert_eq!(
            Journal::open(&file(&folder)).unwrap_err().kind(),
            ErrorKind::Conflict
        );
    }

    #[test]
    fn a_struck_record_does_not_stand() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(&file(&folder)).unwrap();
        journal.append(&[record(1), record(2)]).unwrap();
        journal.strike(1).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&file(&folder)).unwrap().1, [record(2)]);
    }

    #[test]
    fn a_damaged_line_is_refused_with_its_path_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(&file(&folder)).unwrap();
        journal.append(&[record(1), record(2)]).unwrap();
        drop(journal);
        let damaged = fs::read_to_string(file(&folder))
            .unwrap()
            .replacen("change", "chance", 1);
        fs::write(file(&folder), &damaged).unwrap();
        let error = Journal::open(&file(&folder)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(file(&folder).to_str().unwrap()));
        assert_eq!(fs::read_to_string(file(&folder)).unwrap(), damaged);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_is_cut_off_the_end_whole_lines_stand(count in 1_u64..6, cut in 0_usize..400) {
            let folder = tempfile::tempdir().unwrap();
            let (mut journal, _) = Journal::open(&file(&folder)).unwrap();
            for number in 1..=count {
                journal.append(&[record(number)]).unwrap();
            }
            drop(journal);
            let bytes = fs::read(file(&folder)).unwrap();
            let kept = &bytes[..bytes.len().saturating_sub(cut)];
            fs::write(file(&folder), kept).unwrap();
            let lines = kept.iter().filter(|byte| **byte == b'\n').count() as u64;
            let (mut journal, records) = Journal::open(&file(&folder)).unwrap();
            prop_assert_eq!(records, (1..=lines).map(record).collect::<Vec<_>>());
            // And what comes after stands beside it, not behind half a line.
            journal.append(&[record(99)]).unwrap();
            drop(journal);
            let (_, records) = Journal::open(&file(&folder)).unwrap();
            prop_assert_eq!(records, (1..=lines).chain([99]).map(record).collect::<Vec<_>>());
        }
    }
}
