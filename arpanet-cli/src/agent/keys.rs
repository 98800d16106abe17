//! The cluster's key and password, over the API.

use arpanet_core::admission::Password;
use arpanet_core::discovery::{MemberState, Spread};
use arpanet_core::{Cluster, ErrorKind, NodeAddr, Result};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::api::{Answer, Context};

/// What came of another key. Field names are part of the interface.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Turned {
    /// The key's id, which is no secret.
    pub(crate) key: u32,
    /// Members that live and have not confirmed it yet.
    pub(crate) unconfirmed: Vec<NodeAddr>,
    /// Members that are down: they get it when they are back.
    pub(crate) down: Vec<NodeAddr>,
}

/// Who has left, and whether the key did not stay with it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Forgotten {
    pub(crate) rekeyed: bool,
}

/// A new password, on its way to the agent. It is never shown.
#[derive(Serialize, Deserialize)]
pub(crate) struct NewPassword {
    pub(crate) password: String,
}

pub(super) async fn rekey(State(context): State<Context>) -> Answer<Turned> {
    let spread = context.cluster.rekey().await.map_err(stays)?;
    Ok(Json(turned(&context.cluster, spread).await?))
}

pub(super) async fn change_password(
    State(context): State<Context>,
    Json(new): Json<NewPassword>,
) -> Answer<Turned> {
    let password = Password::new(new.password)?;
    let spread = context.cluster.change_password(&password).await;
    Ok(Json(
        turned(&context.cluster, spread.map_err(stays)?).await?,
    ))
}

/// Where the key stays, says what it stays for.
fn stays(error: arpanet_core::Error) -> arpanet_core::Error {
    if error.kind() != ErrorKind::Unsupported {
        return error;
    }
    error.with_hint(
        "with weave the cluster's key and its password stay: what weave encrypts with is made of the key, and is read when it starts",
    )
}

async fn turned(cluster: &Cluster, spread: Spread) -> Result<Turned> {
    let members = cluster.discovery().members().await?;
    let down = members
        .into_iter()
        .filter(|member| member.state == MemberState::Down);
    Ok(Turned {
        key: cluster
            .membership()
            .await
            .map_or(0, |membership| membership.key.id),
        unconfirmed: spread.unconfirmed.into_iter().collect(),
        down: down.map(|member| member.node).collect(),
    })
}
