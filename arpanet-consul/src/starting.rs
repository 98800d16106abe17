//! From an agent that may be coming up itself to a node that is a member.

use std::sync::Arc;
use std::time::Duration;

use arpanet_core::admission::Membership;
use arpanet_core::{ErrorKind, InstanceId, Result};
use tokio::time::Instant;

use crate::blocking::pause;
use crate::client::Client;
use crate::config::{Consistency, ConsulConfig, ms};
use crate::error::own;
use crate::pulse;
use crate::reading::Reading;
use crate::registry::Registry;
use crate::running::Running;

/// How long the ACL token may be unknown: a server knows it only once it has what the others have, and the first one once it leads.
const LEARNING: Duration = Duration::from_secs(3);

/// The agent, asked until it answers, knows a leader and has this node in the catalogue.
pub(crate) async fn come_up(
    client: &Client,
    config: &ConsulConfig,
    membership: &Membership,
) -> Result<Registry> {
    let begun = Instant::now();
    let end = begun + ms(config.confirm_ms);
    let mut failures = 0;
    loop {
        let attempt = tokio::time::timeout_at(end, come_up_once(client, config, membership));
        let error = match attempt.await {
            Ok(Ok(registry)) => return Ok(registry),
            Ok(Err(error)) => error,
            Err(_) => own(
                ErrorKind::Unavailable,
                format!("consul at {} does not come up", client.transport.at),
            ),
        };
        // To whoever may do nothing the catalogue looks empty; the leader's store says why.
        let store = client.pair("arpanet", Reading::now(Consistency::Consistent));
        if let Ok(Err(denied)) = tokio::time::timeout_at(end, store).await
            && denied.kind() == ErrorKind::PermissionDenied
        {
            return Err(denied);
        }
        failures += 1;
        let again = Instant::now() + pause(failures, rand::random());
        let is_learning = config.token.is_some()
            && error.kind() == ErrorKind::Unauthenticated
            && again < begun + LEARNING;
        if !(error.is_retryable() || is_learning) || again >= end {
            return Err(error);
        }
        tokio::time::sleep_until(again).await;
    }
}

async fn come_up_once(
    client: &Client,
    config: &ConsulConfig,
    membership: &Membership,
) -> Result<Registry> {
    let agent = client.agent_self().await?.config;
    if let Some(wanted) = &config.datacenter
        && *wanted != agent.datacenter
    {
        let message = format!(
            "consul at {} is in the datacenter {}, not in {wanted}",
            client.transport.at, agent.datacenter
        );
        return Err(own(ErrorKind::InvalidInput, message));
    }
    tracing::debug!(
        node = agent.node_name,
        version = agent.version,
        "consul answers"
    );
    let registry = Registry::new(
        client.clone(),
        membership.me.clone(),
        agent.node_name,
        ms(config.heartbeat_ms),
        ms(config.confirm_ms),
    );
    registry.announce().await?;
    registry.announced().await?;
    Ok(registry)
}

/// What registers and beats as long as the backend runs.
pub(crate) fn spawn_tasks(
    running: &Running,
    heartbeat: Duration,
    inherit: Duration,
    left: Vec<InstanceId>,
) {
    let cancel = running.source.cancel.clone();
    let registry = Arc::clone(&running.registry);
    let leader = running.source.leader.clone();
    let beating = pulse::beat(Arc::clone(&registry), heartbeat, leader);
    let telling = Arc::clone(&registry);
    let settling = async move { telling.settling().await };
    let clearing = async move {
        tokio::time::sleep(inherit).await;
        for id in left {
            let is_held = registry.held().contains_key(&id);
            if !is_held && let Err(error) = registry.deregister(&id).await {
                tracing::warn!(%error, %id, "what was registered before can't be taken back");
            }
        }
    };
    tokio::spawn(async move {
        cancel
            .run_until_cancelled(async { tokio::join!(beating, settling, clearing) })
            .await;
    });
}
