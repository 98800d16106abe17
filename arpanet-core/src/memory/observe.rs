//! What a test looks at: whether all is quiet, what a name stands for, where a packet gets to.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant;

use super::catalogue::DiscoveryProcess;
use super::place::{Origin, Place};
use super::world::World;
use crate::discovery::Instance;
use crate::{Error, ErrorKind, Result, ServiceName};

/// How long nothing must happen before a world counts as settled.
const QUIET: Duration = Duration::from_millis(100);

/// The longest that a world is given to settle.
const RESTLESS: Duration = Duration::from_secs(120);

/// How often and how long a ping is tried.
const PINGS: u32 = 6;
const PING_INTERVAL: Duration = Duration::from_millis(200);

impl World {
    /// Waits until nothing more happens by itself: every word has arrived, and every death has been noticed. Calls that
    /// wait for something that may never come, such as [`Overlay::wait_reachable`](crate::Overlay::wait_reachable), don't count.
    pub async fn settle(&self) {
        let limit = Instant::now() + RESTLESS;
        loop {
            let before = self.shared.with(|state| state.activity);
            let due = self.shared.with(|state| state.next_due());
            let wake = (Instant::now() + QUIET).max(due.unwrap_or_else(Instant::now));
            tokio::time::sleep_until(wake).await;
            let settled = self.shared.with(|state| {
                state.activity == before && state.next_due().is_none() && state.busy == 0
            });
            if settled || Instant::now() >= limit {
                return;
            }
        }
    }

    /// What a node answers for a service, now: the instances that get traffic. Empty where discovery does not run.
    ///
    /// # Panics
    /// For text that is no service name.
    #[must_use]
    #[track_caller]
    pub fn lookup(&self, place: impl Place, service: &str) -> Vec<Instance> {
        let service: ServiceName = match service.parse() {
            Ok(service) => service,
            Err(error) => panic!("{error}"),
        };
        let index = place.host(self);
        self.act(|state, now| {
            let process: Option<&DiscoveryProcess> = state.discovery(index);
            process.map_or_else(Vec::new, |process| {
                process
                    .passing(now, |instance| instance.service == service)
                    .into_values()
                    .collect()
            })
        })
    }

    /// Sends packets to an overlay address, over the overlay's routes and past its isolation rules; the round trip of
    /// the first that is answered.
    ///
    /// # Errors
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) when a router refuses it;
    /// [`NotFound`](ErrorKind::NotFound) when there is no route, or nothing to send from;
    /// [`Timeout`](ErrorKind::Timeout) when nothing answers within 1.2 s.
    pub async fn ping(&self, from: impl Origin, to: Ipv4Addr) -> Result<Duration> {
        let (index, container) = from.origin(self);
        for _ in 0..PINGS {
            let answer = self.act(|state, _| {
                if !state.hosts[index].powered {
                    return Err(Error::new(ErrorKind::Timeout, "the host has no power"));
                }
                let (target, time) = state.trace(index, container.as_ref(), to)?;
                let lost = state.network.loses(index, target, &mut state.random)
                    || state.network.loses(target, index, &mut state.random);
                Ok((!lost).then_some(time))
            });
            match answer {
                Ok(Some(time)) => {
                    tokio::time::sleep(time).await;
                    return Ok(time);
                }
                Err(error) if error.kind() != ErrorKind::Timeout => return Err(error),
                Ok(None) | Err(_) => tokio::time::sleep(PING_INTERVAL).await,
            }
        }
        let message = format!("no answer from {to} in {:?}", PING_INTERVAL * PINGS);
        Err(Error::new(ErrorKind::Timeout, message))
    }
}
