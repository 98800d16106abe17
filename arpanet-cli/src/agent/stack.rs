//! The backends that a node is made of.

use std::sync::Arc;
use std::time::Duration;

use arpanet_core::addr::CONSUL_DNS_PORT;
use arpanet_core::{Cluster, Discovery, ErrorKind, Result, Runtime};
use arpanet_dns::DnsConfig;
use arpanet_docker::DockerRuntime;
use arpanet_gossip::{GossipConfig, GossipDiscovery};
use arpanet_join::{JoinAdmission, JoinConfig, Verifier};
use arpanet_process::{ProcessConfig, ProcessRuntime, ShimCommand};

use super::by_hand::ByHand;
use super::consul::{Consul, Home};
use super::dns::Dns;
use super::docker_plane::DockerPlane;
use super::network_driver::DockerNetworks;
use super::order::Me;
use super::overlay::{Parts, Tunnelled};
use super::state::{self, DiscoveryKind, DnsKind, RuntimeKind, StateFiles};
use crate::commands::Context;
use crate::host;

/// Members ask for a lost node at least twice a second.
const LISTENING: Duration = Duration::from_millis(550);

/// A node put together from its backends.
#[derive(Debug)]
pub(super) struct Stack {
    pub(super) cluster: Cluster,
    pub(super) dns: Arc<Dns>,
    pub(super) by_hand: Arc<ByHand>,
    pub(super) tunnel: Option<Arc<dyn Tunnelled>>,
    pub(super) networks: Option<Arc<DockerNetworks>>,
}

impl Stack {
    /// Puts the stack together: the overlay, gossip, DNS, docker or processes, and consul where services are to be there.
    /// Nothing is started, but the containers of an earlier agent are found again. `is_new` is for a host that is to become
    /// a member.
    ///
    /// # Errors
    /// [`Corrupt`](arpanet_core::ErrorKind::Corrupt) for a state file that can't be read.
    pub(super) async fn build(
        context: &Context,
        me: &Me,
        is_new: bool,
        verifier: Option<Verifier>,
    ) -> Result<Self> {
        let paths = &context.paths;
        let by_hand = Arc::new(ByHand::open(paths)?);
        let identity = state::identity(paths)?;
        let below = Parts::choose(context, me)?;
        let discovery = GossipDiscovery::new(
            GossipConfig::default()
                .advertise(me.advertise)
                .keep_key(me.settings.depends_on_key()),
            identity.secret(),
            below.datagrams,
        )?
        .keep_in(paths.gossip());
        let listen = std::net::SocketAddr::from(([0, 0, 0, 0], me.settings.port));
        let admission = JoinConfig::default()
            .listen(listen)
            .udp_port(me.settings.port)
            .listen_before_founding(LISTENING);
        let admission = Arc::new(JoinAdmission::new(admission, identity).with_verifier(verifier));
        let mut dns = DnsConfig::default().upstreams(
            context
                .config
                .upstreams
                .clone()
                .unwrap_or_else(host::upstreams),
        );
        if let Some(domain) = &context.config.domain {
            dns = dns.domain(domain);
        }
        if me.settings.dns == DnsKind::Consul {
            dns = dns.authority((me.node.discovery(), CONSUL_DNS_PORT).into());
        }
        let domain = dns.domain.clone();
        let runtime = runtime(context, me.settings.runtime, is_new).await?;
        let mut dns = Dns::new(dns, Arc::clone(&below.routed), Arc::clone(&runtime));
        if me.settings.dns == DnsKind::Consul && context.config.consul_token_file.is_some() {
            dns = dns.asking_for_leave();
        }
        let dns = Arc::new(dns);
        let engine = context.config.docker();
        let plane = DockerPlane::new(&engine, &domain, below.routed, dns.bridge());
        let networks = match me.settings.runtime {
            RuntimeKind::Process => None,
            RuntimeKind::Docker => {
                let engine = context.config.docker().socket;
                Some(Arc::new(DockerNetworks::new(paths, engine)))
            }
        };
        if let Some(networks) = networks.as_ref().filter(|_| !is_new) {
            // As early as can be: the engine may be starting, and looks for it.
            networks.keep().await?;
        }
        let members: Arc<dyn Discovery> = Arc::new(discovery);
        let consul = match me.settings.discovery {
            DiscoveryKind::Gossip => None,
            DiscoveryKind::Consul => {
                let members = Arc::clone(&members);
                let home = Home::of(context, me.settings.runtime)?;
                if is_new {
                    home.prepare().await?;
                }
                Some(Consul::new(context, home, &domain, members, is_new)?)
            }
        };
        let mut cluster = Cluster::builder()
            .node(me.node)
            .name(me.name.clone())
            .version(env!("CARGO_PKG_VERSION"))
            .domain(domain)
            .overlay(below.overlay)
            .runtime(runtime)
            .prober(below.prober)
            .seed(rand::random())
            .store(Arc::new(StateFiles {
                paths: paths.clone(),
                settings: me.settings.clone(),
                admission: Arc::clone(&admission),
            }))
            .admission(admission);
        cluster = match consul {
            None => cluster.discovery(members),
            Some(consul) => cluster
                .discovery(Arc::new(consul.discovery))
                .key_value(consul.key_value)
                .facility(Arc::new(consul.facility)),
        };
        cluster = cluster.facility(Arc::clone(&dns) as _);
        if let Some(endpoint) = me.advertise {
            cluster = cluster.advertise(endpoint);
        }
        if let Some(networks) = &networks {
            cluster = cluster.facility(Arc::clone(networks) as _);
            cluster = cluster.facility(Arc::new(plane));
        }
        let cluster = cluster.build()?;
        if let Some(networks) = &networks {
            networks.belongs_to(&cluster);
        }
        Ok(Self {
            cluster,
            dns,
            by_hand,
            tunnel: below.tunnel,
            networks,
        })
    }
}

/// What the node's containers are. A docker engine that is away keeps no member from coming back, but a host from becoming
/// one.
async fn runtime(context: &Context, kind: RuntimeKind, is_new: bool) -> Result<Arc<dyn Runtime>> {
    match kind {
        RuntimeKind::Process => {
            let shim = ShimCommand::new(host::program()?).arg("shim");
            let config = ProcessConfig::new(context.paths.containers(), shim);
            Ok(Arc::new(ProcessRuntime::open(config).await?))
        }
        RuntimeKind::Docker => {
            let config = context.config.docker().labels(context.paths.labels());
            let runtime = DockerRuntime::open(config)?;
            if is_new {
                let version = runtime.version().await.map_err(|error| {
                    let hint = "start the engine, or do without it: --runtime process";
                    error.with_hint(hint)
                })?;
                tracing::info!(%version, "found the docker engine");
            }
            Ok(Arc::new(runtime))
        }
    }
}

/// Has containers that any earlier agent told whom to ask for names ask those again that their engine named. An engine that
/// does not answer has none that run.
///
/// # Errors
/// When a container's file can't be written.
pub(crate) async fn clean_resolvers(context: &Context) -> Result<()> {
    let config = context.config.docker();
    if !config.socket.exists() {
        return Ok(());
    }
    match DockerRuntime::open(config)?.release_resolvers().await {
        Err(error) if error.kind() == ErrorKind::Unavailable => Ok(()),
        outcome => outcome,
    }
}
