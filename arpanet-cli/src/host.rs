//! Facts of this host that checks and settings read.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

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

/// Which process has this port of all addresses or of one, in this network namespace: `name (pid)`.
pub(crate) fn holder_of_port(protocol: &str, port: u16) -> Option<String> {
    let inode = ["", "6"].iter().find_map(|version| {
        let table = std::fs::read_to_string(format!("/proc/self/net/{protocol}{version}")).ok()?;
        table.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, local) = fields.get(1)?.rsplit_once(':')?;
            let listening = protocol != "tcp" || *fields.get(3)? == "0A";
            (listening && u16::from_str_radix(local, 16).ok()? == port)
                .then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
        })
    })?;
    let socket = PathBuf::from(format!("socket:[{inode}]"));
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let pid = process.file_name();
        let numbered = pid.to_string_lossy().parse::<u32>().is_ok();
        let Ok(fds) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        if numbered
            && fds
                .flatten()
                .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target == socket))
        {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} ({})", name.trim(), pid.to_string_lossy()));
        }
    }
    Some("a process of another namespace".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_process_that_has_a_port() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let holder = holder_of_port("udp", port).unwrap();
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
        drop(socket);
        assert_eq!(holder_of_port("udp", port), None);
    }

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
