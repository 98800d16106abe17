//! The endpoints of consul's HTTP API that are needed, typed.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use arpanet_core::{ErrorKind, Result};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::ConsulConfig;
use crate::error::own;
use crate::reading::{Answer, Reading};
use crate::translate::is_serf;
use crate::transport::{Request, Response, Transport};
use crate::wire::{
    AgentSelf, Check, CheckUpdate, NewCheck, NewService, SerfMember, Service, ServiceEntry, Status,
};

/// An agent.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) transport: Transport,
    /// Whether consul's own membership has a say in what is healthy.
    pub(crate) node_health: bool,
}

/// One part of a path, with everything encoded that means something there.
pub(crate) fn part(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A path of parts divided by `/`.
pub(crate) fn parts(text: &str) -> String {
    text.split('/').map(part).collect::<Vec<_>>().join("/")
}

pub(crate) fn json(body: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(|cause| own(ErrorKind::Internal, "a request can't be written").with_source(cause))
}

impl Client {
    pub(crate) fn new(config: &ConsulConfig) -> Result<Self> {
        Ok(Self {
            transport: Transport::new(config)?,
            node_health: config.node_health,
        })
    }

    /// A blocking query is made again by who follows it.
    pub(crate) async fn send(&self, request: Request) -> Result<Response> {
        if request.wait.is_zero() {
            self.transport.send_again(request).await
        } else {
            self.transport.send(request).await
        }
    }

    pub(crate) async fn read<T: DeserializeOwned>(&self, request: Request) -> Result<Answer<T>> {
        let response = self.transport.there(self.send(request).await?)?;
        Ok(Answer::of(&response, self.transport.read(&response)?))
    }

    /// What may not be there, and then is told without a word.
    pub(crate) async fn read_or_none<T: DeserializeOwned>(
        &self,
        request: Request,
    ) -> Result<Answer<Option<T>>> {
        let response = self.send(request).await?;
        let value = if response.is_missing() {
            None
        } else {
            Some(self.transport.read(&response)?)
        };
        Ok(Answer::of(&response, value))
    }

    pub(crate) async fn put(&self, path: String, body: Bytes) -> Result<()> {
        let request = Request::put(path).body(body);
        self.transport.done(request).await.map(drop)
    }

    // === the local agent ===

    pub(crate) async fn agent_self(&self) -> Result<AgentSelf> {
        self.transport.json(Request::get("/v1/agent/self")).await
    }

    /// Whether the agent knows of a leader. On a server that is its own view, and takes no time.
    pub(crate) async fn has_leader(&self) -> Result<bool> {
        let leader: String = self
            .transport
            .json(Request::get("/v1/status/leader").at_once())
            .await?;
        Ok(!leader.is_empty())
    }

    pub(crate) async fn serf_members(&self) -> Result<Vec<SerfMember>> {
        self.transport.json(Request::get("/v1/agent/members")).await
    }

    pub(crate) async fn local_services(&self) -> Result<BTreeMap<String, Service>> {
        self.transport
            .json(Request::get("/v1/agent/services"))
            .await
    }

    /// `NotFound` for one that is not there.
    pub(crate) async fn local_service(&self, id: &str) -> Result<Service> {
        let path = format!("/v1/agent/service/{}", part(id));
        self.transport.json(Request::get(path)).await
    }

    pub(crate) async fn register_service(&self, service: &NewService) -> Result<()> {
        // Checks that it had before and has no more must go.
        let request = Request::put("/v1/agent/service/register")
            .with("replace-existing-checks", "true")
            .body(json(service)?);
        self.transport.done(request).await.map(drop)
    }

    /// Nothing is done for one that is not there.
    pub(crate) async fn deregister_service(&self, id: &str) -> Result<()> {
        let path = format!("/v1/agent/service/deregister/{}", part(id));
        missing_is_done(self.put(path, Bytes::new()).await)
    }

    pub(crate) async fn register_check(&self, check: &NewCheck) -> Result<()> {
        self.put("/v1/agent/check/register".to_owned(), json(check)?)
            .await
    }

    /// Nothing is done for one that is not there.
    pub(crate) async fn deregister_check(&self, id: &str) -> Result<()> {
        let path = format!("/v1/agent/check/deregister/{}", part(id));
        missing_is_done(self.put(path, Bytes::new()).await)
    }

    /// `NotFound` for a check that is not there, or is none that is reported.
    pub(crate) async fn update_check(&self, id: &str, status: Status) -> Result<()> {
        let request = Request::put(format!("/v1/agent/check/update/{}", part(id)));
        // The sign of life is one.
        let request = request.at_once().body(json(&CheckUpdate { status })?);
        self.transport.done(request).await.map(drop)
    }

    /// Meets another agent.
    pub(crate) async fn join(&self, other: Ipv4Addr) -> Result<()> {
        let request = Request::put(format!("/v1/agent/join/{other}"));
        self.transport.done(request).await.map(drop)
    }

    /// Has the agent leave its cluster, and end.
    pub(crate) async fn leave(&self) -> Result<()> {
        let request = Request::put("/v1/agent/leave");
        self.transport.done(request).await.map(drop)
    }

    /// Gives a key of gossip to all agents that are reached; one that they have already does no harm.
    pub(crate) async fn install_key(&self, key: &str) -> Result<()> {
        let body = json(&serde_json::json!({ "Key": key }))?;
        let request = Request::post("/v1/operator/keyring").body(body);
        self.transport.done(request).await.map(drop)
    }

    /// Has all agents speak under a key that they have.
    pub(crate) async fn use_key(&self, key: &str) -> Result<()> {
        let body = json(&serde_json::json!({ "Key": key }))?;
        self.put("/v1/operator/keyring".to_owned(), body).await
    }

    /// Takes a key from all agents; one that speaks under it refuses. One that they do not have does no harm.
    pub(crate) async fn remove_key(&self, key: &str) -> Result<()> {
        let body = json(&serde_json::json!({ "Key": key }))?;
        let request = Request::delete("/v1/operator/keyring").body(body);
        self.transport.done(request).await.map(drop)
    }

    /// Takes a dead node out of serf, for good.
    pub(crate) async fn force_leave(&self, node: &str) -> Result<()> {
        let path = format!("/v1/agent/force-leave/{}", part(node));
        let request = Request::put(path).with("prune", "");
        missing_is_done(self.transport.done(request).await.map(drop))
    }

    // === the catalogue ===

    pub(crate) async fn health_service(
        &self,
        name: &str,
        reading: Reading,
    ) -> Result<Answer<Vec<ServiceEntry>>> {
        let request = reading.ask(format!("/v1/health/service/{}", part(name)));
        let mut answer: Answer<Vec<ServiceEntry>> = self.read(request).await?;
        // Consul takes a name in any case.
        answer
            .value
            .retain(|entry| entry.service.service.eq_ignore_ascii_case(name));
        if !self.node_health {
            for entry in &mut answer.value {
                entry.checks.retain(|check| !is_serf(check));
            }
        }
        Ok(answer)
    }

    /// The names of all services, with their tags.
    pub(crate) async fn service_names(
        &self,
        reading: Reading,
    ) -> Result<Answer<BTreeMap<String, Vec<String>>>> {
        self.read(reading.ask("/v1/catalog/services")).await
    }

    /// All checks that fail.
    pub(crate) async fn critical(&self, reading: Reading) -> Result<Answer<Vec<Check>>> {
        self.read(reading.ask("/v1/health/state/critical")).await
    }

    /// Takes a node and all that it had out of the catalogue.
    pub(crate) async fn deregister_node(&self, node: &str) -> Result<()> {
        let body = json(&serde_json::json!({ "Node": node }))?;
        self.put("/v1/catalog/deregister".to_owned(), body).await
    }
}

/// Removing what is not there succeeds.
pub(crate) fn missing_is_done(answer: Result<()>) -> Result<()> {
    match answer {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_encoded_by_part() {
        assert_eq!(part("0.2:w1?#%/"), "0.2%3Aw1%3F%23%25%2F");
        assert_eq!(parts("a/b c/"), "a/b%20c/");
    }
}
