//! Who has a port.

use std::fmt;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

/// The protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// TCP, where a port is held by who listens on it.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// `TCP_LISTEN`, as /proc/net/tcp writes it.
const LISTENING: &str = "0A";

/// Which process has this port, of all addresses or of one, in the calling thread's network namespace: as
/// `name (process 7)`. `None` where nobody has it.
///
/// ```
/// use arpanet_netlink::{Transport, holder_of_port};
/// let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
/// let port = socket.local_addr()?.port();
/// assert!(holder_of_port(Transport::Udp, port).unwrap().contains(&std::process::id().to_string()));
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub fn holder_of_port(transport: Transport, port: u16) -> Option<String> {
    holder(inode_in(transport, port, |_| true)?)
}

/// Which process keeps others from this address and port: it has them, or the port of all addresses. Otherwise as
/// [`holder_of_port`].
#[must_use]
pub fn holder_of_address(transport: Transport, at: SocketAddrV4) -> Option<String> {
    let exact = format!("{:08X}", u32::from_ne_bytes(at.ip().octets()));
    let is_in_the_way =
        |address: &str| address == exact || address.bytes().all(|digit| digit == b'0');
    holder(inode_in(transport, at.port(), is_in_the_way)?)
}

/// The socket at this port, and at an address, as /proc/net writes it, that counts.
fn inode_in(transport: Transport, port: u16, counts: impl Fn(&str) -> bool) -> Option<String> {
    ["", "6"].iter().find_map(|version| {
        let table = format!("/proc/thread-self/net/{transport}{version}");
        inode(
            &std::fs::read_to_string(table).ok()?,
            transport,
            port,
            &counts,
        )
    })
}

fn holder(inode: String) -> Option<String> {
    let socket = PathBuf::from(format!("socket:[{inode}]"));
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered = processes.filter_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        Some((pid, process.path()))
    });
    let holder = numbered
        .into_iter()
        .find(|(_, process)| has_open(process, &socket));
    Some(holder.map_or_else(
        || "a process that can't be seen from here".to_owned(),
        |(pid, process)| {
            let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
            format!("{} (process {pid})", name.trim())
        },
    ))
}

/// The socket's inode in a table of /proc/net.
fn inode(
    table: &str,
    transport: Transport,
    port: u16,
    counts: impl Fn(&str) -> bool,
) -> Option<String> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, local) = fields.get(1)?.rsplit_once(':')?;
        let held = transport != Transport::Tcp || *fields.get(3)? == LISTENING;
        let same = u16::from_str_radix(local, 16).ok()? == port && counts(address);
        (held && same)
            .then(|| fields.get(9))
            .flatten()
            .map(|inode| (*inode).to_owned())
    })
}

fn has_open(process: &Path, socket: &Path) -> bool {
    std::fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .flatten()
        .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target == socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_process_that_has_a_port_until_it_lets_go() {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = std::net::TcpListener::bind("[::1]:0")
            .or_else(|_| std::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let held = [
            (Transport::Udp, udp.local_addr().unwrap().port()),
            (Transport::Tcp, tcp.local_addr().unwrap().port()),
        ];
        for (transport, port) in held {
            let holder = holder_of_port(transport, port).unwrap();
            let me = format!("(process {})", std::process::id());
            assert!(holder.ends_with(&me), "{holder}");
        }
        drop(udp);
        assert_eq!(holder_of_port(Transport::Udp, held[0].1), None);
    }

    #[test]
    fn only_who_is_in_the_way_of_an_address_counts() {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        let at = |ip: [u8; 4]| SocketAddrV4::new(ip.into(), port);
        assert!(holder_of_address(Transport::Udp, at([127, 0, 0, 1])).is_some());
        assert_eq!(holder_of_address(Transport::Udp, at([127, 0, 0, 2])), None);
        let all = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = all.local_addr().unwrap().port();
        let at = SocketAddrV4::new([127, 0, 0, 2].into(), port);
        assert!(holder_of_address(Transport::Udp, at).is_some());
    }

    #[test]
    fn a_connection_does_not_hold_the_port_it_came_from() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:CA6C 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 77 1\n";
        assert_eq!(inode(table, Transport::Tcp, 51820, |_| true), None);
        let listening = table.replace(" 01 ", " 0A ");
        assert_eq!(
            inode(&listening, Transport::Tcp, 51820, |_| true).unwrap(),
            "77"
        );
    }
}
