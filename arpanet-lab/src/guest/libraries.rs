//! The shared libraries of a program, which go into the guest with it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Those that the dynamic linker would load, and the linker itself. None for a static program.
pub(super) fn of(program: &Path) -> io::Result<Vec<PathBuf>> {
    let told = Command::new("ldd").arg(program).output()?;
    let (out, err) = (
        String::from_utf8_lossy(&told.stdout),
        String::from_utf8_lossy(&told.stderr),
    );
    if !told.status.success() {
        let is_static = err.contains("not a dynamic executable");
        return if is_static {
            Ok(Vec::new())
        } else {
            Err(io::Error::other(err.trim().to_owned()))
        };
    }
    listed(&out).map_err(|missing| {
        let message = format!("{} needs {missing}, which is not there", program.display());
        io::Error::new(io::ErrorKind::NotFound, message)
    })
}

/// The paths in what ldd tells, or the name of one that it did not find.
fn listed(told: &str) -> Result<Vec<PathBuf>, String> {
    let mut paths = Vec::new();
    for line in told.lines() {
        if let Some((name, _)) = line.split_once("=> not found") {
            return Err(name.trim().to_owned());
        }
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        paths.extend(path.map(PathBuf::from));
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_linker_are_found() {
        let told = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(listed(told).unwrap(), expected.map(PathBuf::from));
        assert!(listed("\tstatically linked\n").unwrap().is_empty());
        assert_eq!(listed("\tlibx.so => not found\n").unwrap_err(), "libx.so");
    }

    #[test]
    fn this_program_has_some() {
        let program = std::env::current_exe().unwrap();
        assert!(of(&program).unwrap().iter().all(|path| path.exists()));
    }
}
