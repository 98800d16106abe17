//! Registrations, exposed planes and attached addresses, as the user changes them on a running node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use arpanet_core::discovery::Instance;
use arpanet_core::runtime::NetRequest;
use arpanet_core::{
    AppAddr, Cluster, ContainerName, Error, ErrorKind, InstanceId, Plane, Result, ServiceName, Tag,
};
use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};

use super::api::{Answer, Context};
use super::kept::Kept;
use crate::paths::Paths;

/// An instance that the user registers by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registration {
    pub(crate) service: ServiceName,
    pub(crate) ip: Option<Ipv4Addr>,
    pub(crate) port: u16,
    pub(crate) id: Option<InstanceId>,
    #[serde(default)]
    pub(crate) tags: Vec<Tag>,
}

/// A plane of this node that can be hidden.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HidablePlane {
    /// The docker API
    Docker,
    /// The discovery agent and DNS
    Discovery,
}

impl std::fmt::Display for HidablePlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Discovery => "discovery",
        })
    }
}

impl HidablePlane {
    const fn plane(self) -> Plane {
        match self {
            Self::Docker => Plane::Docker,
            Self::Discovery => Plane::Discovery,
        }
    }
}

/// What the user changed by hand, kept over restarts of the agent. (Attached addresses are kept with their containers.)
#[derive(Debug)]
pub(crate) struct ByHand {
    registrations: Kept<BTreeMap<InstanceId, Registration>>,
    hidden: Kept<BTreeSet<HidablePlane>>,
}

impl ByHand {
    pub(super) fn open(paths: &Paths) -> Result<Self> {
        Ok(Self {
            registrations: Kept::open(paths.registrations())?,
            hidden: Kept::open(paths.hidden())?,
        })
    }

    /// What is kept now.
    #[cfg(any(test, fuzzing))]
    pub(super) async fn kept(
        &self,
    ) -> (BTreeMap<InstanceId, Registration>, BTreeSet<HidablePlane>) {
        (self.registrations.get().await, self.hidden.get().await)
    }

    /// Brings about what an earlier agent kept.
    pub(super) async fn restore(&self, cluster: &Cluster) -> Result<()> {
        for plane in self.hidden.get().await {
            cluster.overlay().hide(plane.plane()).await?;
        }
        for (id, registration) in self.registrations.get().await {
            let instance = instance(cluster, id, &registration);
            cluster.register(instance).await?;
        }
        Ok(())
    }
}

fn instance(cluster: &Cluster, id: InstanceId, wanted: &Registration) -> Instance {
    let me = cluster.me();
    let ip = wanted.ip.unwrap_or_else(|| me.overlay());
    Instance::new(id, wanted.service.clone(), ip, wanted.port, me).tagged(wanted.tags.clone())
}

pub(super) async fn register(
    State(context): State<Context>,
    Json(wanted): Json<Registration>,
) -> Answer<InstanceId> {
    let Context {
        cluster, by_hand, ..
    } = &context;
    let me = cluster.me();
    let id = match &wanted.id {
        Some(id) => id.clone(),
        None => {
            let ip = wanted.ip.unwrap_or_else(|| me.overlay());
            format!("{me}:{}:{ip}:{}", wanted.service, wanted.port).parse()?
        }
    };
    let instance = instance(cluster, id.clone(), &wanted);
    // Kept first: what can't be kept is not promised.
    let before = by_hand
        .registrations
        .change(|kept| {
            kept.insert(id.clone(), wanted);
        })
        .await?;
    if let Err(error) = cluster.register(instance).await {
        let taken_back = by_hand.registrations.change(|kept| match before.get(&id) {
            Some(earlier) => {
                kept.insert(id.clone(), earlier.clone());
            }
            None => {
                kept.remove(&id);
            }
        });
        if let Err(error) = taken_back.await {
            tracing::warn!(%id, %error, "a registration that failed stays in its file");
        }
        return Err(error.into());
    }
    Ok(Json(id))
}

pub(super) async fn deregister(
    State(context): State<Context>,
    Path(id): Path<InstanceId>,
) -> Answer<()> {
    context.cluster.deregister(&id).await?;
    let kept = &context.by_hand.registrations;
    kept.change(|kept| {
        kept.remove(&id);
    })
    .await?;
    Ok(Json(()))
}

pub(super) async fn expose(
    State(context): State<Context>,
    Path(plane): Path<HidablePlane>,
) -> Answer<()> {
    context.cluster.overlay().expose(plane.plane()).await?;
    let hidden = &context.by_hand.hidden;
    hidden
        .change(|hidden| {
            hidden.remove(&plane);
        })
        .await?;
    Ok(Json(()))
}

pub(super) async fn hide(
    State(context): State<Context>,
    Path(plane): Path<HidablePlane>,
) -> Answer<()> {
    // Hidden at once, also where it can't be kept: that is told.
    context.cluster.overlay().hide(plane.plane()).await?;
    let hidden = &context.by_hand.hidden;
    hidden
        .change(|hidden| {
            hidden.insert(plane);
        })
        .await?;
    Ok(Json(()))
}

pub(super) async fn attach(
    State(context): State<Context>,
    Path(name): Path<ContainerName>,
    Json(wanted): Json<NetRequest>,
) -> Answer<AppAddr> {
    Ok(Json(context.cluster.attach(&name, wanted).await?))
}

pub(super) async fn detach(
    State(context): State<Context>,
    Path((name, ip)): Path<(ContainerName, Ipv4Addr)>,
) -> Answer<()> {
    let container = context.cluster.runtime()?.inspect(&name).await?;
    if !Cluster::addresses(&container)
        .iter()
        .any(|addr| addr.ip() == ip)
    {
        let message = format!("the container {name} does not have the address {ip}");
        return Err(Error::new(ErrorKind::NotFound, message)
            .with_hint("arpanet2 ps shows the addresses of all containers")
            .into());
    }
    context.cluster.detach(&name, ip).await?;
    Ok(Json(()))
}
