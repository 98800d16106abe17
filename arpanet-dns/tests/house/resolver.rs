//! A resolver outside that a test gives its manners.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// What it sends to a question, one datagram after the other.
type Manners = Arc<dyn Fn(&Message) -> Vec<Vec<u8>> + Send + Sync>;

/// By datagram and by stream on one port; ends when dropped.
pub struct Resolver {
    pub at: SocketAddr,
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Resolver {
    pub async fn new(manners: impl Fn(&Message) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let manners: Manners = Arc::new(manners);
        let (udp, tcp) = super::sockets();
        udp.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let at = udp.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let udp = UdpSocket::from_std(udp).unwrap();
        let tcp = TcpListener::from_std(tcp).unwrap();
        tasks.spawn(datagrams(udp, Arc::clone(&asked), Arc::clone(&manners)));
        tasks.spawn(streams(tcp, Arc::clone(&asked), manners));
        Self {
            at,
            asked,
            _tasks: tasks,
        }
    }

    /// It never says anything.
    pub async fn silent() -> Self {
        Self::new(|_| Vec::new()).await
    }

    /// It knows this one address for everything.
    pub async fn knowing(ip: Ipv4Addr) -> Self {
        Self::new(move |question| vec![addresses(question, ip, 1)]).await
    }

    /// It always fails like this.
    pub async fn failing(code: ResponseCode) -> Self {
        Self::new(move |question| vec![failure(question, code)]).await
    }

    /// Questions that arrived.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn datagrams(socket: UdpSocket, asked: Arc<AtomicUsize>, manners: Manners) {
    let mut buffer = [0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        asked.fetch_add(1, Ordering::SeqCst);
        for answer in manners(&Message::from_vec(&buffer[..length]).unwrap()) {
            socket.send_to(&answer, from).await.unwrap();
        }
    }
}

async fn streams(listener: TcpListener, asked: Arc<AtomicUsize>, manners: Manners) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut question = vec![0; usize::from(length)];
        stream.read_exact(&mut question).await.unwrap();
        asked.fetch_add(1, Ordering::SeqCst);
        for answer in manners(&Message::from_vec(&question).unwrap()) {
            stream
                .write_u16(answer.len().try_into().unwrap())
                .await
                .unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    }
}

/// An answer with so many addresses, from this one on.
pub fn addresses(question: &Message, ip: Ipv4Addr, count: u8) -> Vec<u8> {
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.queries.clone_from(&question.queries);
    for one in 0..count {
        let [a, b, c, d] = ip.octets();
        let name = question.queries[0].name().clone();
        let data = RData::A(A::new(a, b, c, d + one));
        answer.answers.push(Record::from_rdata(name, 60, data));
    }
    answer.to_vec().unwrap()
}

pub fn failure(question: &Message, code: ResponseCode) -> Vec<u8> {
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.queries.clone_from(&question.queries);
    answer.metadata.response_code = code;
    answer.to_vec().unwrap()
}
