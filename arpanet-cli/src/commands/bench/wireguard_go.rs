//! A tunnel of wireguard-go between the first two hosts, with nothing else around it.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use x25519_dalek::{PublicKey, StaticSecret};

use super::hosts::{Hosts, runs, until};
use super::peer::{Outcome, Path, Peer, PeerKind, Why};

/// The link.
const LINK: &str = "bench-wg";
/// The UDP port, on both hosts.
const PORT: u16 = 51_999;
/// As arpanet2's tunnel has it on the same links.
const MTU: u32 = 1420;
/// How long it may take to be there.
const LIMIT: Duration = Duration::from_secs(10);

/// On the first two hosts.
#[derive(Debug)]
pub(super) struct WireGuardGo {
    hosts: Arc<Hosts>,
    program: PathBuf,
}

/// One end of the tunnel. Its key is random, and is gone with the lab.
struct End {
    host: u8,
    secret: StaticSecret,
}

impl WireGuardGo {
    pub(super) fn new(hosts: Arc<Hosts>, program: &FilePath) -> Self {
        Self {
            hosts,
            program: program.to_owned(),
        }
    }

    fn pids(&self, host: u8) -> Outcome<Vec<i32>> {
        self.hosts
            .processes(host, |words| runs(words, "wireguard-go"))
    }

    /// Starts one end, and tells it of the other, in the words of wireguard.com/xplatform.
    fn launch(&self, own: &End, other: &End) -> Outcome<()> {
        let program = self.program.display();
        let script =
            format!("LOG_LEVEL=error {program} -f {LINK} >/run/{LINK}.log 2>&1 </dev/null &");
        self.hosts.script(own.host, &script)?;
        let mut control = until("wireguard-go answers", LIMIT, || {
            let pid = self.pids(own.host).ok()?.first().copied()?;
            // As the host sees it, which has a /run of its own.
            let socket = format!("/proc/{pid}/root/run/wireguard/{LINK}.sock");
            UnixStream::connect(socket).ok()
        })?;
        let (secret, public) = (
            own.secret.to_bytes(),
            PublicKey::from(&other.secret).to_bytes(),
        );
        let (peer, at) = (ip(other.host), Hosts::ip(other.host));
        let told = format!(
            "set=1\nprivate_key={}\nlisten_port={PORT}\npublic_key={}\nendpoint={at}:{PORT}\nallowed_ip={peer}/32\n\n",
            hex(&secret),
            hex(&public)
        );
        control.set_read_timeout(Some(LIMIT))?;
        control.write_all(told.as_bytes())?;
        let mut answer = [0; 64];
        let length = control.read(&mut answer)?;
        let answer = String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned();
        if !answer.starts_with("errno=0") {
            return Err(Why::failed(format!("wireguard-go says {}", answer.trim())));
        }
        let namespace = self.hosts.namespace(own.host)?;
        let address =
            Ipv4Net::new(ip(own.host), 24).map_err(|error| Why::failed(error.to_string()))?;
        self.hosts.wait(async {
            let netlink = namespace.handle()?;
            netlink.add_address(LINK, address).await?;
            netlink.set_mtu(LINK, MTU).await?;
            netlink.set_up(LINK, true).await
        })
    }
}

/// An end's address inside.
const fn ip(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 31, 99, host)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Peer for WireGuardGo {
    fn kind(&self) -> PeerKind {
        PeerKind::WireGuardGo
    }

    fn version(&self) -> Outcome<String> {
        let program = self.program.display().to_string();
        let told = self.hosts.run(1, &[&program, "--version"])?;
        let first = told.lines().next().unwrap_or_default();
        Ok(first.trim_start_matches("wireguard-go v").to_owned())
    }

    fn settle(&self) -> Outcome<()> {
        let [one, two] = [1, 2].map(|host| End {
            host,
            secret: StaticSecret::from(rand::random::<[u8; 32]>()),
        });
        self.launch(&one, &two)?;
        self.launch(&two, &one)
    }

    fn leave(&self) -> Outcome<()> {
        for host in [1, 2] {
            Hosts::kill(&self.pids(host)?)?;
        }
        Ok(())
    }

    fn path(&self) -> Outcome<Path> {
        self.hosts.path(ip(2))
    }

    fn agent(&self) -> Outcome<Vec<i32>> {
        self.pids(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_the_protocol_has_them() {
        assert_eq!(hex(&[0x00, 0x0f, 0xab]), "000fab");
    }
}
