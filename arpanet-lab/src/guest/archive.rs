//! The guest's file system as the kernel unpacks it: a cpio archive of the format "newc"
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Component, Path};

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
/// What ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// An archive that is being written.
pub(super) struct Archive<W> {
    out: W,
    entries: u32,
    folders: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    pub(super) const fn new(out: W) -> Self {
        Self {
            out,
            entries: 0,
            folders: BTreeSet::new(),
        }
    }

    /// A file, and the folders above it.
    pub(super) fn file(&mut self, at: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        let name = self.place(at)?;
        self.entry(&name, FILE | mode, (0, 0), content)
    }

    /// A folder, and those above it.
    pub(super) fn folder(&mut self, at: &Path, mode: u32) -> io::Result<()> {
        let name = self.place(at)?;
        if self.folders.insert(name.clone()) {
            self.entry(&name, FOLDER | mode, (0, 0), &[])?;
        }
        Ok(())
    }

    /// A character device with this number, and the folders above it.
    pub(super) fn device(&mut self, at: &Path, mode: u32, number: (u32, u32)) -> io::Result<()> {
        let name = self.place(at)?;
        self.entry(&name, CHARACTER_DEVICE | mode, number, &[])
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.entry(TRAILER, 0, (0, 0), &[])?;
        self.out.flush()
    }

    /// Makes the folders above a path; its name in the archive.
    fn place(&mut self, at: &Path) -> io::Result<String> {
        let mut above = String::new();
        let mut parts = Vec::new();
        for part in at.components() {
            match part {
                Component::RootDir => {}
                Component::Normal(part) => parts.push(part.to_str().ok_or_else(|| wrong(at))?),
                _ => return Err(wrong(at)),
            }
        }
        let (name, folders) = parts.split_last().ok_or_else(|| wrong(at))?;
        for folder in folders {
            above.push_str(folder);
            if self.folders.insert(above.clone()) {
                self.entry(&above, FOLDER | 0o755, (0, 0), &[])?;
            }
            above.push('/');
        }
        Ok(above + name)
    }

    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        device: (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let named = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        // Number, mode, user, group, links, time, size, device that it is on, device that it is, length of the name,
        // checksum.
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            device.0,
            device.1,
            named,
            0,
        ];
        let mut head = String::from("070701");
        for field in fields {
            head.push_str(&format!("{field:08x}"));
        }
        head.push_str(name);
        head.push('\0');
        self.padded(head.as_bytes())?;
        self.padded(content)
    }

    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        let short = bytes.len().next_multiple_of(4) - bytes.len();
        self.out.write_all(&[0; 3][..short])
    }
}

fn wrong(path: &Path) -> io::Error {
    let message = format!("{} is no place in the guest", path.display());
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_the_kernel_reads() {
        let mut out = Vec::new();
        let mut archive = Archive::new(&mut out);
        archive.file(Path::new("/a/b"), 0o644, b"hello").unwrap();
        archive.folder(Path::new("/a"), 0o700).unwrap();
        archive.device(Path::new("/null"), 0o666, (1, 3)).unwrap();
        archive.finish().unwrap();
        let head = |number: u32, mode: u32, size: u32, device: (u32, u32), named: u32| {
            let (major, minor) = device;
            format!(
                "070701{number:08x}{mode:08x}0000000000000000{links:08x}00000000{size:08x}0000000000000000{major:08x}{minor:08x}{named:08x}00000000",
                links = 1,
            )
        };
        let expected = [
            head(1, 0o040_755, 0, (0, 0), 2) + "a\0",
            head(2, 0o100_644, 5, (0, 0), 4) + "a/b\0" + "\0\0" + "hello\0\0\0",
            head(3, 0o020_666, 0, (1, 3), 5) + "null\0" + "\0",
            head(4, 0, 0, (0, 0), 11) + "TRAILER!!!\0" + "\0\0\0",
        ]
        .concat();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        let mut archive = Archive::new(Vec::new());
        for path in ["/", "/a/../b", ""] {
            assert!(archive.file(Path::new(path), 0o644, b"").is_err(), "{path}");
        }
    }
}
