//! The routers that this one is connected with, and the frames between their bridges.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::capture::Capture;
use super::dialling::{Attempt, dial};
use super::options::Options;

/// From agreeing to the route: about a second in weave.
const ROUTING: Duration = Duration::from_millis(150);

pub(super) struct Mesh {
    pub(super) me: Hello,
    pub(super) port: u16,
    pub(super) state: Mutex<State>,
    /// Somebody has to look again: a target came or went, or is to be tried at once.
    pub(super) news: Condvar,
    password: String,
}

#[derive(Default)]
pub(super) struct State {
    /// By name.
    pub(super) connections: BTreeMap<String, Connection>,
    /// By the endpoint that is dialled.
    pub(super) targets: BTreeMap<SocketAddr, Attempt>,
    pub(super) terminated: u64,
}

pub(super) struct Connection {
    pub(super) peer: Hello,
    address: SocketAddr,
    pub(super) outbound: bool,
    stream: TcpStream,
    since: Instant,
}

impl Connection {
    pub(super) fn is_at(&self, ip: IpAddr) -> bool {
        self.address.ip() == ip
    }

    fn is_routed(&self) -> bool {
        self.since.elapsed() >= ROUTING
    }
}

/// What routers tell each other first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) name: String,
    pub(super) nickname: String,
    pub(super) uid: u64,
    port: u16,
}

impl Hello {
    fn write(&self, password: &str) -> String {
        let Self {
            name,
            nickname,
            uid,
            port,
        } = self;
        format!("{name} {nickname} {uid} {port} {password}\n")
    }

    /// With the password.
    fn read(line: &str) -> Option<(Self, String)> {
        let mut words = line.trim_end_matches('\n').split(' ');
        let hello = Self {
            name: words.next()?.to_owned(),
            nickname: words.next()?.to_owned(),
            uid: words.next()?.parse().ok()?,
            port: words.next()?.parse().ok()?,
        };
        Some((hello, words.next()?.to_owned()))
    }
}

/// What the one who is called says to a second connection with the same router.
const MULTIPLE: &str = "multiple";

impl Mesh {
    pub(super) fn start(options: &Options, password: &str) -> Result<Arc<Self>, String> {
        let told = |error: std::io::Error| format!("listen tcp4 {:?}: {error}", options.listen());
        let listener = TcpListener::bind(options.listen()).map_err(told)?;
        let frames = Arc::new(UdpSocket::bind(options.listen()).map_err(told)?);
        let capture = Arc::new(Capture::open(&options.bridge)?);
        let mesh = Arc::new(Self {
            me: Hello {
                name: options.name.clone(),
                nickname: options.nickname.clone(),
                uid: uid(),
                port: options.port,
            },
            port: options.port,
            state: Mutex::default(),
            news: Condvar::new(),
            password: password.to_owned(),
        });
        let accepting = Arc::clone(&mesh);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mesh = Arc::clone(&accepting);
                std::thread::spawn(move || mesh.called(stream));
            }
        });
        let (mesh_out, capture_out, frames_out) =
            (Arc::clone(&mesh), Arc::clone(&capture), Arc::clone(&frames));
        std::thread::spawn(move || mesh_out.send_frames(&capture_out, &frames_out));
        let mesh_in = Arc::clone(&mesh);
        std::thread::spawn(move || mesh_in.receive_frames(&capture, &frames));
        Ok(mesh)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes these as targets. Those that are it already are tried at once.
    pub(super) fn connect(self: &Arc<Self>, peers: &[String]) -> Result<(), String> {
        let mut targets = Vec::new();
        for peer in peers {
            let ip = || {
                peer.parse::<IpAddr>()
                    .map(|ip| SocketAddr::new(ip, self.port))
            };
            let target: SocketAddr = peer
                .parse()
                .or_else(|_| ip())
                .map_err(|_| format!("invalid peer name {peer:?}, should be host[:port]\n"))?;
            targets.push((target, peer.clone()));
        }
        for (target, given) in targets {
            let mut state = self.state();
            if let Some(attempt) = state.targets.get_mut(&target) {
                attempt.at_once = true;
            } else {
                state.targets.insert(target, Attempt::new(given));
                let mesh = Arc::clone(self);
                std::thread::spawn(move || dial(&mesh, target));
            }
        }
        self.news.notify_all();
        Ok(())
    }

    pub(super) fn forget(&self, peers: &[String]) {
        let mut state = self.state();
        state.targets.retain(|target, attempt| {
            !peers
                .iter()
                .any(|peer| *peer == attempt.given || *peer == target.to_string())
        });
        self.news.notify_all();
    }

    /// Introduces itself to who was dialled. The words of weave where that comes to nothing.
    pub(super) fn greet(self: &Arc<Self>, mut stream: TcpStream) -> Result<String, String> {
        let reset = |error: std::io::Error| format!("read tcp: {error}");
        stream
            .write_all(self.me.write(&self.password).as_bytes())
            .map_err(reset)?;
        let mut answer = String::new();
        let mut reader = BufReader::new(stream.try_clone().map_err(reset)?);
        reader.read_line(&mut answer).map_err(reset)?;
        if answer.trim_end() == MULTIPLE {
            return Ok(String::new());
        }
        let Some((peer, _)) = Hello::read(&answer) else {
            return Err("Unable to decrypt TCP msg".to_owned());
        };
        if peer.name == self.me.name {
            return Err(match peer.uid == self.me.uid {
                true => "cannot connect to ourself".to_owned(),
                false => format!(
                    "local \"{}({})\" and remote \"{}({})\" peer names collision",
                    self.me.name, self.me.nickname, peer.name, peer.nickname
                ),
            });
        }
        let name = peer.name.clone();
        self.settle(peer, stream, true);
        Ok(name)
    }

    fn called(self: &Arc<Self>, mut stream: TcpStream) {
        let Ok(reading) = stream.try_clone() else {
            return;
        };
        let mut line = String::new();
        let _ = BufReader::new(reading).read_line(&mut line);
        let Some((peer, password)) = Hello::read(&line) else {
            return;
        };
        if password != self.password {
            // The one who calls sees it in what it can't decrypt; here is nothing to be seen.
            self.state().terminated += 1;
            let _ = stream.write_all(b"?\n");
            return;
        }
        let is_known = |state: &State| {
            let other = state.connections.get(&peer.name);
            other.is_some_and(|other| other.peer.uid == peer.uid)
        };
        if is_known(&self.state()) {
            let _ = stream.write_all(format!("{MULTIPLE}\n").as_bytes());
            return;
        }
        if stream.write_all(self.me.write("-").as_bytes()).is_ok() && peer.name != self.me.name {
            self.settle(peer, stream, false);
        }
    }

    /// Keeps a connection. An earlier one with a router of this name is ended, whoever that was.
    fn settle(self: &Arc<Self>, peer: Hello, stream: TcpStream, outbound: bool) {
        let (Ok(address), Ok(mut reading)) = (stream.peer_addr(), stream.try_clone()) else {
            return;
        };
        let name = peer.name.clone();
        let connection = Connection {
            peer,
            address,
            outbound,
            stream,
            since: Instant::now(),
        };
        let evicted = {
            let mut state = self.state();
            // Of two that were dialled at once, both sides keep the one that the lower name dialled.
            let is_of_the_lower = outbound == (self.me.name < name);
            let same = state
                .connections
                .get(&name)
                .filter(|old| old.peer == connection.peer);
            if same.is_some_and(|old| old.outbound != outbound) && !is_of_the_lower {
                let _ = connection.stream.shutdown(std::net::Shutdown::Both);
                return;
            }
            state.connections.insert(name.clone(), connection)
        };
        if let Some(evicted) = evicted {
            let _ = evicted.stream.shutdown(std::net::Shutdown::Both);
        }
        let mesh = Arc::clone(self);
        std::thread::spawn(move || {
            // Nothing more is said: the end is all that comes.
            while reading.read(&mut [0; 64]).is_ok_and(|length| length > 0) {}
            let mut state = mesh.state();
            state.terminated += 1;
            if state
                .connections
                .get(&name)
                .is_some_and(|now| now.address == address)
            {
                state.connections.remove(&name);
            }
            drop(state);
            mesh.news.notify_all();
        });
    }

    fn send_frames(&self, capture: &Capture, frames: &UdpSocket) {
        let mut frame = [0; 65536];
        while let Ok(length) = capture.recv(&mut frame) {
            let to: Vec<SocketAddr> = {
                let state = self.state();
                let routed = state.connections.values().filter(|other| other.is_routed());
                routed
                    .map(|other| SocketAddr::new(other.address.ip(), other.peer.port))
                    .collect()
            };
            for to in to {
                let _ = frames.send_to(&frame[..length], to);
            }
        }
    }

    fn receive_frames(&self, capture: &Capture, frames: &UdpSocket) {
        let mut frame = [0; 2048];
        loop {
            let Ok((length, from)) = frames.recv_from(&mut frame) else {
                continue;
            };
            let is_peer = {
                let state = self.state();
                state
                    .connections
                    .values()
                    .any(|other| other.address.ip() == from.ip())
            };
            if is_peer {
                capture.send(&frame[..length]);
            }
        }
    }

    pub(super) fn report(&self) -> Value {
        let state = self.state();
        let me = (&self.me.name, &self.me.nickname);
        let edge = |(name, nickname): (&String, &String), address: String, outbound: bool| json!({"Name": name, "NickName": nickname, "Address": address, "Outbound": outbound, "Established": true});
        let others = state.connections.values();
        let own: Vec<Value> = others
            .clone()
            .map(|other| {
                edge(
                    (&other.peer.name, &other.peer.nickname),
                    other.address.to_string(),
                    other.outbound,
                )
            })
            .collect();
        let peer = |hello: &Hello, connections: Vec<Value>| {
            json!({"Name": hello.name, "NickName": hello.nickname, "UID": hello.uid, "ShortID": hello.uid % 4096,
                "Version": 1, "Connections": null_if_empty(connections)})
        };
        let mut peers = vec![peer(&self.me, own)];
        peers.extend(others.clone().map(|other| {
            let back = edge(
                me,
                format!("{}:{}", other.address.ip(), self.port),
                !other.outbound,
            );
            peer(&other.peer, vec![back])
        }));
        let mut routes = vec![json!({"Dest": self.me.name, "Via": "00:00:00:00:00:00"})];
        let routed = others.clone().filter(|other| other.is_routed());
        routes.extend(
            routed
                .clone()
                .map(|other| json!({"Dest": other.peer.name, "Via": other.peer.name})),
        );
        let broadcast: Vec<&str> = routed.map(|other| other.peer.name.as_str()).collect();
        let mut sources: Vec<Value> = broadcast
            .iter()
            .map(|other| json!({"Source": other, "Via": null}))
            .collect();
        sources.push(json!({"Source": self.me.name, "Via": null_if_empty(broadcast)}));
        let mut connections: Vec<Value> = others
            .clone()
            .map(|other| {
                let info = format!("encrypted   sleeve {}({})", other.peer.name, other.peer.nickname);
                json!({"Address": other.address.to_string(), "Outbound": other.outbound, "State": "established",
                    "Info": info, "Attrs": {"encrypted": true, "mtu": 1414, "name": "sleeve"}})
            })
            .collect();
        let is_connected = |target: &SocketAddr| {
            others
                .clone()
                .any(|other| other.outbound && other.address == *target)
        };
        connections.extend(
            state
                .targets
                .iter()
                .filter(|(target, attempt)| !attempt.is_settled() && !is_connected(target))
                .map(|(target, attempt)| attempt.report(*target)),
        );
        let targets: Vec<Value> = state
            .targets
            .values()
            .map(|attempt| json!(attempt.given))
            .collect();
        json!({
            "Ready": true,
            "Version": "2.9.0",
            "VersionCheck": {"Enabled": false, "Success": false, "NewVersion": "", "NextCheckAt": "0001-01-01T00:00:00Z"},
            "Router": {
                "Protocol": "weave", "ProtocolMinVersion": 1, "ProtocolMaxVersion": 2,
                "Encryption": !self.password.is_empty(), "PeerDiscovery": true,
                "Name": self.me.name, "NickName": self.me.nickname, "Port": self.port,
                "Peers": peers,
                "UnicastRoutes": routes,
                "BroadcastRoutes": sources,
                "Connections": null_if_empty(connections),
                "TerminationCount": state.terminated,
                "Targets": null_if_empty(targets),
                "OverlayDiagnostics": {"sleeve": null},
                "TrustedSubnets": [],
                "Interface": "vethwe-pcap (via pcap)",
                "CaptureStats": {"PacketsDropped": 0, "PacketsIfDropped": 0, "PacketsReceived": 0},
                "MACs": null
            }
        })
    }
}

fn null_if_empty<T: Into<Value>>(list: Vec<T>) -> Value {
    match list.is_empty() {
        true => Value::Null,
        false => Value::Array(list.into_iter().map(Into::into).collect()),
    }
}

/// Random, with the highest bit set: it takes all 64.
fn uid() -> u64 {
    let mut bytes = [0; 8];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    assert!(read.is_ok(), "no random numbers");
    u64::from_be_bytes(bytes) | 1 << 63
}
