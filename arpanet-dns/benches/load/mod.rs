//! Clients that ask a DNS server for as much as it answers.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How many ask, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) clients: usize,
    /// Questions of one client that are out at once.
    pub(crate) out: usize,
    /// After this long without an answer all of a client's questions are sent again.
    pub(crate) patience: Duration,
}

impl Load {
    /// Answers a second to all clients; the first of each is looked into. They ask from the network of whoever calls this.
    pub(crate) fn rate(
        self,
        at: SocketAddr,
        questions: &[Vec<u8>],
        time: Duration,
        is_right: impl Fn(&[u8]) -> bool + Sync,
    ) -> f64 {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..self.clients)
                .map(|_| scope.spawn(|| self.client(at, questions, &over, &is_right)))
                .collect();
            let started = Instant::now();
            thread::sleep(time);
            over.store(true, Ordering::Relaxed);
            let elapsed = started.elapsed();
            let answers: u64 = clients.into_iter().map(|one| one.join().unwrap()).sum();
            answers as f64 / elapsed.as_secs_f64()
        })
    }

    /// Keeps questions out until it is told to end: each answer is followed by the next question.
    fn client(
        self,
        at: SocketAddr,
        questions: &[Vec<u8>],
        over: &AtomicBool,
        is_right: &impl Fn(&[u8]) -> bool,
    ) -> u64 {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.connect(at).unwrap();
        socket.set_read_timeout(Some(self.patience)).unwrap();
        let mut questions = questions.to_vec();
        let mut next = 0_u16;
        let mut ask = || {
            let count = questions.len();
            let question = &mut questions[usize::from(next) % count];
            question[..2].copy_from_slice(&next.to_be_bytes());
            next = next.wrapping_add(1);
            socket.send(question).unwrap();
        };
        let mut answers = 0;
        let mut buffer = [0; 4096];
        while !over.load(Ordering::Relaxed) {
            for _ in 0..self.out {
                ask();
            }
            // Ends when one was lost: then all are sent again.
            while let Ok(length) = socket.recv(&mut buffer) {
                if over.load(Ordering::Relaxed) {
                    return answers;
                }
                let answer = &buffer[..length];
                assert!(answers != 0 || is_right(answer), "{answer:02x?}");
                answers += 1;
                ask();
            }
        }
        answers
    }
}
