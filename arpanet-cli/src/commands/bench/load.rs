//! Clients that ask a DNS server for as much as it answers. (It is also what `arpanet-dns/benches/answers.rs` asks with.)

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg};

/// More than an answer takes.
const LONGEST: usize = 4096;

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
    ///
    /// # Errors
    /// A socket that can't be had or used, and a first answer that is wrong.
    pub(crate) fn rate(
        self,
        at: SocketAddr,
        questions: &[Vec<u8>],
        time: Duration,
        is_right: impl Fn(&[u8]) -> bool + Sync,
    ) -> io::Result<f64> {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..self.clients)
                .map(|_| scope.spawn(|| self.client(at, questions, &over, &is_right)))
                .collect();
            let started = Instant::now();
            thread::sleep(time);
            over.store(true, Ordering::Relaxed);
            let elapsed = started.elapsed();
            let mut answers = 0;
            for client in clients {
                answers += client
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a client broke")))?;
            }
            Ok(answers as f64 / elapsed.as_secs_f64())
        })
    }

    /// Keeps questions out until it is told to end: the answers that came together are followed by as many questions.
    fn client(
        self,
        at: SocketAddr,
        questions: &[Vec<u8>],
        over: &AtomicBool,
        is_right: &impl Fn(&[u8]) -> bool,
    ) -> io::Result<u64> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(at)?;
        socket.set_read_timeout(Some(self.patience))?;
        let mut questions = questions.to_vec();
        let mut next = 0;
        let mut answers = 0;
        let mut buffers = vec![0; self.out * LONGEST];
        while !over.load(Ordering::Relaxed) {
            let mut came = self.out;
            // Ends when one was lost: then all are sent again.
            while came > 0 && !over.load(Ordering::Relaxed) {
                ask(&socket, &mut questions, &mut next, came)?;
                let mut places: Vec<_> = buffers
                    .chunks_exact_mut(LONGEST)
                    .map(|place| [IoSliceMut::new(place)])
                    .collect();
                let fd = socket.as_raw_fd();
                // Waits for one, and takes what else is there.
                let flags = MsgFlags::MSG_WAITFORONE;
                let mut headers = MultiHeaders::<()>::preallocate(self.out, None);
                let sizes: Vec<usize> =
                    match recvmmsg(fd, &mut headers, places.iter_mut(), flags, None) {
                        Ok(all) => all.map(|one| one.bytes).collect(),
                        Err(_) => Vec::new(),
                    };
                came = sizes.len();
                if let Some(length) = sizes.first().filter(|_| answers == 0) {
                    let answer = &buffers[..*length];
                    if !is_right(answer) {
                        let wrong = format!("a wrong answer: {answer:02x?}");
                        return Err(io::Error::other(wrong));
                    }
                }
                answers += came as u64;
            }
        }
        Ok(answers)
    }
}

/// Sends so many questions with one call, those with the next ids.
fn ask(
    socket: &UdpSocket,
    questions: &mut [Vec<u8>],
    next: &mut u16,
    count: usize,
) -> io::Result<()> {
    let mut headers = MultiHeaders::<()>::preallocate(count, None);
    let mut left = count;
    while left > 0 {
        let all = questions.len();
        let first = usize::from(*next) % all;
        let batch = left.min(all - first);
        for question in &mut questions[first..first + batch] {
            question[..2].copy_from_slice(&next.to_be_bytes());
            *next = next.wrapping_add(1);
        }
        let slices: Vec<_> = questions[first..first + batch]
            .iter()
            .map(|question| [IoSlice::new(question)])
            .collect();
        let fd = socket.as_raw_fd();
        let nobody = vec![None; batch];
        let sent = sendmmsg(fd, &mut headers, &slices, nobody, [], MsgFlags::empty());
        left -= sent?.count();
    }
    Ok(())
}
