//! A catalogue in memory, a server on loopback, and somebody who asks it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod resolver;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::admission::Membership;
use arpanet_core::discovery::{
    DiscoveryCapabilities, Instance, Member, Selector, ServiceSummary, Spread,
};
use arpanet_core::roster::Role;
use arpanet_core::watch::{Watch, WatchHub};
use arpanet_core::{Discovery, InstanceId, NodeAddr, Result, ServiceName};
use arpanet_dns::{DnsConfig, DnsServer};
use async_trait::async_trait;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What discovery knows, as a test says it.
#[derive(Debug, Default)]
pub struct Catalogue {
    pub instances: WatchHub<InstanceId, Instance>,
    pub members: WatchHub<NodeAddr, Member>,
}

#[async_trait]
impl Discovery for Catalogue {
    fn name(&self) -> &'static str {
        "test"
    }

    fn capabilities(&self) -> DiscoveryCapabilities {
        DiscoveryCapabilities::all()
            .without_records()
            .without_admission()
    }

    async fn start(&self, _: &Membership) -> Result<()> {
        Ok(())
    }

    async fn register(&self, instance: Instance) -> Result<Spread> {
        self.instances.upsert(instance.id.clone(), instance);
        Ok(Spread::default())
    }

    async fn deregister(&self, id: &InstanceId) -> Result<()> {
        self.instances.remove(id);
        Ok(())
    }

    async fn lookup(&self, _: &ServiceName) -> Result<Vec<Instance>> {
        Ok(self.instances.snapshot().into_values().collect())
    }

    async fn services(&self) -> Result<Vec<ServiceSummary>> {
        Ok(Vec::new())
    }

    async fn members(&self) -> Result<Vec<Member>> {
        Ok(self.members.snapshot().into_values().collect())
    }

    async fn watch(&self, selector: Selector) -> Result<Watch<InstanceId, Instance>> {
        Ok(self
            .instances
            .watch_where(move |_, instance| selector.matches(instance)))
    }

    async fn watch_members(&self) -> Result<Watch<NodeAddr, Member>> {
        Ok(self.members.watch())
    }

    async fn forget(&self, _: NodeAddr) -> Result<()> {
        Ok(())
    }

    async fn leave(&self, _: Duration) -> Result<()> {
        Ok(())
    }

    async fn stop(&self) -> Result<()> {
        Ok(())
    }
}

impl Catalogue {
    /// A living node `nodeB` at 0.B.
    pub fn node(&self, b: u8) {
        let member = member(b);
        self.members.upsert(member.node, member);
    }

    /// An instance of a service on node 0.1, without a network.
    pub fn instance(&self, service: &str, ip: &str, port: u16) -> Instance {
        let instance = instance(service, ip, port, "0.1");
        self.put(instance.clone());
        instance
    }

    pub fn put(&self, instance: Instance) {
        self.instances.upsert(instance.id.clone(), instance);
    }
}

pub fn member(b: u8) -> Member {
    let node = NodeAddr::new(0, b).unwrap();
    Member::new(node, format!("node{b}").parse().unwrap(), Role::Server)
}

pub fn instance(service: &str, ip: &str, port: u16, node: &str) -> Instance {
    Instance::new(
        format!("{node}:{service}:{ip}:{port}").parse().unwrap(),
        service.parse().unwrap(),
        ip.parse().unwrap(),
        port,
        node.parse().unwrap(),
    )
}

/// Both kinds of socket on one free port.
pub fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}

/// A server over a catalogue with node 0.1 in it.
pub struct House {
    pub catalogue: Arc<Catalogue>,
    pub dns: DnsServer,
    pub at: SocketAddr,
}

impl House {
    pub async fn new() -> Self {
        Self::with(DnsConfig::default()).await
    }

    pub async fn with(config: DnsConfig) -> Self {
        let catalogue = Arc::new(Catalogue::default());
        catalogue.node(1);
        let (udp, tcp) = sockets();
        let at = udp.local_addr().unwrap();
        let dns = DnsServer::start(config, Arc::clone(&catalogue) as _, vec![(udp, tcp)])
            .await
            .unwrap();
        Self { catalogue, dns, at }
    }

    pub async fn ask(&self, name: &str, kind: RecordType) -> Message {
        ask(self.at, &question(name, kind)).await
    }

    /// The A records of a name, in the order of the answer.
    pub async fn ips(&self, name: &str) -> Vec<Ipv4Addr> {
        ips(&self.ask(name, RecordType::A).await)
    }

    /// Asks until the answer is as it should be.
    pub async fn until(
        &self,
        name: &str,
        kind: RecordType,
        good: impl Fn(&Message) -> bool,
    ) -> Message {
        let asking = async {
            loop {
                let answer = self.ask(name, kind).await;
                if good(&answer) {
                    return answer;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), asking)
            .await
            .expect("the answer did not become what it should")
    }

    pub async fn until_ips(&self, name: &str, expected: &[&str]) {
        let mut expected: Vec<Ipv4Addr> = expected.iter().map(|ip| ip.parse().unwrap()).collect();
        expected.sort();
        self.until(name, RecordType::A, |answer| {
            let mut got = ips(answer);
            got.sort();
            got == expected
        })
        .await;
    }
}

pub fn ips(answer: &Message) -> Vec<Ipv4Addr> {
    let ip = |data: &RData| match data {
        RData::A(a) => Some(a.0),
        _ => None,
    };
    answer
        .answers
        .iter()
        .filter_map(|record| ip(&record.data))
        .collect()
}

pub fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

/// Asks by datagram and checks that the answer belongs to the question.
pub async fn ask(at: SocketAddr, question: &Message) -> Message {
    let bytes = exchange(at, &question.to_vec().unwrap()).await;
    let answer = Message::from_vec(&bytes).unwrap();
    assert_eq!(answer.metadata.id, question.metadata.id);
    assert_eq!(answer.queries, question.queries);
    answer
}

/// Sends bytes by datagram and gives what comes back.
pub async fn exchange(at: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(at).await.unwrap();
    socket.send(bytes).await.unwrap();
    let mut buffer = vec![0; 65_536];
    let length = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer))
        .await
        .expect("no answer")
        .unwrap();
    buffer.truncate(length);
    buffer
}

/// Asks by stream.
pub async fn ask_stream(at: SocketAddr, question: &Message) -> Message {
    let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
    let bytes = question.to_vec().unwrap();
    stream
        .write_u16(bytes.len().try_into().unwrap())
        .await
        .unwrap();
    stream.write_all(&bytes).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}
