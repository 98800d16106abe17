//! What an engine asks the network driver: any method, any body, in any order.
#![no_main]

use std::net::Ipv4Addr;
use std::sync::Arc;

use arpanet_core::overlay::{Plug, Plugged};
use arpanet_core::{AppAddr, AppNet, EndpointId, Error, ErrorKind, Result};
use arpanet_docker::driver::{NetworkDriver, Networks};
use async_trait::async_trait;
use libfuzzer_sys::fuzz_target;

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

fuzz_target!(|requests: Vec<(u8, &[u8])>| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let state = std::env::temp_dir().join(format!("arpanet-fuzz-{}", std::process::id()));
    let _ = std::fs::remove_file(&state);
    let driver = NetworkDriver::open(&state, Arc::new(Everything)).unwrap();
    runtime.block_on(async {
        for (method, body) in requests {
            let method = METHODS[usize::from(method) % METHODS.len()];
            let answer = driver.answer(method, body).await;
            let read: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert!(read.is_object());
        }
    });
    // What it kept is read again as it was.
    let again = NetworkDriver::open(&state, Arc::new(Everything)).unwrap();
    assert_eq!(again.endpoints(), driver.endpoints());
    assert_eq!(again.networks(), driver.networks());
    let _ = std::fs::remove_file(&state);
});

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
