//! What the fuzz targets do, for them and for this crate's tests: compiled with `--cfg fuzzing` or `test` only.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "for fuzz targets and tests only"
)]

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use arpanet_core::conformance::bytes::Draw;
use arpanet_core::overlay::{Plug, Plugged};
use async_trait::async_trait;

use super::*;

const METHODS: [&str; 12] = [
    "NetworkDriver.CreateNetwork",
    "NetworkDriver.DeleteNetwork",
    "NetworkDriver.CreateEndpoint",
    "NetworkDriver.EndpointOperInfo",
    "NetworkDriver.DeleteEndpoint",
    "NetworkDriver.Join",
    "NetworkDriver.Leave",
    "IpamDriver.RequestPool",
    "IpamDriver.RequestAddress",
    "IpamDriver.ReleaseAddress",
    "Plugin.Activate",
    "NetworkDriver.Nothing",
];

/// What an engine asks the network driver: any method, any body, in any order. The answer is JSON, and what was kept is read
/// again as it was.
pub fn requests(bytes: &[u8]) {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let state = std::env::temp_dir().join(format!("arpanet-fuzz-{}-{run}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let driver = NetworkDriver::open(&state, Arc::new(Everything)).unwrap();
    let mut asked = Draw::new(bytes);
    runtime.block_on(async {
        while !asked.is_done() {
            let method = asked.one_of(&METHODS);
            let answer = driver.answer(method, asked.piece()).await;
            let read: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert!(read.is_object());
        }
    });
    let again = NetworkDriver::open(&state, Arc::new(Everything)).unwrap();
    assert_eq!(again.endpoints(), driver.endpoints());
    assert_eq!(again.networks(), driver.networks());
    let _ = std::fs::remove_file(&state);
}

/// A cluster that has everything.
#[derive(Debug)]
struct Everything;

#[async_trait]
impl Networks for Everything {
    async fn choose(&self) -> Result<AppNet> {
        "10.1.0.0/16".parse()
    }

    async fn make(&self, _net: AppNet) -> Result<()> {
        Ok(())
    }

    async fn remove(&self, _net: AppNet) -> Result<()> {
        Ok(())
    }

    async fn reserve(&self, net: AppNet, ip: Option<Ipv4Addr>) -> Result<AppAddr> {
        let ip = ip.unwrap_or_else(|| Ipv4Addr::from(u32::from(net.cidr().network()) + 2));
        let full = || Error::new(ErrorKind::InvalidInput, "it is not one of the network's");
        net.contains(ip).then_some(()).ok_or_else(full)?;
        format!("{ip}/{}", net.cidr().prefix_len()).parse()
    }

    async fn release(&self, _addr: AppAddr) -> Result<()> {
        Ok(())
    }

    async fn plug(&self, _plug: &Plug) -> Result<Plugged> {
        Ok(Plugged::new("ap0".to_owned(), [2; 6]))
    }

    async fn unplug(&self, _endpoint: &EndpointId) -> Result<()> {
        Ok(())
    }

    async fn plugged(&self) -> Result<Vec<(EndpointId, AppAddr)>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use arpanet_core::conformance::bytes::{hold, seeds};

    #[test]
    fn whatever_an_engine_asks_is_answered() {
        hold(seeds("driver_requests"), 300, super::requests);
    }
}
