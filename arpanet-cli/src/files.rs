//! Files that are replaced whole or not at all.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use arpanet_core::{Error, ErrorKind, Result};

/// Permissions of a file, and of the folders above it where they are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Modes {
    pub(crate) file: u32,
    pub(crate) folder: u32,
}

/// Writes a file: whole and durable when it returns, untouched when it fails.
///
/// # Errors
/// [`ErrorKind::Exhausted`] on a full disk, [`ErrorKind::PermissionDenied`]; all name the file.
pub(crate) fn replace(path: &Path, bytes: &[u8], modes: Modes) -> Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let attempt = || -> std::io::Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(modes.folder)
            .create(folder)?;
        let mut file = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(modes.file))
            .tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        std::fs::File::open(folder)?.sync_all()
    };
    attempt().map_err(|source| {
        let kind = match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                ErrorKind::Exhausted
            }
            std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            _ => ErrorKind::Internal,
        };
        Error::new(kind, format!("{} can't be written", path.display())).with_source(source)
    })
}
