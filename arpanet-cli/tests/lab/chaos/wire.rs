//! Wires that are bad: what hosts send each other gets lost or late, or in one direction not through at all.
//!
//! The switch hands what should be lost or late to a TUN device, at whose other end a thread of the test throws it away or
//! gives it back in time. So it needs nothing of the kernel that not all have (netem).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arpanet_netlink::{Namespace, Route, Rule, RuleAction};
use ipnet::Ipv4Net;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tun_rs::{DeviceBuilder, SyncDevice};

const LINK: &str = "wire0";
/// The table of the way through it.
const TABLE: u32 = 77;
/// Before the lab's own rules, which are at 100: who hears one not hears it not.
const ONE_WAY: u32 = 7;
/// After them, so that what is cut stays cut.
const BAD: u32 = 110;
const UNDERLAY: &str = "192.168.8.0/24";
/// So long a thread may go on that should end.
const PAUSE: u16 = 50;

#[derive(Debug, Clone, Copy)]
struct Weather {
    /// In percent.
    loss: u8,
    delay: Duration,
}

/// The wires of a lab, between the hosts and the switch.
pub(super) struct Wires {
    switch: Namespace,
    hosts: Vec<&'static str>,
    weather: Arc<Mutex<Weather>>,
    ended: Arc<AtomicBool>,
    carrier: Option<JoinHandle<()>>,
}

impl Wires {
    /// Those of this switch, as good as ever.
    pub(super) async fn new(switch: Namespace, hosts: &[&'static str], seed: u64) -> Self {
        switch
            .set_sysctls(&[
                ("net.ipv4.conf.all.rp_filter", "0"),
                ("net.ipv4.conf.default.rp_filter", "0"),
            ])
            .unwrap();
        let device = switch.run(open).unwrap().unwrap();
        let netlink = switch.handle().unwrap();
        netlink.set_up(LINK, true).await.unwrap();
        let everywhere = Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0).unwrap();
        netlink
            .set_route(&Route::new(everywhere).link(LINK).table(TABLE))
            .await
            .unwrap();
        let weather = Arc::new(Mutex::new(Weather {
            loss: 0,
            delay: Duration::ZERO,
        }));
        let ended = Arc::new(AtomicBool::new(false));
        let carrier = std::thread::spawn({
            let (weather, ended) = (Arc::clone(&weather), Arc::clone(&ended));
            move || carry(&device, &weather, &ended, StdRng::seed_from_u64(seed))
        });
        Self {
            switch,
            hosts: hosts.to_vec(),
            weather,
            ended,
            carrier: Some(carrier),
        }
    }

    /// From now on this share of all is lost, in percent, and the rest late by up to `delay`.
    pub(super) async fn be_bad(&self, loss: u8, delay: Duration) {
        *self.weather.lock().unwrap() = Weather { loss, delay };
        for host in &self.hosts {
            self.add(
                Rule::new(BAD, RuleAction::Lookup(TABLE))
                    .iif(*host)
                    .to(UNDERLAY.parse().unwrap()),
            )
            .await;
        }
    }

    /// Nothing more from this host gets to that address.
    pub(super) async fn mute(&self, from: &str, to: Ipv4Addr) {
        let to = Ipv4Net::new(to, 32).unwrap();
        self.add(Rule::new(ONE_WAY, RuleAction::Blackhole).iif(from).to(to))
            .await;
    }

    async fn add(&self, rule: Rule) {
        self.switch.handle().unwrap().add_rule(&rule).await.unwrap();
    }

    /// All is good again.
    pub(super) async fn heal(&self) {
        let netlink = self.switch.handle().unwrap();
        for rule in netlink.rules().await.unwrap() {
            if [ONE_WAY, BAD].contains(&rule.priority) {
                netlink.delete_rule(&rule).await.unwrap();
            }
        }
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(carrier) = self.carrier.take() {
            let ended = carrier.join();
            assert!(ended.is_ok() || std::thread::panicking(), "{ended:?}");
        }
    }
}

fn open() -> std::io::Result<SyncDevice> {
    let device = DeviceBuilder::new().name(LINK).mtu(1_500).build_sync()?;
    fcntl(&device, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(device)
}

fn carry(device: &SyncDevice, weather: &Mutex<Weather>, ended: &AtomicBool, mut dice: StdRng) {
    let mut late: BinaryHeap<Reverse<(Instant, Vec<u8>)>> = BinaryHeap::new();
    let mut buffer = [0; 1_600];
    while !ended.load(Ordering::SeqCst) {
        let due = late.peek().map_or(Duration::MAX, |Reverse((at, _))| {
            at.saturating_duration_since(Instant::now())
        });
        let wait = u16::try_from(due.as_millis() + 1).map_or(PAUSE, |wait| wait.min(PAUSE));
        let mut fds = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(wait)).unwrap();
        let Weather { loss, delay } = *weather.lock().unwrap();
        while let Ok(length) = device.recv(&mut buffer) {
            if dice.random_range(0..100) >= loss {
                let at = Instant::now() + dice.random_range(Duration::ZERO..=delay);
                late.push(Reverse((at, buffer[..length].to_vec())));
            }
        }
        let now = Instant::now();
        while late.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            if let Some(Reverse((_, packet))) = late.pop() {
                // What a wire can't take is lost.
                let _ = device.send(&packet);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::Site;

    #[tokio::test]
    async fn a_wire_is_as_bad_as_it_is_told_to_be() {
        let Some(site) = Site::up(2).await else {
            return;
        };
        let switch = site.lab.switch_namespace().unwrap();
        let wires = Wires::new(switch, &["node1", "node2"], 1).await;
        let ping = |count: u8| {
            let line = format!("ping -q -c {count} -i 0.01 -W 1 192.168.8.121");
            site.run("node1", &line).out
        };
        let is_whole = |told: String| assert!(told.contains(" 0% packet loss"), "{told}");
        is_whole(ping(5));
        wires.be_bad(0, Duration::from_millis(40)).await;
        let told = ping(20);
        let slowest = told
            .rsplit('/')
            .nth(1)
            .and_then(|ms| ms.parse::<f64>().ok());
        // Of 20 on a way of up to 80 ms.
        assert!(slowest.is_some_and(|ms| ms > 20.0), "{told}");
        is_whole(told);
        wires.be_bad(50, Duration::ZERO).await;
        let told = ping(100);
        // Both ways are a quarter of each.
        let none_or_all = [" 100% packet loss", " 0% packet loss"];
        assert!(
            !none_or_all.iter().any(|rate| told.contains(rate)),
            "{told}"
        );
        wires.heal().await;
        is_whole(ping(5));
        wires.mute("node2", Ipv4Addr::new(192, 168, 8, 120)).await;
        let told = ping(2);
        assert!(told.contains(" 100% packet loss"), "{told}");
        wires.heal().await;
        is_whole(ping(5));
    }
}
