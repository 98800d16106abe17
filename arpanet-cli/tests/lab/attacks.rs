//! What an attacker tries: a container whose root makes packets of its own, and a host that has no password.

use std::path::Path;
use std::time::Duration;

use crate::site::{BINARY, SEED, Site, until};

const LIMIT: Duration = Duration::from_secs(20);

/// Writes each datagram that comes to UDP port 9999 into a file, one a line.
const LISTEN: &str = "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 9999))
with open(sys.argv[1], 'a', buffering=1) as out:
    print('ready', file=out)
    while True:
        data, source = s.recvfrom(100)
        print(data.decode(), source[0], file=out)
";

/// Sends a datagram with a source of its choice: SOURCE TARGET WORD.
const SPOOF: &str = "
import socket, struct, sys
source, target, word = sys.argv[1:]
def pack(ip): return socket.inet_aton(ip)
data = word.encode()
udp = struct.pack('!HHHH', 9998, 9999, 8 + len(data), 0) + data
head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(udp), 7, 0, 64, 17, 0, pack(source), pack(target))
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
try:
    s.sendto(head + udp, (target, 0))
except PermissionError:
    pass
";

/// Tells everybody on its link that all of these addresses are at a hardware address of its own: LINK ADDRESS…
const ARP: &str = "
import socket, struct, sys
link, *claimed = sys.argv[1:]
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((link, 0))
mine, all = bytes.fromhex('02dead00beef'), b'\\xff' * 6
for _ in range(50):
    for ip in claimed:
        ip = socket.inet_aton(ip)
        for operation in (1, 2):
            s.send(all + mine + b'\\x08\\x06' + struct.pack('!HHBBH6s4s6s4s', 1, 0x800, 6, 4, operation, mine, ip, all, ip))
";

fn python(site: &Site, host: &str, container: &str, program: &str, args: &[&str]) {
    let words = [
        &[BINARY, "exec", container, "--", "python3", "-c", program],
        args,
    ]
    .concat();
    let told = site.command(host, &words);
    assert_eq!(told.code, Some(0), "{container}: {told:?}");
}

/// A listener in a container of its own, and the file it writes.
fn listen(site: &Site, folder: &Path, host: &str, name: &str, addr: &str) -> String {
    let file = folder.join(name).display().to_string();
    let run = [
        BINARY, "run", "--name", name, "--net", addr, "--", "python3", "-c", LISTEN, &file,
    ];
    let told = site.command(host, &run);
    assert_eq!(told.code, Some(0), "{told:?}");
    until(
        name,
        LIMIT,
        || heard(site, host, &file),
        |heard| heard.starts_with("ready"),
    );
    file
}

fn heard(site: &Site, host: &str, file: &str) -> String {
    site.run(host, &format!("cat {file}")).out
}

#[tokio::test]
async fn a_container_that_makes_its_own_packets_is_nobody_else() {
    let Some(site) = Site::up(2).await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    site.ok("node1", "boot 0.1 Apples");
    site.ok("node2", &format!("server 0.2 Apples 0.1 {SEED}"));
    site.ok("node1", "run --net 10.1.0.11/16 --name red -- sleep 600");
    site.ok("node1", "run --net 10.1.0.21/16 --name pink -- sleep 600");
    site.ok("node1", "run --net 10.2.0.11/16 --name blue -- sleep 600");
    let near = listen(&site, folder.path(), "node1", "near", "10.2.0.12/16");
    let far = listen(&site, folder.path(), "node2", "far", "10.2.0.13/16");
    let wide = listen(&site, folder.path(), "node2", "wide", "10.3.0.9/8");

    // What is allowed arrives, so that what does not has been refused.
    let allowed = |word: &str, target: &str| {
        python(&site, "node1", "blue", SPOOF, &["10.2.0.11", target, word]);
    };
    let arrives = |word: &str, target: &str, host: &str, file: &str| {
        let told = || {
            allowed(word, target);
            heard(&site, host, file)
        };
        until(word, LIMIT, told, |heard| heard.contains(word));
    };
    arrives("first", "10.2.0.12", "node1", &near);
    arrives("first", "10.2.0.13", "node2", &far);

    // As itself, as a container of the other network, as one that nobody is, as a neighbour, as the router, hosts and planes.
    for source in [
        "10.1.0.11",
        "10.2.0.11",
        "10.2.0.99",
        "10.1.0.21",
        "169.254.1.1",
        "10.255.0.1",
        "10.255.0.2",
        "10.254.0.1",
        "10.3.0.9",
        "192.168.8.120",
        "127.0.0.1",
    ] {
        for target in ["10.2.0.12", "10.2.0.13", "10.3.0.9"] {
            python(&site, "node1", "red", SPOOF, &[source, target, "attack"]);
        }
    }
    // Within its own network it can't be another either.
    let own = listen(&site, folder.path(), "node2", "own", "10.1.0.12/16");
    python(
        &site,
        "node1",
        "red",
        SPOOF,
        &["10.1.0.21", "10.1.0.12", "attack"],
    );
    let as_itself = || {
        python(
            &site,
            "node1",
            "red",
            SPOOF,
            &["10.1.0.11", "10.1.0.12", "honest"],
        );
        heard(&site, "node2", &own)
    };
    until("its own", LIMIT, as_itself, |heard| {
        heard.contains("honest")
    });

    // What is sent after the attacks arrives after them.
    arrives("last", "10.2.0.12", "node1", &near);
    arrives("last", "10.2.0.13", "node2", &far);
    for (host, file) in [
        ("node1", &near),
        ("node2", &far),
        ("node2", &wide),
        ("node2", &own),
    ] {
        let heard = heard(&site, host, file);
        assert!(!heard.contains("attack"), "{file}: {heard}");
    }

    // It shares a link with nobody: whatever it says of hardware addresses, others reach each other.
    let link = "ip -o link | sed -n 's/^[0-9]*: \\(ap[^@:]*\\).*/\\1/p' | head -n 1";
    let link = site
        .command("node1", &[BINARY, "exec", "red", "--", "sh", "-c", link])
        .out;
    assert!(link.starts_with("ap"), "{link:?}");
    python(
        &site,
        "node1",
        "red",
        ARP,
        &[
            &link,
            "10.1.0.21",
            "10.1.0.12",
            "10.2.0.12",
            "169.254.1.1",
            "10.255.0.1",
        ],
    );
    for (container, target) in [
        ("pink", "10.1.0.12"),
        ("blue", "10.2.0.12"),
        ("blue", "10.2.0.13"),
    ] {
        let ping = site.ok(
            "node1",
            &format!("exec {container} -- ping -c 3 -i 0.2 -W 2 {target}"),
        );
        assert!(
            ping.contains(" 0% packet loss"),
            "{container} to {target}: {ping}"
        );
    }
}

/// Opens 200 connections to where members join and says nothing or garbage on them, for a while.
const FLOOD: &str = "
import os, socket, sys, time
target = (sys.argv[1], 51820)
end = time.time() + 6
open(sys.argv[2], 'w').close()
held = []
while time.time() < end:
    try:
        s = socket.create_connection(target, timeout=0.2)
        s.send(os.urandom(64) if len(held) % 2 else b'arpanet2')
        held.append(s)
    except OSError:
        time.sleep(0.01)
    if len(held) > 200:
        held.pop(0).close()
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(20):
        u.sendto(os.urandom(1200), target)
    u.close()
";

#[tokio::test]
async fn a_host_without_the_password_keeps_nobody_out_and_gets_nothing() {
    let Some(site) = Site::up(3).await else {
        return;
    };
    site.ok("node1", "boot 0.1 Apples");
    let guess = site.arpanet2("node3", &format!("client 0.14 Pears 0.1 {SEED}"));
    assert_eq!(guess.code, Some(1), "{guess:?}");
    assert!(guess.err.contains("password"), "{guess:?}");

    let folder = tempfile::tempdir().unwrap();
    let begun = folder.path().join("begun");
    std::thread::scope(|scope| {
        let begun = begun.to_str().unwrap();
        let flood = scope.spawn(|| site.command("node3", &["python3", "-c", FLOOD, SEED, begun]));
        until(
            "the flood",
            LIMIT,
            || Path::new(begun).exists(),
            |there| *there,
        );
        // From another address a node joins all the same, and both see each other.
        site.ok("node2", &format!("server 0.2 Apples 0.1 {SEED}"));
        let flood = flood.join().unwrap();
        assert_eq!(flood.code, Some(0), "{flood:?}");
    });
    let nodes = site.ok("node1", "nodes");
    assert!(nodes.contains("0.2") && !nodes.contains("0.14"), "{nodes}");
    let down = || site.ok("node1", "nodes");
    until("both alive", LIMIT, down, |nodes| {
        nodes.matches("alive").count() == 2
    });
}
