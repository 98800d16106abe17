//! The suite that every overlay keeps.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arpanet_core::Overlay;
use arpanet_core::admission::Membership;
use arpanet_core::conformance::{self, OverlayRig, Ping, PingFrom};
use arpanet_core::overlay::NetNamespace;
use arpanet_netlink::Namespace;
use async_trait::async_trait;

use crate::site::{self, Container, Fate, Site};

const NODES: usize = 3;

struct Rig {
    memberships: Vec<Membership>,
    endpoints: Vec<SocketAddr>,
    namespaces: Vec<Namespace>,
    // The suite asks for one thing at a time.
    site: tokio::sync::Mutex<Site>,
    containers: Mutex<Vec<Container>>,
}

impl Rig {
    async fn new(program: Option<PathBuf>) -> Self {
        let site = Site::with(NODES as u8, program.as_deref()).await.unwrap();
        let hosts = site.hosts.iter();
        Self {
            memberships: hosts.clone().map(|host| host.membership()).collect(),
            endpoints: hosts.clone().map(|host| host.endpoint()).collect(),
            namespaces: hosts.map(|host| host.namespace().clone()).collect(),
            site: site.into(),
            containers: Mutex::default(),
        }
    }
}

#[async_trait]
impl OverlayRig for Rig {
    fn memberships(&self) -> &[Membership] {
        &self.memberships
    }

    fn overlay(&self, node: usize) -> Arc<dyn Overlay> {
        Arc::clone(&self.site.try_lock().unwrap().hosts[node].overlay) as Arc<dyn Overlay>
    }

    fn endpoint(&self, node: usize) -> Option<SocketAddr> {
        Some(self.endpoints[node])
    }

    async fn ping(&self, from: PingFrom<'_>, to: Ipv4Addr) -> Ping {
        let namespace = match from {
            PingFrom::Host(node) => self.namespaces[node].clone(),
            PingFrom::Container(_, attachment) => {
                Namespace::open(path_of(&attachment.namespace)).unwrap()
            }
            _ => unreachable!("no other origins are known"),
        };
        match tokio::task::spawn_blocking(move || site::probe(&namespace, to))
            .await
            .unwrap()
        {
            Fate::Reached => Ping::Answered,
            Fate::Refused => Ping::Refused,
            Fate::Lost => Ping::Silent,
        }
    }

    fn can_crash(&self) -> bool {
        true
    }

    async fn crash(&self, node: usize) {
        self.site.lock().await.hosts[node].kill().await;
    }

    fn can_cut(&self) -> bool {
        true
    }

    async fn cut(&self, node: usize) {
        self.site.lock().await.plug_in(node, false).await;
    }

    async fn heal(&self, node: usize) {
        self.site.lock().await.plug_in(node, true).await;
    }

    async fn namespace(&self, _: usize) -> Option<NetNamespace> {
        let container = Container::new("container").await;
        let path = container.path();
        self.containers.lock().unwrap().push(container);
        Some(path)
    }

    async fn remove_namespace(&self, _: usize, namespace: &NetNamespace) {
        let mut containers = self.containers.lock().unwrap();
        containers.retain(|container| container.path() != *namespace);
    }

    fn host_namespace(&self, node: usize) -> Option<NetNamespace> {
        Some(self.site.try_lock().unwrap().hosts[node].path())
    }

    async fn traces(&self, node: usize) -> Option<Vec<String>> {
        Some(self.site.lock().await.hosts[node].traces().await)
    }

    /// Routers are processes, and their networks are made by other processes.
    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

fn path_of(namespace: &NetNamespace) -> &PathBuf {
    match namespace {
        NetNamespace::Path(path) => path,
        other => unreachable!("{other:?} is none of the rig's"),
    }
}

async fn is_kept_with(program: Option<PathBuf>) {
    let report = conformance::overlay(|| Rig::new(program.clone())).await;
    report.assert_kept();
    let skipped: Vec<&str> = report.skipped().map(|check| check.name()).collect();
    let expected = [
        "an_unreadable_announcement_is_refused",
        "without_attach_it_answers_unsupported",
    ];
    assert_eq!(skipped, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept() {
    if site::namespace().is_some() {
        is_kept_with(None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_on_the_real_router() {
    if let Some(program) = site::real_router() {
        is_kept_with(Some(program)).await;
    }
}
