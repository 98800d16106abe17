//! Facts of this host that checks and settings read.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use arpanet_consul::agent::find_program;
use arpanet_core::{Error, ErrorKind, Result};
use arpanet_netlink::{Transport, holder_of_port};

/// The DNS servers of `/etc/resolv.conf`.
pub(crate) fn resolvers() -> Vec<IpAddr> {
    resolvers_of(Path::new("/etc/resolv.conf"))
}

fn resolvers_of(path: &Path) -> Vec<IpAddr> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.split_whitespace().next()?.parse().ok())
        .collect()
}

/// The DNS servers that answer for everything else. Behind systemd-resolved's stub stand the real ones.
pub(crate) fn upstreams() -> Vec<SocketAddr> {
    let behind_stub = Path::new("/run/systemd/resolve/resolv.conf");
    let mut servers = resolvers();
    if servers.iter().all(IpAddr::is_loopback) && behind_stub.exists() {
        servers = resolvers_of(behind_stub);
    }
    servers
        .into_iter()
        .map(|ip| SocketAddr::new(ip, 53))
        .collect()
}

/// This program, for what it starts again under other names.
///
/// # Errors
/// [`ErrorKind::Internal`] where /proc is not mounted.
pub(crate) fn program() -> Result<PathBuf> {
    std::env::current_exe().map_err(|source| {
        Error::new(ErrorKind::Internal, "this program can't find itself").with_source(source)
    })
}

/// Tells this program from another build of it: by when its file was written, and its length.
pub(crate) fn build() -> String {
    let file = std::fs::metadata("/proc/self/exe").ok();
    file.map_or_else(String::new, |file| {
        let written = file.modified().ok();
        let written = written.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        format!(
            "{:x}-{:x}",
            written.unwrap_or_default().as_nanos(),
            file.len()
        )
    })
}

/// The consul program: this one, or that in `PATH`.
///
/// # Errors
/// [`ErrorKind::NotFound`] where there is none.
pub(crate) fn consul(chosen: Option<&Path>) -> Result<PathBuf> {
    let missing = |message: String| {
        Error::new(ErrorKind::NotFound, message).with_hint(
            "install consul 1.8 or later, or name the program in config.toml: consul = \"/PATH\"",
        )
    };
    match chosen {
        Some(path) if path.is_file() => Ok(path.to_owned()),
        Some(path) => Err(missing(format!("there is no consul at {}", path.display()))),
        None => in_path("consul").ok_or_else(|| missing("there is no consul in PATH".to_owned())),
    }
}

/// The program weaver: this one, or that in `PATH`; `None` where there is none.
///
/// # Errors
/// [`ErrorKind::NotFound`] where this one is not there.
pub(crate) fn weaver(chosen: Option<&Path>) -> Result<Option<PathBuf>> {
    match chosen {
        Some(path) if path.is_file() => Ok(Some(path.to_owned())),
        Some(path) => Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no weaver at {}", path.display()),
        )
        .with_hint("name weave's program in config.toml: weaver = \"/PATH\"")),
        None => Ok(in_path("weaver")),
    }
}

/// A program by its name.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    find_program(name, &std::env::var_os("PATH")?)
}

/// Refuses a port that somebody has.
///
/// # Errors
/// [`ErrorKind::Conflict`] names the process.
pub(crate) fn require_free(transport: Transport, port: u16) -> Result<()> {
    match holder_of_port(transport, port) {
        None => Ok(()),
        Some(holder) => Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "{} port {port} is in use by {holder}",
                transport.to_string().to_uppercase()
            ),
        )
        .with_hint("end that process, or choose another port with --port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_resolvers_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        std::fs::write(&path, "# nameserver 1.1.1.1\nsearch lan\nnameserver 192.168.8.1\n nameserver ::1 \nnameserver x\n").unwrap();
        assert_eq!(
            resolvers_of(&path),
            [
                "192.168.8.1".parse::<IpAddr>().unwrap(),
                "::1".parse().unwrap()
            ]
        );
    }
}
