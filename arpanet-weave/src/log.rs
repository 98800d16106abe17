//! The router's log, a file that it goes on writing to while nobody of arpanet2 is there.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// How large it may become, in bytes.
const LARGEST: u64 = 1 << 20;
/// How much is kept of one that became larger.
const KEPT: u64 = 64 << 10;
/// How much of it is told where the router does not start.
const TOLD: u64 = 1_000;

/// The last lines, as one.
pub(crate) fn tail(path: &Path) -> io::Result<String> {
    let bytes = last(&mut File::open(path)?, TOLD)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().map(str::trim).collect::<Vec<_>>().join("; "))
}

/// Shortens a log that has become too large to its last lines. Whoever writes to it has to append; what is written in this very
/// moment may be lost. One that is not there is short enough.
pub(crate) fn bound(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().read(true).append(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() <= LARGEST {
        return Ok(());
    }
    let kept = last(&mut file, KEPT)?;
    let whole = kept.iter().position(|byte| *byte == b'\n');
    file.set_len(0)?;
    file.write_all(&kept[whole.map_or(0, |end| end + 1)..])
}

fn last(file: &mut File, most: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_cut_to_its_last_lines_and_written_on_behind_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        bound(&path).unwrap();
        let mut writer = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        writer.write_all(b"first\n").unwrap();
        bound(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"first\n");
        for number in 0..100_000 {
            writeln!(writer, "line {number:06}").unwrap();
        }
        bound(&path).unwrap();
        writeln!(writer, "the end").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.len() as u64 <= KEPT + 8, "{}", text.len());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("line ") && lines[0].len() == 11);
        assert_eq!(lines[lines.len() - 2..], ["line 099999", "the end"]);
        assert!(tail(&path).unwrap().ends_with("; line 099999; the end"));
    }
}
