//! An image for engines that reach no registry, made of Debian's busybox.

use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use arpanet_core::{Error, ErrorKind, Result};
use tar::{Builder, EntryType, Header};

/// Debian's `busybox-static`.
const BUSYBOX: &str = "/bin/busybox";

/// The image's name in a lab's engines.
pub const IMAGE: &str = "arpanet2-lab";

/// Writes the file system of the image, as `docker import` reads it: busybox with all of its applets.
///
/// # Errors
/// [`ErrorKind::NotFound`] where Debian's package `busybox-static` is missing.
pub(crate) fn write(out: impl Write) -> Result<()> {
    if !Path::new(BUSYBOX).exists() {
        return Err(
            Error::new(ErrorKind::NotFound, format!("there is no {BUSYBOX}"))
                .with_hint("install Debian's package busybox-static"),
        );
    }
    attempt(out).map_err(|source| {
        Error::new(ErrorKind::Internal, "the image for the lab can't be made").with_source(source)
    })
}

fn attempt(out: impl Write) -> io::Result<()> {
    let mut image = Builder::new(out);
    for folder in ["bin/", "etc/", "root/", "tmp/", "var/"] {
        let mode = if folder == "tmp/" { 0o1777 } else { 0o755 };
        append(&mut image, folder, EntryType::Directory, mode, b"")?;
    }
    let busybox = std::fs::read(BUSYBOX)?;
    append(
        &mut image,
        "bin/busybox",
        EntryType::Regular,
        0o755,
        &busybox,
    )?;
    let listed = Command::new(BUSYBOX).arg("--list").output()?;
    for applet in String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter(|applet| *applet != "busybox")
    {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        image.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    let users = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    append(&mut image, "etc/passwd", EntryType::Regular, 0o644, users)?;
    let groups = b"root:x:0:\nnogroup:x:65534:\n";
    append(&mut image, "etc/group", EntryType::Regular, 0o644, groups)?;
    image.finish()
}

fn append(
    image: &mut Builder<impl Write>,
    path: &str,
    kind: EntryType,
    mode: u32,
    content: &[u8],
) -> io::Result<()> {
    let mut header = header(kind, mode, content.len() as u64);
    image.append_data(&mut header, path, content)
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header
}
