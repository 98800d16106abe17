//! The agent's own API: HTTP and JSON on a unix socket that only root can open.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use arpanet_core::cluster::Network;
use arpanet_core::discovery::ServiceSummary;
use arpanet_core::health::ContainerHealth;
use arpanet_core::runtime::{Container, ContainerSpec, NetRequest};
use arpanet_core::{AppNet, Cluster, ContainerName, Error, ErrorKind, NodeAddr, ServiceName};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::by_hand::{self, ByHand};
use super::dns::Dns;
use super::images;
use super::keys;
use super::kv;
use super::network_driver::DockerNetworks;
use super::overlay::Tunnelled;
use super::refusals;
use super::status::{self, Node, Service, Status};
use super::{streams, why};
use crate::failure::Failure;

/// How the agent is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ending {
    /// Without a word, to come back.
    Silent,
    /// In order: leave the cluster, keep the address.
    Leave,
    /// For good: leave nothing.
    Reset,
}

/// What the API works on.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) cluster: Cluster,
    pub(crate) dns: Arc<Dns>,
    pub(crate) by_hand: Arc<ByHand>,
    /// The overlay's, where there is a choice.
    pub(crate) tunnel: Option<Arc<dyn Tunnelled>>,
    /// Docker's networks, where there is a docker engine.
    pub(crate) networks: Option<Arc<DockerNetworks>>,
    pub(crate) endings: mpsc::Sender<Ending>,
}

/// An error as an answer.
#[derive(Debug)]
pub(crate) struct ApiError(pub(crate) Error);

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = match self.0.kind() {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::AlreadyExists | ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
            ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
            ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::Exhausted => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(Failure::from(&self.0))).into_response()
    }
}

pub(super) type Answer<T> = Result<Json<T>, ApiError>;

/// All routes.
pub(crate) fn router(context: Context) -> Router {
    Router::new()
        .route("/v1/ping", get(async || Json(())))
        .route("/v1/status", get(read_status))
        .route("/v1/nodes", get(read_nodes))
        .route("/v1/nodes/{node}", delete(forget))
        .route("/v1/key", post(keys::rekey))
        .route("/v1/password", post(keys::change_password))
        .route("/v1/nodes/{node}/drain", post(drain).delete(undrain))
        .route("/v1/services", get(read_services))
        .route("/v1/summary", get(read_summary))
        .route("/v1/resolve", get(resolve))
        .route("/v1/why", get(why::why))
        .route("/v1/instances", post(by_hand::register))
        .route("/v1/instances/{id}", delete(by_hand::deregister))
        .route("/v1/networks", get(read_networks).post(create_network))
        .route("/v1/networks/{name}", delete(remove_network))
        .route("/v1/containers", get(read_containers).post(run))
        .route("/v1/containers/{name}", delete(remove))
        .route(
            "/v1/planes/{plane}",
            post(by_hand::expose).delete(by_hand::hide),
        )
        .route("/v1/containers/{name}/addresses", post(by_hand::attach))
        .route(
            "/v1/containers/{name}/addresses/{ip}",
            delete(by_hand::detach),
        )
        .route("/v1/containers/{name}/stop", post(stop_container))
        .route("/v1/containers/{name}/logs", get(streams::logs))
        .route("/v1/containers/{name}/exec", post(streams::exec))
        .nest("/v1/images", images::routes(context.cluster.clone()))
        .nest("/v1/kv", kv::routes(context.cluster.clone()))
        .route("/v1/end", post(end))
        .route("/metrics", get(metrics))
        .with_state(context)
        .layer(map_response(refusals::told))
}

async fn read_status(State(context): State<Context>) -> Answer<Status> {
    let mut status = status::status(&context.cluster, context.dns.kind()).await?;
    let tunnel = context.tunnel.as_ref().and_then(|tunnel| tunnel.tunnel());
    status.stack.tunnel = tunnel.map(str::to_owned);
    status.advice.extend(context.dns.advice());
    Ok(Json(status))
}

async fn read_nodes(State(context): State<Context>) -> Answer<Vec<Node>> {
    Ok(Json(
        context
            .cluster
            .nodes()
            .await?
            .into_iter()
            .map(Node::from)
            .collect(),
    ))
}

async fn forget(
    State(context): State<Context>,
    Path(node): Path<NodeAddr>,
) -> Answer<keys::Forgotten> {
    if node == context.cluster.me() {
        return Err(
            Error::new(ErrorKind::InvalidInput, format!("{node} is this node"))
                .with_hint("arpanet2 reset gives its address up")
                .into(),
        );
    }
    let discovery = context.cluster.discovery();
    discovery.forget(node).await?;
    Ok(Json(keys::Forgotten {
        rekeyed: discovery.capabilities().turns_keys,
    }))
}

async fn drain(State(context): State<Context>, Path(node): Path<NodeAddr>) -> Answer<()> {
    context.cluster.drain(node).await?;
    Ok(Json(()))
}

async fn undrain(State(context): State<Context>, Path(node): Path<NodeAddr>) -> Answer<()> {
    context.cluster.undrain(node).await?;
    Ok(Json(()))
}

async fn read_services(State(context): State<Context>) -> Answer<Vec<Service>> {
    Ok(Json(status::services(&context.cluster).await?))
}

async fn read_summary(State(context): State<Context>) -> Answer<Vec<ServiceSummary>> {
    Ok(Json(context.cluster.discovery().services().await?))
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

async fn resolve(
    State(context): State<Context>,
    Query(query): Query<Name>,
) -> Answer<Vec<Ipv4Addr>> {
    Ok(Json(context.dns.resolve(&query.name).await?))
}

/// A network that the cluster knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ListedNetwork {
    /// A name of the cluster's, or whatever docker's users call it.
    pub(crate) name: String,
    pub(crate) net: AppNet,
    /// `docker` where every engine has it; none where it is a name for labels and commands.
    pub(crate) driver: Option<String>,
}

async fn read_networks(State(context): State<Context>) -> Answer<Vec<ListedNetwork>> {
    let named = context.cluster.networks().into_iter();
    let named = named.map(|network| ListedNetwork {
        name: network.name.to_string(),
        net: network.net,
        driver: None,
    });
    let docker = context.networks.iter();
    let docker = docker.flat_map(|networks| networks.networks());
    let docker = docker.map(|(net, name)| ListedNetwork {
        name,
        net,
        driver: Some("docker".to_owned()),
    });
    let mut all: Vec<ListedNetwork> = named.chain(docker).collect();
    all.sort_by(|one, other| (&one.name, one.net).cmp(&(&other.name, other.net)));
    Ok(Json(all))
}

/// A network that the user wants.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkRequest {
    pub(crate) name: ServiceName,
    pub(crate) net: Option<AppNet>,
}

async fn create_network(
    State(context): State<Context>,
    Json(wanted): Json<NetworkRequest>,
) -> Answer<Network> {
    Ok(Json(
        context
            .cluster
            .create_network(wanted.name, wanted.net)
            .await?,
    ))
}

async fn remove_network(
    State(context): State<Context>,
    Path(name): Path<ServiceName>,
) -> Answer<()> {
    context.cluster.remove_network(&name).await?;
    Ok(Json(()))
}

/// A container with how it is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Listed {
    #[serde(flatten)]
    pub(crate) container: Container,
    /// By its checks and its engine's own; `None` for one that has none, or does not run.
    pub(crate) verdict: Option<ContainerHealth>,
}

async fn read_containers(State(context): State<Context>) -> Answer<Vec<Listed>> {
    let mut containers = context.cluster.runtime()?.list().await?;
    let mut health = context.cluster.health();
    for container in &mut containers {
        // As they are now, whatever was attached and detached since.
        container.spec.nets = Cluster::addresses(container)
            .into_iter()
            .map(NetRequest::Addr)
            .collect();
        // Values of the environment don't leave the agent.
        container.spec.env.0 = std::mem::take(&mut container.spec.env.0)
            .into_keys()
            .map(|name| (name, String::new()))
            .collect::<BTreeMap<_, _>>();
    }
    let containers = containers.into_iter().map(|container| Listed {
        verdict: health.remove(&container.name),
        container,
    });
    Ok(Json(containers.collect()))
}

async fn run(State(context): State<Context>, Json(spec): Json<ContainerSpec>) -> Answer<Container> {
    Ok(Json(context.cluster.run(&spec).await?))
}

async fn remove(State(context): State<Context>, Path(name): Path<ContainerName>) -> Answer<()> {
    context.cluster.runtime()?.inspect(&name).await?;
    context.cluster.remove(&name).await?;
    Ok(Json(()))
}

async fn stop_container(
    State(context): State<Context>,
    Path(name): Path<ContainerName>,
) -> Answer<i32> {
    Ok(Json(context.cluster.stop_container(&name).await?))
}

async fn end(State(context): State<Context>, Json(ending): Json<Ending>) -> Answer<()> {
    // A second request finds the first under way.
    let _ = context.endings.try_send(ending);
    Ok(Json(()))
}

async fn metrics(State(context): State<Context>) -> Result<String, ApiError> {
    super::metrics::render(&context.cluster)
        .await
        .map_err(ApiError)
}
