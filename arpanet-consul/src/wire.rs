//! What goes over the wire, in the shapes of consul's HTTP API
//! (<https://developer.hashicorp.com/consul/api-docs>). Fields that are not needed are not read, and what an answer may
//! leave out or give as `null`, in any version from 1.8 on, is optional here.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use serde::{Deserialize, Deserializer, Serialize};

/// `null` as nothing: consul's empty lists and maps are often that.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `/v1/agent/self`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AgentSelf {
    pub(crate) config: AgentConfig,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AgentConfig {
    pub(crate) datacenter: String,
    pub(crate) node_name: String,
    #[serde(default)]
    pub(crate) version: String,
}

/// One of `/v1/agent/members`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SerfMember {
    pub(crate) name: String,
    pub(crate) status: u8,
}

impl SerfMember {
    /// Serf's number for a member that answers (`serf/serf.go`, `MemberStatus`).
    const ALIVE: u8 = 1;

    pub(crate) const fn is_alive(&self) -> bool {
        self.status == Self::ALIVE
    }
}

/// The node of a [`ServiceEntry`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Node {
    pub(crate) node: String,
    #[serde(default)]
    pub(crate) address: String,
}

/// The service of a [`ServiceEntry`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Service {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) service: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) tags: Vec<String>,
    #[serde(default)]
    pub(crate) address: String,
    #[serde(default)]
    pub(crate) port: u16,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) meta: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Passing,
    Warning,
    Critical,
    #[serde(other)]
    Maintenance,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Check {
    #[serde(rename = "CheckID")]
    pub(crate) id: String,
    pub(crate) status: Status,
    #[serde(rename = "ServiceID", default)]
    pub(crate) service_id: String,
}

/// One of `/v1/health/service/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServiceEntry {
    pub(crate) node: Node,
    pub(crate) service: Service,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) checks: Vec<Check>,
}

/// One of `/v1/kv/KEY`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Pair {
    pub(crate) key: String,
    #[serde(default, with = "base64_bytes")]
    pub(crate) value: Vec<u8>,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) session: Option<String>,
    #[serde(default)]
    pub(crate) lock_index: u64,
    pub(crate) create_index: u64,
    /// Never 0: that stands for no entry.
    #[serde(deserialize_with = "positive")]
    pub(crate) modify_index: u64,
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = NonZeroU64::deserialize(deserializer)?;
    Ok(number.get())
}

mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, de};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        STANDARD
            .decode(text.unwrap_or_default())
            .map_err(de::Error::custom)
    }
}

/// One of `/v1/session/info/ID`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Session {
    #[serde(rename = "ID")]
    pub(crate) id: String,
}

/// The body of `/v1/session/create`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NewSession {
    pub(crate) name: &'static str,
    #[serde(rename = "TTL")]
    pub(crate) ttl: String,
    pub(crate) lock_delay: String,
    pub(crate) behavior: &'static str,
    /// `None` leaves consul's default, the node's `serfHealth`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node_checks: Option<Vec<String>>,
}

/// The body of `/v1/agent/service/register`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NewService {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) meta: BTreeMap<String, String>,
    pub(crate) checks: Vec<NewCheck>,
}

/// A check, alone as the body of `/v1/agent/check/register` or in a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NewCheck {
    /// Its id where it stands alone; in a service it is `CheckID`.
    #[serde(rename = "ID", skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(rename = "CheckID", skip_serializing_if = "Option::is_none")]
    pub(crate) check_id: Option<String>,
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<Status>,
    #[serde(rename = "TTL", skip_serializing_if = "Option::is_none")]
    pub(crate) ttl: Option<String>,
    #[serde(rename = "HTTP", skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<String>,
    #[serde(rename = "TCP", skip_serializing_if = "Option::is_none")]
    pub(crate) tcp: Option<String>,
    #[serde(rename = "DockerContainerID", skip_serializing_if = "Option::is_none")]
    pub(crate) docker_container_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shell: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) args: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<String>,
}

/// The body of `/v1/agent/check/update/ID`.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CheckUpdate {
    pub(crate) status: Status,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_lists_may_be_null_or_missing() {
        let entry: ServiceEntry = serde_json::from_str(
            r#"{"Node":{"Node":"n1"},"Service":{"ID":"w","Service":"web","Tags":null,"Meta":null},"Checks":null}"#,
        )
        .unwrap();
        assert_eq!((entry.service.port, entry.checks.len()), (0, 0));
        let pair: Pair = serde_json::from_str(
            r#"{"Key":"a","Value":null,"CreateIndex":1,"ModifyIndex":2,"Flags":18446744073709551615}"#,
        )
        .unwrap();
        assert_eq!((pair.value.len(), pair.session), (0, None));
    }

    #[test]
    fn an_entry_has_a_revision() {
        let pair = r#"{"Key":"a","Value":null,"CreateIndex":1,"ModifyIndex":0}"#;
        assert!(serde_json::from_str::<Pair>(pair).is_err());
    }

    #[test]
    fn a_status_that_is_unknown_is_not_passing() {
        let status: Status = serde_json::from_str("\"maintenance\"").unwrap();
        assert_eq!(status, Status::Maintenance);
    }
}
