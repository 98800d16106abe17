//! A node of a simulated world, with the agent's API.

use std::sync::Arc;

use arpanet_core::admission::{Password, Seed};
use arpanet_core::memory::World;
use arpanet_core::roster::Role;
use arpanet_core::{Cluster, Discovery, Error, ErrorKind, KeyValue, NodeAddr, Overlay, Runtime};
use arpanet_dns::DnsConfig;
use arpanet_netlink::Namespace;
use async_trait::async_trait;
use axum::Router;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::super::api::{self, Context, Ending};
use super::super::by_hand::ByHand;
use super::super::dns::Dns;
use super::super::overlay::Routed;
use crate::paths::Paths;

/// 0.1, which has booted, beside 0.2; the folder that it keeps its state in goes with it.
pub(super) struct Node {
    world: World,
    context: Context,
    store: Arc<dyn KeyValue>,
    _endings: mpsc::Receiver<Ending>,
    _other: Cluster,
    _folder: TempDir,
}

/// It has no namespace.
#[derive(Debug)]
struct Nowhere;

#[async_trait]
impl Routed for Nowhere {
    async fn router_namespace(&self) -> Result<Namespace, Error> {
        Err(Error::new(ErrorKind::Unavailable, "there is no router"))
    }
}

impl Node {
    pub(super) async fn up() -> Self {
        let world = World::new(1);
        let host = world.host(one());
        let store: Arc<dyn KeyValue> = Arc::new(host.key_value());
        let info = world.info(&host, Role::Server);
        let cluster = Cluster::builder()
            .node(info.node)
            .name(info.name)
            .overlay(Arc::new(host.overlay()) as Arc<dyn Overlay>)
            .discovery(Arc::new(host.discovery()) as Arc<dyn Discovery>)
            .runtime(Arc::new(host.runtime()) as Arc<dyn Runtime>)
            .prober(Arc::new(host.prober()))
            .key_value(Arc::clone(&store))
            .admission(Arc::new(host.admission()))
            .store(Arc::new(host.store()))
            .build()
            .unwrap();
        let password = Password::new("Apples").unwrap();
        cluster.boot(&password).await.unwrap();
        let other = world.cluster(NodeAddr::from_index(2).unwrap());
        let seed = Seed::new(one(), world.endpoint(one()));
        other
            .join(&password, Role::Server, seed, false)
            .await
            .unwrap();
        world.settle().await;
        // In memory, where the host has files there: what is kept is written to the disk.
        let folder = TempDir::new_in("/dev/shm")
            .or_else(|_| TempDir::new())
            .unwrap();
        let paths = Paths::new(folder.path().into(), folder.path().into());
        let dns = Dns::new(
            DnsConfig::default(),
            Arc::new(Nowhere),
            Arc::new(host.runtime()),
        );
        let (endings, ended) = mpsc::channel(1);
        let context = Context {
            cluster,
            dns: Arc::new(dns),
            by_hand: Arc::new(ByHand::open(&paths).unwrap()),
            tunnel: None,
            networks: None,
            endings,
        };
        Self {
            world,
            context,
            store,
            _endings: ended,
            _other: other,
            _folder: folder,
        }
    }

    pub(super) fn router(&self) -> Router {
        api::router(self.context.clone())
    }

    pub(super) async fn settle(&self) {
        self.world.settle().await;
    }

    /// All that a request may change, as text.
    pub(super) async fn has(&self) -> String {
        let cluster = &self.context.cluster;
        let nodes = cluster.nodes().await.unwrap().into_iter();
        let nodes: Vec<_> = nodes
            .map(|node| (node.address, node.state, node.drained))
            .collect();
        let containers = cluster.runtime().unwrap().list().await.unwrap().into_iter();
        let containers: Vec<_> = containers
            .map(|one| (one.name.clone(), one.state, Cluster::addresses(&one)))
            .collect();
        let instances = cluster.instances().await.unwrap();
        let mut entries = Vec::new();
        for key in self.store.list("").await.unwrap() {
            entries.push((
                self.store.get(&key).await.unwrap(),
                self.store.holder(&key).await.unwrap(),
                key,
            ));
        }
        let key = cluster.membership().await.unwrap().key.id;
        let by_hand = self.context.by_hand.kept().await;
        let networks = cluster.networks();
        format!("{nodes:?} {containers:?} {instances:?} {entries:?} {key} {by_hand:?} {networks:?}")
    }
}

fn one() -> NodeAddr {
    NodeAddr::from_index(1).unwrap()
}
