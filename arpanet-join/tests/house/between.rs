//! Somebody between joiner and seed: hears all, and may change a byte.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Which byte of what one side says is changed, and how.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    pub from_seed: bool,
    pub at: usize,
    pub xor: u8,
}

/// Passes one connection on; ends when dropped.
pub struct Between {
    pub at: SocketAddr,
    /// What the joiner said, and what the seed said.
    heard: [Arc<Mutex<Vec<u8>>>; 2],
    task: JoinHandle<()>,
}

impl Drop for Between {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Between {
    pub async fn new(seed: SocketAddr, change: Option<Change>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let heard = [Arc::default(), Arc::default()];
        let [joiners, seeds] = [Arc::clone(&heard[0]), Arc::clone(&heard[1])];
        let task = tokio::spawn(async move {
            let (joiner, _) = listener.accept().await.unwrap();
            let seed = TcpStream::connect(seed).await.unwrap();
            let (from_joiner, to_joiner) = joiner.into_split();
            let (from_seed, to_seed) = seed.into_split();
            let of = |from_seed| change.filter(|change| change.from_seed == from_seed);
            tokio::join!(
                pass(from_joiner, to_seed, joiners, of(false)),
                pass(from_seed, to_joiner, seeds, of(true)),
            );
        });
        Self { at, heard, task }
    }

    /// All that was said: by the joiner, by the seed.
    pub fn heard(&self) -> [Vec<u8>; 2] {
        [0, 1].map(|side| {
            self.heard[side]
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        })
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    heard: Arc<Mutex<Vec<u8>>>,
    change: Option<Change>,
) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let said = &mut buffer[..length];
        {
            let mut heard = heard.lock().unwrap();
            let before = heard.len();
            heard.extend_from_slice(said);
            if let Some(change) = change
                && (before..before + length).contains(&change.at)
            {
                said[change.at - before] ^= change.xor;
            }
        }
        if to.write_all(said).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
