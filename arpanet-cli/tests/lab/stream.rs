//! A TCP stream between two network namespaces, and how long it stalls.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arpanet_netlink::Namespace;

use crate::site::Site;

/// How often it carries something.
const BEAT: Duration = Duration::from_millis(20);
/// What is more than a stall.
const BROKEN: Duration = Duration::from_secs(30);
/// How many beats make a second.
const AFTER: u32 = 50;

/// One that is open: what the client says, the server says too.
#[derive(Debug)]
pub(crate) struct Stream {
    stream: Option<TcpStream>,
    echo: Option<JoinHandle<()>>,
}

impl Stream {
    /// From here to this address there.
    pub(crate) fn open(client: &Namespace, server: &Namespace, ip: Ipv4Addr) -> Self {
        let listener = server
            .run(|| TcpListener::bind((ip, 7000)))
            .unwrap()
            .unwrap();
        let echo = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // It ends also when its end never arrives.
            stream.set_read_timeout(Some(BROKEN)).unwrap();
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
        });
        let at = SocketAddr::from((ip, 7000));
        let stream = client.run(|| TcpStream::connect(at)).unwrap().unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(BROKEN)).unwrap();
        let mut open = Self {
            stream: Some(stream),
            echo: Some(echo),
        };
        open.beat();
        open
    }

    fn beat(&mut self) -> Duration {
        let began = Instant::now();
        let stream = self.stream.as_mut().unwrap();
        stream.write_all(b"?").unwrap();
        stream.read_exact(&mut [0]).expect("the stream broke");
        began.elapsed()
    }

    /// The longest that it stalls while something else is done, and for a second after that.
    pub(crate) fn longest_until(&mut self, done: &AtomicBool) -> Duration {
        let mut longest = Duration::ZERO;
        let mut after = 0;
        while after < AFTER {
            longest = longest.max(self.beat());
            std::thread::park_timeout(BEAT);
            after += u32::from(done.load(Ordering::SeqCst));
        }
        longest
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The other end sees it, and ends.
        self.stream = None;
        if let Some(echo) = self.echo.take() {
            let _ = echo.join();
        }
    }
}

/// How long each stream stalled, at the worst, while this was done.
pub(crate) fn stalls<const N: usize>(
    streams: [&mut Stream; N],
    work: impl FnOnce(),
) -> [Duration; N] {
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let beating = streams.map(|stream| threads.spawn(|| stream.longest_until(&done)));
        /// The streams end also when the work fails.
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let finished = Done(&done);
        work();
        drop(finished);
        beating.map(|beating| beating.join().unwrap())
    })
}

/// The network namespace of a running container.
pub(crate) fn namespace_of(site: &Site, host: &str, container: &str) -> Namespace {
    let id = site.docker(host, &format!("inspect -f {{{{.Id}}}} {container}"));
    let is_first = |process: &std::path::Path| {
        let read = |file: &str| std::fs::read_to_string(process.join(file)).ok();
        let numbers = read("status")?
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))?
            .to_owned();
        let first = numbers.split_whitespace().next_back() == Some("1");
        (first && read("cgroup")?.contains(&id)).then_some(())
    };
    let found = std::fs::read_dir("/proc").unwrap().flatten();
    let found = found
        .map(|entry| entry.path())
        .find(|process| is_first(process).is_some());
    let process = found.unwrap_or_else(|| panic!("{container} does not run on {host}"));
    Namespace::open(process.join("ns/net")).unwrap()
}
