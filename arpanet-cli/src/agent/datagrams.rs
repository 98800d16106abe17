//! Datagrams that are handed on, and what is answered to each sender.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A sender that neither says nor hears anything for so long is forgotten.
const IDLE: Duration = Duration::from_secs(30);

/// More senders at a time are not heard, and more datagrams of one that wait are lost, as datagrams may be.
const SENDERS: usize = 64;
const WAITING: usize = 32;

/// The longest datagram.
const LONGEST: usize = 65_535;

/// Hands on what comes to a socket. It ends with the task, and all conversations with it.
pub(super) async fn serve(socket: UdpSocket, to: SocketAddr) {
    let socket = Arc::new(socket);
    let mut senders: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut conversations = JoinSet::new();
    let mut buffer = vec![0; LONGEST];
    loop {
        let (length, sender) = tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // Of an answer that nobody waited for.
                Err(error) => {
                    tracing::debug!(%error, "a datagram could not be taken");
                    continue;
                }
            },
            Some(_) = conversations.join_next() => {
                senders.retain(|_, sender| !sender.is_closed());
                continue;
            }
        };
        let known = senders.get(&sender).filter(|known| !known.is_closed());
        let handed = match known {
            Some(known) => known.clone(),
            None if conversations.len() >= SENDERS => continue,
            None => {
                let (new, heard) = mpsc::channel(WAITING);
                let socket = Arc::clone(&socket);
                conversations.spawn(async move {
                    if let Err(error) = converse(&socket, sender, to, heard, IDLE).await {
                        tracing::debug!(%error, %to, "datagrams could not be handed on");
                    }
                });
                senders.insert(sender, new.clone());
                new
            }
        };
        // Lost where too many wait.
        let _ = handed.try_send(buffer[..length].to_vec());
    }
}

/// Hands on what one sender says, and to it what is answered.
async fn converse(
    socket: &UdpSocket,
    sender: SocketAddr,
    to: SocketAddr,
    mut heard: mpsc::Receiver<Vec<u8>>,
    idle: Duration,
) -> io::Result<()> {
    let own = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    own.connect(to).await?;
    let mut buffer = vec![0; LONGEST];
    let step = async |buffer: &mut [u8], heard: &mut mpsc::Receiver<Vec<u8>>| {
        tokio::select! {
            said = heard.recv() => match said {
                Some(said) => own.send(&said).await.map(|_| true),
                None => Ok(false),
            },
            answered = own.recv(buffer) => {
                let length = answered?;
                socket.send_to(&buffer[..length], sender).await.map(|_| true)
            }
        }
    };
    while let Ok(goes_on) = timeout(idle, step(&mut buffer, &mut heard)).await {
        if !goes_on? {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn heard(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; LONGEST];
        let received = timeout(Duration::from_secs(10), socket.recv_from(&mut buffer));
        let (length, from) = received.await.unwrap().unwrap();
        (buffer[..length].to_vec(), from)
    }

    #[tokio::test]
    async fn every_sender_gets_the_answers_to_what_it_said() {
        let local = || UdpSocket::bind("127.0.0.1:0");
        let server = local().await.unwrap();
        let socket = local().await.unwrap();
        let at = socket.local_addr().unwrap();
        let to = server.local_addr().unwrap();
        let task = tokio::spawn(serve(socket, to));
        let clients = [local().await.unwrap(), local().await.unwrap()];
        let mut seen = Vec::new();
        for (client, said) in clients.iter().zip(["one", "two"]) {
            client.send_to(said.as_bytes(), at).await.unwrap();
            let (question, from) = heard(&server).await;
            assert_eq!(question, said.as_bytes());
            seen.push(from);
        }
        assert_ne!(seen[0], seen[1]);
        for (from, answer) in seen.iter().zip(["first", "second"]) {
            server.send_to(answer.as_bytes(), from).await.unwrap();
        }
        for (client, answer) in clients.iter().zip(["first", "second"]) {
            assert_eq!(heard(client).await, (answer.as_bytes().to_vec(), at));
        }
        // The longest that loopback carries, and the same sender again.
        let long = vec![7; 60_000];
        clients[0].send_to(&long, at).await.unwrap();
        assert_eq!(heard(&server).await, (long, seen[0]));
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        let again = async {
            while UdpSocket::bind(at).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), again).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_is_silent_for_long_makes_room() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (_said, said) = mpsc::channel(1);
        let sender = socket.local_addr().unwrap();
        let to = server.local_addr().unwrap();
        let ended = converse(&socket, sender, to, said, Duration::from_millis(20));
        timeout(Duration::from_secs(10), ended)
            .await
            .unwrap()
            .unwrap();
    }
}
